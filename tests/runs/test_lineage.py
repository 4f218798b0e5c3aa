"""What a run was made from is walked up to its end, wherever the program stands and whatever a manifest names."""

import pytest

from embedsmith.data.files import write_json
from embedsmith.errors import RunError
from embedsmith.evaluation.before_and_after import own_data
from embedsmith.mining.judge import read_verdicts
from embedsmith.mining.select import audit_run, read_mined, select_again
from embedsmith.models.settings import StudentSettings
from embedsmith.runs.lineage import lineage, selected_from
from embedsmith.serving.export import _licences
from embedsmith.training.train import mined_sources


def run(folder, command, settings=None, **inputs):
    """Write a finished run that names what it was made from."""
    folder.mkdir(exist_ok=True)
    made = {"command": command, "status": "finished", "settings": settings or {}, "inputs": inputs, "content": {}}
    write_json(folder / "manifest.json", {**made, "counts": {}})
    return folder


def circle(tmp_path, length):
    """Write runs of `select` of which each names the next, and the last the first."""
    folders = [tmp_path / f"run{place}" for place in range(length)]
    for place, folder in enumerate(folders):
        run(folder, "select", run=str(folders[(place + 1) % length]))
        (folder / "negatives.jsonl").write_text("")
    return folders[0]


def data(folder, licence):
    """Write data whose card states a licence."""
    folder.mkdir()
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    return folder


WALKS = {
    "lineage": lambda folder: list(lineage(folder)),
    "selected_from": selected_from,
    "read_mined": read_mined,
    "select": lambda folder: select_again(folder, out=folder.parent / "out"),
    "audit": audit_run,
    "verdicts": read_verdicts,
    "train": lambda folder: mined_sources(folder, StudentSettings()),
    "licences": _licences,
    "own data": own_data,
}


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("length", [1, 2, 3])
def test_runs_that_are_made_from_each_other_are_one_error(walk, length, tmp_path):
    with pytest.raises(RunError, match=r"run0/manifest\.json: the run is made from itself"):
        WALKS[walk](circle(tmp_path, length))


@pytest.mark.parametrize("walk", ["licences", "own data", "lineage"])
def test_a_trained_run_that_names_itself_is_one_error(walk, tmp_path):
    folder = run(tmp_path / "run", "train", mined=str(tmp_path / "run"))
    with pytest.raises(RunError, match=r"run/manifest\.json: the run is made from itself"):
        WALKS[walk](folder)


@pytest.mark.parametrize("walk", ["selected_from", "read_mined", "verdicts"])
@pytest.mark.parametrize("name", ["", "gone"])
def test_a_selection_whose_run_is_gone_says_so_wherever_the_program_stands(walk, name, tmp_path, monkeypatch):
    here = run(tmp_path / "here", "mine", data="x")
    monkeypatch.chdir(here)
    folder = run(tmp_path / "run", "select", run=str(tmp_path / name) if name else "")
    (folder / "negatives.jsonl").write_text("")
    with pytest.raises(RunError, match=r"run: the run that it selected from is gone: (its manifest|/.*gone)"):
        WALKS[walk](folder)


def recipe_run(folder, data_folder):
    """Write a run of a recipe, as `train RECIPE` leaves it."""
    return run(folder, "train", {"data": {"toy": {"path": str(data_folder), "test_split": "test"}}})


def test_the_licences_are_those_of_the_runs_own_data_wherever_the_program_stands(tmp_path, monkeypatch):
    mined_data, other = data(tmp_path / "pairs", "mit"), data(tmp_path / "other", "gpl")
    here = recipe_run(tmp_path / "here", other)
    mined = run(tmp_path / "mined", "mine", data=str(mined_data))
    selected = run(tmp_path / "selected", "select", run=str(mined))
    recipe = recipe_run(tmp_path / "recipe", mined_data)
    bare = run(tmp_path / "synthetic", "synthesize queries", corpus="x")
    monkeypatch.chdir(here)
    for made_from, right in (
        (mined, {"pairs": "mit"}),
        (selected, {"pairs": "mit"}),
        (recipe, {"toy": "mit"}),
        (bare, {}),
        (tmp_path / "examples.jsonl", {}),
        ("", {}),
    ):
        trained = run(tmp_path / "trained", "train", mined=str(made_from))
        assert _licences(trained) == right


def test_the_test_side_is_found_behind_a_selection(tmp_path):
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "d", "text": "a cat"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "cat"}\n')
    for split in ("train", "test"):
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    source = {"corpus": None, "skip_bad": False, "columns": {}}
    mined = run(tmp_path / "mined", "mine", data=str(folder), source=source)
    selected = run(tmp_path / "selected", "select", run=str(mined))
    for made_from in (mined, selected):
        assert own_data(run(tmp_path / "trained", "train", mined=str(made_from))) == [str(folder)]

"""What a recipe's run has mined of one data set, RUN/mined/NAME, is a run like any other."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from embedsmith.data.examples import read_examples
from embedsmith.errors import InputError, RunError, SettingsError
from embedsmith.generation.settings import JudgeSettings
from embedsmith.mining.judge import judge
from embedsmith.mining.mine import mine
from embedsmith.mining.page import write_mining_report
from embedsmith.mining.select import audit_run, read_mined, select_again, write
from embedsmith.mining.settings import MiningSettings
from embedsmith.recipes.recipe import recipe_of
from embedsmith.recipes.report_pages import write_page
from embedsmith.recipes.run import run_recipe
from embedsmith.runs.lineage import selected_from
from embedsmith.runs.run import Run
from embedsmith.training.train import example_files

MINING = {"teachers": ["bm25"], "method": "naive"}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 queries with two positives each, in columns with other names."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {"Q": f"where is the {a} of the {b}", "A": [f"the {a} is on the {b}", f"a {b} holds the {a}"]}
        for a in ("cat", "dog", "owl", "bat")
        for b in ("apple", "pear", "plum", "fig")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def run(pairs: Path, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a recipe with two data sets, one behind a variable and without what another one holds."""
    folder = tmp_path_factory.mktemp("recipe")
    held = folder / "held.jsonl"
    held.write_text(
        json.dumps({"query": "where is the cat of the apple", "positive": "the cat is on the apple"}) + "\n"
    )
    os.environ["PAIRS_ARE_HERE"] = str(pairs.parent)
    columns = {"query": "Q", "positive": "A"}
    recipe = recipe_of(
        {
            "data": {
                "animals": {"path": "${PAIRS_ARE_HERE}/pairs.jsonl", "columns": columns},
                "fewer": {"path": str(pairs), "columns": columns, "against": [str(held)]},
            },
            "mining": MINING,
            "student": {"name": str(tiny_bert)},
            "stages": [
                {"name": "one", "steps": 1, "batch_size": 4},
                {"name": "two", "steps": 1, "batch_size": 4, "remine": True},
            ],
            "evaluation": {"before": False, "baselines": []},
        },
        where="recipe",
    )
    run_recipe(recipe, out=folder / "run", progress=False)
    return folder / "run"


@pytest.fixture
def alone(pairs: Path, tmp_path: Path) -> Path:
    """The same data, mined by `mine`."""
    from embedsmith.data.columns import ColumnSettings
    from embedsmith.data.source import SourceSettings

    source = SourceSettings(columns=ColumnSettings(query="Q", positive="A"))
    mine(pairs, out=tmp_path / "alone", settings=MiningSettings(**MINING), source=source, progress=False)
    return tmp_path / "alone"


def test_it_is_audited_selected_and_reported_as_the_same_data_alone(run: Path, alone: Path, tmp_path: Path):
    part = run / "mined" / "animals"
    assert audit_run(part, draws=2) == audit_run(alone, draws=2)
    ways = {"method": "marginpos", "margin": 0.2, "negatives": 2}
    found = [select_again(one, out=tmp_path / f"{n}", changes=ways).negatives for n, one in enumerate((part, alone))]
    assert found[0] == found[1]
    path, numbers = write_page(part)
    assert path == part / "report.html" and path.is_file()
    other = write_mining_report(alone)[1]
    assert {key: own for key, own in numbers.items() if key != "judge"}.keys() == other.keys() - {"judge"}
    assert numbers["outcomes"] == other["outcomes"]


def test_it_is_written_and_trained_on(run: Path, tmp_path: Path):
    part = run / "mined" / "animals"
    assert write(part, out=tmp_path / "all.jsonl").rows == 16
    assert len(read_examples(tmp_path / "all.jsonl")) == 16
    assert example_files(part) == [part / "negatives.jsonl"]


def test_a_selection_from_it_is_selected_from_again(run: Path, tmp_path: Path):
    part = run / "mined" / "animals"
    select_again(part, out=tmp_path / "once", changes={"method": "shifted", "shift": 1})
    again = select_again(tmp_path / "once", out=tmp_path / "twice", changes={"negatives": 2})
    assert selected_from(again.folder) == part.resolve()
    assert read_mined(tmp_path / "twice").collection == read_mined(part).collection
    audit_run(tmp_path / "twice", draws=1)


def test_what_a_stage_mined_again_is_audited_selected_from_reported_and_written(run: Path, tmp_path: Path):
    part = run / "remined" / "two" / "animals"
    mined = read_mined(part)
    assert mined.candidates.teachers == [str(run / "remined" / "two" / "model")]
    assert "this run" in audit_run(part, draws=1)
    once = select_again(part, out=tmp_path / "once", changes={"negatives": 2})
    again = select_again(once.folder, out=tmp_path / "again", changes={"method": "abs"})
    assert selected_from(again.folder) == part.resolve()
    assert write_page(part)[0] == part / "report.html"
    assert write(part, out=tmp_path / "all.jsonl").rows == 16
    assert example_files(part) == [part / "negatives.jsonl"]


def test_the_figures_of_what_was_mined_again_are_its_own(run: Path):
    part, whole = Run.read(run / "remined" / "two" / "animals"), Run.read(run).manifest
    assert part.manifest["counts"] == {"mining": whole["counts"]["mining animals for two"]}
    teacher = str(run / "remined" / "two" / "model")
    assert part.manifest["settings"]["teachers"] == [teacher]
    assert set(part.manifest["content"]) == {"animals", "exclusions of animals", f"teacher {teacher} of animals"}


def test_a_run_may_be_called_as_its_folders_are(run: Path, tmp_path: Path):
    shutil.copytree(run, tmp_path / "remined")
    part = Run.read(tmp_path / "remined" / "mined" / "animals")
    assert part.manifest["settings"]["teachers"] == ["bm25"]


def test_the_folder_of_a_stage_is_no_part(run: Path):
    for folder in (run / "remined" / "two", run / "remined" / "two" / "model"):
        with pytest.raises(RunError, match="not a run folder"):
            read_mined(folder)


@pytest.mark.parametrize("place", ["mined/animals", "remined/two/animals"])
def test_a_judge_reads_it_and_what_answers_is_excluded_from_then_on(run: Path, chat_server, tmp_path: Path, place: str):
    shutil.copytree(run, tmp_path / "run")
    part = tmp_path / "run" / place
    chat_server.say = lambda prompt: "Yes." if "owl" in prompt.split("\n")[2] else "no"
    found = judge(part, settings=JudgeSettings(url=chat_server.name), progress=False)
    before = [passage.text for row in read_examples(part / "negatives.jsonl") for passage in row.negatives]
    owls = sum("owl" in text for text in before)
    assert (found.negatives.asked, found.negatives.yes) == (len(before), owls)
    assert owls > 0
    select_again(part, out=tmp_path / "without", changes={})
    after = read_examples(tmp_path / "without" / "negatives.jsonl")
    asked = {(row.query_id, p.id) for row in read_examples(part / "negatives.jsonl") for p in row.negatives}
    assert not [p for row in after for p in row.negatives if "owl" in p.text and (row.query_id, p.id) in asked]


def test_data_that_were_cleaned_are_read_clean(run: Path):
    mined = read_mined(run / "mined" / "fewer")
    assert "where is the cat of the apple" not in mined.collection.queries
    assert len(mined.collection.queries) == 15


def test_its_figures_are_those_of_its_data_set(run: Path):
    part = Run.read(run / "mined" / "animals")
    assert part.manifest["counts"]["mining"] == Run.read(run).manifest["counts"]["mining animals"]
    assert set(part.manifest["content"]) == {"animals", "exclusions of animals", "teacher bm25 of animals"}


def test_where_the_variable_is_not_set_that_is_told(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PAIRS_ARE_HERE")
    with pytest.raises(SettingsError, match="PAIRS_ARE_HERE is not set"):
        read_mined(run / "mined" / "animals")


def test_where_the_data_are_gone_that_is_told(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PAIRS_ARE_HERE", str(tmp_path))
    with pytest.raises(InputError, match="the data it was mined from is gone"):
        read_mined(run / "mined" / "animals")
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"Q": "another", "A": "pair"}) + "\n")
    with pytest.raises(RunError, match="has changed since it was mined"):
        read_mined(run / "mined" / "animals")


def test_a_folder_beside_it_is_none(run: Path, tmp_path: Path):
    with pytest.raises(RunError, match="no such run folder"):
        read_mined(run / "mined" / "others")
    (tmp_path / "mined" / "animals" / "candidates").mkdir(parents=True)
    with pytest.raises(RunError, match="not a run folder"):
        read_mined(tmp_path / "mined" / "animals")


def test_harvested_code_is_read_where_it_was_harvested(tiny_bert: Path, tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    for letter in "abcdef":
        functions = "".join(
            f'def find_{letter}_{n}(x):\n    """Find the {n} {letter} of a thing."""\n    return x + {n}\n\n\n'
            for n in range(4)
        )
        (source / f"{letter}.py").write_text(functions)
    recipe = recipe_of(
        {
            "data": {"code": {"path": str(source), "format": "code", "test_share": 0.3}},
            "mining": MINING,
            "student": {"name": str(tiny_bert)},
            "stages": [{"steps": 1, "batch_size": 4}],
            "evaluation": {"before": False, "baselines": []},
        },
        where="recipe",
    )
    run_recipe(recipe, out=tmp_path / "run", progress=False)
    mined = read_mined(tmp_path / "run" / "mined" / "code")
    assert len(mined.collection.queries) > 4

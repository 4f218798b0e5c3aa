"""Data sets with the same last name: each keeps its files, and comparisons are of the same data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import embedsmith
from embedsmith import MiningSettings, StageSettings, StudentSettings
from embedsmith.data.files import write_jsonl
from embedsmith.data.load import load_collection
from embedsmith.errors import InputError, SettingsError
from embedsmith.evaluation.before_and_after import before_and_after, own_scorings
from embedsmith.evaluation.contender import Contender
from embedsmith.evaluation.evaluate import evaluate_into, places_of
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.mining.mine import mine_into
from embedsmith.recipes.recipe import Recipe
from embedsmith.runs.run import Run
from embedsmith.runs.scores import read_scores
from embedsmith.teachers.settings import TeacherSettings
from tests.cli.conftest import embedsmith_command as embedsmith_command

ANIMALS = ["cat", "dog", "owl", "bat", "eel", "ape"]
FLOAT32 = TeacherSettings(dtype="float32")


def write_data(folder: Path, right: int) -> Path:
    """Write a BEIR folder on which BM25 has the answer first for so many of six queries."""
    write_jsonl(folder / "corpus.jsonl", ({"_id": f"d{n}", "text": f"the {a}"} for n, a in enumerate(ANIMALS)))
    write_jsonl(folder / "queries.jsonl", ({"_id": f"q{n}", "text": f"find the {a}"} for n, a in enumerate(ANIMALS)))
    (folder / "qrels").mkdir(exist_ok=True)
    rows = "".join(f"q{n}\td{n if n < right else (n + 1) % 6}\t1\n" for n in range(6))
    for split in ("train", "test"):
        (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("a/nq-dev", "b/nq-dev"),
        ("a/x", "b/x", "c/x"),
        ("a/x", "b/x", "c/x-2"),
        ("c/x-2", "a/x", "b/x"),
        ("a/NQ", "b/nq"),
        ("a/nq.v1", "a/nq.v2"),
        ("a/mteb", "b/other"),
        ("a/scores", "b/scores"),
    ],
    ids=" ".join,
)
def test_every_data_set_keeps_its_files_and_is_compared_with_itself(names, tmp_path, embedsmith_command):
    data = [write_data(tmp_path / name, right) for right, name in enumerate(names, start=1)]
    out, again = tmp_path / "out", tmp_path / "again"
    done = embedsmith_command("evaluate", "bm25", *data, "--metric", "precision@1", "--out", out, "--json")
    assert done.code == 0
    evaluate_into(again, Contender("bm25"), [*map(str, reversed(data))], ScoringSettings(metrics=["precision@1"]))
    for folder in (out, again):
        board = read_scores(folder)
        places = [Path(board.scores[str(path)]["model"].per_query).parent.name for path in data]
        assert len({place.casefold() for place in places}) == len(data)
        for right, (path, place) in enumerate(zip(data, places, strict=True), start=1):
            assert board.of_label("model")[str(path)]["precision@1"] == pytest.approx(right / 6)
            rows = [json.loads(line) for line in (folder / place / "per_query.jsonl").read_text().splitlines()]
            assert sum(row["precision@1"] for row in rows) == right
            judged = (folder / place / "judgements.qrels").read_text().splitlines()
            assert sum(line.split()[0][1:] == line.split()[2][1:] for line in judged) == right
            # A name that differs from its data's is reported.
            moved = f"{path}: its files lie in {out / place}"
            assert folder is again or (moved in done.err) == (place not in (path.name, path.stem))
    compared = embedsmith.compare(out, again, metric="precision@1")
    assert [one.difference.a for one in compared] == [one.difference.b for one in compared]
    assert sorted(round(one.difference.a * 6) for one in compared) == list(range(1, len(data) + 1))


def test_data_that_was_scored_alone_is_found_among_others(tmp_path):
    data = [str(write_data(tmp_path / name, right)) for right, name in ((1, "a/nq"), (4, "b/nq"))]
    scoring = ScoringSettings(metrics=["precision@1"])
    evaluate_into(tmp_path / "both", Contender("bm25"), data, scoring)
    evaluate_into(tmp_path / "one", Contender("bm25"), data[1:], scoring)
    (found,) = embedsmith.compare(tmp_path / "both", tmp_path / "one", metric="precision@1")
    assert (found.difference.a, found.difference.b) == pytest.approx((4 / 6, 4 / 6))


def test_one_data_set_under_two_names_is_refused_before_any_work(tmp_path, embedsmith_command, monkeypatch):
    path = write_data(tmp_path / "x", 1)
    monkeypatch.chdir(tmp_path)
    for words in (["x", "x"], ["x", "./x/"], ["x", path]):
        for more in ([], ["--out", "out"]):
            done = embedsmith_command("evaluate", "bm25", *words, *more)
            assert (done.code, "given twice" in done.error) == (2, True)
            assert not (tmp_path / "out").exists()
    assert places_of(["x"]) == {"x": ""}


def test_a_data_set_that_is_called_as_a_task_of_the_benchmark_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("mteb")
    write_data(tmp_path / "SciFact", 1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="SciFact: a data set, and a task of SciFact"):
        evaluate_into(tmp_path / "out", Contender("bm25"), ["SciFact"], ScoringSettings(), benchmark="SciFact")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def trained(tiny_bert: Path, tmp_path_factory) -> Path:
    """A run of a recipe on two data sets that have one path, with passages beside it, and their negatives."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_data(folder / "nq", 6)
    with open(data / "qrels" / "test.tsv", "a") as file:
        file.write("q1\tmore\t1\n")
    write_jsonl(folder / "more.jsonl", [{"_id": "more", "text": "the dog"}])
    mined = folder / "mined"
    embedsmith.mine(
        data, out=mined, settings=MiningSettings(teachers=["bm25"], method="naive", negatives=1), split="train"
    )
    manifest = json.loads((mined / "manifest.json").read_text())
    manifest["inputs"]["source"]["corpus"] = str(folder / "more.jsonl")
    (mined / "manifest.json").write_text(json.dumps(manifest))
    run = folder / "run"
    stage = StageSettings(steps=1, batch_size=2, dtype="float32", hard_negatives=0)
    embedsmith.train(mined, out=run, student=StudentSettings(name=str(tiny_bert)), stage=stage)
    return run


def test_before_and_after_read_the_data_as_it_was_mined_and_keep_each_ones_files(trained, tmp_path):
    (own,) = own_scorings(trained, ScoringSettings())
    other = write_data(tmp_path / "b" / "nq", 2)
    out = tmp_path / "out"
    found = before_and_after(trained, panel=[str(other)], reading=FLOAT32, vectors=tmp_path / "v", out=out)
    assert list(found) == [own, str(other)]
    for side in ("before", "after"):
        board = read_scores(out)
        assert [board.data[name].passages for name in found] == [7, 6]
        files = [board.scores[name][side].per_query for name in found]
        assert files == [f"{side}/nq/per_query.jsonl", f"{side}/nq-2/per_query.jsonl"]
        assert {path.parent.name for path in (out / side).glob("*/per_query.jsonl")} == {"nq", "nq-2"}


def test_each_data_set_of_a_run_has_its_own_recall(tiny_bert, tmp_path):
    pytest.importorskip("faiss")
    settings = MiningSettings(
        teachers=[str(tiny_bert)],
        method="naive",
        depth=2,
        teacher_settings=TeacherSettings(dtype="float32", search="ivf"),
    )
    with Run.open(tmp_path / "run", command="train", settings=settings, inputs={}) as run:
        for name in ("nq", "other"):
            data = load_collection(write_data(tmp_path / name, 3), split="train")
            mine_into(run, run.folder / "mined" / name, data, settings)
        run.finish()
    recalls = {name: found for name, found in run.manifest["counts"].items() if name.startswith("recall")}
    assert recalls == {f"recall mined/{name}": {str(tiny_bert): 1.0} for name in ("nq", "other")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"nq": {"path": "a"}, "NQ": {"path": "b"}}}, "data: nq and NQ would lie in one folder"),
        ({"data": {"a/nq": {"path": "a"}}}, "data: 'a/nq' is to be a folder's name, and cannot be one"),
        ({"data": {"..": {"path": "a"}}}, "data: '..' is to be a folder's name, and cannot be one"),
        ({"evaluation": {"baselines": ["before"]}}, 'baselines: "before" is what the run calls a score of its own'),
        ({"evaluation": {"baselines": ["bm25", "after one"]}}, 'baselines: "after one" is what the run calls a score'),
    ],
)
def test_names_that_two_things_of_a_recipes_run_would_have_are_refused(changes, message):
    values = {"data": {"nq": {"path": "a"}}, "stages": [{"name": "one"}, {"name": "two"}], **changes}
    with pytest.raises(SettingsError, match=message):
        Recipe.parse(values, where="recipe.yaml")

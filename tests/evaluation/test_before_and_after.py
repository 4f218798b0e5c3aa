"""A trained model and its start on the same data."""

from pathlib import Path

import pytest

import embedsmith
from embedsmith import MiningSettings, StageSettings, StudentSettings
from embedsmith.errors import RunError
from embedsmith.evaluation.before_and_after import before_and_after, own_data
from embedsmith.runs.scores import read_scores
from embedsmith.teachers.settings import TeacherSettings

ANIMALS = ["cat", "dog", "owl", "bat", "eel", "ape", "hen", "yak"]
FLOAT32 = TeacherSettings(dtype="float32")


@pytest.fixture(scope="module")
def mined(beir: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mined") / "run"
    embedsmith.mine(beir, out=folder, settings=MiningSettings(teachers=["bm25"], method="naive", negatives=2))
    return folder


@pytest.fixture(scope="module")
def trained(mined: Path, tiny_bert: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    stage = StageSettings(steps=4, batch_size=4, learning_rate=1e-2, dtype="float32")
    student = StudentSettings(name=str(tiny_bert), query_max_tokens=20)
    embedsmith.train(mined, out=folder, student=student, stage=stage)
    return folder


def test_the_start_is_scored_as_the_student_was_built_and_the_end_as_it_was_saved(trained, beir, tiny_bert, tmp_path):
    panel = tmp_path / "pairs.jsonl"
    panel.write_text('{"query": "the cat", "positive": "a cat"}\n{"query": "the dog", "positive": "a dog"}\n')
    table = before_and_after(trained, panel=[str(panel), str(beir)], reading=FLOAT32, vectors=tmp_path / "vectors")
    # The run's own data comes first, and is not in the panel once more.
    assert list(table) == [str(beir), str(panel)]
    for name, row in table.items():
        assert (row["task"], row["metric"]) == ("retrieval", "ndcg@10")
        after = embedsmith.evaluate(trained, name, dtype="float32", vectors=tmp_path / "vectors").mean
        assert row["scores"]["after"] == after
        assert row["after"] == after["ndcg@10"]
    before = embedsmith.evaluate(tiny_bert, beir, dtype="float32", vectors=tmp_path / "vectors").mean
    assert table[str(beir)]["before"] == pytest.approx(before["ndcg@10"])
    assert table[str(beir)]["before"] != table[str(beir)]["after"]


def test_both_sides_are_written_as_evaluate_writes_them(trained, beir, tmp_path):
    out = tmp_path / "out"
    table = before_and_after(trained, [str(beir)], reading=FLOAT32, vectors=tmp_path / "v", out=out, command="typed")
    board = read_scores(out)
    assert board.command == "typed"
    for side in ("before", "after"):
        assert board.of_label(side)[str(beir)] == table[str(beir)]["scores"][side]
        assert len((out / side / "per_query.jsonl").read_text().splitlines()) == len(ANIMALS)
    scores = board.scores[str(beir)]
    assert scores["before"].model_hash != scores["after"].model_hash
    (found,) = embedsmith.compare(out)
    assert (found.a, found.b) == (f"{out} (before)", f"{out} (after)")
    assert found.difference.b == pytest.approx(table[str(beir)]["after"])


def test_a_run_that_trained_nothing_has_no_before(mined, beir):
    with pytest.raises(RunError, match="made by `mine`, which trains no model"):
        before_and_after(mined, [str(beir)])


def test_data_that_is_gone_must_be_named(trained, beir, tmp_path, monkeypatch):
    assert own_data(trained) == [str(beir)]
    monkeypatch.setattr("embedsmith.evaluation.before_and_after.known_splits", lambda path: ["train"])
    with pytest.raises(RunError, match="its data has no test side that is still there"):
        before_and_after(trained)


def test_what_was_mined_again_after_the_training_is_not_taken_for_its_data(trained, mined, beir, tmp_path):
    examples = mined / "negatives.jsonl"
    text = examples.read_text()
    examples.write_text(text.replace("where is", "where was"))
    try:
        with pytest.raises(RunError, match=r"run: .*run was mined again after the training"):
            own_data(trained)
        embedsmith.export(trained, out=tmp_path / "out")
    finally:
        examples.write_text(text)
    assert "- run: not known: it was mined again after the training" in (tmp_path / "out" / "README.md").read_text()
    assert own_data(trained) == [str(beir)]

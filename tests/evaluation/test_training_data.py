"""A score on the data that a model was trained on is not shown without saying so."""

import json
from pathlib import Path

import pytest

import embedsmith
from embedsmith import MiningSettings, ScoringSettings, StageSettings, StudentSettings
from embedsmith.evaluation.before_and_after import before_and_after
from embedsmith.evaluation.training_data import note_of_training_data

ANIMALS = ["cat", "dog", "owl", "bat", "eel", "ape", "hen", "yak"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [{"query": f"where is the {animal}", "positive": f"the {animal} sat on the mat"} for animal in ANIMALS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def trained(beir: Path, pairs: Path, tiny_bert: Path, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name, data in {"beir": beir, "pairs": pairs}.items():
        mining = MiningSettings(teachers=["bm25"], method="naive", negatives=2)
        embedsmith.mine(data, out=folder / name, settings=mining)
        student = StudentSettings(name=str(tiny_bert))
        stage = StageSettings(steps=1, batch_size=2)
        embedsmith.train(folder / name, out=folder / f"{name}-model", student=student, stage=stage)
    return {name: folder / f"{name}-model" for name in ("beir", "pairs")}


def notes_of(model: Path, data: Path, **scoring: str) -> list[str]:
    notes: list[str] = []
    embedsmith.evaluate(model, data, scoring=ScoringSettings(**scoring), on_skip=notes.append)
    return notes


def test_scores_on_training_pairs_are_noted_and_on_copies_of_another_name_not(trained, pairs, tmp_path):
    (note,) = notes_of(trained["pairs"], pairs)
    assert note.startswith(f"{pairs}: {trained['pairs']} was trained on it, so this score says how well it was learned")
    other = tmp_path / "questions.jsonl"
    other.write_bytes(pairs.read_bytes())
    assert notes_of(trained["pairs"], other) == []


def test_a_path_is_the_same_however_it_is_spelled(trained, pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(pairs.parent)
    assert len(notes_of(trained["pairs"], Path("pairs.jsonl"))) == 1
    link = tmp_path / "link.jsonl"
    link.symlink_to(pairs)
    assert len(notes_of(trained["pairs"], link)) == 1


def test_of_several_splits_only_the_trained_one_is_noted(trained, beir):
    assert notes_of(trained["beir"], beir) == []
    assert notes_of(trained["beir"], beir, split="test") == []
    assert len(notes_of(trained["beir"], beir, split="train")) == 1
    assert len(notes_of(trained["beir"], beir, split="all")) == 1


def test_a_model_beside_its_start_is_noted_once(trained, pairs):
    notes: list[str] = []
    before_and_after(trained["pairs"], [str(pairs)], on_skip=notes.append)
    assert [note.split(",")[0] for note in notes] == [f"{pairs}: {trained['pairs']} was trained on it"]


def test_a_model_that_is_no_run_has_nothing_to_say(trained, pairs, tiny_bert):
    assert note_of_training_data("bm25", str(pairs), None) is None
    assert note_of_training_data(str(tiny_bert), str(pairs), None) is None

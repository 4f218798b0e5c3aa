"""A recipe that scores by chunks: as `evaluate --chunk` scores the same models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import embedsmith
from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection
from embedsmith.data.load import load_collection
from embedsmith.errors import RunError, SettingsError
from embedsmith.evaluation.contender import Contender
from embedsmith.evaluation.scoring import described, score_collection
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import ChunkSettings
from embedsmith.recipes import run as carried_out
from embedsmith.recipes.recipe import Recipe, recipe_of
from embedsmith.recipes.run import run_recipe
from embedsmith.recipes.shelf import Shelf
from embedsmith.runs.scores import read_scores

THINGS = ["cat", "dog", "owl", "bat", "log", "mat", "tree", "hat"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Passages that say only in their last sentence what they are about."""
    folder = tmp_path_factory.mktemp("long") / "beir"
    passages = [
        "The sun sat on the wall. A man ran by. " * 3 + f"The {one} sat on the {other}."
        for one in THINGS
        for other in THINGS
        if one != other
    ]
    ids = [f"d{number}" for number in range(len(passages))]
    for split, rows in (("train", range(0, 56, 2)), ("test", range(1, 56, 2))):
        queries = {f"{split}-{row}": (passages[row].split(". ")[-1], ids[row]) for row in rows}
        collection = Collection.of(
            name=split,
            passage_ids=ids,
            passages=passages,
            query_ids=list(queries),
            queries=[text for text, _ in queries.values()],
            qrels={query: {passage: 1} for query, (_, passage) in queries.items()},
        )
        write_beir(folder / split, {split: collection})
    # One folder with both splits.
    train, test = (load_collection(folder / split, split=split) for split in ("train", "test"))
    write_beir(folder / "both", {"train": train, "test": test})
    return folder / "both"


def recipe(data: Path, model: Path, **evaluation) -> Recipe:
    values = {
        "data": {"long": {"path": str(data)}},
        "mining": {"teachers": ["bm25"], "depth": 5, "negatives": 1, "short": "random"},
        "student": {"name": str(model), "passage_max_tokens": 24},
        "stages": [{"steps": 1, "batch_size": 4, "guide": False}],
        "evaluation": {"baselines": [str(model)], "hybrid": True, "dtype": "float32", **evaluation},
    }
    return recipe_of(values, where="recipe")


@pytest.mark.parametrize("late", [False, True])
def test_a_run_scores_by_chunks_as_evaluate_does(data: Path, tiny_bert: Path, tmp_path: Path, late: bool):
    own = {"chunk": True, "chunk_tokens": 24, "late_chunks": late, "chunk_score": "mean" if late else "max"}
    asked = recipe(data, tiny_bert, **own)
    run = embedsmith.run(asked, out=tmp_path / "run").folder
    scores = read_scores(run).metrics()["long"]
    assert scores.keys() == {"before", "after", "teacher", "hybrid", str(tiny_bert)}
    test = load_collection(data, split="test")
    before = build_student(asked.student, seed=asked.seed)
    after = load(str(run / "model"), dtype="float32")
    before.use_dtype("float32")
    found = {}
    for label, model in (("before", before), ("after", after)):
        for name, chunks in (("cut", ChunkSettings(chunk=True, chunk_tokens=24, late_chunks=late)), ("whole", None)):
            scoring = ScoringSettings(
                **({"chunks": chunks, "chunk_score": own["chunk_score"]} if chunks else {}),
            )
            about = described(str(data), "retrieval", "test", scoring)
            contender = Contender("a model", vectors=tmp_path / "vectors", encoder=model)
            mean = score_collection(contender, test, scoring, about).scores.mean
            found[label, name] = {metric: round(value, 4) for metric, value in mean.items()}
        assert scores[label] == found[label, "cut"] != found[label, "whole"]
    plain = read_scores(embedsmith.run(recipe(data, tiny_bert), out=tmp_path / "plain").folder).metrics()["long"]
    assert plain["teacher"] == scores["teacher"], "words are read as they are"
    assert plain["after"] == found["after", "whole"]


def test_scores_by_chunks_are_others_on_the_shelf_and_in_a_run(data: Path, tiny_bert: Path, tmp_path: Path):
    shelf = Shelf(tmp_path / "shelf")
    found = {}
    for name, evaluation in (
        ("plain", {}),
        ("cut", {"chunk": True}),
        ("first", {"chunk": True, "chunk_score": "first"}),
    ):
        run = run_recipe(recipe(data, tiny_bert, **evaluation), out=tmp_path / name, shelf=shelf)
        found[name] = read_scores(run.folder).metrics()["long"][str(tiny_bert)]
    again = run_recipe(recipe(data, tiny_bert, chunk=True), out=tmp_path / "again", shelf=shelf)
    assert read_scores(again.folder).metrics()["long"][str(tiny_bert)] == found["cut"]
    kept = [json.loads(path.read_text()) for path in (tmp_path / "shelf").rglob("about.json")]
    assert sum("chunks" in json.dumps(one) for one in kept) >= 2


def test_a_run_that_was_cut_short_goes_on_with_its_chunks_and_no_others(
    data: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = recipe(data, tiny_bert, chunk=True)
    whole = embedsmith.run(asked, out=tmp_path / "whole").folder

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(carried_out, "score_after", killed)
        with pytest.raises(KeyboardInterrupt):
            embedsmith.run(asked, out=tmp_path / "cut")
    with pytest.raises(RunError, match="chunk_score"):
        embedsmith.run(recipe(data, tiny_bert, chunk=True, chunk_score="first"), out=tmp_path / "cut")
    cut = embedsmith.run(asked, out=tmp_path / "cut").folder
    assert read_scores(cut).metrics() == read_scores(whole).metrics()


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ({"chunk_tokens": 24}, "chunk_tokens needs chunk"),
        ({"chunk_score": "mean"}, "chunk_score is mean without chunk"),
    ],
)
def test_settings_of_chunks_without_chunks_are_refused(data: Path, tiny_bert: Path, evaluation: dict, said: str):
    with pytest.raises(SettingsError, match=said):
        recipe(data, tiny_bert, **evaluation)


def test_chunks_that_the_student_cannot_read_are_refused_before_anything_is_done(
    data: Path, tiny_bert: Path, tmp_path: Path
):
    with pytest.raises(SettingsError, match="evaluation: the student: chunk_tokens: 64 tokens, but the model reads 24"):
        embedsmith.run(recipe(data, tiny_bert, chunk=True, chunk_tokens=64), out=tmp_path / "run")
    assert not (tmp_path / "run" / "mined").exists()

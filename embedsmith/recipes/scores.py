"""Scores of a recipe's run: baselines, teacher and student before training, and the student after each stage.

RUN/scores.json             what was scored, see `embedsmith.runs.scores`; what is in it is done
RUN/scores/NAME/WHAT.jsonl  the scores of each query, to compare runs by
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from embedsmith.data.collection import Collection
from embedsmith.evaluation.contender import Contender, readable
from embedsmith.evaluation.evaluate import environment_of
from embedsmith.evaluation.hybrid import Hybrid
from embedsmith.evaluation.per_query import read_per_query, write_per_query
from embedsmith.evaluation.scoring import described, score_collection
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opening import build_student, load
from embedsmith.progress import Progress
from embedsmith.recipes.data import Prepared
from embedsmith.recipes.labelled_scores import instructed, score_labelled
from embedsmith.recipes.recipe import EvaluationSettings, Recipe, prompt_of
from embedsmith.recipes.shelf import (
    Shelf,
    identity_of_model,
    once,
    versions_of_arithmetic,
)
from embedsmith.runs.run import Run
from embedsmith.runs.scores import HYBRID, Score, ScoredData, per_query_path, read_scores, write_scores
from embedsmith.teachers.named import is_rescorer
from embedsmith.teachers.settings import TeacherSettings


def score_before(
    run: Run, recipe: Recipe, prepared: list[Prepared], shelf: Shelf | None, on_progress: Progress
) -> None:
    """Score baselines, teacher and the untrained student on every test side, those that are not scored yet."""
    names = {name: name for name in recipe.evaluation.baselines} | {"teacher": recipe.mining.teachers[0]}
    with run.timed("evaluate"):
        for data in prepared:
            if data.test:
                run.same_content(f"{data.name} (test)", data.test.content_hash())
            if not (data.test or data.scoring):
                continue
            for label, name in names.items() if not data.elsewhere else ():
                if not read_scores(run.folder).has(data.name, label):
                    contender = _baseline(run, recipe, label, name, on_progress)
                    if data.scoring:
                        _score_labelled(run, data, label, contender)
                    else:
                        _score_baseline(run, recipe, data, label, contender, shelf)
            if recipe.evaluation.before and not read_scores(run.folder).has(data.name, "before"):
                model = build_student(recipe.student, seed=recipe.seed)
                model.use_dtype(recipe.evaluation.dtype)
                _score_model(run, recipe, data, "before", recipe.student.name, model, on_progress)


def score_after(run: Run, recipe: Recipe, prepared: list[Prepared], on_progress: Progress) -> None:
    """Score the model after each stage on every test side that it is not scored on yet."""
    folders = {f"after {stage.name}": f"stages/{stage.name}" for stage in recipe.stages[:-1]}
    with run.timed("evaluate"):
        for data in prepared:
            for label, folder in {**folders, "after": "model"}.items():
                if (data.test or data.scoring) and not read_scores(run.folder).has(data.name, label):
                    model = load(str(run.folder / folder), dtype=recipe.evaluation.dtype)
                    _score_model(run, recipe, data, label, folder, model, on_progress)
            if (
                recipe.evaluation.hybrid
                and data.test
                and not data.elsewhere
                and not read_scores(run.folder).has(data.name, HYBRID)
            ):
                _score_hybrid(run, recipe, data, on_progress)


def _baseline(run: Run, recipe: Recipe, label: str, name: str, on_progress: Progress) -> Contender:
    """Return a baseline or the teacher, which reads texts as it does for mining."""
    dtype = {"dtype": recipe.evaluation.dtype}
    reading = recipe.mining.teacher_settings if label == "teacher" else TeacherSettings()
    return Contender(
        name,
        reading=reading.model_copy(update=dtype),
        first_reading=recipe.mining.teacher_settings.model_copy(update=dtype),
        vectors=run.vectors,
        on_progress=on_progress,
    )


def _score_baseline(
    run: Run, recipe: Recipe, data: Prepared, label: str, contender: Contender, shelf: Shelf | None
) -> None:
    """Score a baseline or the teacher on one test side, or take its scores from the shelf."""
    assert data.test
    first = _first_stage(recipe, contender.name)
    path = per_query_path(run.folder, data.name, label)
    identity = partial(_baseline_of, contender.name, first, contender.reading, recipe.evaluation, data.test)
    with once(shelf, "scores", identity, path, contender.on_progress) as noted:
        about = _rank(run, recipe, data, label, contender, first_stage=first)
        noted.setdefault("model_hash", contender.fingerprint)
    _note(run, data, label, about, model=contender.name, model_hash=noted["model_hash"])


def _score_model(
    run: Run, recipe: Recipe, data: Prepared, label: str, name: str, model: EmbeddingModel, on_progress: Progress
) -> None:
    """Score an embedding model on one test side."""
    contender = _student(run, recipe, data, label, model, on_progress)
    if data.scoring:
        _score_labelled(run, data, label, contender, name)
    else:
        about = _rank(run, recipe, data, label, contender)
        _note(run, data, label, about, model=name, model_hash=contender.fingerprint)


def _score_hybrid(run: Run, recipe: Recipe, data: Prepared, on_progress: Progress) -> None:
    """Score the trained model and BM25 together on one test side; the model's vectors are stored already."""
    model = load(str(run.folder / "model"), dtype=recipe.evaluation.dtype)
    student = _student(run, recipe, data, "after", model, on_progress)
    both = Hybrid([student, _baseline(run, recipe, "bm25", "bm25", on_progress)])
    about = _rank(run, recipe, data, HYBRID, both)
    _note(run, data, HYBRID, about, model="model", model_hash=both.fingerprint)


def _student(
    run: Run, recipe: Recipe, data: Prepared, label: str, model: EmbeddingModel, on_progress: Progress
) -> Contender:
    """Return an embedding model that reads queries with the data set's instruction."""
    if data.scoring:
        model = instructed(model, recipe, data.settings)
    elif (prompt := prompt_of(recipe, data.settings)) is not None:
        model.set_prompt("query", prompt)
        if data.settings.symmetric:
            model.set_prompt("passage", prompt)
    return Contender(f"the student {label}", vectors=run.vectors, encoder=model, on_progress=on_progress)


def _score_labelled(run: Run, data: Prepared, label: str, contender: Contender, name: str | None = None) -> None:
    """Add the scores of labelled data to the run, where the contender can have any."""
    assert data.scoring
    found = score_labelled(data.settings, data.scoring, contender)
    if found is not None:
        score = Score(
            model=name or contender.name, model_hash=contender.fingerprint, metrics=_rounded(found.scores.mean)
        )
        _add(run, data, label, found.about, score)


def _rank(
    run: Run, recipe: Recipe, data: Prepared, label: str, contender: Contender, *, first_stage: str | None = None
) -> ScoredData:
    """Write what each query of a test side scores, unless it is there; return what the test side is."""
    assert data.test
    scoring = ScoringSettings(
        pair_columns=data.settings.columns,
        corpus=data.settings.corpus,
        skip_bad=data.settings.skip_bad,
        first_stage=first_stage or "bm25",
        chunks=recipe.evaluation.chunks,
        chunk_score=recipe.evaluation.chunk_score,
    )
    path, split = data.in_run or (data.settings.path, data.settings.test_split)
    about = described(path, "retrieval", split, scoring, in_run=data.in_run is not None)
    kept = per_query_path(run.folder, data.name, label)
    if not kept.is_file():
        own = scoring if isinstance(contender, Hybrid) else readable(contender, scoring)
        scored = score_collection(contender, data.test, own, about)
        write_per_query(kept, scored.scores.per_query, scored.ranking or {})
    sizes = {"content_hash": data.test.content_hash(), "passages": len(data.test.passages)}
    return about.model_copy(update=sizes)


def _note(run: Run, data: Prepared, label: str, about: ScoredData, *, model: str, model_hash: str | None) -> None:
    """Add the means of what each query scored to the run's scores."""
    path = per_query_path(run.folder, data.name, label)
    found = read_per_query(path)
    score = Score(
        model=model,
        model_hash=model_hash,
        per_query=path.relative_to(run.folder).as_posix(),
        metrics=_rounded({name: float(values.mean()) for name, values in found.metrics.items()}),
    )
    _add(run, data, label, about.model_copy(update={"queries": len(found.query_ids)}), score)


def _add(run: Run, data: Prepared, label: str, about: ScoredData, score: Score) -> None:
    """Add a score to the run's; what is in there is scored."""
    board = read_scores(run.folder).with_score(data.name, label, about, score)
    write_scores(run.folder, board.model_copy(update=environment_of(run)))


def _rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return scores in the digits that are shown."""
    return {metric: round(value, 4) for metric, value in metrics.items()}


def _first_stage(recipe: Recipe, name: str) -> str | None:
    """Return which teacher finds the passages that a cross-encoder is scored on; None for what searches itself."""
    return (
        next(teacher for teacher in recipe.mining.teachers if not is_rescorer(teacher)) if is_rescorer(name) else None
    )


def _baseline_of(
    name: str, first_stage: str | None, reading: TeacherSettings, evaluation: EvaluationSettings, test: Collection
) -> Any:
    """Return all that a baseline's scores depend on."""
    return {
        **({"first_stage": identity_of_model(first_stage)} if first_stage else {}),
        **({"chunks": [evaluation.chunks.model_dump(), evaluation.chunk_score]} if evaluation.chunk else {}),
        "collection": test.content_hash(),
        "model": identity_of_model(name),
        "reading": reading.model_dump(mode="json"),
        "versions": versions_of_arithmetic(),
    }

"""Scores of a recipe's run: baselines, teacher and student before training, and the student after each stage.

RUN/scores.json             data set -> what was scored -> metric -> value; what is in it is done
RUN/scores/NAME/WHAT.jsonl  the same for each query, to compare runs by
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from embedsmith.data.collection import Collection
from embedsmith.data.files import write_json
from embedsmith.evaluation.contender import Contender
from embedsmith.evaluation.metrics import score_run
from embedsmith.evaluation.per_query import per_query_path, read_per_query, write_per_query
from embedsmith.evaluation.retrieval import rank
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opening import build_student, load
from embedsmith.progress import Progress
from embedsmith.recipes.data import (
    Prepared,
)
from embedsmith.recipes.labelled_scores import instructed, score_labelled
from embedsmith.recipes.recipe import Recipe, prompt_of
from embedsmith.recipes.shelf import (
    Shelf,
    identity_of_model,
    once,
    versions_of_arithmetic,
)
from embedsmith.runs.run import Run
from embedsmith.runs.scores import RunScores, read_run_scores, scores_path
from embedsmith.teachers.dense import DenseTeacher
from embedsmith.teachers.named import Teacher, is_rescorer, open_teacher
from embedsmith.teachers.settings import TeacherSettings


def score_before(
    run: Run, recipe: Recipe, prepared: list[Prepared], shelf: Shelf | None, on_progress: Progress
) -> None:
    """Score baselines, teacher and the untrained student on every test side, those that are not scored yet."""
    with run.timed("evaluate"):
        for data in prepared:
            if data.scoring:
                _score_labelled_before(run, recipe, data, on_progress)
            if not data.test:
                continue
            run.same_content(f"{data.name} (test)", data.test.content_hash())
            names = {name: name for name in recipe.evaluation.baselines} | {"teacher": recipe.mining.teachers[0]}
            for label, name in names.items():
                if label not in _scores(run).get(data.name, {}):
                    reading = recipe.mining.teacher_settings if label == "teacher" else TeacherSettings()
                    reading = reading.model_copy(update={"dtype": recipe.evaluation.dtype})
                    path = per_query_path(run.folder, data.name, label)
                    first = _first_stage(recipe, name)
                    identity = partial(_baseline_of, name, first, reading, data.test)
                    with once(shelf, "scores", identity, path, on_progress):
                        if not path.is_file():
                            opening: dict[str, Any] = {"vectors": run.vectors, "ties": data.test.ties}
                            opening["on_progress"] = on_progress
                            finds = None
                            if first:
                                how = recipe.mining.teacher_settings.model_copy(update={"dtype": reading.dtype})
                                finds = open_teacher(first, data.test.passages, settings=how, **opening)
                            teacher = open_teacher(name, data.test.passages, settings=reading, **opening)
                            _rank(path, teacher, data.test, finds)
                    _note(run, data.name, label)
            if recipe.evaluation.before and "before" not in _scores(run).get(data.name, {}):
                model = build_student(recipe.student, seed=recipe.seed)
                model.use_dtype(recipe.evaluation.dtype)
                _score_model(run, recipe, data, "before", model, on_progress)


def score_after(run: Run, recipe: Recipe, prepared: list[Prepared], on_progress: Progress) -> None:
    """Score the model after each stage on every test side that it is not scored on yet."""
    folders = {f"after {stage.name}": run.folder / "stages" / stage.name for stage in recipe.stages[:-1]}
    with run.timed("evaluate"):
        for data in prepared:
            for label, folder in {**folders, "after": run.folder / "model"}.items():
                if (data.test or data.scoring) and label not in _scores(run).get(data.name, {}):
                    model = load(str(folder), dtype=recipe.evaluation.dtype)
                    _score_model(run, recipe, data, label, model, on_progress)


def _score_model(
    run: Run, recipe: Recipe, data: Prepared, label: str, model: EmbeddingModel, on_progress: Progress
) -> None:
    """Score an embedding model on one test side, with the data set's instruction."""
    name = f"the student {label}"
    if data.scoring:
        encoder = instructed(model, recipe, data.settings)
        contender = Contender(name, vectors=run.vectors, encoder=encoder, on_progress=on_progress)
        _score_labelled(run, data, label, contender)
        return
    assert data.test
    if (prompt := prompt_of(recipe, data.settings)) is not None:
        model.set_prompt("query", prompt)
        if data.settings.symmetric:
            model.set_prompt("passage", prompt)
    test = data.test
    teacher = DenseTeacher(model, test.passages, name=name, folder=run.vectors, ties=test.ties, on_progress=on_progress)
    _rank(per_query_path(run.folder, data.name, label), teacher, test)
    _note(run, data.name, label)


def _score_labelled_before(run: Run, recipe: Recipe, data: Prepared, on_progress: Progress) -> None:
    """Score baselines, teacher and the untrained student on labelled data, those that are not scored yet."""
    names = {name: name for name in recipe.evaluation.baselines} | {"teacher": recipe.mining.teachers[0]}
    for label, name in names.items():
        if label not in _scores(run).get(data.name, {}):
            reading = recipe.mining.teacher_settings if label == "teacher" else TeacherSettings()
            reading = reading.model_copy(update={"dtype": recipe.evaluation.dtype})
            contender = Contender(name, reading=reading, vectors=run.vectors, on_progress=on_progress)
            _score_labelled(run, data, label, contender)
    if recipe.evaluation.before and "before" not in _scores(run).get(data.name, {}):
        model = build_student(recipe.student, seed=recipe.seed)
        model.use_dtype(recipe.evaluation.dtype)
        _score_model(run, recipe, data, "before", model, on_progress)


def _score_labelled(run: Run, data: Prepared, label: str, contender: Contender) -> None:
    """Add the scores of labelled data to the run, where the contender can have any."""
    assert data.scoring
    found = score_labelled(data.settings, data.scoring, contender)
    if found is not None:
        _add_scores(run, data.name, label, found)


def _scores(run: Run) -> RunScores:
    """Return what is scored so far: data set -> what -> metric -> value."""
    return read_run_scores(run.folder)


def _first_stage(recipe: Recipe, name: str) -> str | None:
    """Return which teacher finds the passages that a cross-encoder is scored on; None for what searches itself."""
    return (
        next(teacher for teacher in recipe.mining.teachers if not is_rescorer(teacher)) if is_rescorer(name) else None
    )


def _baseline_of(name: str, first_stage: str | None, reading: TeacherSettings, test: Collection) -> Any:
    """Return all that a baseline's scores depend on."""
    return {
        **({"first_stage": identity_of_model(first_stage)} if first_stage else {}),
        "collection": test.content_hash(),
        "model": identity_of_model(name),
        "reading": reading.model_dump(mode="json"),
        "versions": versions_of_arithmetic(),
    }


def _rank(path: Path, teacher: Teacher, test: Collection, first_stage: Teacher | None = None) -> None:
    """Write what each query of a test side scores by what ranks its passages."""
    ranking = rank(teacher, test, first_stage=first_stage)
    write_per_query(path, score_run(ranking, test.qrels), ranking)


def _note(run: Run, data: str, label: str) -> None:
    """Add the means of what each query scored to the run's scores."""
    found = read_per_query(per_query_path(run.folder, data, label))
    _add_scores(run, data, label, {name: float(values.mean()) for name, values in found.metrics.items()})


def _add_scores(run: Run, data: str, label: str, scores: Mapping[str, float]) -> None:
    """Add scores to the run's; what is in there is scored."""
    known = _scores(run)
    known.setdefault(data, {})[label] = {metric: round(value, 4) for metric, value in scores.items()}
    write_json(scores_path(run.folder), known)

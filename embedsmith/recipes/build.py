"""The recipe of `build`: a search model for a folder of documents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from embedsmith.errors import InputError
from embedsmith.mining.settings import MiningSettings
from embedsmith.models.settings import MINILM, StudentSettings
from embedsmith.prepare.documents.settings import PairSettings
from embedsmith.recipes.recipe import DataSettings, EvaluationSettings, Recipe, recipe_of
from embedsmith.teachers.settings import TeacherSettings
from embedsmith.training.settings import StageSettings

DATA = "documents"
"""The name of its data set."""

_PASSAGE_TOKENS = 160
"""Of a passage: a few paragraphs. With 256 a step takes twice as long, and a hit says less of where the answer is."""

_EPOCHS, _LEAST_STEPS = 2.0, 100
"""Passes over the training queries, and steps where few queries make fewer."""


def build_recipe(
    documents: str,
    *,
    queries: str | None = None,
    generators: Sequence[str] = (),
    student: str = MINILM,
    seed: int = 0,
    on_gpu: bool = False,
    changes: Sequence[str] = (),
) -> Recipe:
    """Return the recipe that `build` carries out.

    Args:
        documents: a folder.
        queries: a file of queries that people ask, which are scored apart.
        generators: models that write queries for the passages too.
        student: which model is trained; it finds the negatives too.
        seed: of batches and dropout.
        on_gpu: use what memory there is.
        changes: values that differ from the usual ones, such as "stages.0.steps=300".

    Raises:
        InputError: there is no such folder.
        SettingsError: a change does not fit.
    """
    path = Path(documents).expanduser()
    if not path.is_dir():
        what = "a file, wanted a folder of documents" if path.exists() else "no such folder"
        raise InputError(f"{documents}: {what}", hint="name the folder that the documents lie in")
    asked = str(Path(queries).expanduser().resolve()) if queries is not None else None
    pairs = PairSettings(generators=list(generators))
    reads = StudentSettings(name=student, passage_max_tokens=_PASSAGE_TOKENS)
    teaches = TeacherSettings()
    if student == MINILM:
        # Teacher and student read alike: one set of vectors is both's before training. Other models may end earlier.
        reads = reads.model_copy(update={"query_max_tokens": _PASSAGE_TOKENS})
        teaches = TeacherSettings(max_tokens=_PASSAGE_TOKENS)
    recipe = Recipe(
        name="documents",
        seed=seed,
        data={DATA: DataSettings(path=str(path.resolve()), format="documents", queries=asked, documents=pairs)},
        mining=MiningSettings(teachers=[student], teacher_settings=teaches),
        student=reads,
        # As in the quickstart: the teacher is the student's own start, so it is no guide.
        stages=[
            StageSettings(
                epochs=_EPOCHS,
                least_steps=_LEAST_STEPS,
                batch_size=48,
                learning_rate=5e-5,
                dropout=0.0,
                guide=False,
                chunk_tokens=None if on_gpu else 2048,
                memory_gib=None if on_gpu else 4.0,
            )
        ],
        evaluation=EvaluationSettings(hybrid=True, elsewhere="stdlib"),
    )
    values = recipe.model_dump(mode="json")
    if any(re.match(r"\s*stages\.0\.steps\s*=", change) for change in changes):
        values["stages"][0] |= {"epochs": None, "least_steps": None}
    return recipe_of(values, where="--set", changes=changes) if changes else recipe

"""Scores of a recipe's labelled data: its test splits as tasks of mteb, read with the instruction of training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from embedsmith.data.labelled import TaskType
from embedsmith.data.load import table_splits
from embedsmith.errors import SettingsError
from embedsmith.evaluation.contender import Contender
from embedsmith.evaluation.scoring import OnSkip, Scored, need_mteb, read_scored, score
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.prepare.convert import instruction_of
from embedsmith.prepare.converters.settings import Task
from embedsmith.recipes.data import evaluation_split
from embedsmith.recipes.recipe import DataSettings, Recipe
from embedsmith.variables import filled

_KINDS: dict[Task, tuple[TaskType, str]] = {
    "classification": ("classification", "Classification"),
    "clustering": ("clustering", "Clustering"),
    "sts": ("sts", "STS"),
    "nli": ("nli", "PairClassification"),
    "pairs": ("pair-classification", "PairClassification"),
    "reranking": ("reranking", "Reranking"),
}
"""Task of `convert` -> what its test split is scored as, and mteb's name for that."""


def scoring_of(settings: DataSettings, on_skip: OnSkip | None = None) -> ScoringSettings | None:
    """Return how the test split of converted data is scored; None where there is none.

    Args:
        settings: of the data set.
        on_skip: called with one line for what was left out, and one for what labels are taken for.

    Raises:
        InputError: the data cannot be opened or lacks the split that is asked for, or its rows cannot be scored; they
            are all read, before anything is computed.
        SettingsError: several splits are asked for, or mteb is missing.
    """
    if settings.convert is None:
        return None
    data = filled(settings)
    known = table_splits(data.path)
    split = evaluation_split(settings, known)
    if split is None:
        return None
    if split not in known:
        raise SettingsError(
            f"{settings.path}: labelled data are scored on one split, test_split is {split}",
            hint=f"name one of {', '.join(known)}",
        )
    need_mteb(f"{settings.path}: its split {split}")
    assert data.convert
    is_related = settings.convert.task in ("nli", "pairs")
    scoring = ScoringSettings(
        task=_KINDS[settings.convert.task][0],
        split=split,
        columns=settings.labelled_columns,
        labels=data.convert.labels if is_related else None,
        positive_labels=settings.convert.positive_labels,
        skip_bad=settings.skip_bad,
    )
    read_scored(data.path, _KINDS[settings.convert.task][0], scoring, on_skip)
    return scoring


def score_labelled(settings: DataSettings, scoring: ScoringSettings, contender: Contender) -> Scored | None:
    """Return what a contender scores on labelled data; None where it has no vectors, which the data need."""
    if scoring.task != "reranking" and contender.encoder is None:
        return None
    scored = score(contender, filled(settings).path, scoring)
    # The path as the recipe writes it: the value of a variable is this machine's.
    return replace(scored, about=scored.about.model_copy(update={"path": settings.path}))


def instructed(model: EmbeddingModel, recipe: Recipe, settings: DataSettings) -> EmbeddingModel:
    """Return a model that reads a converted data set behind its instruction; of reranking sets the queries alone."""
    assert settings.convert
    instruction = instruction_of(settings.convert) if settings.instruction is None else settings.instruction
    prompt = recipe.student.model_copy(update={"instruction": instruction}).prompt
    model.set_prompt("query", prompt)
    if settings.convert.task != "reranking":
        prompts: dict[str, Any] = {**model.prompts, _KINDS[settings.convert.task][1]: prompt}
        model.prompts = prompts
    return model

"""What a stage minimises: InfoNCE, at several widths if asked, and what it is to learn from the teacher.

Shapes: B queries, U distinct passages of the batch, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.nn import functional

from embedsmith.errors import SettingsError
from embedsmith.models.transfer import pinned, sent
from embedsmith.training.batches import Batch
from embedsmith.training.losses import (
    in_batch_accuracy,
    info_nce,
    margin_error,
    matryoshka,
    score_divergence,
    vector_distance,
)
from embedsmith.training.settings import StageSettings


@dataclass(frozen=True)
class Targets:
    """What the vectors of a batch are held against, on the device that computes the loss."""

    positive: Int64[Tensor, " B"]
    allowed: Bool[Tensor, "B U"]
    teacher_scores: Float[Tensor, "B U"] | None
    """Of each query's own list; NaN elsewhere. None where nothing is learnt from them."""
    teacher_vectors: Float[Tensor, "N E"] | None
    """Of queries, then passages; NaN where the teacher has not seen a text. None where nothing is learnt from them."""


def targets_of(batch: Batch, stage: StageSettings, device: torch.device) -> Targets:
    """Return what a batch's vectors are held against."""
    scores, vectors = None, None
    if stage.distill_scores or stage.distill_margins:
        scores = _on(device, np.where(batch.own, batch.teacher_scores, np.float32(np.nan)))
    if stage.distill_vectors:
        vectors = _on(device, teacher_vectors(batch))
    assert batch.allowed[np.arange(len(batch.positive)), batch.positive].all(), "a positive is not in its denominator"
    return Targets(
        positive=_on(device, batch.positive),
        allowed=_on(device, batch.allowed),
        teacher_scores=scores,
        teacher_vectors=vectors,
    )


def _on(device: torch.device, values: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(values)
    return sent(pinned(tensor) if device.type == "cuda" else tensor, device)


def teacher_vectors(batch: Batch) -> Float32[np.ndarray, "N E"]:
    """Return the stored vectors of a batch's texts, queries first; a passage's are of the first that has it."""
    count = len(batch.queries) + len(batch.passages)
    found: Float32[np.ndarray, "N E"] | None = None
    for guide, rows in batch.by_guide():
        queries = guide.vectors([batch.bare_queries[row] for row in rows], "query")
        passages = guide.vectors(batch.bare_passages, "passage")
        if found is None:
            found = np.full((count, max(queries.shape[1], passages.shape[1])), np.nan, np.float32)
        if queries.shape[1] == found.shape[1]:
            found[rows] = queries
        if passages.shape[1] == found.shape[1]:
            unknown = np.isnan(found[len(batch.queries) :]).any(1)
            found[len(batch.queries) :][unknown] = passages[unknown]
    return np.full((count, 1), np.nan, np.float32) if found is None else found


def objective(vectors: Float[Tensor, "N D"], targets: Targets, stage: StageSettings) -> Float[Tensor, ""]:
    """Return the loss of a batch's vectors, queries first, of any length."""
    vectors = functional.normalize(vectors.float(), dim=-1)
    count = len(targets.positive)
    queries, passages = vectors[:count], vectors[count:]
    loss = vectors.sum() * 0.0
    if stage.contrastive:
        widths = stage.matryoshka or [vectors.shape[1]]
        parts = [
            info_nce(
                matryoshka(queries, width),
                matryoshka(passages, width),
                positive=targets.positive,
                allowed=targets.allowed,
                temperature=stage.temperature,
            )
            for width in widths
        ]
        loss = loss + stage.contrastive * torch.stack(parts).mean()
    if targets.teacher_vectors is not None:
        loss = loss + stage.distill_vectors * vector_distance(vectors, targets.teacher_vectors)
    if targets.teacher_scores is not None and stage.distill_scores:
        loss = loss + stage.distill_scores * score_divergence(
            queries,
            passages,
            teacher=targets.teacher_scores,
            temperature=stage.temperature,
            teacher_temperature=stage.distill_temperature or stage.temperature,
        )
    if targets.teacher_scores is not None and stage.distill_margins:
        loss = loss + stage.distill_margins * margin_error(
            queries, passages, positive=targets.positive, teacher=targets.teacher_scores
        )
    return loss


def accuracy(vectors: Float[Tensor, "N D"], targets: Targets) -> Float[Tensor, ""]:
    """Return the share of a batch's queries whose positive beats every passage that it is contrasted with."""
    vectors = functional.normalize(vectors.detach().float(), dim=-1)
    count = len(targets.positive)
    return in_batch_accuracy(vectors[:count], vectors[count:], positive=targets.positive, allowed=targets.allowed)


def check_widths(stage: StageSettings, dimensions: int) -> None:
    """Refuse widths that the model does not have.

    Raises:
        SettingsError: names the widest.
    """
    if stage.matryoshka and max(stage.matryoshka) > dimensions:
        raise SettingsError(
            f"stage {stage.name}: matryoshka {max(stage.matryoshka)}, but the model has {dimensions} dimensions",
            hint=f"name widths up to {dimensions}",
        )


def check_objective(batch: Batch, stage: StageSettings, dimensions: int) -> None:
    """Refuse an objective that the model or the data cannot have, by a first batch.

    Raises:
        SettingsError: widths beyond the model's, or nothing stored of what the teacher is to teach.
    """
    check_widths(stage, dimensions)
    if (stage.distill_scores or stage.distill_margins) and np.isnan(batch.teacher_scores).all():
        raise SettingsError(
            f"stage {stage.name}: distillation from scores, but the examples have none",
            hint="train on a run of `mine`, or give positives and negatives a score",
        )
    if stage.distill_vectors:
        found = teacher_vectors(batch)
        if np.isnan(found).all():
            raise SettingsError(
                f"stage {stage.name}: distill_vectors, but no teacher's vectors are stored",
                hint="train on a run of `mine` whose teacher is an embedding model",
            )
        if found.shape[1] != dimensions:
            raise SettingsError(
                f"stage {stage.name}: distill_vectors: the teacher has {found.shape[1]} dimensions, "
                f"the student {dimensions}",
                hint="use distill_scores, which asks for no equal width",
            )

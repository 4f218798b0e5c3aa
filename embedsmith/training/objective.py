"""What a stage minimises: InfoNCE, optionally at several Matryoshka widths, plus distillation from the teacher.

Shapes: B queries, U distinct passages of the batch, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.nn import functional

from embedsmith.data.examples import Example
from embedsmith.errors import SettingsError
from embedsmith.models.transfer import pinned, sent
from embedsmith.training.batches import Batch, Source
from embedsmith.training.losses import (
    in_batch_accuracy,
    info_nce,
    margin_error,
    matryoshka,
    score_divergence,
    vector_distance,
)
from embedsmith.training.settings import StageSettings

_SAMPLE = 256
"""Examples of a data set that are checked for stored teacher vectors before training."""


@dataclass(frozen=True)
class Targets:
    """Labels, mask and teacher signals of a batch, on the device that computes the loss."""

    positive: Int64[Tensor, " B"]
    allowed: Bool[Tensor, "B U"]
    teacher_scores: Float[Tensor, "B U"] | None
    """Of each query's own list; NaN elsewhere. None without distillation from scores."""
    teacher_vectors: Float[Tensor, "N E"] | None
    """Of queries, then passages; NaN where a text has no teacher vector. None without distillation from vectors."""


def targets_of(batch: Batch, stage: StageSettings, device: torch.device) -> Targets:
    """Return the targets of a batch."""
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
    """Return the stored teacher vectors of a batch's texts, queries first.

    A passage has the vector of the teacher in whose queries' lists it stands; of several, the first that has one.
    """
    count = len(batch.queries)
    guides = list(batch.by_guide())
    widths = {guide.dimensions for guide, _ in guides}
    assert len(widths) <= 1, f"teachers' vectors have {widths} dimensions in one batch"
    found = np.full((count + len(batch.passages), max(widths, default=1)), np.nan, np.float32)
    for guide, rows in guides:
        found[rows] = guide.vectors([batch.bare_queries[row] for row in rows], "query")
    for is_own in (True, False):
        for guide, rows in guides:
            asked = np.isnan(found[count:]).any(1) & (batch.own[rows].any(0) == is_own)
            places = np.flatnonzero(asked).tolist()
            if places:
                found[[count + place for place in places]] = guide.vectors(
                    [batch.bare_passages[place] for place in places], "passage"
                )
    return found


def objective(vectors: Float[Tensor, "N D"], targets: Targets, stage: StageSettings) -> Float[Tensor, ""]:
    """Return the loss of a batch's vectors, queries first, not yet normalised."""
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
    """Return the share of a batch's queries whose positive scores above every other passage in its denominator."""
    vectors = functional.normalize(vectors.detach().float(), dim=-1)
    count = len(targets.positive)
    return in_batch_accuracy(vectors[:count], vectors[count:], positive=targets.positive, allowed=targets.allowed)


def check_widths(stage: StageSettings, dimensions: int) -> None:
    """Refuse Matryoshka widths beyond the model's dimensions.

    Raises:
        SettingsError: names the widest.
    """
    if stage.matryoshka and max(stage.matryoshka) > dimensions:
        raise SettingsError(
            f"stage {stage.name}: matryoshka {max(stage.matryoshka)}, but the model has {dimensions} dimensions",
            hint=f"name widths up to {dimensions}",
        )


def check_objective(sources: Sequence[Source], stage: StageSettings, dimensions: int) -> None:
    """Refuse an objective that does not fit the model or one of the data sets.

    Raises:
        SettingsError: widths beyond the model's, or a data set without the teacher's scores or vectors.
    """
    check_widths(stage, dimensions)
    for source in sources:
        if (stage.distill_scores or stage.distill_margins) and not any(
            _teaches(example, stage) for example in source.examples
        ):
            raise SettingsError(
                f"stage {stage.name}: distillation from scores, but the examples of {source.name} have none",
                hint="train on a run of `mine`, give positives and negatives a score, or leave the data set out",
            )
        if stage.distill_vectors:
            _check_vectors(source, stage, dimensions)


def _teaches(example: Example, stage: StageSettings) -> bool:
    """Return whether an example has scores to distil: of a positive and a negative, or of two negatives."""
    positives, negatives = (
        sum(passage.score is not None for passage in side) for side in (example.positives, example.negatives)
    )
    return bool(negatives and (positives or (negatives > 1 and not stage.distill_margins)))


def _check_vectors(source: Source, stage: StageSettings, dimensions: int) -> None:
    """Refuse a data set without stored teacher vectors, or with vectors of other dimensions than the student's."""
    sample = source.examples[:_SAMPLE]
    known = source.guide and not all(
        np.isnan(source.guide.vectors(texts, role)).any(1).all()
        for role, texts in (
            ("query", [example.query for example in sample]),
            ("passage", [example.positives[0].text for example in sample]),
        )
    )
    if source.guide is None or not known:
        raise SettingsError(
            f"stage {stage.name}: distill_vectors, but no teacher's vectors are stored of {source.name}",
            hint="train on a run of `mine` whose teacher is an embedding model, or leave the data set out",
        )
    if source.guide.dimensions != dimensions:
        raise SettingsError(
            f"stage {stage.name}: distill_vectors: the teacher of {source.name} has {source.guide.dimensions} "
            f"dimensions, the student {dimensions}",
            hint="use distill_scores, which asks for no equal width",
        )

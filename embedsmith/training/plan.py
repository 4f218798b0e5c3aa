"""The batches of a stage, and what it sees of each data set."""

from __future__ import annotations

import math
from collections.abc import Sequence

from embedsmith.training.batches import BatchPlan, Source
from embedsmith.training.blend import Portion
from embedsmith.training.held_out import without_held_out
from embedsmith.training.settings import StageSettings


def plan_of(sources: Sequence[Source], settings: StageSettings, seed: int) -> BatchPlan:
    """Return the batches of a stage, without what is held out: `accumulation` of them to an optimizer step."""
    sources = without_held_out(sources, settings.held_out, seed)
    count = sum(len(source.examples) for source in sources)
    batch_size = min(settings.batch_size, count)
    of_epochs = math.ceil((settings.epochs or 1) * count / (batch_size * settings.accumulation))
    steps = settings.steps or max(of_epochs, settings.least_steps or 1)
    return BatchPlan(
        sources,
        steps=steps * settings.accumulation,
        batch_size=batch_size,
        hard_negatives=settings.hard_negatives,
        in_batch=settings.in_batch,
        seed=seed,
        blend=settings.batches == "blended",
        guide_margin=settings.guide_margin if settings.guide else None,
        guide_relative=settings.guide_relative,
    )


def portions(sources: Sequence[Source], settings: StageSettings, seed: int) -> list[Portion]:
    """Return what a stage will see of each data set: exactly what its batches hold."""
    sources = without_held_out(sources, settings.held_out, seed)
    drawn = plan_of(sources, settings.model_copy(update={"held_out": 0}), seed).drawn()
    return [
        Portion(
            stage=settings.name,
            data=source.name,
            examples=len(source.examples),
            negatives=sum(len(example.negatives) for example in source.examples) / len(source.examples),
            weight=source.weight,
            queries=queries,
            share=queries / sum(drawn),
            passes=queries / len(source.examples),
        )
        for source, queries in zip(sources, drawn, strict=True)
    ]

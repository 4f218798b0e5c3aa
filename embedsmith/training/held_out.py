"""A validation set: examples that are held out of training, split by query."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from embedsmith.data.normalised import normalised
from embedsmith.errors import SettingsError
from embedsmith.training.batches import Batch, BatchPlan, Source
from embedsmith.training.settings import StageSettings


def without_held_out(sources: Sequence[Source], count: int, seed: int) -> list[Source]:
    """Return the data sets without the held-out examples, and without any other example of a held-out query.

    Raises:
        SettingsError: nothing would be left to train on.
    """
    if not count:
        return list(sources)
    held = _queries_held_out(sources, count, seed)
    kept = [
        replace(source, examples=[e for e in source.examples if normalised(e.query) not in held]) for source in sources
    ]
    if not all(source.examples for source in kept):
        total = sum(len(source.examples) for source in sources)
        raise SettingsError(
            f"held_out: {count} of {total} examples, which leaves a data set without any", hint="hold out fewer"
        )
    return kept


def held_out_batches(sources: Sequence[Source], stage: StageSettings, seed: int) -> list[Batch]:
    """Return the batches of the held-out examples, every example once."""
    if not stage.held_out:
        return []
    held = _queries_held_out(sources, stage.held_out, seed)
    chosen = [
        replace(source, examples=[e for e in source.examples if normalised(e.query) in held]) for source in sources
    ]
    count = sum(len(source.examples) for source in chosen)
    size = min(stage.batch_size, count)
    plan = BatchPlan(
        [source for source in chosen if source.examples],
        steps=math.ceil(count / size),
        batch_size=size,
        hard_negatives=stage.hard_negatives,
        in_batch=stage.in_batch,
        seed=seed,
        guide_margin=stage.guide_margin if stage.guide else None,
        guide_relative=stage.guide_relative,
        once=True,
    )
    return [plan[number] for number in range(len(plan))]


def _queries_held_out(sources: Sequence[Source], count: int, seed: int) -> set[str]:
    """Return the normalised queries that are held out, drawn uniformly over all data sets."""
    queries = sorted({normalised(example.query) for source in sources for example in source.examples})
    draw = np.random.default_rng((seed, 0xE1D))
    return {queries[place] for place in draw.permutation(len(queries))[:count].tolist()}

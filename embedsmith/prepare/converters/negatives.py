"""Negatives of drafts: those that the data gives, then mined ones, then random ones up to a number.

Shapes: E excluded passages, n passages that are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from embedsmith.data.examples import Example, Passage
from embedsmith.prepare.converters.drafts import Converted

GIVEN, RANDOM = "given", "random passage"
"""Who proposed a negative that no teacher did."""


def with_negatives(
    converted: Converted,
    *,
    negatives: int,
    seed: int,
    instruction: str,
    symmetric: bool,
    mined: Mapping[str, Example] | None = None,
) -> Iterator[Example]:
    """Yield an example for each draft.

    Args:
        negatives: how many; what the data gives is never cut, random ones fill up.
        seed: of the random ones.
        instruction: what the task is.
        symmetric: whether the passages get the instruction too.
        mined: query id -> the example that mining made, with scores.
    """
    for number, draft in enumerate(converted.drafts):
        found = (mined or {}).get(draft.query_id)
        own = [_passage(converted, row, GIVEN) for row in draft.negatives]
        own += _unseen(found.negatives if found else [], own)[: max(0, negatives - len(own))]
        if len(own) < negatives:
            rows = [row for passage in own if (row := converted.passages.row(passage.text)) is not None]
            draw = np.random.default_rng((seed, 0x0DD, number))
            taken = random_rows(
                draw, negatives - len(own), len(converted.passages), draft.excluded, [*draft.positives, *rows]
            )
            own += [_passage(converted, row, RANDOM) for row in taken]
        scores = {passage.id: passage.score for passage in found.positives} if found else {}
        positives = [_passage(converted, row, None) for row in draft.positives]
        yield Example(
            query_id=draft.query_id,
            query=draft.query,
            positives=[passage._replace(score=scores.get(passage.id)) for passage in positives],
            negatives=own,
            outcome="full" if len(own) >= negatives else "short" if own else "none",
            instruction=instruction,
            symmetric=symmetric,
        )


def random_rows(
    draw: np.random.Generator, count: int, size: int, excluded: Int64[np.ndarray, " E"], taken: Sequence[int]
) -> list[int]:
    """Return different rows below `size` at random, fewer than `count` where fewer are free.

    >>> sorted(random_rows(np.random.default_rng(0), 9, 6, np.array([1, 4]), [0]))
    [2, 3, 5]
    """
    free = size - len(excluded)
    drawn = draw.choice(free, min(free, count + len(taken)), replace=False)
    # The n-th row that is not excluded lies behind as many excluded ones as are not above it.
    rows = drawn + np.searchsorted(excluded - np.arange(len(excluded)), drawn, side="right")
    return [row for row in rows.tolist() if row not in taken][:count]


def _passage(converted: Converted, row: int, teacher: str | None) -> Passage:
    return Passage(converted.passages.ids[row], converted.passages.texts[row], teacher=teacher)


def _unseen(passages: Sequence[Passage], seen: Sequence[Passage]) -> list[Passage]:
    """Return the passages that are not there yet."""
    known = {passage.id for passage in seen}
    return [passage for passage in passages if passage.id not in known]

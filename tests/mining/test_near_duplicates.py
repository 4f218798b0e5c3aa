"""Near-duplicates against the Jaccard share counted out, and what selection and the audit make of them."""

from __future__ import annotations

import numpy as np
import pytest

from embedsmith.data.texts import Texts
from embedsmith.errors import SettingsError
from embedsmith.mining.audit import audit
from embedsmith.mining.candidates import NO_PASSAGE, Candidates
from embedsmith.mining.exclusions import Fate
from embedsmith.mining.near_duplicates import near_duplicates, shingles
from embedsmith.mining.selection import select
from embedsmith.mining.settings import SelectionSettings

from .toy import toy_candidates


def _texts(passages: int, seed: int = 0) -> Texts:
    """Return passages of which each is one of three texts with some words changed."""
    rng = np.random.default_rng(seed)
    roots = [[f"w{n}" for n in rng.integers(10_000, size=120)] for _ in range(3)]
    texts = []
    for _ in range(passages):
        words = list(roots[rng.integers(3)])
        for place in rng.integers(120, size=rng.integers(0, 12)):
            words[place] = f"x{rng.integers(10_000)}"
        texts.append(" ".join(words))
    return Texts.of(texts)


def _share(one: str, two: str) -> float:
    a, b = set(shingles(one)), set(shingles(two))
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("limit", [0.3, 0.6, 0.8])
def test_what_is_clearly_over_the_limit_is_found_and_what_is_clearly_under_is_not(limit: float) -> None:
    c, texts = toy_candidates(), _texts(30)
    near = near_duplicates(c, texts, limit)
    decided = 0
    for pair, (query, positive) in enumerate(zip(c.pair_query, c.pair_passage, strict=True)):
        for place, row in enumerate(c.rows[query]):
            if row == NO_PASSAGE:
                assert not near[pair, place]
                continue
            share = _share(texts[int(positive)], texts[int(row)])
            error = 4 * np.sqrt(share * (1 - share) / 256)
            if abs(share - limit) > error:
                assert near[pair, place] == (share >= limit)
                decided += 1
    assert decided > near.size / 3
    assert near.any()
    assert not near.all()


def test_the_same_seed_gives_the_same_answer_and_texts_of_the_same_words_have_a_share_of_one() -> None:
    c = toy_candidates()
    assert (near_duplicates(c, _texts(30), 0.5, seed=3) == near_duplicates(c, _texts(30), 0.5, seed=3)).all()
    alike = Texts.of([("One two, THREE four!", "one two three four")[row % 2] for row in range(30)])
    assert (near_duplicates(c, alike, 1.0) == (c.rows != NO_PASSAGE)[c.pair_query]).all()


def test_a_near_duplicate_of_any_positive_of_the_query_is_excluded() -> None:
    c, settings = toy_candidates(), SelectionSettings(method="naive", near_duplicates=0.8)
    near = np.zeros((len(c.pair_query), c.rows.shape[1]), bool)
    last = np.flatnonzero(c.pair_query == 1)[-1]
    near[last] = True
    fates = select(c, settings, near=near).fates
    assert (fates == Fate.NEAR_DUPLICATE).any(axis=1).nonzero()[0].tolist() == [1]
    assert not (select(c, SelectionSettings(method="naive"), near=near).fates == Fate.NEAR_DUPLICATE).any()


def test_settings_that_need_the_texts_are_refused_without_them() -> None:
    with pytest.raises(SettingsError, match="near_duplicates: the candidates' texts are needed"):
        select(toy_candidates(), SelectionSettings(near_duplicates=0.8))


def _two_positives() -> Candidates:
    """Return queries with two positives each, both among the candidates, and nothing else near to them."""
    queries = 6
    rows = np.arange(queries * 4).reshape(queries, 4)
    scores = np.broadcast_to(np.array([0.9, 0.8, 0.5, 0.4], np.float32), (1, queries, 4))
    return Candidates(
        teachers=["toy"],
        depth=4,
        proposes=[True],
        rows=rows,
        scores=scores,
        mean=np.zeros((1, queries), np.float32),
        deviation=np.ones((1, queries), np.float32),
        pair_query=np.repeat(np.arange(queries), 2),
        pair_passage=rows[:, :2].ravel(),
        pair_scores=np.tile(np.array([0.9, 0.8], np.float32), queries)[None],
        passage_text=np.arange(queries * 4),
        query_text=np.arange(100, 100 + queries),
    )


def test_a_hidden_positive_is_not_excluded_for_being_its_own_near_duplicate() -> None:
    c = _two_positives()
    # Each pair's positive is near to itself alone.
    near = c.rows[c.pair_query] == c.pair_passage[:, None]
    ways = {"plain": SelectionSettings(method="naive", negatives=1)}
    ways["near"] = ways["plain"].model_copy(update={"near_duplicates": 0.8})
    found = audit(c, ways, near=near)
    assert found["plain"].false_negative_rate == found["near"].false_negative_rate == 1.0

"""Exclusions against the rules applied to one candidate at a time."""

from __future__ import annotations

import numpy as np
import pytest

from embedsmith.mining import exclusions as module
from embedsmith.mining.candidates import NO_PASSAGE, Candidates
from embedsmith.mining.exclusions import Fate, Listed, exclusions
from tests.mining.toy import toy_candidates


def fate(candidates: Candidates, listed: Listed, near: np.ndarray | None, query: int, place: int) -> Fate:
    """Return the first rule that drops a candidate."""
    row, texts = int(candidates.rows[query, place]), candidates.passage_text
    if row == NO_PASSAGE:
        return Fate.ABSENT
    pairs = list(zip(candidates.pair_query.tolist(), candidates.pair_passage.tolist(), strict=True))
    if (query, row) in pairs:
        return Fate.POSITIVE
    same = np.flatnonzero(candidates.query_text == candidates.query_text[query])
    if texts[row] in {texts[passage] for owner, passage in pairs if owner in same}:
        return Fate.SAME_TEXT
    if texts[row] == candidates.query_text[query]:
        return Fate.OWN_TEXT
    own = [*listed.passages[listed.queries == query], *listed.everywhere]
    if texts[row] in {texts[passage] for passage in own}:
        return Fate.LISTED
    if texts[row] in {texts[passage] for passage in listed.judged_passages[listed.judged_queries == query]}:
        return Fate.JUDGED
    if texts[row] in {texts[r] for r in candidates.rows[query, :place] if r != NO_PASSAGE}:
        return Fate.COPY
    return Fate.NEAR_DUPLICATE if near is not None and near[query, place] else Fate.LEFT


@pytest.mark.parametrize("chunk", [1 << 22, 50])
@pytest.mark.parametrize("seed", range(3))
def test_every_candidate_falls_to_the_first_rule_that_it_breaks(seed: int, chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    candidates = toy_candidates(seed)
    rng = np.random.default_rng(seed)
    listed = Listed(
        rng.integers(12, size=20),
        rng.integers(30, size=20),
        rng.integers(30, size=2),
        judged_queries=rng.integers(12, size=20),
        judged_passages=rng.integers(30, size=20),
    )
    found = exclusions(candidates, listed)
    expected = [[fate(candidates, listed, None, q, k) for k in range(found.shape[1])] for q in range(12)]
    assert found.tolist() == expected
    assert set(found.ravel().tolist()) >= {
        Fate.LEFT,
        Fate.ABSENT,
        Fate.POSITIVE,
        Fate.SAME_TEXT,
        Fate.LISTED,
        Fate.JUDGED,
        Fate.COPY,
    }


def test_a_query_that_is_a_passage_never_meets_itself():
    candidates = toy_candidates(4)
    texts = candidates.passage_text[candidates.rows[:, 0]]
    found = exclusions(Candidates(**{**vars(candidates), "query_text": texts.copy()}), Listed.nothing())
    assert np.isin(found[:, 0], [Fate.OWN_TEXT, Fate.POSITIVE, Fate.SAME_TEXT]).all()
    assert (found[:, 0] == Fate.OWN_TEXT).any()

"""Moments of scores equal those of the scores themselves."""

import numpy as np
import pytest

from embedsmith.vectors.moments import Moments


@pytest.mark.parametrize("sizes", [[1], [7, 1], [5000, 0, 300]])
def test_moments_equal_those_of_all_scores_in_whatever_shards(sizes: list[int]) -> None:
    random = np.random.default_rng(0)
    passages = random.normal(0.3, 1, (sum(sizes), 6)).astype(np.float32)
    queries = random.normal(size=(4, 6)).astype(np.float32)
    shards = np.split(passages, np.cumsum(sizes)[:-1])

    mean, deviation = Moments.of(shards).of_scores(queries)

    scores = queries.astype(np.float64) @ passages.T.astype(np.float64)
    assert mean == pytest.approx(scores.mean(axis=1), abs=1e-6)
    assert deviation == pytest.approx(scores.std(axis=1), abs=1e-6)


def test_equal_passages_have_no_spread_however_it_is_rounded() -> None:
    passages = np.full((100, 3), 0.1, np.float32)

    assert Moments.of([passages]).of_scores(np.full((2, 3), 0.7, np.float32))[1].max() < 1e-7

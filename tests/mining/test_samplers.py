"""Samplers: what they may take, what they must, and how often."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from embedsmith.mining.samplers import NONE, pick
from embedsmith.mining.settings import SamplerSettings

SCORES = np.array([0.9, 0.7, 0.6, 0.2, 0.1, -0.3], np.float32)


def drawn(allowed: list[bool], *, negatives: int = 2, rows: int = 4000, stream: int = 0, **settings) -> np.ndarray:
    """Return what is taken from the same candidates, row by row."""
    shape = (rows, len(SCORES))
    ranks = np.broadcast_to(np.arange(1, len(SCORES) + 1), shape)
    return pick(
        np.broadcast_to(np.array(allowed), shape),
        np.broadcast_to(SCORES, shape),
        ranks,
        SamplerSettings(**settings),
        negatives=negatives,
        stream=stream,
    )


def shares(picked: np.ndarray) -> np.ndarray:
    """Return how often each place is taken, as a share of the rows."""
    return np.array([(picked == place).any(axis=1).mean() for place in range(len(SCORES))])


ALLOWED = [True, False, True, True, True, True]


def test_uniform_takes_each_of_the_best_equally_often():
    found = shares(drawn(ALLOWED, sampler="uniform", sample_from=4))
    np.testing.assert_allclose(found, [0.5, 0, 0.5, 0.5, 0.5, 0], atol=0.03)


def test_window_takes_by_rank_among_what_passed_the_exclusions_allowed_or_not():
    found = shares(drawn(ALLOWED, sampler="window", window_first=2, window_last=5))
    np.testing.assert_allclose(found, [0, 0, 2 / 3, 2 / 3, 2 / 3, 0], atol=0.03)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_softmax_draws_one_by_the_softmax_and_the_next_from_the_rest(temperature: float):
    places = [0, 2, 3, 4]
    weights = {place: np.exp(SCORES[place] / temperature) for place in places}
    expected = np.zeros(len(SCORES))
    for first, second in itertools.permutations(places, 2):
        total = sum(weights.values())
        chance = weights[first] / total * weights[second] / (total - weights[first])
        expected[[first, second]] += chance
    found = drawn(ALLOWED, sampler="softmax", sample_from=4, sampler_temperature=temperature, rows=8000)
    np.testing.assert_allclose(shares(found), expected, atol=0.03)


def test_top1_takes_the_best_always_and_the_others_by_softmax():
    found = shares(drawn(ALLOWED, sampler="top1", sample_from=3, sampler_temperature=0.5))
    weights = np.exp(SCORES[[2, 3]] / 0.5)
    np.testing.assert_allclose(found[[0, 2, 3]], [1, *(weights / weights.sum())], atol=0.03)
    assert found[[1, 4, 5]].tolist() == [0, 0, 0]


@pytest.mark.parametrize("sampler", ["top", "uniform", "softmax", "top1", "window"])
def test_where_too_few_are_allowed_all_are_taken_best_first(sampler: str):
    settings = {"sampler": sampler, "window_first": 1, "window_last": 6}
    some = drawn([False, True, False, True, False, False], negatives=8, rows=3, **settings)
    assert some.tolist() == [[1, 3, *[NONE] * 6]] * 3
    assert (drawn([False] * 6, negatives=2, rows=3, **settings) == NONE).all()


def test_a_stream_draws_otherwise_and_a_seed_the_same_again():
    one, again, stream, seed = (
        drawn(ALLOWED, sampler="uniform", stream=stream, mining_seed=seed).tolist()
        for stream, seed in ((0, 0), (0, 0), (1, 0), (0, 1))
    )
    assert one == again
    assert one != stream != seed != one

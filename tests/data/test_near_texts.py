"""Texts that are almost the same: found as datasketch's own index and the shingles themselves say."""

from __future__ import annotations

import random

import pytest
from datasketch import MinHash, MinHashLSH

from embedsmith.data.near_texts import NearTexts, nearest_before
from embedsmith.mining.near_duplicates import shingles
from tests.near import jaccard

WORDS = ["cat", "dog", "owl", "bat", "mat", "log", "tree", "sat", "ran", "flew"]


def texts(count: int) -> list[str]:
    """Return texts of which every other one is the one before with a few words changed."""
    drawn = random.Random(0)
    found: list[str] = []
    for number in range(count):
        words = found[-1].split() if number % 2 else drawn.choices(WORDS, k=60)
        for _ in range(number % 7):
            words[drawn.randrange(len(words))] = drawn.choice(WORDS)
        found.append(" ".join(words))
    return found


@pytest.mark.parametrize("limit", [0.5, 0.8, 1.0])
def test_they_are_those_of_datasketch_s_index_whose_shingles_are_shared(limit: float):
    near = NearTexts(limit, shingles=shingles)
    index = MinHashLSH(threshold=min(limit, 0.95), num_perm=128, weights=(0.1, 0.9))
    sets: list[frozenset[bytes]] = []
    several = 0
    for number, text in enumerate(texts(120)):
        own = frozenset(shingles(text))
        signature = MinHash(num_perm=128, seed=1)
        signature.update_batch(sorted(own))
        candidates = [(one, jaccard(own, sets[one])) for one in sorted(index.query(signature))]
        expected = [(one, share) for one, share in candidates if share >= limit]
        assert near.like(text) == expected
        several += bool(expected)
        assert near.add(text) == number
        index.insert(number, signature)
        sets.append(own)
    assert several >= 5


def test_a_copy_is_found_and_a_third_one_too():
    near = NearTexts(0.8, shingles=shingles)
    for _ in range(3):
        near.add("a cat sat on the mat by the log")
    assert near.like("a cat sat on the mat by the log") == [(0, 1.0), (1, 1.0), (2, 1.0)]


@pytest.mark.parametrize("limit", [0.5, 0.8, 1.0])
def test_the_nearest_earlier_text_is_the_first_of_the_most_alike(limit: float):
    own = texts(120) + texts(40)[::3]
    near = NearTexts(limit, shingles=shingles)
    expected = []
    for text in own:
        like = near.like(text)
        expected.append(max(like, key=lambda found: found[1])[0] if like else -1)
        near.add(text)
    read: list[int] = []
    assert nearest_before(own, limit, shingles=shingles, on_text=read.append).tolist() == expected
    assert max(expected) >= 0 and read == [0, len(own)]
    assert nearest_before([], limit, shingles=shingles).tolist() == []

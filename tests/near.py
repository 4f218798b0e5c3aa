"""The share of shingles that two texts have in common, computed from the shingles themselves."""

from __future__ import annotations


def jaccard(one: frozenset[bytes], other: frozenset[bytes]) -> float:
    return len(one & other) / len(one | other)

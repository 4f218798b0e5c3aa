"""Type checks of values from JSON files of ours, which may have been edited or damaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LARGEST = 1e15
"""Of a number that is a score, a count or a number of seconds: its square and the sum of many are numbers still."""


def is_number(value: Any) -> bool:
    """Return whether a value is a number to compute with: finite, and not so large that nothing of ours is.

    >>> [is_number(value) for value in (0, 0.5, True, "1", float("nan"), float("inf"), 10**400)]
    [True, True, False, False, False, False, False]
    """
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST


def are_numbers(value: Any, *, depth: int = 1) -> bool:
    """Return whether a value is a mapping of numbers by name, or of such mappings, none of them without an entry.

    >>> are_numbers({"a": 1}), are_numbers({"a": {"b": 1}}, depth=2), are_numbers({"a": {}}, depth=2), are_numbers({})
    (True, True, False, False)
    """
    if not depth:
        return is_number(value)
    if not isinstance(value, Mapping) or not value:
        return False
    return all(are_numbers(inner, depth=depth - 1) for inner in value.values())


def are_texts(value: Any) -> bool:
    """Return whether a value is a list of texts.

    >>> are_texts(["a"]), are_texts("a"), are_texts([1])
    (True, False, False)
    """
    return isinstance(value, list) and all(isinstance(text, str) for text in value)

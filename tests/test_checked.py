"""What is annotated is checked while the tests run, whatever kind of function it stands above."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float32, TypeCheckError

from tests.checked import checked


@checked
def joined(first: int, /, second: str, *more: int, third: float = 1.0, **named: str) -> list[int]:
    return [first, *more] if third else [second]


@checked
def numbers(count: int) -> Iterator[int]:
    yield count


@checked
def product(left: Float32[np.ndarray, "Q D"], right: list[Float32[np.ndarray, "K D"]]) -> Float32[np.ndarray, "Q K"]:
    return left @ right[0].T if len(right) == 1 else left


@checked
@dataclass
class Query:
    text: str


@checked
@dataclass
class Count:
    text: int


@checked
def refused() -> NoReturn:
    raise KeyError


def adder(by: int) -> Callable[[int], int]:
    @checked
    def add(to: int) -> int:
        return to + by

    return add


def test_what_fits_its_annotations_passes():
    assert joined(1, "a", 2, third=0.5, more_of_it="b") == [1, 2]
    assert list(numbers(3)) == [3]
    assert product(np.ones((2, 3), np.float32), [np.ones((4, 3), np.float32)]).shape == (2, 4)
    assert (Query("a").text, Count(1).text) == ("a", 1)
    assert (adder(1)(1), adder(2)(1)) == (2, 3)
    with pytest.raises(KeyError, match=r"^$"):
        refused()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: joined("1", "a"), "first="),
        (lambda: joined(1, second=2), "second="),
        (lambda: joined(1, "a", "b"), "more="),
        (lambda: joined(1, "a", third="b"), "third="),
        (lambda: joined(1, "a", other=2), "named="),
        (lambda: joined(1, "a", third=0.0), r"\['a'\]"),
        (lambda: numbers("a"), "count="),
        (lambda: Query(1), "text=1"),
        (lambda: Count("a"), "text='a'"),
        (lambda: adder(0)("a"), "to='a'"),
        (lambda: adder(0.5)(1), "1.5"),
    ],
)
def test_a_value_of_another_type_is_refused(call: Callable[[], object], named: str):
    with pytest.raises(BeartypeCallHintViolation, match=named):
        call()


def test_the_length_of_an_axis_is_one_in_the_whole_call():
    two, three = (np.ones((2, size), np.float32) for size in (2, 3))
    with pytest.raises(TypeCheckError, match="right"):
        product(two, [three])
    with pytest.raises(TypeCheckError, match="return"):
        product(three, [three, three])


def test_an_operator_may_leave_the_answer_to_the_other_side():
    class Named:
        @checked
        def __eq__(self, other: object) -> bool:
            return True if isinstance(other, Named) else NotImplemented

    assert Named() == Named()
    assert Named() != "a name"
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'to'"):
        adder(1)()

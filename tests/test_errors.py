"""The tree of errors."""

from __future__ import annotations

import re

import pytest

from embedsmith import errors
from embedsmith.errors import EmbedsmithError, InputError, did_you_mean


def tree_of(kind: type[Exception], depth: int = 0) -> list[tuple[int, str]]:
    below = [
        line
        for child in kind.__subclasses__()
        if child.__module__ == errors.__name__
        for line in tree_of(child, depth + 1)
    ]
    return [(depth, kind.__name__), *below]


def test_the_docstring_draws_the_tree_as_it_is():
    drawn = [
        (match.start("name") // 4 - 1, match["name"])
        for line in (errors.__doc__ or "").splitlines()
        if (match := re.match(r"[ │├└─]{4,}(?P<name>\w+Error)", line))
    ]
    assert drawn == tree_of(EmbedsmithError)


def test_an_error_carries_its_remedy_beside_its_message():
    error = InputError("queries.jsonl:3: no text", hint="give every query a text")
    assert str(error) == "queries.jsonl:3: no text"
    assert error.hint == "give every query a text"


def test_an_error_is_one_line_whatever_it_quotes():
    error = InputError('a.csv:3: the id "a\nb\u2028\x1b[31m" is taken', hint="rename\r\n it")
    assert str(error) == 'a.csv:3: the id "a\\nb\\u2028\\x1b[31m" is taken'
    assert error.hint == "rename\\r\\n it"
    assert str(error.within("data nq")) == f"data nq: {error}"


def test_an_error_without_a_remedy_has_an_empty_hint():
    assert EmbedsmithError("broken").hint == ""


def test_every_error_is_caught_as_one():
    with pytest.raises(EmbedsmithError, match="no such file"):
        raise InputError("no such file")


def test_no_error_of_the_tree_passes_for_a_failure_of_the_machine():
    assert not any(issubclass(kind, OSError) for kind in EmbedsmithError.__subclasses__())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("margn", ' (did you mean "margin"?)'), ("zzz", ""), ("", ""), ("ratio", ' (did you mean "ratio"?)')],
)
def test_only_a_near_name_is_suggested(wrong, said):
    assert did_you_mean(wrong, ["ratio", "margin"]) == said


def test_names_to_suggest_may_come_from_an_iterator():
    assert did_you_mean("ratoi", iter(["margin", "ratio"])) == ' (did you mean "ratio"?)'

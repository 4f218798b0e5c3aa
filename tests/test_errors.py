"""The tree of errors."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import embedsmith
from embedsmith import errors
from embedsmith.errors import EmbedsmithError, InputError, did_you_mean

PACKAGE = Path(embedsmith.__file__).parent


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


def raised_without_a_remedy(source: str) -> list[str]:
    """Return the errors of the tree that a module raises without saying what to do."""
    kinds = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, EmbedsmithError)
    }
    kinds |= {"Unusable", "Misread"}
    found = []
    for node in ast.walk(ast.parse(source)):
        call = node.exc if isinstance(node, ast.Raise) else None
        if isinstance(call, ast.Call) and ast.unparse(call.func) in kinds:
            hints = [word.value for word in call.keywords if word.arg == "hint"]
            is_empty = hints and isinstance(hints[0], ast.Constant) and not str(hints[0].value).strip()
            found += [f"{node.lineno}: {ast.unparse(call)[:80]}"] if is_empty or not hints else []
    return found


def test_every_error_that_is_raised_says_what_to_do():
    found = {
        path.relative_to(PACKAGE).as_posix(): lines
        for path in sorted(PACKAGE.rglob("*.py"))
        if (lines := raised_without_a_remedy(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_an_error_without_a_remedy_is_seen():
    source = 'raise InputError("no text")\nraise RunError("x", hint="")\nraise ModelError("x", hint="look")\n'
    assert [line[0] for line in raised_without_a_remedy(source)] == ["1", "2"]

"""Texts that are short and take long: what is done for them grows as their length does, not as its square.

Times are compared with each other: work that grows with the square takes 64 times as long for a text that is eight
times as long, and work that grows with the length about eight times.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from embedsmith.data.bad_rows import refuse
from embedsmith.data.columns import ColumnSettings, is_pair, readable
from embedsmith.data.normalised import composed, normalised
from embedsmith.data.tables import open_table
from embedsmith.errors import EmbedsmithError, InputError, did_you_mean
from embedsmith.generation.answers import json_in, lines, said
from embedsmith.generation.passages import cut
from embedsmith.generation.templates import Template
from embedsmith.generation.verdicts import verdict_of
from embedsmith.prepare.first_sentence import first_sentence
from embedsmith.recipes.recipe import recipe_of
from embedsmith.services.chat import Answer
from embedsmith.settings import holds_password, without_passwords
from embedsmith.teachers.bm25 import BM25Settings, tokenize
from embedsmith.variables import Written, filled

TEXTS: dict[str, Callable[[int], str]] = {
    "one letter": lambda n: "a" * n,
    "one capital": lambda n: "A" * n,
    "one digit": lambda n: "1" * n,
    "braces": lambda n: "{" * n,
    "brackets": lambda n: "[" * n,
    "braces and quotes": lambda n: '{"' * (n // 2),
    "objects that do not end": lambda n: '{"a":[{},' * (n // 9),
    "holes": lambda n: "{{" * (n // 2),
    "holes with letters": lambda n: "{{a " * (n // 4),
    "abbreviations": lambda n: "e.g. " * (n // 5),
    "and so on": lambda n: "etc. a " * (n // 7),
    "signatures": lambda n: "get() -- " * (n // 9),
    "brackets that do not close": lambda n: "get(" * (n // 4),
    "marks above and below": lambda n: "a" + "\u0301\u0316" * (n // 2),
    "dots": lambda n: "." * n,
    "dots and quotes": lambda n: '."' * (n // 2),
    "blanks": lambda n: "query" + " " * n + "x",
    "lines": lambda n: "x" + "\n" * n + "x",
    "items": lambda n: "- " * (n // 2) + "x",
    "thoughts": lambda n: "<think>" * (n // 7),
    "URLs": lambda n: "http:" * (n // 5),
    "schemes": lambda n: "a." * (n // 2),
    "names of variables": lambda n: "${A}" * (n // 4),
    "words": lambda n: "this the " * (n // 9),
    "answers": lambda n: "yesno" * (n // 5),
}


def _recipe(text: str) -> Any:
    try:
        recipe = recipe_of({"data": {"nq": {"path": text}}}, where="")
        return filled(recipe), Written(recipe)(text)
    except EmbedsmithError as error:
        return error


@pytest.fixture(autouse=True)
def _variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variable that texts name."""
    monkeypatch.setenv("A", "a")


WORK: dict[str, Callable[[str], Any]] = {
    "an object in an answer": lambda text: json_in(text, dict),
    "an array in an answer": lambda text: json_in(text, list),
    "lines of an answer": lines,
    "an answer without thoughts": said,
    "a verdict": lambda text: verdict_of(Answer(text, False, 1, 1)),
    "parts of a passage": lambda text: cut(text, 1000),
    "a first sentence": lambda text: first_sentence(text, name="get"),
    "a normalised text": normalised,
    "words": lambda text: tokenize(text, BM25Settings()),
    "a prompt": lambda text: Template(text.replace("}}", "")).filled({}, None),  # type: ignore[arg-type]
    "a URL": holds_password,
    "a message": without_passwords,
    "a name": lambda text: did_you_mean(text, [text[1:], "b" * len(text)]),
    "a recipe": _recipe,
}


def seconds(work: Callable[[], Any], *, enough: float = 0.0) -> float:
    """Return the least of three times, or the first that is short enough."""
    found = []
    for _ in range(3):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
        if found[-1] < enough or found[-1] > 1:
            break
    return min(found)


def assert_growth(work: Callable[[int], Any], sizes: tuple[int, int], *, nothing: float) -> None:
    """Assert that eight times as much takes no more than 32 times as long, four times what it should."""
    short, long = sizes
    # What takes no time cannot be compared.
    after = seconds(lambda: work(long), enough=nothing)
    if after >= nothing:
        before = seconds(lambda: work(short))
        assert after < 32 * before, (before, after)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("work", WORK)
def test_the_work_for_a_text_grows_as_its_length_does(name: str, work: str):
    texts = {length: TEXTS[name](length) for length in (8_000, 64_000)}
    assert_growth(lambda length: WORK[work](texts[length]), (8_000, 64_000), nothing=0.1)


def test_the_time_for_a_file_s_columns_grows_as_they_do(tmp_path):
    def read(count: int) -> None:
        names = [f"negative_{number}" for number in range(count)]
        path = tmp_path / f"{count}.csv"
        path.write_text(",".join(["query", "positive", *names]) + "\n" + ",".join("x" * (count + 2)) + "\n")
        table = open_table(path)
        assert table.columns and is_pair(table.columns)
        wanted = readable(table.columns, ColumnSettings())
        assert len(wanted) == count + 2
        list(table.rows(refuse, wanted))

    assert_growth(read, (1_000, 8_000), nothing=0.2)


def test_a_name_that_no_column_of_many_has_is_told_at_once(tmp_path):
    started = time.process_time()
    assert did_you_mean("qurey", (f"column {number}" for number in range(100_000))) == ""
    assert did_you_mean("quory", ["query"] + ["x" * 200] * 10) == ' (did you mean "query"?)'
    assert time.process_time() - started < 5
    with pytest.raises(InputError, match="no such file"):
        open_table(tmp_path / ("a" * 200))


def test_letters_with_many_marks_are_the_same_text_in_any_order():
    few = "e\u0316\u0301" * 100 + "ｆｉ"
    assert composed(few) == composed("e\u0301\u0316" * 100 + "fi")
    for count in (29, 30, 31, 32, 100):
        text = "x" + "\u0301" * count + "é" + "—" * count
        assert composed(text) == composed(composed(text))
        assert len(composed(text)) == len(text)
    dots, wide = "." * 99, "．" * 99
    assert composed(wide) == dots


def test_what_an_answer_holds_is_found_behind_braces_that_are_none():
    assert json_in("{x} " * 500 + '{"a": 1}', dict) == {"a": 1}
    assert json_in("[x] " * 500 + "[1, 2]", list) == [1, 2]
    for value in ({}, {"a": 1}, {"": []}):
        assert json_in(f"so: {json.dumps(value, indent=2)} and {{", dict) == value
    for other in ([], [1], [-1], ["a"], [True], [None], [False], [[]], [{}]):
        assert json_in(f"so: {json.dumps(other, indent=2)} and [", list) == other

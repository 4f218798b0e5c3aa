"""Labelled data: rows of a text and its label, of two texts and how they relate, or of a query and its judged passages.

    texts      `text`, `sentence`, `sentences` or `title`, and `label_text`, `label`, `labels`, `intent` or `category`;
               both may be lists of the same length, as in MTEB's clustering sets
    pairs      `sentence1` and `sentence2`, `premise` and `hypothesis`, `question1` and `question2`, `text1` and
               `text2`, or `sent1` and `sent2`; with `score`, `label`, `similarity_score`, `is_duplicate` or
               `gold_label`
    judged     `query`, `positive` and `negative`: a text, and two lists of texts

Other names are the caller's to give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from embedsmith.data.bad_rows import BadRow, OnBad, Unusable, kind
from embedsmith.data.columns import one_column
from embedsmith.data.tables import Table
from embedsmith.settings import Settings

TEXT = ("text", "sentence", "sentences", "title")
LABEL = ("label_text", "label", "labels", "intent", "category")
FIRST = ("sentence1", "premise", "question1", "text1", "sent1")
SECOND = ("sentence2", "hypothesis", "question2", "text2", "sent2")
VALUE = ("score", "label", "similarity_score", "is_duplicate", "gold_label")
QUERY = ("query", "question", "anchor")
POSITIVE = ("positive", "positives", "pos")
NEGATIVE = ("negative", "negatives", "neg")

Row = TypeVar("Row")


class LabelledColumns(Settings):
    """Names of the columns of labelled data, where they are not the conventional ones."""

    text: str | None = None
    """Column of the labelled text; by default `text`, `sentence`, `sentences` or `title`."""
    label: str | None = None
    """Column of the label; by default `label_text`, `label`, `labels`, `intent` or `category`."""
    first: str | None = None
    """Column of the first text of a pair; by default `sentence1`, `premise`, `question1`, `text1` or `sent1`."""
    second: str | None = None
    """Column of the second text of a pair; by default `sentence2`, `hypothesis`, `question2`, `text2` or `sent2`."""
    value: str | None = None
    """Column of how a pair relates; by default `score`, `label`, `similarity_score`, `is_duplicate` or `gold_label`."""
    query: str | None = None
    """Column of the query of a reranking set; by default `query`, `question` or `anchor`."""
    positive: str | None = None
    """Column of its relevant passages; by default `positive`, `positives` or `pos`."""
    negative: str | None = None
    """Column of its irrelevant passages; by default `negative`, `negatives` or `neg`."""


class LabelledText(NamedTuple):
    """A text of a class."""

    place: str
    """Its table and row, as ids are made of it: train:17."""
    text: str
    label: str


class TextPair(NamedTuple):
    """Two texts, and how they relate."""

    place: str
    first: str
    second: str
    value: str | float
    """A score, or the name of a relation."""


class JudgedQuery(NamedTuple):
    """A query, and passages that are relevant or not."""

    place: str
    query: str
    positives: list[str]
    negatives: list[str]


def labelled_texts(table: Table, columns: LabelledColumns, on_bad: OnBad) -> Iterator[LabelledText]:
    """Yield the labelled texts of a table; those that cannot be used go to `on_bad`."""

    def parse(row: dict[str, Any], place: str) -> Iterator[LabelledText]:
        text, label = row[_column("text", TEXT, row, columns)], row[_label(row, columns)]
        if isinstance(text, list) and isinstance(label, list) and len(text) == len(label):
            for number, (one, its) in enumerate(zip(text, label, strict=True), start=1):
                yield LabelledText(f"{place}.{number}", _text(one, "the text"), _name(its))
            return
        yield LabelledText(place, _text(text, "the text"), _name(label))

    return _parsed(table, parse, on_bad)


def text_pairs(table: Table, columns: LabelledColumns, on_bad: OnBad, *, scores: bool) -> Iterator[TextPair]:
    """Yield the pairs of a table, with a number where `scores` are wanted and else with a name."""

    def parse(row: dict[str, Any], place: str) -> Iterator[TextPair]:
        first, second = (
            _text(row[_column(role, known, row, columns)], f"the {role} text")
            for role, known in (("first", FIRST), ("second", SECOND))
        )
        value = row[_column("value", VALUE, row, columns)]
        yield TextPair(place, first, second, _score(value) if scores else _name(value))

    return _parsed(table, parse, on_bad)


def judged_queries(table: Table, columns: LabelledColumns, on_bad: OnBad) -> Iterator[JudgedQuery]:
    """Yield the judged queries of a table."""

    def parse(row: dict[str, Any], place: str) -> Iterator[JudgedQuery]:
        query = _text(row[_column("query", QUERY, row, columns)], "the query")
        positives = _texts(row[_column("positive", POSITIVE, row, columns)], "a positive")
        negatives = _texts(row[_column("negative", NEGATIVE, row, columns)], "a negative")
        yield JudgedQuery(place, query, positives, negatives)

    return _parsed(table, parse, on_bad)


def _parsed(table: Table, parse: Callable[[dict[str, Any], str], Iterator[Row]], on_bad: OnBad) -> Iterator[Row]:
    """Yield what rows hold, and hand those that hold nothing of use to `on_bad`."""
    for number, row in table.rows(on_bad):
        try:
            found = list(
                parse({key: value for key, value in row.items() if value is not None}, f"{table.stem}:{number}")
            )
        except Unusable as flaw:
            on_bad(BadRow(table.place(number), flaw))
            continue
        yield from found


def _column(role: str, conventional: Sequence[str], row: dict[str, Any], columns: LabelledColumns) -> str:
    return one_column(role, conventional, list(row), columns)


def _label(row: dict[str, Any], columns: LabelledColumns) -> str:
    """Return the column of the label: its text rather than its number where there are both."""
    if columns.label is None and "label_text" in row:
        return "label_text"
    return _column("label", LABEL, row, columns)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise Unusable(
            f"{what} is {kind(value)}, wanted a string", reason=f"{what} is not a string", hint="every row needs texts"
        )
    if not value or value.isspace():
        raise Unusable(f"{what} is empty", reason="empty text", hint="remove the row")
    return value


def _texts(value: Any, what: str) -> list[str]:
    if not isinstance(value, list | str):
        raise Unusable(
            f"{what} is {kind(value)}, wanted a list of strings",
            reason=f"{what} is not a string",
            hint='write ["...", "..."]',
        )
    return [_text(one, what) for one in ([value] if isinstance(value, str) else value)]


def _name(value: Any) -> str:
    """Return the name of a label.

    >>> _name("card_arrival"), _name(3), _name(1.0), _name(True)
    ('card_arrival', '3', '1', '1')
    """
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int | float) and value == int(value):
        return str(int(value))
    what = "an empty text" if isinstance(value, str) else kind(value)
    raise Unusable(
        f"the label is {what}, wanted a name or a whole number", reason="no label", hint="give every row one label"
    )


def _score(value: Any) -> float:
    """Return a score that may be written as a text, as CSV has it."""
    try:
        if isinstance(value, bool) or not -1e9 < float(value) < 1e9:
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise Unusable(
            f"the score is {value!r}, wanted a number", reason="no score", hint="give every pair a score"
        ) from None

"""Labelled data: rows of a text and its label, of two texts and how they relate, or of a query and its judged passages.

    texts      `text`, `sentence`, `sentences` or `title`, and `label_text`, `label`, `labels`, `intent` or `category`;
               both may be lists of the same length, as in MTEB's clustering sets
    pairs      `sentence1` and `sentence2`, `premise` and `hypothesis`, `question1` and `question2`, `text1` and
               `text2`, or `sent1` and `sent2`; with `score`, `label`, `similarity_score`, `is_duplicate` or
               `gold_label`: of two of these the one that is named for what the task asks, a score or a label
    judged     `query`, `positive` and `negative`: a text, and two lists of texts

Other names are the caller's to give. Conversion and scoring both read by this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from embedsmith.data.bad_rows import BadRow, Misread, OnBad, Tally, Unusable, kind
from embedsmith.data.columns import one_column
from embedsmith.data.labels import is_listed, label_of, score_of
from embedsmith.data.pair_labels import LabelRows, Meaning, counted, in_words, meanings_of, read_labels
from embedsmith.data.tables import Table
from embedsmith.errors import InputError
from embedsmith.settings import Settings

TEXT = ("text", "sentence", "sentences", "title")
LABEL = ("label_text", "label", "labels", "intent", "category")
FIRST = ("sentence1", "premise", "question1", "text1", "sent1")
SECOND = ("sentence2", "hypothesis", "question2", "text2", "sent2")
_SCORES, _LABELS = ("score", "similarity_score"), ("label", "is_duplicate", "gold_label")
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
    """A score, or the name of a label."""


class Meanings(NamedTuple):
    """The labels of pairs, and what each means."""

    found: dict[str, LabelRows]
    meanings: dict[str, Meaning]

    def __str__(self) -> str:
        """Return them in a line."""
        return in_words(self.found, self.meanings)

    def plain(self) -> dict[str, dict[str, Any]]:
        """Return what each label means, and how many rows have it, as JSON takes it."""
        return {
            label: {"means": meaning.word, "rows": self.found[label].rows} for label, meaning in self.meanings.items()
        }


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
                yield LabelledText(f"{place}.{number}", _text(one, "the text"), label_of(its))
            return
        if isinstance(text, str) and not table.has_lists and is_listed(text):
            raise _in_a_text("the text", text, table)
        yield LabelledText(place, _text(text, "the text"), label_of(label))

    return (item for _, item in _parsed(table, parse, on_bad))


def text_pairs(table: Table, columns: LabelledColumns, on_bad: OnBad, *, scores: bool) -> Iterator[TextPair]:
    """Yield the pairs of a table, with a number where `scores` are wanted and else with the name of a label."""
    return (pair for _, pair in _pairs(table, columns, on_bad, scores=scores))


def pair_meanings(
    tables: Sequence[Table],
    columns: LabelledColumns,
    *,
    is_nli: bool = False,
    labels: str | None = None,
    positive: Sequence[str] = (),
) -> Meanings:
    """Return what the labels of pairs mean, for which every row is looked at.

    Args:
        tables: where they stand.
        columns: names of columns that are not the conventional ones.
        is_nli: whether the pairs are premises and hypotheses, though their columns may not be called so.
        labels: what the labels mean, as `read_labels` takes it.
        positive: labels of texts that belong together, where every other says that they do not.

    Raises:
        InputError: a label has no meaning, or could have several; or is a score.
    """
    is_nli = is_nli or any(_is_nli(table, columns) for table in tables)
    # Rows that cannot be used are reported when their contents are read.
    found = counted(
        (place, str(pair.value)) for t in tables for place, pair in _pairs(t, columns, Tally(), scores=False)
    )
    given = read_labels(labels) if labels is not None else None
    names = {_class_names(table, columns) for table in tables}
    if len(names) > 1 and given is None and not positive:
        raise InputError(
            f"{tables[0].name}: the numbers of its labels stand for other words than in {tables[-1].name}",
            hint="say what each label means with --labels",
        )
    return Meanings(found, meanings_of(found, is_nli=is_nli, given=given, positive=positive, names=names.pop()))


def judged_queries(table: Table, columns: LabelledColumns, on_bad: OnBad) -> Iterator[JudgedQuery]:
    """Yield the judged queries of a table."""

    def parse(row: dict[str, Any], place: str) -> Iterator[JudgedQuery]:
        query = _text(row[_column("query", QUERY, row, columns)], "the query")
        positives = _texts(row[_column("positive", POSITIVE, row, columns)], "a positive", table)
        negatives = _texts(row[_column("negative", NEGATIVE, row, columns)], "a negative", table)
        yield JudgedQuery(place, query, positives, negatives)

    return (item for _, item in _parsed(table, parse, on_bad))


def has_pairs(row: Mapping[str, Any], columns: LabelledColumns) -> bool:
    """Return whether a row holds two texts and how they relate."""
    roles = (("first", FIRST), ("second", SECOND), ("value", VALUE))
    return all(_has(role, known, row, columns) for role, known in roles)


def has_score(row: Mapping[str, Any], columns: LabelledColumns) -> bool:
    """Return whether the column of a pair's relation is named for a score."""
    named = columns.value
    return named in _SCORES if named else any(name in row for name in _SCORES)


def has_label(row: Mapping[str, Any], columns: LabelledColumns) -> bool:
    """Return whether a row holds a text and its label."""
    return _has("text", TEXT, row, columns) and _has("label", LABEL, row, columns)


def has_candidates(row: Mapping[str, Any], columns: LabelledColumns) -> bool:
    """Return whether a row holds a query and two lists: what is called `pos` and `neg` is for training."""
    sides = (columns.positive or "positive", columns.negative or "negative")
    return _has("query", QUERY, row, columns) and all(isinstance(row.get(side), list) for side in sides)


def _has(role: str, conventional: Sequence[str], row: Mapping[str, Any], columns: LabelledColumns) -> bool:
    named = getattr(columns, role)
    return named in row if named else any(name in row for name in conventional)


def _is_nli(table: Table, columns: LabelledColumns) -> bool:
    """Return whether the columns of a table are those of premises and hypotheses."""
    row = next((row for _, row in table.rows(lambda row: None)), {})
    return (columns.first or "premise") == "premise" and "premise" in row and "hypothesis" in row


def _class_names(table: Table, columns: LabelledColumns) -> tuple[str, ...]:
    """Return what the numbers of the column of labels stand for, as the file itself says."""
    known = [columns.value] if columns.value else [*_LABELS, *VALUE]
    column = next((name for name in known if name in (table.columns or ())), "")
    return table.class_names.get(column, ())


def _pairs(table: Table, columns: LabelledColumns, on_bad: OnBad, *, scores: bool) -> Iterator[tuple[str, TextPair]]:
    """Yield the pairs of a table, each with its place."""

    def parse(row: dict[str, Any], place: str) -> Iterator[TextPair]:
        first, second = (
            _text(row[_column(role, known, row, columns)], f"the {role} text")
            for role, known in (("first", FIRST), ("second", SECOND))
        )
        preferred = [name for name in (_SCORES if scores else _LABELS) if name in row]
        value = row[_column("value", preferred or VALUE, row, columns)]
        yield TextPair(place, first, second, score_of(value) if scores else label_of(value))

    return _parsed(table, parse, on_bad)


def _parsed(
    table: Table, parse: Callable[[dict[str, Any], str], Iterator[Row]], on_bad: OnBad
) -> Iterator[tuple[str, Row]]:
    """Yield what rows hold, each with its place, and hand those that hold nothing of use to `on_bad`."""
    for number, row in table.rows(on_bad):
        try:
            found = list(
                parse({key: value for key, value in row.items() if value is not None}, f"{table.stem}:{number}")
            )
        except Unusable as flaw:
            on_bad(BadRow(table.place(number), flaw))
            continue
        for item in found:
            yield table.place(number), item


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


def _texts(value: Any, what: str, table: Table) -> list[str]:
    if not isinstance(value, list | str):
        raise Unusable(
            f"{what} is {kind(value)}, wanted a list of strings",
            reason=f"{what} is not a string",
            hint='write ["...", "..."]',
        )
    if isinstance(value, str) and is_listed(value):
        raise _in_a_text(what, value, table)
    return [_text(one, what) for one in ([value] if isinstance(value, str) else value)]


def _in_a_text(what: str, text: str, table: Table) -> Misread:
    return Misread(
        f"{what} holds a list or an object: {text.strip()[:40]}",
        reason="a list in a text",
        hint="write a list of texts" if table.has_lists else "CSV holds no lists: write JSON lines or Parquet",
    )

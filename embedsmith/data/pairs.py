"""Pairs: a table where each row holds a query and its positives; `columns.py` says under which names.

The corpus is every text on the side of the passages, and that of an extra corpus. Negatives that a row brings along
join it, so that they can be mined; they are no judgements, and the collection remembers whose they are. A column that
says how relevant a passage is, such as `label` or `score`, makes it a positive or a negative. Other columns are
ignored, and a null counts as no column.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from embedsmith.data.assemble import Judged, assembled, distinct
from embedsmith.data.bad_rows import BadRow, Misread, OnBad, Unusable, id_of, kind
from embedsmith.data.collection import Collection
from embedsmith.data.columns import (
    ONLY_LISTS,
    ColumnSettings,
    Layout,
    is_relevance,
    layout_of,
    missing,
    quoted,
    readable,
    relevance_column,
)
from embedsmith.data.corpus import read_corpus
from embedsmith.data.grades import grade_of
from embedsmith.data.labels import is_listed
from embedsmith.data.normalised import normalised
from embedsmith.data.pool import DROPPED, Pool, Pooled
from embedsmith.data.tables import Table
from embedsmith.errors import InputError


def read_pairs(
    tables: Sequence[Table],
    columns: ColumnSettings,
    on_bad: OnBad,
    *,
    corpus: Table | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Collection:
    """Return the collection of tables of pairs, such as the splits of one data set.

    Where there is no column of ids, ids are `q0`, `q1`... and `p0`, `p1`... in the order of the rows. Queries without
    ids that are the same text after `normalised` are one query with the positives of all of them. Passages are one only
    if they are equal to the character: `ls -a` and `ls -A` are two commands. A passage without an id that is equal to
    one of the extra corpus is that one.

    Args:
        tables: where they stand.
        columns: names of columns that are not the conventional ones.
        on_bad: called with each row that cannot be used.
        corpus: passages that join.
        on_note: called with what a column of relevance was taken for.

    Raises:
        InputError: the table is empty, a column is missing, or a row cannot be used; names file and line.
    """
    queries, passages = Pool("q", normalised), Pool("p")
    asked, answered, grades, numbers = array("q"), array("q"), array("q"), array("q")
    starts: list[int] = []
    says = [_Relevance(columns, table) for table in tables]
    for table, relevance in zip(tables, says, strict=True):
        queries.begin(table, unique=False)
        passages.begin(table, unique=False)
        starts.append(len(asked))
        for number, (query, query_id, judged) in _rows(table, columns, relevance, on_bad):
            at = queries.add(query, query_id, number)
            for text, passage_id, grade in judged:
                asked.append(at)
                answered.append(passages.add(text, passage_id, number))
                grades.append(grade)
                numbers.append(number)
    if corpus is not None:
        read_corpus(corpus, passages, on_bad, needs_ids=False)
    pooled_queries, pooled_passages = queries.pooled(on_bad), passages.pooled(on_bad)
    pairs = Judged(
        pooled_queries.rows[np.array(asked, np.int64)],
        pooled_passages.rows[np.array(answered, np.int64)],
        np.array(grades, np.int64),
    )
    if any(relevance.column for relevance in says):
        contradicting = distinct(pairs)[1]
        for at in contradicting.tolist():
            table = tables[bisect_right(starts, at) - 1]
            on_bad(BadRow(table.place(numbers[at]), _CONTRADICTION))
        pairs = pairs.only(np.delete(np.arange(len(pairs)), contradicting))
    is_positive = pairs.grades > 0
    collection = assembled(
        tables[0].stem, pooled_passages, pooled_queries, pairs.only(is_positive), pairs.only(~is_positive)
    )
    if collection is None:
        what = "no row says that a passage is relevant" if len(pairs) else "no row can be used"
        raise InputError(f"{tables[0].name}: no pairs, {what}", hint='write {"query": "...", "positive": "..."} a line')
    if on_note:
        for table, relevance in zip(tables, says, strict=True):
            if relevance.column:
                on_note(f"{table.name}: {relevance}")
        for note in _notes(pairs, pooled_queries, collection):
            on_note(f"{tables[0].name}: {note}")
        if left_out := len(pooled_queries.ids) - len(collection.queries):
            on_note(f"{tables[0].name}: {left_out:,} queries without a relevant passage are left out")
    return collection


def _notes(pairs: Judged, queries: Pooled, collection: Collection) -> Iterator[str]:
    """Yield what became of rows that are no longer there as they stood in the file."""
    if queries.spellings:
        yield (
            _counted(queries.spellings, "query is", "queries are")
            + " one with an earlier query that differs in case, width or white space only, the first: "
            + queries.first_spelling
        )
    usable = pairs.only((pairs.queries != DROPPED) & (pairs.passages != DROPPED))
    keys = usable.queries * len(collection.passages) + usable.passages
    is_positive = usable.grades > 0
    both = np.intersect1d(keys[is_positive], keys[~is_positive])
    if len(both):
        yield _counted(len(both), "negative is", "negatives are") + " left out as a positive of the same query"
    if repeated := len(keys) - len(both) - len(np.unique(keys)):
        yield _counted(repeated, "pair stands", "pairs stand") + " there again: what is equal counts once"


def _counted(count: int, one: str, many: str) -> str:
    """Return a number with its word.

    >>> _counted(1, "row is", "rows are"), _counted(1200, "row is", "rows are")
    ('1 row is', '1,200 rows are')
    """
    return f"{count:,} {one if count == 1 else many}"


class _Relevance:
    """What the column of relevance of a table says, and how often."""

    def __init__(self, settings: ColumnSettings, table: Table | None = None) -> None:
        self.column: str | None = None
        self._settings = settings
        self._class_names = table.class_names if table else {}
        self._rows = 0
        self._may_have: dict[tuple[str, ...], bool] = {}
        self._counts = {True: 0, False: 0}

    def __str__(self) -> str:
        """Return it as it is shown."""
        limit = self._settings.relevant_from
        below, above = ("0", "above 0") if limit is None else (f"below {limit:g}", f"from {limit:g} on")
        return (
            f'"{self.column}" {above} = positive: {self._counts[True]:,}; '
            f"{below} = negative of the query: {self._counts[False]:,}"
        )

    def of(self, row: dict[str, Any], count: int) -> list[int]:
        """Return the grade of each positive of a row, 1 where no column says it.

        Raises:
            Unusable: a grade is missing, or none.
        """
        column = self._column(row)
        if column is None:
            return [1] * count
        values = row[column] if isinstance(row[column], list) else [row[column]] * count
        if len(values) != count:
            raise Unusable(
                f'"{column}" has {len(values)} values for {count} positives',
                reason="wrong number of grades",
                hint="give every positive a grade",
            )
        if names := self._class_names.get(column):
            values = [names[value] if value in range(len(names)) else value for value in values]
        grades = [grade_of(value, column, self._settings.relevant_from) for value in values]
        for grade in grades:
            self._counts[grade > 0] += 1
        return grades

    def _column(self, row: dict[str, Any]) -> str | None:
        """Return the column of a row, the same in every row."""
        names = tuple(row)
        if names not in self._may_have:
            self._may_have[names] = self._settings.relevance is not None or any(map(is_relevance, names))
        column = relevance_column(row, self._settings) if self._may_have[names] else None
        if self._rows == 0:
            self.column = column
        self._rows += 1
        if column != self.column:
            raise Misread(
                f"{_what(column)} here, {_what(self.column)} in the rows before",
                reason="a relevance in some rows",
                hint="give every row the same column, or ignore it: --relevance-column none",
            )
        return column


def _what(column: str | None) -> str:
    return f'"{column}" says how relevant the passage is' if column else "nothing says how relevant the passage is"


_CONTRADICTION = Unusable(
    "another row gives the same query and passage another relevance",
    reason="contradicting relevance",
    hint="keep one of the two rows",
)
_Judged = list[tuple[str, str | None, int]]
"""Passages of a query: text, id, grade."""
_Row = tuple[str, str | None, _Judged]
_OF_EXAMPLES = "; examples as `mine` writes them are for `train`, and in a recipe `format: examples`"


def _rows(table: Table, columns: ColumnSettings, relevance: _Relevance, on_bad: OnBad) -> Iterator[tuple[int, _Row]]:
    """Yield (number, (query, its id, its passages)) of each row that can be used."""
    wanted = _checked_columns(table, columns)
    layouts: dict[tuple[str, ...], Layout | Unusable] = {}
    for number, row in table.rows(on_bad, wanted):
        names = tuple(key for key, value in row.items() if value is not None)
        if names not in layouts:
            layouts[names] = _layout_or_flaw(names, columns)
        try:
            yield number, _parse_row(row, layouts[names], relevance, has_lists=table.has_lists)
        except Unusable as flaw:
            on_bad(BadRow(table.place(number), _with_nulls(flaw, row)))
    absent = missing(dict.fromkeys(name for names in layouts for name in names), columns)
    if layouts and wanted is None and absent is not None:
        raise InputError(f"{table.name}: {absent}", hint=absent.hint)


def _with_nulls(flaw: Unusable, row: dict[str, Any]) -> Unusable:
    """Return what is wrong with a row, with the columns that it has and that hold nothing, where something is missing.

    >>> str(_with_nulls(Unusable('no query; the row has "positive"', reason="no query", hint=""), {"query": None}))
    'no query; the row has "positive", and nothing under "query"'
    """
    nulls = [name for name, value in row.items() if value is None]
    if not nulls or not flaw.reason.startswith("no "):
        return flaw
    return type(flaw)(f"{flaw}, and nothing under {quoted(nulls)}", reason=flaw.reason, hint=flaw.hint)


def _layout_or_flaw(names: tuple[str, ...], columns: ColumnSettings) -> Layout | Unusable:
    try:
        return layout_of(names, columns)
    except Unusable as flaw:
        return flaw


def _checked_columns(table: Table, columns: ColumnSettings) -> list[str] | None:
    """Return the columns to read of a table that has the same in every row."""
    if table.columns is None:
        return None
    flaw = missing(table.columns, columns)
    if flaw is None:
        try:
            wanted = readable(table.columns, columns)
            layout_of(table.columns, columns)
        except Unusable as error:
            # One of two columns may be null in each row.
            flaw = None if error.reason.startswith("several") else error
    if flaw is not None:
        raise InputError(f"{table.name}: {flaw}", hint=flaw.hint)
    return wanted


def _parse_row(
    row: dict[str, Any], layout: Layout | Unusable, relevance: _Relevance, *, has_lists: bool = True
) -> _Row:
    """Return the query, its id, and its passages with their grades of a row.

    >>> row = {"q": "cat?", "pos": ["a cat"], "neg": ["a dog"]}
    >>> _parse_row(row, Layout("q", "pos", ("neg",), None, None), _Relevance(ColumnSettings()))
    ('cat?', None, [('a cat', None, 1), ('a dog', None, 0)])
    """
    if isinstance(layout, Unusable):
        raise layout.with_traceback(None)  # it would grow with every row
    query = row[layout.query]
    if not isinstance(query, str):
        raise Unusable(
            f'"{layout.query}" is {kind(query)}, wanted a string',
            reason="the query is not a string",
            hint="every row needs one query with a text",
        )
    if not query or query.isspace():
        raise Unusable(f'"{layout.query}" is empty', reason="empty text", hint="every row needs one query with a text")
    positives = _texts(row, layout.positive, has_lists)
    if not positives:
        raise Unusable(
            f'"{layout.positive}" is an empty list',
            reason="no positive",
            hint="every query needs a positive; remove the row",
        )
    negatives = [text for key in layout.negatives if row.get(key) is not None for text in _texts(row, key, has_lists)]
    query_id = None if layout.query_id is None else _checked_id(row[layout.query_id], layout.query_id)
    ids, grades = _positive_ids(row, layout, len(positives)), relevance.of(row, len(positives))
    judged = list(zip(positives, ids, grades, strict=True))
    return query, query_id, judged + [(text, None, 0) for text in negatives]


def _positive_ids(row: dict[str, Any], layout: Layout, count: int) -> list[str | None]:
    """Return an id, or None, for each positive."""
    if layout.positive_id is None:
        return [None] * count
    values = row[layout.positive_id]
    values = values if isinstance(values, list) else [values]
    if len(values) != count:
        raise Unusable(
            f'"{layout.positive_id}" has {len(values)} ids for {count} positives',
            reason="wrong number of ids",
            hint="give every positive an id",
        )
    return [_checked_id(value, layout.positive_id) for value in values]


def _checked_id(value: Any, key: str) -> str:
    found = id_of(value)
    if found is None:
        raise Unusable(f'"{key}" is {value!r}, wanted an id', reason="no id", hint="write a string or a whole number")
    return found


def _texts(row: dict[str, Any], key: str, has_lists: bool) -> list[str]:
    """Return the texts under a key: a string stands for a list of one where the key is not a plural."""
    value = row[key]
    if isinstance(value, str) and is_listed(value):
        raise Misread(
            f'"{key}" is a text that holds a list or an object: {value.strip()[:40]}',
            reason=f'"{key}" is a list in a text',
            hint=f'write a list, "{key}": ["..."]; a passage that is meant so stands in one too'
            if has_lists
            else "CSV holds no lists: write JSON lines or Parquet, or a row for each passage",
        )
    if isinstance(value, str) and not (has_lists and key in ONLY_LISTS):
        value = [value]
    if not isinstance(value, list):
        # A string in place of a list would otherwise become a list of characters.
        wanted = "a list of strings" if key in ONLY_LISTS else "a string or a list of strings"
        raise Unusable(
            f'"{key}" is {kind(value)}, wanted {wanted}',
            reason=f'"{key}" is not {wanted}',
            hint=f'write "{key}": ["..."]',
        )
    for text in value:
        if not isinstance(text, str):
            raise Unusable(
                f'"{key}" holds {kind(text)}, wanted strings',
                reason=f'"{key}" holds no strings',
                hint=f'write "{key}": ["..."]' + (_OF_EXAMPLES if isinstance(text, dict) else ""),
            )
        if not text or text.isspace():
            raise Unusable(f'"{key}" holds an empty text', reason="empty text", hint="remove it")
    return value

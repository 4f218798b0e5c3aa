"""Pairs: a table where each row holds a query and its positives; `columns.py` says under which names.

The corpus is every text on the side of the passages, and that of an extra corpus. Negatives that a row brings along
join it, so that they can be mined; they are no judgements, and the collection remembers whose they are. Other columns
are ignored, and a null counts as no column.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from embedsmith.data.assemble import Judged, assembled
from embedsmith.data.bad_rows import BadRow, OnBad, Unusable, id_of, kind
from embedsmith.data.collection import Collection
from embedsmith.data.columns import ONLY_LISTS, ColumnSettings, Layout, layout_of, missing, readable
from embedsmith.data.corpus import read_corpus
from embedsmith.data.normalised import normalised
from embedsmith.data.pool import Pool
from embedsmith.data.tables import Table
from embedsmith.errors import InputError


def read_pairs(
    tables: Sequence[Table], columns: ColumnSettings, on_bad: OnBad, *, corpus: Table | None = None
) -> Collection:
    """Return the collection of tables of pairs, such as the splits of one data set.

    Where there is no column of ids, ids are `q0`, `q1`... and `p0`, `p1`... in the order of the rows. Queries without
    ids that are the same text after `normalised` are one query with the positives of all of them. Passages are one only
    if they are equal to the character: `ls -a` and `ls -A` are two commands. A passage without an id that is equal to
    one of the extra corpus is that one.

    Raises:
        InputError: the table is empty, a column is missing, or a row cannot be used; names file and line.
    """
    queries, passages = Pool("q", normalised), Pool("p")
    asked, answered, grades = array("q"), array("q"), array("q")
    for table in tables:
        queries.begin(table, unique=False)
        passages.begin(table, unique=False)
        for number, (query, query_id, positives, negatives) in _rows(table, columns, on_bad):
            at = queries.add(query, query_id, number)
            for grade, texts in ((1, positives), (0, negatives)):
                for text, passage_id in texts:
                    asked.append(at)
                    answered.append(passages.add(text, passage_id, number))
                    grades.append(grade)
    if corpus is not None:
        read_corpus(corpus, passages, on_bad, needs_ids=False)
    pooled_queries, pooled_passages = queries.pooled(on_bad), passages.pooled(on_bad)
    pairs = Judged(
        pooled_queries.rows[np.array(asked, np.int64)],
        pooled_passages.rows[np.array(answered, np.int64)],
        np.array(grades, np.int64),
    )
    is_positive = pairs.grades > 0
    collection = assembled(
        tables[0].stem, pooled_passages, pooled_queries, pairs.only(is_positive), pairs.only(~is_positive)
    )
    if collection is None:
        raise InputError(
            f"{tables[0].name}: no pairs, no row can be used", hint='write {"query": "...", "positive": "..."} a line'
        )
    return collection


_Passages = list[tuple[str, str | None]]
_Row = tuple[str, str | None, _Passages, _Passages]
_OF_EXAMPLES = "; examples as `mine` writes them are for `train`, and in a recipe `format: examples`"


def _rows(table: Table, columns: ColumnSettings, on_bad: OnBad) -> Iterator[tuple[int, _Row]]:
    """Yield (number, (query, its id, positives, negatives)) of each row that can be used."""
    wanted = _checked_columns(table, columns)
    layouts: dict[tuple[str, ...], Layout | Unusable] = {}
    for number, row in table.rows(on_bad, wanted):
        row = {key: value for key, value in row.items() if value is not None}
        names = tuple(row)
        if names not in layouts:
            layouts[names] = _layout_or_flaw(names, columns)
        try:
            yield number, _parse_row(row, layouts[names], has_lists=table.has_lists)
        except Unusable as flaw:
            on_bad(BadRow(table.place(number), flaw))
    absent = missing(dict.fromkeys(name for names in layouts for name in names), columns)
    if layouts and wanted is None and absent is not None:
        raise InputError(f"{table.name}: {absent}", hint=absent.hint)


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


def _parse_row(row: dict[str, Any], layout: Layout | Unusable, *, has_lists: bool = True) -> _Row:
    """Return the query, its id, the positives and the negatives of a row.

    >>> _parse_row({"q": "cat?", "pos": ["a cat"], "neg": []}, Layout("q", "pos", ("neg",), None, None))
    ('cat?', None, [('a cat', None)], [])
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
    negatives: _Passages = [
        (text, None) for key in layout.negatives if key in row for text in _texts(row, key, has_lists)
    ]
    query_id = None if layout.query_id is None else _checked_id(row[layout.query_id], layout.query_id)
    return query, query_id, list(zip(positives, _positive_ids(row, layout, len(positives)), strict=True)), negatives


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

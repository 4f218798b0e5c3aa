"""A corpus: rows of id, title, text and metadata, put into a pool of passages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from embedsmith.data.bad_rows import BadRow, OnBad, Tally, Unusable, id_of, kind, refuse
from embedsmith.data.collection import join_title
from embedsmith.data.columns import has_query, quoted
from embedsmith.data.pool import Pool, Pooled
from embedsmith.data.tables import SUFFIXES, Table, check_exists, open_table
from embedsmith.errors import InputError, did_you_mean

IDS = ("_id", "id", "docid", "doc_id", "passage_id", "corpus_id")
TEXTS = ("text", "passage", "document", "contents", "content")


def load_corpus(path: Path, *, skip_bad: bool = False, on_skip: Callable[[str], None] | None = None) -> Pooled:
    """Return the passages of a file, or of a BEIR folder.

    Args:
        path: JSON lines, CSV or Parquet with the columns that `read_corpus` knows, or a folder with a `corpus.jsonl`.
        skip_bad: leave out what cannot be used.
        on_skip: called with the number of rows left out for each reason.

    Raises:
        InputError: there is no such path, it is none of these, or a row is bad.
    """
    check_exists(path)
    file = path / "corpus.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{path}: a folder without corpus.jsonl", hint="name a file of passages, or a BEIR folder")
    tally, pool = Tally(), Pool("p")
    try:
        read_corpus(open_table(file), pool, tally if skip_bad else refuse, needs_ids=False)
        pooled = pool.pooled(tally if skip_bad else refuse)
    finally:
        for line in tally.lines() if on_skip else []:
            on_skip(line)  # type: ignore[misc]
    if not len(pooled.ids):
        raise InputError(f"{path}: no passages", hint='each line holds {"_id": "…", "text": "…"}')
    return pooled


def is_corpus(path: Path) -> bool:
    """Return whether there are passages at a path, and no queries: a folder without them, or rows with a text only."""
    if path.is_dir():
        return (path / "corpus.jsonl").is_file() and not (path / "queries.jsonl").exists()
    if path.suffix not in SUFFIXES or not path.is_file():
        return False
    table = open_table(path)
    names = set(table.columns if table.columns is not None else next((row for _, row in table.rows(refuse)), {}))
    return not has_query(names) and not set(TEXTS).isdisjoint(names)


def read_corpus(table: Table, pool: Pool, on_bad: OnBad, *, needs_ids: bool) -> None:
    """Add the passages of a table to a pool.

    The columns are an id (`IDS`), a `text` (`TEXTS`), optionally a `title` and, in JSON lines, a `metadata` object.

    Args:
        table: the rows.
        pool: takes the passages.
        on_bad: called with each row that cannot be used.
        needs_ids: refuse a row without an id.

    Raises:
        InputError: a table with columns has none for the text.
    """
    if table.columns is not None:
        _check_columns(table, needs_ids)
    columns = None if table.columns is None else [c for c in table.columns if c in (*IDS, *TEXTS, "title")]
    pool.begin(table, unique=True)
    for number, row in table.rows(on_bad, columns):
        try:
            passage_id, text, metadata = _passage(row, needs_ids=needs_ids)
        except Unusable as flaw:
            on_bad(BadRow(table.place(number), flaw))
            continue
        pool.add(text, passage_id, number, metadata)


def read_queries(table: Table, pool: Pool, on_bad: OnBad) -> None:
    """Add the queries of a BEIR folder to a pool."""
    pool.begin(table, unique=True)
    for number, row in table.rows(on_bad):
        try:
            query_id, text = _row_id(row, needed=True), _text(row)
            if _is_blank(text):
                raise _empty(f'the text of query "{query_id}" is empty')
        except Unusable as flaw:
            on_bad(BadRow(table.place(number), flaw))
            continue
        pool.add(text, query_id, number)


def _passage(row: dict[str, Any], *, needs_ids: bool) -> tuple[str | None, str, dict[str, Any] | None]:
    """Return the id, the title and text joined, and the metadata of a row.

    >>> _passage({"_id": "d1", "title": "Cats", "text": "They purr."}, needs_ids=True)
    ('d1', 'Cats They purr.', None)
    """
    passage_id = _row_id(row, needed=needs_ids)
    title, metadata = row.get("title"), row.get("metadata")
    if not isinstance(title, str | None):
        raise _wrong_kind("title", title, "a string", hint="leave out what has no title")
    if not isinstance(metadata, dict | None):
        raise _wrong_kind("metadata", metadata, "an object", hint='write {"key": value}')
    text = join_title(title or "", _text(row, may_lack=bool(title)))
    if _is_blank(text):
        of = f' of "{passage_id}"' if passage_id else ""
        raise _empty(f"the text and the title{of} are empty")
    return passage_id, text, metadata


def _row_id(row: dict[str, Any], *, needed: bool) -> str | None:
    """Return the id of a row."""
    key = "_id" if "_id" in row else next((key for key in IDS if key in row), None)
    found = None if key is None else id_of(row[key])
    if found is None and (needed or (key is not None and row[key] is not None)):
        got = f"got {row[key]!r}" if key else f"got the keys {', '.join(map(repr, row))}"
        raise Unusable(
            f'no "{key or "_id"}", {got}',
            reason="no id",
            hint=f'give every row an "{key or "_id"}" of its own, a string',
        )
    return found


def _text(row: dict[str, Any], *, may_lack: bool = False) -> str:
    """Return the text of a row, which must be a string."""
    key = _text_key(row)
    if key is None:
        if may_lack:
            return ""
        near = next((near for name in row if (near := did_you_mean(name, ["text"]))), "")
        raise Unusable(
            f'no "text" among the keys {quoted(row)}{near}',
            reason="no text",
            hint='give every row a "text", a string',
        )
    text = row[key]
    if not isinstance(text, str):
        raise _wrong_kind(key, text, "a string", hint="one row holds one text")
    return text


def _text_key(names: Sequence[str] | dict[str, Any]) -> str | None:
    """Return the key of the text."""
    return "text" if "text" in names else next((key for key in TEXTS if key in names), None)


def _check_columns(table: Table, needs_ids: bool) -> None:
    """Raise InputError where a table has no column for the texts, or none for the ids where they are needed."""
    columns = table.columns or ()
    lacking: list[tuple[str, tuple[str, ...]]] = [] if _text_key(columns) else [("text", TEXTS)]
    lacking += [("id", IDS)] if needs_ids and not any(name in IDS for name in columns) else []
    for what, names in lacking:
        near = next((near for name in columns if (near := did_you_mean(name, names))), "")
        raise InputError(
            f"{table.name}: no column for the {what}; there are {quoted(columns)}{near}",
            hint=f"name the {what} one of {', '.join(names)}",
        )


def _wrong_kind(key: str, value: Any, wanted: str, *, hint: str) -> Unusable:
    return Unusable(f'"{key}" is {kind(value)}, wanted {wanted}', reason=f'"{key}" is not {wanted}', hint=hint)


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _empty(what: str) -> Unusable:
    return Unusable(what, reason="empty text", hint="remove the row, and its judgements")

"""Rows of CSV and JSON lines: each row with a title, or a question, and a text is a section; another is one row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from embedsmith.prepare.documents.blocks import Block, heading, line_of
from embedsmith.prepare.documents.limits import Unreadable

_HEADS = ("question", "title", "subject", "headline", "heading", "name", "query")
_TEXTS = ("answer", "text", "body", "content", "description", "abstract", "passage", "document", "positive", "summary")
_LONGEST_CELL = 1_000_000


def read_csv(text: str, *, delimiter: str = ",") -> list[Block]:
    """Return the blocks of a table whose first row names its columns."""
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        rows = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter)
        return [block for row in rows for block in _blocks({str(key): value for key, value in row.items()})]
    except csv.Error as error:
        raise Unreadable(f"not CSV: {error}") from None
    finally:
        csv.field_size_limit(limit)


def read_jsonl(text: str) -> list[Block]:
    """Return the blocks of JSON lines; lines that are no object are left out."""
    return [block for row in _objects(text.split("\n")) for block in _blocks(row)]


def _objects(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the object of each line that is one.

    Raises:
        Unreadable: no line is.
    """
    count = 0
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            count += 1
            yield value
    if not count:
        raise Unreadable("no line of it is a JSON object")


def _blocks(row: Mapping[str, Any]) -> list[Block]:
    """Return the blocks of a row.

    >>> [(block.kind, block.text) for block in _blocks({"question": "Why?", "answer": "So.", "id": 7})]
    [('heading', 'Why?'), ('paragraph', 'So.')]
    >>> [(block.kind, block.text) for block in _blocks({"town": "Ulm", "people": "126,000"})]
    [('row', 'town: Ulm; people: 126,000')]
    """
    said = {line_of(key): line_of(value) for key, value in row.items() if isinstance(value, str) and value.strip()}
    lower = {key.lower(): value for key, value in said.items()}
    head = next((lower[name] for name in _HEADS if name in lower), "")
    text = next((lower[name] for name in _TEXTS if name in lower), "")
    if text:
        return [*([heading(head, 1)] if head else []), Block("paragraph", text)]
    return [Block("row", "; ".join(f"{key}: {value}" for key, value in said.items()))] if said else []

"""Training examples: one query, the passages that answer it and mined negatives, one JSON object a line.

{"query_id": "q1", "query": "…", "positives": [{"id", "text", "score"}],
 "negatives": [{"id", "text", "score", "teacher", "rank"}], "outcome": "full"}
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedsmith.data.files import read_jsonl, write_jsonl
from embedsmith.errors import InputError


@dataclass(frozen=True)
class Passage:
    """A passage in the role of a positive or a negative."""

    id: str
    text: str
    score: float | None = None
    """The teacher's score for the query; None where no teacher saw it."""
    teacher: str | None = None
    """The teacher that proposed a negative."""
    rank: int | None = None
    """A negative's rank among the teacher's candidates, from 1, before any rule dropped one."""


@dataclass(frozen=True)
class Example:
    """A query with its positives and its negatives, best first."""

    query_id: str
    query: str
    positives: list[Passage]
    negatives: list[Passage]
    outcome: str = "full"
    """`full`: as many negatives as asked for; `short`: fewer; `none`: not one."""


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write examples as JSON lines."""
    write_jsonl(path, (_row(example) for example in examples))


def read_examples(path: Path) -> list[Example]:
    """Return the examples of a file.

    Raises:
        InputError: a line has no query, no positive, or a field of the wrong kind; names file and line.
    """
    examples = [_example(row, f"{path}:{number}") for number, row in read_jsonl(path)]
    if not examples:
        raise InputError(f"{path}: no examples", hint="mine negatives first: embedsmith mine DATA --out RUN")
    return examples


def _row(example: Example) -> dict[str, Any]:
    row = asdict(example)
    row["positives"] = [{key: passage[key] for key in ("id", "text", "score")} for passage in row["positives"]]
    return row


def _example(row: dict[str, Any], place: str) -> Example:
    query = row.get("query")
    if not isinstance(query, str) or not query.strip():
        raise InputError(f"{place}: no query", hint='each line needs "query": "…"')
    positives = _passages(row, "positives", place)
    if not positives:
        raise InputError(f"{place}: no positives", hint="give each query at least one passage that answers it")
    return Example(
        query_id=str(row.get("query_id", place)),
        query=query,
        positives=positives,
        negatives=_passages(row, "negatives", place),
        outcome=str(row.get("outcome", "full")),
    )


def _passages(row: dict[str, Any], key: str, place: str) -> list[Passage]:
    values = row.get(key, [])
    if not isinstance(values, list):
        raise InputError(f'{place}: "{key}" is a {type(values).__name__}, wanted a list', hint='write [{"id", "text"}]')
    passages = []
    for value in values:
        if not isinstance(value, dict) or not isinstance(value.get("text"), str) or not value["text"].strip():
            raise InputError(f'{place}: "{key}" holds a passage without text', hint='write {"id": "…", "text": "…"}')
        known = {name: value[name] for name in ("score", "teacher", "rank") if name in value}
        passages.append(Passage(id=str(value.get("id", value["text"])), text=value["text"], **known))
    return passages

"""Training examples: one query, the passages that answer it and mined negatives, as JSON lines or as Parquet.

One JSON object a line, or one row, with the same names in both:

{"query_id": "q1", "query": "…", "positives": [{"id", "text", "score"}],
 "negatives": [{"id", "text", "score", "teacher", "rank"}], "outcome": "full",
 "instruction": "…", "symmetric": true}

The last two are there where an example brings its own instruction. Both files are written and read as a
stream. Scores are rounded to 6 decimals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat

from embedsmith.data.files import read_jsonl, write_jsonl
from embedsmith.data.parquet import read_parquet, write_parquet
from embedsmith.errors import InputError


class Passage(NamedTuple):
    """A passage in the role of a positive or a negative."""

    id: str
    text: str
    score: float | None = None
    """The teacher's score for the query; None where no teacher saw it."""
    teacher: str | None = None
    """The teacher that proposed a negative."""
    rank: int | None = None
    """A negative's rank among the teacher's candidates, from 1, before any rule dropped one."""


@dataclass(frozen=True, slots=True)
class Example:
    """A query with its positives and its negatives, best first."""

    query_id: str
    query: str
    positives: list[Passage]
    negatives: list[Passage]
    outcome: str = "full"
    """`full`: as many negatives as asked for; `short`: fewer; `none`: not one."""
    instruction: str | None = None
    """What the task is, for the model's template; None where the data set's instruction holds."""
    symmetric: bool = False
    """Whether the passages get the instruction too, being texts of the same kind as the query."""


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write examples as JSON lines; return how many.

    Raises:
        InputError: an example that no file can hold, as `writable` finds it.
    """
    return write_jsonl(path, (_row(example) for example in writable(examples, path)))


def write_examples_parquet(path: Path, examples: Iterable[Example]) -> int:
    """Write examples as Parquet, the passages as lists of structs; return how many.

    Raises:
        InputError: an example that no file can hold, as `writable` finds it.
    """
    import pyarrow as pa

    positive = [("id", pa.string()), ("text", pa.string()), ("score", pa.float64())]
    negative = [*positive, ("teacher", pa.string()), ("rank", pa.int64())]
    schema = pa.schema(
        [
            ("query_id", pa.string()),
            ("query", pa.string()),
            ("positives", pa.list_(pa.struct(positive))),
            ("negatives", pa.list_(pa.struct(negative))),
            ("outcome", pa.string()),
            ("instruction", pa.string()),
            ("symmetric", pa.bool_()),
        ]
    )
    return write_parquet(path, schema, (_row(example) for example in writable(examples, path)))


def read_examples(path: Path) -> list[Example]:
    """Return the examples of a file; `iter_examples` does not hold them all.

    Raises:
        InputError: as `iter_examples`, or the file holds none.
    """
    examples = list(iter_examples(path))
    if not examples:
        raise InputError(f"{path}: no examples", hint="mine negatives first: embedsmith mine DATA --out RUN")
    return examples


def iter_examples(path: Path) -> Iterator[Example]:
    """Yield the examples of a file: Parquet where the name ends in `.parquet`, else JSON lines.

    Raises:
        InputError: a line or row has no query, no positive, or a field of the wrong kind; names file and line or row.
    """
    if path.suffix == ".parquet":
        return (_example(row, f"{path}: row {number}") for number, row in read_parquet(path))
    return (_example(row, f"{path}:{number}") for number, row in read_jsonl(path))


def writable(examples: Iterable[Example], path: Path) -> Iterator[Example]:
    """Yield examples as they are, up to one that no file at `path` can hold.

    Raises:
        InputError: an example has no positive, half of a surrogate pair, or a score that is not finite; names it.
    """
    for number, example in enumerate(examples, start=1):
        if problem := _problem(example):
            # The id may be what holds half of a surrogate pair: only its repr can be printed.
            raise InputError(f"{path}: example {number} (query {example.query_id!r}): {problem}", hint="leave it out")
        yield example


def rounded(score: SupportsFloat | None) -> float | None:
    """Return a score as files hold it.

    >>> rounded(0.12345678)
    0.123457
    """
    return None if score is None else round(float(score), 6)


def _problem(example: Example) -> str:
    """Return what keeps an example out of every file, or nothing."""
    if not example.positives:
        return "no positives"
    texts = [example.query_id, example.query, example.outcome, example.instruction or ""]
    for passage in (*example.positives, *example.negatives):
        if passage.score is not None and not math.isfinite(passage.score):
            return f"the score of passage {passage.id!r} is {passage.score}, wanted a finite number"
        texts += [passage.id, passage.text, passage.teacher or ""]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return "half of a surrogate pair, which no text can hold"
    return ""


def _row(example: Example) -> dict[str, Any]:
    return {
        "query_id": example.query_id,
        "query": example.query,
        "positives": [
            {"id": passage.id, "text": passage.text, "score": rounded(passage.score)} for passage in example.positives
        ],
        "negatives": [
            {
                "id": passage.id,
                "text": passage.text,
                "score": rounded(passage.score),
                "teacher": passage.teacher,
                "rank": passage.rank,
            }
            for passage in example.negatives
        ],
        "outcome": example.outcome,
        **({} if example.instruction is None else {"instruction": example.instruction}),
        **({"symmetric": True} if example.symmetric else {}),
    }


def _example(row: dict[str, Any], place: str) -> Example:
    query = row.get("query")
    if not isinstance(query, str) or not query.strip():
        raise InputError(f"{place}: no query", hint='each line needs "query": "…"')
    positives = _passages(row, "positives", place)
    if not positives:
        raise InputError(f"{place}: no positives", hint="give each query at least one passage that answers it")
    query_id, instruction, symmetric = row.get("query_id"), row.get("instruction"), row.get("symmetric")
    if not isinstance(instruction, str | None):
        raise InputError(f"{place}: the instruction is {instruction!r}, wanted a string", hint="leave out what is none")
    if not isinstance(symmetric, bool | None):
        raise InputError(f'{place}: "symmetric" is {symmetric!r}, wanted true or false', hint="leave it out for false")
    return Example(
        query_id=place if query_id is None else str(query_id),
        query=query,
        positives=positives,
        negatives=_passages(row, "negatives", place),
        outcome=str(row.get("outcome") or "full"),
        instruction=instruction,
        symmetric=bool(symmetric),
    )


def _passages(row: dict[str, Any], key: str, place: str) -> list[Passage]:
    values = row.get(key, [])
    if not isinstance(values, list):
        raise InputError(f'{place}: "{key}" is a {type(values).__name__}, wanted a list', hint='write [{"id", "text"}]')
    return [_passage(value, f'{place}: "{key}"') for value in values]


def _passage(value: Any, place: str) -> Passage:
    if not isinstance(value, dict) or not isinstance(value.get("text"), str) or not value["text"].strip():
        raise InputError(f"{place} holds a passage without text", hint='write {"id": "…", "text": "…"}')
    text, passage_id = value["text"], value.get("id")
    score, teacher, rank = value.get("score"), value.get("teacher"), value.get("rank")
    # By type, for True is an int and no score.
    if type(score) not in (float, int, type(None)) or (score is not None and not math.isfinite(score)):
        raise InputError(f"{place} holds the score {score!r}, wanted a finite number", hint="leave out what is unknown")
    if type(rank) not in (int, type(None)):
        raise InputError(f"{place} holds the rank {rank!r}, wanted a whole number", hint="leave out what is unknown")
    if not isinstance(teacher, str | None):
        raise InputError(f"{place} holds the teacher {teacher!r}, wanted a string", hint="leave out what is unknown")
    return Passage(
        text if passage_id is None else str(passage_id), text, None if score is None else float(score), teacher, rank
    )

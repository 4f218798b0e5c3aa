"""TREC files: rankings (runs) in and out, judgements out; `embedsmith.data.qrels` reads judgements.

a run         query-id Q0 passage-id rank score tag     separated by spaces or tabs
judgements    query-id 0 passage-id grade
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from embedsmith.data.bad_rows import BadRow, Unusable
from embedsmith.data.files import atomic_write, lines_of
from embedsmith.data.tables import check_exists
from embedsmith.errors import InputError

Ranking = dict[str, list[tuple[str, float]]]
"""Query id -> (passage id, score), best first."""

_COLUMNS = "query-id Q0 passage-id rank score tag"


def read_ranking(path: str | Path) -> Ranking:
    """Return the ranking of a run file, in the order that trec_eval reads out of it.

    That is by score, compared in float32, and where scores tie by passage id, descending; ranks and the order of the
    lines count for nothing. A line may stand there twice.

    Raises:
        InputError: the file is missing or empty, a line cannot be used, or a passage has two scores for a query; names
            file and line.
    """
    path = Path(path)
    found: dict[str, dict[str, float]] = {}
    for number, query, passage, score in rows_of_ranking(path):
        if found.setdefault(query, {}).get(passage, score) != score:
            what = f'passage "{passage}" is ranked twice for query "{query}", with two scores'
            raise BadRow(f"{path}:{number}", _flaw(what, "remove one of the lines"))
        found[query][passage] = score
    if not found:
        raise InputError(f"{path}: an empty run file", hint=f"each line holds {_COLUMNS}")
    return {query: in_trec_order(scores) for query, scores in found.items()}


def rows_of_ranking(path: Path) -> Iterator[tuple[int, str, str, float]]:
    """Yield the number of each line of a run file that is not blank, its query id, passage id and score.

    Raises:
        InputError: the file is missing, or a line cannot be used; names file and line.
    """
    check_exists(path)
    with open(path, "rb") as file:
        for number, raw in enumerate(lines_of(file), start=1):
            if raw.strip():
                try:
                    yield (number, *_cells(raw))
                except Unusable as flaw:
                    raise BadRow(f"{path}:{number}", flaw) from None


def in_trec_order(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return passages with their scores in the order of trec_eval.

    >>> in_trec_order({"d1": 0.5, "d2": 0.5, "d3": 0.9})
    [('d3', 0.9), ('d2', 0.5), ('d1', 0.5)]
    """
    # Two scores that differ in float64 only tie in trec_eval.
    return sorted(scores.items(), key=lambda item: (np.float32(item[1]), item[0]), reverse=True)


def write_ranking(path: Path, ranking: Mapping[str, Sequence[tuple[str, float]]], *, tag: str) -> None:
    """Write a ranking as a run file.

    Raises:
        InputError: an id holds a tab or a line break.
    """
    name = "_".join(tag.split()) or "run"
    with atomic_write(path) as file:
        for query, ranked in ranking.items():
            for rank, (passage, score) in enumerate(ranked, start=1):
                # Nine digits bring every float32 back.
                file.write(f"{_id(path, query)}\tQ0\t{_id(path, passage)}\t{rank}\t{score:.9g}\t{name}\n")


def separated(ranked: Sequence[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    """Yield the passages of a query with scores that fall, those that tie a hair apart (as float32), as Anserini does.

    trec_eval sorts ties by passage id: it would read another ranking than the one that stands there.

    >>> [score for _, score in separated([("d2", 2.0), ("d1", 2.0), ("d3", 1.0)])]
    [2.0, 1.9999998807907104, 1.0]
    """
    last = np.float32(np.inf)
    for passage, score in ranked:
        apart = np.float32(score) < last
        last = np.float32(score) if apart else np.nextafter(last, np.float32(-np.inf))
        yield passage, score if apart else float(last)


def write_judgements(path: Path, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write judgements, query id -> passage id -> grade, as TREC's four columns.

    Raises:
        InputError: an id holds a tab or a line break.
    """
    with atomic_write(path) as file:
        for query, grades in qrels.items():
            for passage, grade in grades.items():
                file.write(f"{_id(path, query)}\t0\t{_id(path, passage)}\t{grade}\n")


def _cells(raw: bytes) -> tuple[str, str, float]:
    """Return query id, passage id and score of a line.

    >>> _cells(b"q1 Q0 d1 1 0.5 bm25"), _cells("q 1\\tQ0\\td1\\t1\\t2\\tbm25".encode())
    (('q1', 'd1', 0.5), ('q 1', 'd1', 2.0))
    """
    try:
        line = raw.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise _flaw("not UTF-8", "save the file as UTF-8") from None
    cells = line.split("\t")
    cells = cells if len(cells) == 6 else line.split()
    if len(cells) != 6:
        raise _flaw(f"{len(cells)} columns, wanted 6", f"each line of a run file holds {_COLUMNS}")
    try:
        score = float(cells[4])
    except ValueError:
        raise _flaw(f'the score "{cells[4]}" is not a number', f"each line of a run file holds {_COLUMNS}") from None
    if not math.isfinite(score):
        raise _flaw(f"the score is {score}", "write scores that can be compared")
    return cells[0], cells[2], score


def _flaw(what: str, hint: str) -> Unusable:
    return Unusable(what, reason="not a line of a run file", hint=hint)


def _id(path: Path, name: str) -> str:
    """Return an id that such a file can hold."""
    if any(mark in name for mark in "\t\r\n"):
        raise InputError(
            f"{path}: the id {name!r} holds a tab or a line break, which TREC files cannot hold", hint="rename the id"
        )
    return name

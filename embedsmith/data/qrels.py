"""Judgements in files: BEIR's three columns or TREC's four, and lists of passage ids.

    BEIR    query-id, corpus-id, score: tab separated, the grade a whole number
    TREC    query-id, iteration, passage-id, grade: separated by tabs or spaces

A header is optional; where there is one, it says which column is which. A query and a passage have one grade: a line
may stand there twice, but not with two grades.

Shapes: J judgements, S pairs, R passages.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from embedsmith.data.assemble import Judged, distinct
from embedsmith.data.bad_rows import BadRow, Misread, OnBad, Unusable, refuse
from embedsmith.data.collection import Collection
from embedsmith.data.files import check_regular, lines_of
from embedsmith.data.grades import MAX_GRADE
from embedsmith.data.labels import score_of
from embedsmith.data.tables import check_exists
from embedsmith.data.texts import Rows, Texts, TextsBuilder
from embedsmith.errors import InputError, did_you_mean

HEADER = ("query-id", "corpus-id", "score")
_NAMES = {
    "query": {"query", "queryid", "qid", "topic", "topicid", "question", "questionid"},
    "iteration": {"iteration", "iter", "q0", "0"},
    "passage": {"corpus", "corpusid", "doc", "docid", "docno", "document", "documentid", "passage", "passageid", "pid"},
    "grade": {"score", "grade", "rel", "relevance", "relevancy", "label", "judgement", "judgment", "rating"},
}
"""Column -> its names in headers, without spaces, hyphens and underscores."""
_SMALL_INTEGER = re.compile(r"[+-]?[0-9]{1,6}")


@dataclass(frozen=True)
class Judgements:
    """The lines of one file, ids not yet looked up."""

    path: Path
    query_ids: Texts
    passage_ids: Texts
    grades: Int64[np.ndarray, " J"]
    lines: Int64[np.ndarray, " J"]

    def place(self, row: int) -> str:
        """Return file and line of a judgement."""
        return f"{self.path}:{self.lines[row]}"


def read_judgements(path: Path, on_bad: OnBad, *, trec: bool = False) -> Judgements:
    """Return the judgements of a file in BEIR's form, or, with `trec`, in either form."""
    query_ids, passage_ids, grades, lines = TextsBuilder(), TextsBuilder(), array("q"), array("q")
    order: _Order | None = None
    for number, line in _lines(path, on_bad):
        try:
            cells = _cells(line, trec=trec)
            if order is None:
                order = _order_of(cells)
                if order.is_header:
                    continue
            query_id, passage_id, grade = order.of(cells)
        except Unusable as flaw:
            on_bad(BadRow(f"{path}:{number}", flaw))
            continue
        query_ids.add(query_id)
        passage_ids.add(passage_id)
        grades.append(grade)
        lines.append(number)
    found = Judgements(
        path, query_ids.texts(), passage_ids.texts(), np.array(grades, np.int64), np.array(lines, np.int64)
    )
    return _without_contradictions(found, on_bad)


def _without_contradictions(found: Judgements, on_bad: OnBad) -> Judgements:
    """Return judgements without those that give a pair another grade than an earlier line; these are bad rows."""
    queries, passages = (
        ids.arrow.dictionary_encode().indices.to_numpy().astype(np.int64)
        for ids in (found.query_ids, found.passage_ids)
    )
    judged = Judged(queries, passages, found.grades)
    kept, contradicting = distinct(judged)
    if not len(contradicting):
        return found
    earlier = {
        (query, passage): grade
        for query, passage, grade in zip(
            kept.queries.tolist(), kept.passages.tolist(), kept.grades.tolist(), strict=True
        )
    }
    for row in contradicting.tolist():
        grade = earlier[int(queries[row]), int(passages[row])]
        flaw = two_grades(found.query_ids[row], found.passage_ids[row], int(found.grades[row]), grade)
        on_bad(BadRow(found.place(row), flaw))
    rows = np.delete(np.arange(len(found.grades)), contradicting)
    return Judgements(
        found.path, found.query_ids.kept(rows), found.passage_ids.kept(rows), found.grades[rows], found.lines[rows]
    )


def look_up(
    judgements: Judgements, query_ids: Texts, passage_ids: Texts, on_bad: OnBad
) -> tuple[Int64[np.ndarray, " J"], Int64[np.ndarray, " J"], Int64[np.ndarray, " J"]]:
    """Return query rows, passage rows and line places of the judgements whose ids are known; others are bad rows."""
    row_of_query, row_of_passage = Rows(query_ids), Rows(passage_ids)
    queries = row_of_query.of(judgements.query_ids.arrow)
    passages = row_of_passage.of(judgements.passage_ids.arrow)
    seen: set[str] = set()
    for row in np.flatnonzero((queries < 0) | (passages < 0)).tolist():
        query, passage = judgements.query_ids[row], judgements.passage_ids[row]
        if query in row_of_passage and passage in row_of_query:
            flaw = Unusable(
                f'unknown query id "{query}"; there is a passage of that id, and a query "{passage}"',
                reason="unknown query id",
                hint=f"say in a first line which column is which: {', '.join(HEADER)} in any order",
            )
        elif queries[row] < 0:
            flaw = _unknown("query", query, query_ids, seen)
        else:
            flaw = _unknown("passage", passage, passage_ids, seen)
        on_bad(BadRow(judgements.place(row), flaw))
    known = np.flatnonzero((queries >= 0) & (passages >= 0))
    return queries[known], passages[known], known


def read_exclusions(
    paths: Iterable[str | Path], collection: Collection, *, on_skip: Callable[[str], None] | None = None
) -> tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " S"]]:
    """Return pairs (query row, passage row) that extra judgements call relevant, by query row, each once.

    What a file judges not relevant may stay a negative. Extra judgements often cover more than one collection: those
    that name a query or a passage that this one lacks are counted.

    Args:
        paths: files in BEIR's or TREC's form.
        collection: whose rows are meant.
        on_skip: called with the count of each file.

    Raises:
        InputError: a file is missing, a line cannot be used, or no passage of a file is in the collection.
    """
    queries, passages = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for path in map(Path, paths):
        check_exists(path)
        judgements = read_judgements(path, refuse, trec=True)
        found = (
            collection.query_index.of(judgements.query_ids.arrow),
            collection.passage_index.of(judgements.passage_ids.arrow),
        )
        known = (found[0] >= 0) & (found[1] >= 0)
        if len(known) and (found[1] < 0).all():
            raise _nothing_shared(path, judgements.passage_ids[0], collection.passage_ids[0])
        _tell(on_skip, path, int((~known).sum()), len(known), "judgements", "query or passage")
        relevant = known & (judgements.grades > 0)
        queries.append(found[0][relevant])
        passages.append(found[1][relevant])
    pairs = np.unique(np.stack([np.concatenate(queries), np.concatenate(passages)], axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def read_passage_ids(
    path: str | Path, collection: Collection, *, on_skip: Callable[[str], None] | None = None
) -> Int64[np.ndarray, " R"]:
    """Return the rows, ascending, of the passages whose ids a file lists, one a line.

    Raises:
        InputError: the file is missing or not UTF-8, or no passage of it is in the collection.
    """
    path = Path(path)
    check_exists(path)
    ids = TextsBuilder()
    for _, line in _lines(path, refuse):
        ids.add(line)
    listed = ids.texts()
    rows = collection.passage_index.of(listed.arrow)
    if len(rows) and (rows < 0).all():
        raise _nothing_shared(path, listed[0], collection.passage_ids[0])
    _tell(on_skip, path, int((rows < 0).sum()), len(rows), "ids", "passage")
    return np.unique(rows[rows >= 0])


def _nothing_shared(path: Path, listed: str, there: str) -> InputError:
    return InputError(
        f'{path}: none of its passages is in the collection: it lists "{listed}", the collection has "{there}"',
        hint="name the file of this collection: ids must be equal to the character",
    )


def _tell(on_skip: Callable[[str], None] | None, path: Path, unknown: int, count: int, what: str, of: str) -> None:
    if on_skip and unknown:
        on_skip(f"{path}: {unknown:,} of {count:,} {what} name a {of} that the collection lacks")


def _lines(path: Path, on_bad: OnBad) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line) for each line that is not blank."""
    check_regular(path)
    with open(path, "rb") as file:
        for number, raw in enumerate(lines_of(file), start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                flaw = Unusable(
                    f"not UTF-8 (byte {error.start + 1} of the line)", reason="not UTF-8", hint="save the file as UTF-8"
                )
                on_bad(BadRow(f"{path}:{number}", flaw))
                continue
            if line and not line.isspace():
                yield number, line


@dataclass(frozen=True)
class _Order:
    """Where in a line the query id, the passage id and the grade stand."""

    places: tuple[int, int, int]
    count: int | None
    """Columns of every line; None where a line may have three or four."""
    is_header: bool

    def of(self, cells: list[str]) -> tuple[str, str, int]:
        """Return query id, passage id and grade of a line."""
        if self.count is not None and len(cells) != self.count:
            raise _wrong_count(cells, f"{self.count}, as in the header")
        query, passage, grade = self.places if self.count or len(cells) == 3 else (0, 2, 3)
        return cells[query], cells[passage], _grade(cells[grade])


def _order_of(cells: list[str]) -> _Order:
    """Return the order of columns that the first line of a file says.

    >>> _order_of(["score", "corpus-id", "query_id"]).places, _order_of(["q1", "d1", "1"]).is_header
    ((2, 1, 0), False)

    Raises:
        Misread: the line names columns, but not these three.
    """
    fixed = _Order((0, 1, 2), None, is_header=False)
    # A header has no number, unless the iteration is called 0.
    if any(_is_number(cell) for place, cell in enumerate(cells) if (place, len(cells)) != (1, 4)):
        return fixed
    folded = [re.sub(r"[\s_-]", "", cell.casefold()) for cell in cells]
    roles = [next((role for role, names in _NAMES.items() if name in names), "") for name in folded]
    wanted = ["query", "passage", "grade"] + ["iteration"] * (len(cells) == 4)
    if sorted(roles) == sorted(wanted):
        query, passage, grade = map(roles.index, wanted[:3])
        return _Order((query, passage, grade), len(cells), is_header=True)
    if not any(roles):
        return fixed  # a line whose grade is broken
    raise Misread(
        f"the header is {', '.join(cells)}: it is not clear which column is which",
        reason="unknown header",
        hint=f"name the columns {', '.join(HEADER)}, in any order",
    )


def _cells(line: str, *, trec: bool) -> list[str]:
    """Return the three columns of a line, or with `trec` three or four.

    >>> _cells("q 1\\td1\\t2", trec=True), _cells("q1 0 d1 2", trec=True)
    (['q 1', 'd1', '2'], ['q1', '0', 'd1', '2'])
    """
    cells = line.split("\t")
    if trec and len(cells) not in (3, 4):
        cells = line.split()
    if len(cells) != 3 and not (trec and len(cells) == 4):
        raise _wrong_count(cells, f"3{' or 4' if trec else ''}", trec=trec)
    return cells


def _wrong_count(cells: list[str], wanted: str, *, trec: bool = False) -> Unusable:
    forms = f"{', '.join(HEADER)}" + (", or TREC's four: query-id 0 passage-id grade" if trec else "")
    return Unusable(
        f"{len(cells)} {'column' if len(cells) == 1 else 'columns'}, wanted {wanted}",
        reason="wrong number of columns",
        hint=f"separate by tabs: {forms}",
    )


def _is_number(cell: str) -> bool:
    try:
        score_of(cell)
    except Unusable:
        return False
    return True


def _grade(cell: str) -> int:
    """Return the grade in a cell.

    >>> _grade("2"), _grade("1.0"), _grade("-1")
    (2, 1, -1)
    """
    if _SMALL_INTEGER.fullmatch(cell.strip()):
        return int(cell.strip())  # int() itself strips fewer control characters than strip()
    try:
        number = score_of(cell)
    except Unusable:
        number = math.nan
    if not number.is_integer():
        raise Unusable(
            f'the grade "{cell[:40]}" is not a whole number',
            reason="the grade is not a whole number",
            hint="write 0 for not relevant, 1 or more else",
        )
    if abs(number) > MAX_GRADE:
        raise Unusable(
            f"the grade is {cell[:40]}, wanted {MAX_GRADE:,} at most",
            reason="the grade is too large",
            hint="write grades, such as 0 to 3",
        )
    return int(number)


def two_grades(query: str, passage: str, grade: int, earlier: int) -> Unusable:
    """Return what is wrong with a judgement that contradicts an earlier one."""
    return Unusable(
        f'query "{query}" and passage "{passage}" have the grade {grade} here and {earlier} on an earlier line',
        reason="two grades",
        hint="remove one of the two lines",
    )


def _unknown(what: str, wrong: str, known: Texts, seen: set[str]) -> Unusable:
    """Return what is wrong with an id that nothing has; the first of its kind is compared with those that there are."""
    # The first few thousand ids of about the same length: difflib is slow.
    alike = islice((name for name in known if abs(len(name) - len(wrong)) <= 2), 0 if what in seen else 3000)
    seen.add(what)
    count = {"query": f"there are {len(known):,} queries", "passage": f"the corpus has {len(known):,} passages"}[what]
    file = {"query": "queries.jsonl", "passage": "corpus.jsonl"}[what]
    return Unusable(
        f'unknown {what} id "{wrong}"; {count}{did_you_mean(wrong, alike)}',
        reason=f"unknown {what} id",
        hint=f"remove the line, or add the {what} to {file}",
    )

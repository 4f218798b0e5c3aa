"""Queries of the user's own on a folder of documents: what people type, scored apart from what is made of the folder.

RUN/own/NAME-own   BEIR folder, split `own`: the passages of the test side, and the queries whose answers are known
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from embedsmith.data.bad_rows import refuse
from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection
from embedsmith.data.normalised import normalised
from embedsmith.data.tables import check_exists, open_table
from embedsmith.errors import InputError, did_you_mean
from embedsmith.recipes.data import Prepared
from embedsmith.recipes.recipe import OWN, label_of_own
from embedsmith.runs.run import Run
from embedsmith.variables import filled


@dataclass(frozen=True)
class OwnQuery:
    """A query, and where its answer stands if that is known."""

    text: str
    answers: tuple[str, ...]
    """Files relative to the folder, or ids of passages."""
    place: str
    """For errors."""


def read_own_queries(path: Path) -> list[OwnQuery]:
    """Return the queries of a file; an answer may be missing, and equal queries are one with the answers of both.

    Args:
        path: text (a query a line, behind a tab its answer), or rows with `query` and `answer` (a text or a list) as
            JSON lines, CSV or Parquet.

    Raises:
        InputError: there is no such file, no query in it, or a row is no query; says which.
    """
    queries: dict[str, OwnQuery] = {}
    for one in _lines(path) if path.suffix in (".txt", "") else _rows(path):
        known = queries.get(normalised(one.text), one)
        answers = dict.fromkeys((*known.answers, *one.answers))
        queries[normalised(one.text)] = OwnQuery(known.text, tuple(answers), known.place)
    if not queries:
        raise InputError(f"{path}: no query in it", hint="write one a line, and its answer's file behind a tab")
    return list(queries.values())


def _lines(path: Path) -> Iterator[OwnQuery]:
    check_exists(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8: {error.reason}", hint="save it as UTF-8") from None
    for number, line in enumerate(text.splitlines(), start=1):
        query, _, answer = line.partition("\t")
        if query.strip():
            yield OwnQuery(query.strip(), (answer.strip(),) if answer.strip() else (), f"{path}:{number}")


def _rows(path: Path) -> Iterator[OwnQuery]:
    table = open_table(path)
    hint = 'write rows such as {"query": "how do I ...", "answer": "guide/doors.md"}'
    for number, row in table.rows(refuse, ["query", "answer"] if table.columns and "answer" in table.columns else None):
        query, answer = row.get("query"), row.get("answer")
        if not isinstance(query, str) or not query.strip():
            raise InputError(f"{table.place(number)}: no query", hint=hint)
        answers = [] if answer is None or answer == "" else answer if isinstance(answer, list) else [answer]
        if not all(isinstance(one, str) and one.strip() for one in answers):
            raise InputError(
                f"{table.place(number)}: answer is {answer!r}, wanted a file or an id of a passage", hint=hint
            )
        yield OwnQuery(query.strip(), tuple(answers), table.place(number))


def own_collection(queries: list[OwnQuery], test: Collection) -> Collection | None:
    """Return the queries whose answers are known, over the passages of a test side; None where none is known.

    Of an answer that is a file, each of its passages is one.

    Raises:
        InputError: an answer is neither a file that was read nor a passage.
    """
    files: dict[str, list[str]] = defaultdict(list)
    for passage, about in zip(test.passage_ids, test.metadata or (), strict=True):
        files[str(about.get("file", ""))].append(passage)
    found: dict[str, dict[str, int]] = {}
    for number, query in enumerate(queries, start=1):
        for answer in query.answers:
            passages = [answer] if answer in test.passage_index else files.get(answer.removeprefix("./"))
            if not passages:
                raise InputError(
                    f'{query.place}: the answer "{answer}" is no file that was read{did_you_mean(answer, files)}',
                    hint="name it by its path within the folder, or by the id of a passage of corpus.jsonl",
                )
            found.setdefault(f"{OWN}-{number}", {}).update(dict.fromkeys(passages, 1))
    if not found:
        return None
    texts = {f"{OWN}-{number}": query.text for number, query in enumerate(queries, start=1)}
    return Collection.of(
        name=OWN,
        passage_ids=list(test.passage_ids),
        passages=list(test.passages),
        query_ids=list(found),
        queries=[texts[query] for query in found],
        qrels=found,
        metadata=test.metadata or [],
    )


def own_queries(run: Run, prepared: Iterable[Prepared]) -> list[Prepared]:
    """Return the users' own queries on data sets of a run as test sides of their own, written to the run.

    Raises:
        InputError: see `read_own_queries` and `own_collection`.
        RunError: they are others than when the run began; nothing is written then.
    """
    found = []
    for data in prepared:
        path = filled(data.settings).queries
        if path is None or data.test is None:
            continue
        own = own_collection(read_own_queries(Path(path)), data.test)
        if own is None:
            continue
        name = label_of_own(data.name)
        side = Prepared(name, data.settings, train=None, test=own, own=True)
        assert side.in_run
        # Before anything is written: a run that goes on must have the same queries.
        run.same_content(f"{name} (test)", own.content_hash())
        write_beir(run.folder / side.in_run[0], {OWN: own})
        found.append(side)
    return found

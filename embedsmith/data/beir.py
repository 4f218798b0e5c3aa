"""BEIR folders, read and written.

    corpus.jsonl         {"_id", "title", "text"} a line, and a "metadata" object where there is one
    queries.jsonl        {"_id", "text"} a line
    qrels/<split>.tsv    query-id, corpus-id, score: tab separated, the grade a whole number; the header is optional

Source: Thakur et al., BEIR, https://arxiv.org/abs/2104.08663, and https://github.com/beir-cellar/beir/wiki.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from pathlib import Path
from typing import Any

from embedsmith.data.collection import Collection, join_title
from embedsmith.data.files import atomic_write, read_jsonl, write_jsonl
from embedsmith.errors import InputError, did_you_mean

_HEADER = ("query-id", "corpus-id", "score")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_LAYOUT = "a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/<split>.tsv"


def read_beir(folder: Path, split: str) -> Collection:
    """Return the corpus, and the queries that have a positive in the split, in the order of `queries.jsonl`.

    A query's grades of 0 stay in the qrels; queries that have nothing else are left out.

    Raises:
        InputError: a file or the split is missing, or a line cannot be used; names file and line.
    """
    known = splits(folder)
    if split not in known:
        raise InputError(
            f'{folder}: no split "{split}"{did_you_mean(split, known)}', hint=f"its splits: {', '.join(known)}"
        )
    passages, metadata = _read_corpus(folder / "corpus.jsonl")
    queries = _read_queries(folder / "queries.jsonl")
    qrels_path = folder / "qrels" / f"{split}.tsv"
    qrels = _read_qrels(qrels_path, queries, passages)
    query_ids = [query_id for query_id in queries if any(grade > 0 for grade in qrels.get(query_id, {}).values())]
    if not query_ids:
        raise InputError(
            f"{qrels_path}: no query has a passage with a grade above 0", hint="choose a split that has positives"
        )
    return Collection.of(
        name=os.path.basename(os.path.abspath(folder)),
        passage_ids=list(passages),
        passages=list(passages.values()),
        query_ids=query_ids,
        queries=[queries[query_id] for query_id in query_ids],
        qrels={query_id: qrels[query_id] for query_id in query_ids},
        metadata=metadata,
    )


def splits(folder: Path) -> list[str]:
    """Return the names of a folder's splits, sorted.

    Raises:
        InputError: the folder lacks one of the files of a BEIR folder; names it.
    """
    qrels = folder / "qrels"
    missing = [name for name in ("corpus.jsonl", "queries.jsonl") if not (folder / name).is_file()]
    missing += [] if qrels.is_dir() else ["qrels folder"]
    if missing:
        raise InputError(f"{folder}: not a BEIR folder: it has no {' and no '.join(missing)}", hint=_LAYOUT)
    names = sorted(path.stem for path in qrels.glob("*.tsv") if not path.name.startswith("."))
    if not names:
        raise InputError(f"{qrels}: no .tsv file", hint=_LAYOUT)
    return names


def write_beir(folder: Path, collections: dict[str, Collection]) -> None:
    """Write collections that share one corpus as the splits of one BEIR folder.

    `collections` maps the name of each split to its collection. Titles are empty: a collection's passages hold theirs.

    Raises:
        InputError: the corpora differ, a query has two texts, or an id holds a tab or a line break.
    """
    (first_split, first), *others = collections.items()
    for split, other in others:
        if (other.passage_ids, other.passages, other.metadata) != (first.passage_ids, first.passages, first.metadata):
            raise InputError(
                f'{folder}: the splits "{first_split}" and "{split}" have different passages',
                hint="write collections with different passages to different folders",
            )
    queries: dict[str, str] = {}
    for split, collection in collections.items():
        for query_id, text in zip(collection.query_ids, collection.queries, strict=True):
            if queries.setdefault(query_id, text) != text:
                raise InputError(
                    f'{folder}: query "{query_id}" has another text in split "{split}"',
                    hint="give different queries different ids",
                )
    for split, collection in collections.items():
        lines = list(_qrels_lines(folder, collection))
        with atomic_write(folder / "qrels" / f"{split}.tsv") as file:
            file.writelines(lines)
    write_jsonl(folder / "queries.jsonl", ({"_id": query_id, "text": text} for query_id, text in queries.items()))
    # The corpus comes last: a folder with a corpus is a whole one.
    write_jsonl(folder / "corpus.jsonl", _corpus_rows(first))


def _read_corpus(path: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Return passage id -> title and text joined, and N metadata objects, or none where no row has any."""
    passages: dict[str, str] = {}
    metadata: list[dict[str, Any]] = []
    for where, row_id, row in _rows(path):
        title, extra = row.get("title"), row.get("metadata")
        if not isinstance(title, str | None):
            raise InputError(
                f'{where}: "title" is a JSON {type(title).__name__}, wanted a string',
                hint="leave out what has no title",
            )
        if not isinstance(extra, dict | None):
            raise InputError(
                f'{where}: "metadata" is a JSON {type(extra).__name__}, wanted an object', hint='write {"key": value}'
            )
        passage = join_title(title or "", _text(row, where))
        if not passage.strip():
            raise InputError(
                f'{where}: the text and the title of "{row_id}" are empty', hint="remove the line, and its judgements"
            )
        passages[row_id] = passage
        metadata.append(extra or {})
    return passages, metadata if any(metadata) else []


def _read_queries(path: Path) -> dict[str, str]:
    """Return query id -> text."""
    queries: dict[str, str] = {}
    for where, row_id, row in _rows(path):
        queries[row_id] = _text(row, where)
        if not queries[row_id].strip():
            raise InputError(
                f'{where}: the text of query "{row_id}" is empty', hint="remove the line, and its judgements"
            )
    return queries


def _rows(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (file:line, id, row) of a corpus or of queries; no id comes twice."""
    lines: dict[str, int] = {}
    for number, row in read_jsonl(path):
        where = f"{path}:{number}"
        row_id = row.get("_id")
        # Some published sets have numbers as ids, and the same numbers in the qrels; bool is an int to Python.
        if isinstance(row_id, int) and not isinstance(row_id, bool):
            row_id = str(row_id)
        if not isinstance(row_id, str) or not row_id:
            got = f"got {row_id!r}" if "_id" in row else f"got the keys {', '.join(map(repr, row))}"
            raise InputError(f'{where}: no "_id", {got}', hint='give every line an "_id" of its own, a string')
        if row_id in lines:
            raise InputError(
                f'{where}: the id "{row_id}" is taken by line {lines[row_id]}', hint="remove or rename one of the two"
            )
        lines[row_id] = number
        yield where, row_id, row


def _text(row: dict[str, Any], where: str) -> str:
    """Return the `text` of a row, which must be a string."""
    if "text" not in row:
        keys = ", ".join(f'"{key}"' for key in row)
        near = next((near for key in row if (near := did_you_mean(key, ["text"]))), "")
        raise InputError(f'{where}: no "text" among the keys {keys}{near}', hint='give every line a "text", a string')
    text = row["text"]
    if not isinstance(text, str):
        raise InputError(
            f'{where}: "text" is a JSON {type(text).__name__}, wanted a string', hint="one line holds one text"
        )
    return text


def _read_qrels(path: Path, queries: dict[str, str], passages: dict[str, str]) -> dict[str, dict[str, int]]:
    """Return query id -> passage id -> grade, for ids that exist."""
    qrels: dict[str, dict[str, int]] = {}
    for where, query_id, passage_id, grade in _judgements(path):
        if query_id not in queries:
            raise InputError(
                f'{where}: unknown query id "{query_id}"; there are {_count(queries)} queries'
                f"{_nearest(query_id, queries)}",
                hint="remove the line, or add the query to queries.jsonl",
            )
        if passage_id not in passages:
            raise InputError(
                f'{where}: unknown passage id "{passage_id}"; the corpus has {_count(passages)} passages'
                f"{_nearest(passage_id, passages)}",
                hint="remove the line, or add the passage to corpus.jsonl",
            )
        earlier = qrels.setdefault(query_id, {}).setdefault(passage_id, grade)
        if earlier != grade:
            raise InputError(
                f'{where}: query "{query_id}" and passage "{passage_id}" have the grade {grade} here and {earlier} '
                "on an earlier line",
                hint="remove one of the two lines",
            )
    return qrels


def _judgements(path: Path) -> Iterator[tuple[str, str, str, int]]:
    """Yield (file:line, query id, passage id, grade) for each line that is neither blank nor the header."""
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            where = f"{path}:{number}"
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{where}: not UTF-8 (byte {error.start + 1} of the line)", hint="save the file as UTF-8"
                ) from None
            if not line.strip():
                continue
            cells = line.split("\t")
            if len(cells) != 3:
                columns = "column" if len(cells) == 1 else "columns"
                raise InputError(
                    f"{where}: {len(cells)} {columns}, wanted 3", hint=f"separate by tabs: {', '.join(_HEADER)}"
                )
            query_id, passage_id, grade = cells
            # By name: "not a number" would take a first line with a broken grade for a header.
            if number == 1 and (query_id == _HEADER[0] or grade == _HEADER[2]):
                continue
            if not _INTEGER.fullmatch(grade.strip()):
                raise InputError(
                    f'{where}: the grade "{grade}" is not a whole number',
                    hint="write 0 for not relevant, 1 or more else",
                )
            yield where, query_id, passage_id, int(grade)


def _corpus_rows(collection: Collection) -> Iterator[dict[str, Any]]:
    """Yield the rows of `corpus.jsonl`."""
    for row, (passage_id, text) in enumerate(zip(collection.passage_ids, collection.passages, strict=True)):
        line: dict[str, Any] = {"_id": passage_id, "title": "", "text": text}
        if collection.metadata:
            line["metadata"] = collection.metadata[row]
        yield line


def _qrels_lines(folder: Path, collection: Collection) -> Iterator[str]:
    """Yield the lines of a split's qrels, header first."""
    yield "\t".join(_HEADER) + "\n"
    for query_id in collection.query_ids:
        for passage_id, grade in collection.qrels.get(query_id, {}).items():
            for cell in (query_id, passage_id):
                if any(mark in cell for mark in "\t\r\n"):
                    raise InputError(
                        f"{folder}: the id {cell!r} holds a tab or a line break, which qrels cannot hold",
                        hint="rename the id",
                    )
            yield f"{query_id}\t{passage_id}\t{grade}\n"


def _count(things: Sized) -> str:
    """Return a number as a reader wants it.

    >>> _count(range(5183))
    '5,183'
    """
    return f"{len(things):,}"


def _nearest(wrong: str, known: Iterable[str]) -> str:
    """Return `did_you_mean` over the first few thousand ids of about the same length: difflib is slow."""
    alike = (name for name in known if abs(len(name) - len(wrong)) <= 2)
    return did_you_mean(wrong, islice(alike, 3000))

"""BEIR folders, read and written.

    corpus.jsonl         {"_id", "title", "text"} a line, and a "metadata" object where there is one
    queries.jsonl        {"_id", "text"} a line
    qrels/<split>.tsv    query-id, corpus-id, score: tab separated, the grade a whole number; the header is optional

Source: Thakur et al., BEIR, https://arxiv.org/abs/2104.08663, and https://github.com/beir-cellar/beir/wiki.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedsmith.data.assemble import Judged, assembled, distinct
from embedsmith.data.bad_rows import BadRow, OnBad, refuse
from embedsmith.data.collection import Collection
from embedsmith.data.corpus import read_corpus, read_queries
from embedsmith.data.files import atomic_write, visible, write_jsonl
from embedsmith.data.pool import Pool, Pooled
from embedsmith.data.qrels import HEADER, Judgements, look_up, read_judgements, two_grades
from embedsmith.data.tables import Table, open_table
from embedsmith.errors import InputError

_LAYOUT = "a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/<split>.tsv"


def read_beir(
    folder: Path, chosen: Sequence[str], on_bad: OnBad = refuse, *, corpus: Table | None = None
) -> Collection:
    """Return the corpus, and the queries that have a positive in the chosen splits, in the order of `queries.jsonl`.

    A query's grades of 0 stay among the judgements; queries that have nothing else are left out.

    Args:
        folder: a BEIR folder.
        chosen: splits that are there, whose judgements are merged.
        on_bad: called with each line that cannot be used.
        corpus: passages with ids that join those of the folder.

    Raises:
        InputError: a file is missing, or a line cannot be used; names file and line.
    """
    passages, queries = Pool("p"), Pool("q")
    read_corpus(open_table(folder / "corpus.jsonl"), passages, on_bad, needs_ids=True)
    if corpus is not None:
        read_corpus(corpus, passages, on_bad, needs_ids=True)
    read_queries(open_table(folder / "queries.jsonl"), queries, on_bad)
    pooled_passages, pooled_queries = passages.pooled(on_bad), queries.pooled(on_bad)
    paths = [folder / "qrels" / f"{split}.tsv" for split in chosen]
    judged = _judged([read_judgements(path, on_bad) for path in paths], pooled_queries, pooled_passages, on_bad)
    nothing = judged.only(np.empty(0, np.int64))
    name = os.path.basename(os.path.abspath(folder))
    collection = assembled(name, pooled_passages, pooled_queries, judged, nothing)
    if collection is None:
        raise InputError(
            f"{', '.join(map(str, paths))}: no query has a passage with a grade above 0",
            hint="choose a split that has positives",
        )
    return collection


def _first_of(texts: Pooled, what: str) -> str:
    """Return what is shown of ids: the first, or that all rows were bad."""
    return f'the {what} "{texts.ids[0]}"' if len(texts.ids) else f"no usable {what}"


def _judged(files: Sequence[Judgements], queries: Pooled, passages: Pooled, on_bad: OnBad) -> Judged:
    """Return the judgements of several files as rows; one that contradicts an earlier one is a bad row."""
    found = [look_up(file, queries.ids, passages.ids, on_bad) for file in files]
    judged = Judged(
        np.concatenate([rows for rows, _, _ in found]),
        np.concatenate([rows for _, rows, _ in found]),
        np.concatenate([file.grades[places] for file, (_, _, places) in zip(files, found, strict=True)]),
    )
    if not len(judged) and (file := next((file for file in files if len(file.query_ids)), None)):
        # Bad rows were left out, and all of them are.
        raise InputError(
            f"{file.path}: no judgement is of a query and a passage that are there: it judges "
            f'"{file.query_ids[0]}" and "{file.passage_ids[0]}"; '
            f"there is {_first_of(queries, 'query')} and {_first_of(passages, 'passage')}",
            hint="take the three files from one data set: ids must be equal to the character",
        )
    kept, contradicting = distinct(judged)
    places = (
        [file.place(row) for file, (_, _, rows) in zip(files, found, strict=True) for row in rows.tolist()]
        if len(contradicting)
        else []
    )
    for at in contradicting.tolist():
        query, passage = int(judged.queries[at]), int(judged.passages[at])
        earlier = kept.grades[(kept.queries == query) & (kept.passages == passage)][0]
        flaw = two_grades(queries.ids[query], passages.ids[passage], int(judged.grades[at]), int(earlier))
        on_bad(BadRow(places[at], flaw))
    return kept


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
    names = [path.stem for path in visible(qrels, "*.tsv")]
    if not names:
        raise InputError(f"{qrels}: no .tsv file", hint=_LAYOUT)
    return names


def unanswered(folder: Path, chosen: Sequence[str]) -> int:
    """Return how many queries are judged in the chosen splits and have no passage with a grade above 0."""
    judged: set[str] = set()
    answered: set[str] = set()
    for split in chosen:
        found = read_judgements(folder / "qrels" / f"{split}.tsv", lambda row: None)
        judged.update(found.query_ids)
        answered.update(found.query_ids.kept(np.flatnonzero(found.grades > 0)))
    return len(judged - answered)


def write_beir(folder: Path, collections: dict[str, Collection], *, name: Path | None = None) -> None:
    """Write collections that share one corpus as the splits of one BEIR folder.

    Titles are empty: a collection's passages hold theirs.

    Args:
        folder: is made if need be.
        collections: the name of each split -> its collection.
        name: what errors call the folder, where its own name is a temporary one.

    Raises:
        InputError: the corpora differ, a query has two texts, or an id holds a tab or a line break.
    """
    (first_split, first), *others = collections.items()
    for split, other in others:
        if (other.passage_ids, other.passages, other.metadata) != (first.passage_ids, first.passages, first.metadata):
            raise InputError(
                f'{name or folder}: the splits "{first_split}" and "{split}" have different passages',
                hint="write collections with different passages to different folders",
            )
    queries: dict[str, str] = {}
    for split, collection in collections.items():
        for query_id, text in zip(collection.query_ids, collection.queries, strict=True):
            if queries.setdefault(query_id, text) != text:
                raise InputError(
                    f'{name or folder}: query "{query_id}" has another text in split "{split}"',
                    hint="give different queries different ids",
                )
    for split, collection in collections.items():
        _write_qrels(name or folder, folder, split, _judgements(collection))
    _write_texts(folder, queries.items(), _corpus_rows(first))


def write_rows(
    folder: Path,
    split: str,
    *,
    corpus: Iterable[tuple[str, str, dict[str, Any] | None]],
    queries: Iterable[tuple[str, str]],
    judgements: Iterable[tuple[str, str, int]],
) -> None:
    """Write one split as a BEIR folder, row by row: nothing of it need be in memory at once.

    Args:
        folder: is made if need be.
        split: its name.
        corpus: (id, text, metadata or None) of each passage.
        queries: (id, text) of each.
        judgements: (id of the query, id of the passage, grade), query by query.

    Raises:
        InputError: an id holds a tab or a line break.
    """
    _write_qrels(folder, folder, split, judgements)
    _write_texts(folder, queries, corpus)


def _write_texts(
    folder: Path, queries: Iterable[tuple[str, str]], corpus: Iterable[tuple[str, str, dict[str, Any] | None]]
) -> None:
    """Write queries and passages."""
    write_jsonl(folder / "queries.jsonl", ({"_id": query_id, "text": text} for query_id, text in queries))
    # The corpus comes last: a folder with a corpus is a whole one.
    write_corpus(folder, corpus)


def write_corpus(folder: Path, corpus: Iterable[tuple[str, str, dict[str, Any] | None]]) -> None:
    """Write passages, each with its id and metadata, as the `corpus.jsonl` of a folder, which is made if need be."""
    rows = (
        {"_id": passage_id, "title": "", "text": text, **({} if about is None else {"metadata": about})}
        for passage_id, text, about in corpus
    )
    write_jsonl(folder / "corpus.jsonl", rows, nan_as_null=True)


def _corpus_rows(collection: Collection) -> Iterator[tuple[str, str, dict[str, Any] | None]]:
    """Yield id, text and metadata of each passage."""
    for row, (passage_id, text) in enumerate(zip(collection.passage_ids, collection.passages, strict=True)):
        yield passage_id, text, collection.metadata[row] if collection.metadata else None


def _judgements(collection: Collection) -> Iterator[tuple[str, str, int]]:
    """Yield the judgements of a collection, query by query."""
    query_ids = collection.query_ids.kept(collection.judged_queries)
    passage_ids = collection.passage_ids.kept(collection.judged_passages)
    yield from zip(query_ids, passage_ids, collection.grades.tolist(), strict=True)


def _write_qrels(name: Path, folder: Path, split: str, judgements: Iterable[tuple[str, str, int]]) -> None:
    """Write the judgements of a split; errors call the folder by the name."""
    with atomic_write(folder / "qrels" / f"{split}.tsv") as file:
        file.write("\t".join(HEADER) + "\n")
        for query_id, passage_id, grade in judgements:
            for cell in (query_id, passage_id):
                if any(mark in cell for mark in "\t\r\n"):
                    raise InputError(
                        f"{name}: the id {cell!r} holds a tab or a line break, which qrels cannot hold",
                        hint="rename the id",
                    )
            file.write(f"{query_id}\t{passage_id}\t{grade}\n")

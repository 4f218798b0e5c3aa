"""Training data without what occurs in evaluation sets: the clean rows are written, the others listed.

CLEAN                   as TRAIN, without the contaminated rows
CLEAN.removed.jsonl     one line for each that is gone: where it stood, its text, the evaluation text, how similar
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from embedsmith.data.bad_rows import BadRow, OnBad, Tally, Unusable, refuse
from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection
from embedsmith.data.files import atomic_write, read_jsonl, refuse_foreign, whole_folder, write_jsonl
from embedsmith.data.load import known_splits, load_collection, load_tables, usual_split
from embedsmith.data.locks import writes_out
from embedsmith.data.tables import Table
from embedsmith.errors import InputError, RunError
from embedsmith.mining.near_duplicates import shingles
from embedsmith.pages.bars import draws_bars
from embedsmith.prepare.contamination import (
    ContaminationSettings,
    EvaluationIndex,
    Match,
    checked_texts,
    clean_negatives,
    is_example,
)
from embedsmith.progress import Progress, silent

_TELL = 1000
"""Rows between two reports of progress."""


@dataclass
class Cleaned:
    """What was found, and what is left."""

    path: Path
    removed_path: Path
    rows: int = 0
    """Rows of the training data: those that are kept, and those that are removed."""
    kept: int = 0
    removed: int = 0
    negatives: int = 0
    """Negatives that were taken out of examples that are kept."""
    by_data: dict[str, int] = field(default_factory=dict)
    """Rows that were removed, by the evaluation set of the most similar text."""
    by_how: dict[str, int] = field(default_factory=dict)
    """The same: exact, normalised, near."""
    evaluation_rows: dict[str, int] = field(default_factory=dict)
    """Rows of each evaluation set."""


@writes_out
@draws_bars
def decontaminate(
    train: str | Path,
    *,
    against: Sequence[str | Path],
    out: str | Path,
    settings: ContaminationSettings | None = None,
    split: str | None = None,
    against_split: str | None = None,
    corpus: str | Path | None = None,
    names: Mapping[str, str] | None = None,
    as_written: Callable[[str], str] = str,
    skip_bad: bool = False,
    on_skip: Callable[[str], None] | None = None,
    on_progress: Progress = silent,
    progress: bool = True,
) -> Cleaned:
    """Write training data without the rows whose texts occur in evaluation sets.

    Args:
        train: a file of rows of any kind (examples, pairs, labelled texts), a folder with one for each split, a folder
            of `datasets`, or a BEIR folder.
        against: evaluation sets of the same forms.
        out: the file to write, of the kind of `train` or `.jsonl`; for a BEIR folder a folder.
        settings: which texts count as the same.
        split: which part of `train`, several with commas between, or `all`; train where there is one.
        against_split: which part of the evaluation sets; test where there is one.
        corpus: a file of passages that join those of a BEIR folder, whose judgements may name them.
        names: columns of `train` -> the conventional names that they stand for.
        as_written: path of a data set -> how it is recorded in the result.
        skip_bad: leave out rows that cannot be used, of `train` and of the evaluation sets.
        on_skip: called with the number of rows left out, by reason.
        on_progress: called with the progress of the work, in place of bars.
        progress: draw bars, where there is a terminal or a notebook.

    Raises:
        InputError, RunError, SettingsError: see `embedsmith.errors`; something else lies where what is removed is to
            be listed.
    """
    settings, out = settings or ContaminationSettings(), Path(out)
    tally = Tally()
    on_bad: OnBad = tally if skip_bad else refuse
    index = EvaluationIndex(settings, shingles=shingles)
    found = Cleaned(out, out.with_name(f"{out.name}.removed.jsonl"))
    refuse_foreign(found.removed_path, is_ours=_lists_removed)
    for path in against:
        name = as_written(str(path))
        if name in found.evaluation_rows:
            raise InputError(f"{name}: given twice", hint="name each evaluation set once")
        found.evaluation_rows[name] = 0
        for texts in _evaluation_texts(path, against_split, settings, on_bad, skip_bad=skip_bad, on_skip=on_skip):
            index.add(name, texts)
            found.evaluation_rows[name] += 1
    removed: list[dict[str, Any]] = []
    if (Path(train) / "qrels").is_dir():
        collection = load_collection(
            train, split=split or usual_split(train, "train"), corpus=corpus, skip_bad=skip_bad, on_skip=on_skip
        )
        _clean_collection(Path(train), collection, split, index, settings, found, removed, on_progress)
    else:
        tables = load_tables(train, split)
        _clean_tables(tables, str(train), index, settings, found, removed, on_bad, names or {}, on_progress)
    if on_skip:
        for line in tally.lines():
            on_skip(line)
    write_jsonl(found.removed_path, ({**row, "place": as_written(row["place"])} for row in removed))
    rows = [row for row in removed if row["role"] == "row"]
    found.by_data = dict(Counter(row["data"] for row in rows).most_common())
    found.by_how = dict(Counter(row["how"] for row in rows).most_common())
    return found


def check_evaluation_set(path: str | Path, settings: ContaminationSettings, *, skip_bad: bool) -> None:
    """Refuse an evaluation set that cannot be opened, or whose first row has no text that counts.

    Raises:
        InputError: it cannot; names the place.
    """
    on_bad: OnBad = Tally() if skip_bad else refuse
    next(_evaluation_texts(path, None, settings, on_bad, skip_bad=skip_bad, on_skip=None), None)


def _evaluation_texts(
    path: str | Path,
    split: str | None,
    settings: ContaminationSettings,
    on_bad: OnBad,
    *,
    skip_bad: bool,
    on_skip: Callable[[str], None] | None,
) -> Iterator[list[str]]:
    """Yield the texts of each row of an evaluation set that count."""
    if (Path(path) / "qrels").is_dir():
        split = split or usual_split(path, "test")
        collection = load_collection(path, split=split, skip_bad=skip_bad, on_skip=on_skip)
        yield from ([query] for query in collection.queries)
        if settings.passages:
            yield from ([passage] for passage in collection.passages if passage.strip())
        return
    for *_, texts in _checked_rows(load_tables(path, split, preferred="test"), settings, on_bad, {}):
        yield texts


def _checked_rows(
    tables: Iterable[Table], settings: ContaminationSettings, on_bad: OnBad, names: Mapping[str, str]
) -> Iterator[tuple[Table, int, dict[str, Any], list[str]]]:
    """Yield the rows of tables, each with its table, its number and the texts that count.

    Rows that cannot be read, or have no text that counts, go to `on_bad`.
    """
    for table in tables:
        for number, row in table.rows(on_bad):
            held = {key: value for key, value in row.items() if value is not None}
            try:
                # Columns that are named here are named as the data has them.
                texts = checked_texts(held if settings.columns else _renamed(held, names), settings)
            except Unusable as flaw:
                on_bad(BadRow(table.place(number), flaw))
                continue
            yield table, number, row, texts


def _renamed(row: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a row with conventional names of columns.

    >>> _renamed({"ask": "why?", "query": "an id", "more": 1}, {"ask": "query"})
    {'more': 1, 'query': 'why?'}
    """
    named = {names[key]: value for key, value in row.items() if key in names}
    return {key: value for key, value in row.items() if key not in names and key not in named} | named


def _clean_tables(
    tables: Sequence[Table],
    train: str,
    index: EvaluationIndex,
    settings: ContaminationSettings,
    found: Cleaned,
    removed: list[dict[str, Any]],
    on_bad: OnBad,
    names: Mapping[str, str],
    on_progress: Progress,
) -> None:
    """Write the rows of tables that no evaluation set has."""
    total = sum(1 for table in tables for _ in table.rows(lambda bad: None))

    def clean() -> Iterator[dict[str, Any]]:
        for table, number, row, texts in _checked_rows(tables, settings, on_bad, names):
            found.rows += 1
            if found.rows % _TELL == 0 or found.rows == total:
                on_progress(f"compare {train}", found.rows, total)
            match = index.match(texts)
            if match:
                found.removed += 1
                removed.append(_line(table.place(number), "row", match))
                continue
            found.kept += 1
            if is_example(row) and (row.get("symmetric") or settings.passages):
                row, gone = clean_negatives(row, index)
                found.negatives += len(gone)
                removed.extend(_line(table.place(number), "negative", one) for one in gone)
            yield row

    _writer(tables, found.path)(clean())


def _line(place: str, role: str, match: Match) -> dict[str, Any]:
    return {"place": place, "role": role, **match._asdict()}


def _lists_removed(path: Path) -> bool:
    """Return whether a file is a list of what was removed, as this module writes it."""
    try:
        return all(row.keys() == {"place", "role", *Match._fields} for _, row in read_jsonl(path))
    except InputError:
        return False


_Rows = Iterable[dict[str, Any]]


def _writer(tables: Sequence[Table], out: Path) -> Callable[[_Rows], object]:
    """Return what writes rows of some tables to a file of the same kind, or to JSON lines.

    Raises:
        InputError: the file is of another kind.
    """
    if out.suffix == ".jsonl":
        return lambda rows: write_jsonl(out, rows, nan_as_null=True)
    suffixes = {Path(table.name).suffix for table in tables}
    if suffixes == {out.suffix} and out.suffix in (".csv", ".tsv"):
        return lambda rows: _write_csv(out, tables, rows)
    if suffixes == {out.suffix} and out.suffix == ".parquet":
        return lambda rows: _write_parquet(out, tables, rows)
    raise InputError(
        f'{out}: a file that ends in "{out.suffix}", wanted .jsonl or the suffix of the training data',
        hint="give it another name",
    )


def _write_csv(out: Path, tables: Sequence[Table], rows: _Rows) -> None:
    names = list(dict.fromkeys(name for table in tables for name in table.columns or ()))
    with atomic_write(out) as file:
        writer = csv.DictWriter(file, names, delimiter="\t" if out.suffix == ".tsv" else ",", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_parquet(out: Path, tables: Sequence[Table], rows: _Rows) -> None:
    import pyarrow.parquet as pq

    from embedsmith.data.parquet import write_parquet

    write_parquet(out, pq.read_schema(tables[0].name).remove_metadata(), rows)


def _clean_collection(
    folder: Path,
    collection: Collection,
    split: str | None,
    index: EvaluationIndex,
    settings: ContaminationSettings,
    found: Cleaned,
    removed: list[dict[str, Any]],
    on_progress: Progress,
) -> None:
    """Write a BEIR folder without the queries that an evaluation set has; of its corpus nothing is removed."""
    if settings.passages:
        raise InputError(
            f"{folder}: passages of a BEIR folder are many queries' and stay",
            hint="mine it, and clean the examples: decontaminate RUN/negatives.jsonl --passages",
        )
    if found.path.exists():
        raise RunError(f"{found.path}: there already", hint="choose another --out")
    kept = np.ones(len(collection.queries), bool)
    for row, (query_id, query) in enumerate(zip(collection.query_ids, collection.queries, strict=True)):
        if match := index.match([query]):
            kept[row] = False
            removed.append(_line(f"{folder}: query {query_id}", "row", match))
        if (row + 1) % _TELL == 0 or row + 1 == len(kept):
            on_progress(f"compare {folder}", row + 1, len(kept))
    found.rows, found.kept, found.removed = len(kept), int(kept.sum()), int((~kept).sum())
    if not found.kept:
        raise InputError(f"{folder}: every query is in an evaluation set", hint="choose another split")
    name = split if split in known_splits(folder) else "train"
    with whole_folder(found.path, replaces=False) as partial:
        write_beir(partial, {name: with_queries(collection, kept)}, name=found.path)


def with_queries(collection: Collection, kept: Bool[np.ndarray, " Q"]) -> Collection:
    """Return a collection with some of its queries and the whole corpus."""
    rows = np.flatnonzero(kept)
    number = np.cumsum(kept) - 1
    judged, given = kept[collection.judged_queries], kept[collection.negative_queries]
    return replace(
        collection,
        query_ids=collection.query_ids.kept(rows),
        queries=collection.queries.kept(rows),
        judged_queries=number[collection.judged_queries[judged]],
        judged_passages=collection.judged_passages[judged],
        grades=collection.grades[judged],
        negative_queries=number[collection.negative_queries[given]],
        negative_passages=collection.negative_passages[given],
    )

"""Any table that pandas, polars, `datasets`, csv or json writes is read as it was, or refused with the place.

PROPERTY_EXAMPLES=20000 tries more tables.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsmith.data.bad_rows import Tally, id_of, refuse
from embedsmith.data.grades import MAX_GRADE
from embedsmith.data.listed import read_listed
from embedsmith.data.load import load_collection
from embedsmith.data.qrels import read_judgements
from embedsmith.data.tables import open_table, saved_tables
from embedsmith.errors import InputError

EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "25"))
any_table = settings(max_examples=EXAMPLES)

Rows = list[dict[str, Any]]

# --- Tables -----------------------------------------------------------------------------------------------------------

ODD = [
    "",
    " ",
    '"',
    '""',
    'a "b" c',
    "a,b",
    "a\tb",
    "a\nb",
    "a\r\nb",
    "a\rb",
    "\n",
    "\ufeffa",
    "\x00",
    "\u2028",
    "\x85",
]
ODD += [
    "nan",
    "NA",
    "null",
    "None",
    "1",
    "1.0",
    "007",
    "True",
    "2020-01-01",
    "['a', 'b']",
    "[]",
    "{}",
    "\\",
    "\\n",
    "🙂",
]
texts = st.one_of(st.sampled_from(ODD), st.text(max_size=8), st.lists(st.sampled_from(ODD), max_size=3).map("".join))
ids = st.one_of(st.text(max_size=3), st.sampled_from(ODD), st.integers(-3, 12).map(str))
named = ids.filter(bool)  # an empty cell of CSV is none
whole_ids = st.integers(-(2**63), 2**63 - 1)
grades = st.one_of(
    st.integers(-2, 4), st.integers(), st.floats(), st.sampled_from([0.0, 1.0, 2.0, -1.0, 0.5, 1e6, 1e300, math.nan])
)


@st.composite
def tables(draw: Callable, **columns: st.SearchStrategy) -> Rows:
    """Draw rows with the columns in any order."""
    names = draw(st.permutations(sorted(columns)))
    count = draw(st.integers(1, 6))
    return [{name: draw(columns[name]) for name in names} for _ in range(count)]


# --- Writers ----------------------------------------------------------------------------------------------------------


def by_csv(path: Path, rows: Rows, **options: Any) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


def by_json(path: Path, rows: Rows, **options: Any) -> Path:
    path.write_bytes("".join(json.dumps(row, **options) + "\n" for row in rows).encode())
    return path


def frame(rows: Rows) -> Any:
    import pandas

    return pandas.DataFrame(rows)


def polars_frame(rows: Rows) -> Any:
    import polars

    return polars.DataFrame(rows, infer_schema_length=None, strict=False)


def data_set(rows: Rows) -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets.Dataset.from_list(rows)


def saved(path: Path, rows: Rows) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    data_set(rows).save_to_disk(path)
    return path


def written(path: Path, write: Callable[[Path], Any]) -> Path:
    write(path)
    return path


WRITERS: dict[str, Callable[[Path, Rows], Path]] = {
    "csv": lambda at, rows: by_csv(at / "t.csv", rows),
    "csv, all quoted, LF": lambda at, rows: by_csv(at / "t.csv", rows, quoting=csv.QUOTE_ALL, lineterminator="\n"),
    "csv, tabs": lambda at, rows: by_csv(at / "t.tsv", rows, delimiter="\t"),
    "csv, pandas": lambda at, rows: written(at / "t.csv", lambda path: frame(rows).to_csv(path, index=False)),
    "csv, polars": lambda at, rows: written(at / "t.csv", lambda path: polars_frame(rows).write_csv(path)),
    "csv, datasets": lambda at, rows: written(at / "t.csv", lambda path: data_set(rows).to_csv(path)),
    "json": lambda at, rows: by_json(at / "t.jsonl", rows),
    "json, not escaped": lambda at, rows: by_json(at / "t.jsonl", rows, ensure_ascii=False),
    "json, pandas": lambda at, rows: written(
        at / "t.jsonl", lambda path: frame(rows).to_json(path, orient="records", lines=True)
    ),
    "json, polars": lambda at, rows: written(at / "t.jsonl", lambda path: polars_frame(rows).write_ndjson(path)),
    "json, datasets": lambda at, rows: written(at / "t.jsonl", lambda path: data_set(rows).to_json(path)),
    "parquet, pandas": lambda at, rows: written(at / "t.parquet", lambda path: frame(rows).to_parquet(path)),
    "parquet, polars": lambda at, rows: written(at / "t.parquet", lambda path: polars_frame(rows).write_parquet(path)),
    "parquet, datasets": lambda at, rows: written(at / "t.parquet", lambda path: data_set(rows).to_parquet(path)),
    "folder, datasets": lambda at, rows: saved(at / "t", rows),
}
every_writer = pytest.mark.parametrize("writer", WRITERS)


def save(writer: str, at: Path, rows: Rows) -> Path | None:
    """Return what a library wrote, None where it cannot write such rows."""
    import polars
    import pyarrow as pa

    if writer in ("csv, pandas", "csv, datasets") and any(
        str(value).endswith("\r") for row in rows for value in row.values()
    ):
        return None  # written without quotes: at the end of a line it is a part of the line's end
    try:
        return WRITERS[writer](at, rows)
    except (OverflowError, TypeError, pa.ArrowInvalid, polars.exceptions.PolarsError, UnicodeEncodeError):
        return None


def unless_refused(read: Callable[[], Any], path: Path, *, at_row: bool = False) -> Any:
    """Return what was read, None where it was refused in one line that names the file, and in it the row."""
    try:
        return read()
    except InputError as error:
        refused = error
    assert re.match(re.escape(str(path)) + (r"(:\d+|: row [\d,]+): " if at_row else ""), str(refused))
    assert "\n" not in str(refused)
    assert refused.hint
    return None


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


def table_at(path: Path) -> Any:
    return saved_tables(path)[""] if path.is_dir() else open_table(path)


def same_text(one: Any, other: Any) -> bool:
    """Return whether two values are the same text; an empty one may be none."""
    return (one or None) == (other or None)


@every_writer
@given(rows=tables(query=texts, positive=texts, source=texts))
@any_table
def test_texts_are_read_as_they_were_written(at: Path, writer: str, rows: Rows):
    path = save(writer, at, rows)
    if path is None:
        return
    found = unless_refused(lambda: [row for _, row in table_at(path).rows(refuse)], path, at_row=True)
    if found is None:
        return
    assert len(found) == len(rows)
    for one, other in zip(found, rows, strict=True):
        assert one.keys() == other.keys()
        assert all(same_text(one[name], other[name]) for name in other)


@every_writer
@given(rows=tables(query=texts, positive=texts))
@any_table
def test_every_row_is_kept_or_told(at: Path, writer: str, rows: Rows):
    path = save(writer, at, rows)
    if path is None:
        return
    tally = Tally()
    kept = unless_refused(lambda: [row for _, row in table_at(path).rows(tally)], path)
    if kept is None:
        return
    assert len(kept) + tally.counts.total() == len(rows)


# --- Pairs ------------------------------------------------------------------------------------------------------------


def slow_pairs(rows: Rows) -> dict[tuple[str, str, str, str], int]:
    """Return (query id, query, passage id, passage) -> grade."""
    return {
        (str(row["query_id"]), row["query"], str(row["positive_id"]), row["positive"]): int(row["label"])
        for row in rows
    }


@every_writer
@given(rows=tables(query=texts, positive=texts, query_id=st.one_of(named, whole_ids), positive_id=named, label=grades))
@any_table
def test_pairs_are_read_as_they_were_written(at: Path, writer: str, rows: Rows):
    # A column has one kind of ids.
    if {type(row["query_id"]) for row in rows} != {type(rows[0]["query_id"])}:
        rows = [{**row, "query_id": str(row["query_id"])} for row in rows]
    path = save(writer, at, rows)
    if path is None:
        return
    found = unless_refused(lambda: load_collection(path), path)
    if found is None:
        return
    positives = {
        (found.query_ids[q], found.queries[q], found.passage_ids[p], found.passages[p]): grade
        for q, p, grade in zip(
            found.judged_queries.tolist(), found.judged_passages.tolist(), found.grades.tolist(), strict=True
        )
    }
    wanted = slow_pairs(rows)
    assert all(is_grade(row["label"]) for row in rows)
    assert positives == {key: grade for key, grade in wanted.items() if grade > 0}


def is_grade(value: float) -> bool:
    return math.isfinite(value) and value == int(value) and abs(value) <= MAX_GRADE


# --- Judgements -------------------------------------------------------------------------------------------------------


def qrels_by_csv(path: Path, rows: Rows, header: bool) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)


def qrels_by_hand(path: Path, rows: Rows, header: bool) -> None:
    lines = [list(rows[0])] * header + [[str(value) for value in row.values()] for row in rows]
    path.write_bytes("".join("\t".join(line) + "\n" for line in lines).encode())


QRELS_WRITERS: dict[str, Callable[[Path, Rows, bool], Any]] = {
    "by hand": qrels_by_hand,
    "csv": qrels_by_csv,
    "pandas": lambda path, rows, header: frame(rows).to_csv(path, sep="\t", index=False, header=header),
    "polars": lambda path, rows, header: polars_frame(rows).write_csv(path, separator="\t", include_header=header),
}
plain_ids = st.text(st.characters(codec="utf-8", exclude_characters='\t\r\n"\ufeff'), min_size=1, max_size=3)


@pytest.mark.parametrize("trec", [False, True])
@pytest.mark.parametrize("writer", QRELS_WRITERS)
@given(
    rows=tables(**{"query-id": plain_ids, "corpus-id": st.one_of(plain_ids, whole_ids.map(str)), "score": grades}),
    has_header=st.booleans(),
)
@any_table
def test_judgements_are_read_as_they_were_written(at: Path, writer: str, rows: Rows, trec: bool, has_header: bool):
    import polars

    if not has_header:
        rows = [{name: row[name] for name in ("query-id", "corpus-id", "score")} for row in rows]
    path = at / "qrels.tsv"
    try:
        QRELS_WRITERS[writer](path, rows, has_header)
    except (OverflowError, polars.exceptions.PolarsError):
        return
    wanted = {}
    is_clear = True
    for row in rows:
        pair = (row["query-id"], row["corpus-id"])
        is_clear &= is_grade(row["score"]) and wanted.setdefault(pair, row["score"]) == row["score"]
    found = unless_refused(lambda: read_judgements(path, refuse, trec=trec), path, at_row=True)
    if found is None:
        return
    assert is_clear
    read = dict(zip(zip(found.query_ids, found.passage_ids, strict=True), found.grades.tolist(), strict=True))
    assert read == wanted


# --- Lists of texts ---------------------------------------------------------------------------------------------------


@every_writer
@given(rows=tables(id=ids, text=texts))
@any_table
def test_lists_of_texts_are_read_as_they_were_written(at: Path, writer: str, rows: Rows):
    if writer == "folder, datasets":
        return
    path = save(writer, at, rows)
    if path is None:
        return
    listed = unless_refused(lambda: read_listed(path), path)
    if listed is None:
        return
    names, found = listed
    assert list(found) == [row["text"] for row in rows]
    for name, row in zip(names, rows, strict=True):
        assert name == id_of(row["id"]) or not row["id"]


# --- BEIR folders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", [name for name in WRITERS if name.startswith("json")])
@given(
    corpus=st.lists(st.tuples(plain_ids, texts, texts), min_size=1, max_size=4, unique_by=lambda row: row[0]),
    queries=st.lists(st.tuples(plain_ids, texts), min_size=1, max_size=3, unique_by=lambda row: row[0]),
    draw=st.data(),
)
@any_table
def test_beir_folders_are_read_as_they_were_written(at: Path, writer: str, corpus, queries, draw):
    folder = at / "beir"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "qrels").mkdir(parents=True)
    tables_of = {
        "corpus": [{"_id": own, "title": title, "text": text} for own, title, text in corpus],
        "queries": [{"_id": own, "text": text} for own, text in queries],
    }
    for name, rows in tables_of.items():
        path = save(writer, at, rows)
        assert path is not None
        path.rename(folder / f"{name}.jsonl")
    qrels = {(query, passage): draw.draw(st.integers(0, 2)) for query, _ in queries for passage, _, _ in corpus}
    rows = [{"query-id": query, "corpus-id": passage, "score": grade} for (query, passage), grade in qrels.items()]
    order = draw.draw(st.permutations(list(rows[0])))
    qrels_by_hand(folder / "qrels" / "test.tsv", [{name: row[name] for name in order} for row in rows], True)
    found = unless_refused(lambda: load_collection(folder), folder)
    if found is None:
        return
    assert list(found.passage_ids) == [own for own, _, _ in corpus]
    assert list(found.passages) == [f"{title} {text}".strip() if title else text for _, title, text in corpus]
    answered = [own for own, _ in queries if any(qrels[own, passage] for passage, _, _ in corpus)]
    assert list(found.query_ids) == answered
    assert list(found.queries) == [text for own, text in queries if own in answered]
    assert found.qrels == {own: {passage: qrels[own, passage] for passage, _, _ in corpus} for own in answered}

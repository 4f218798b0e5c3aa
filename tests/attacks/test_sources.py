"""What stands in a file's place and never ends, and short files that stand for more than fits into memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsmith.data import arrow_growth
from embedsmith.data.bad_rows import refuse
from embedsmith.data.files import read_json, read_jsonl
from embedsmith.data.listed import read_listed
from embedsmith.data.load import load_collection
from embedsmith.data.pair_labels import read_labels
from embedsmith.data.parquet import read_parquet
from embedsmith.data.qrels import read_judgements
from embedsmith.data.tables import open_table
from embedsmith.data.trec import read_ranking
from embedsmith.errors import InputError
from embedsmith.prepare.code import CodeSettings, sources_hash
from embedsmith.recipes.ablation.grid import read_ablation
from embedsmith.recipes.recipe import read_recipe

READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "JSON": (".json", read_json),
    "JSON lines": (".jsonl", lambda path: list(read_jsonl(path))),
    "a table of JSON lines": (".jsonl", lambda path: list(open_table(path).rows(refuse))),
    "CSV": (".csv", open_table),
    "TSV": (".tsv", open_table),
    "Parquet": (".parquet", open_table),
    "Parquet of ours": (".parquet", lambda path: list(read_parquet(path))),
    "pairs": (".jsonl", load_collection),
    "judgements": (".tsv", lambda path: read_judgements(path, refuse)),
    "a run file": (".trec", read_ranking),
    "texts": (".txt", read_listed),
    "labels": (".yaml", lambda path: read_labels(str(path))),
    "a recipe": (".yaml", read_recipe),
    "an ablation": (".yaml", read_ablation),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has neither")
@pytest.mark.parametrize("kind", ["pipe", "endless", "linked pipe"])
@pytest.mark.parametrize("reader", READERS)
def test_what_never_ends_is_refused_by_every_reader(tmp_path: Path, reader: str, kind: str):
    suffix, read = READERS[reader]
    path = tmp_path / f"source{suffix}"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    with pytest.raises(InputError, match="a pipe or a device, wanted a file"):
        read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has none")
def test_a_pipe_among_sources_is_passed_over(tmp_path: Path):
    (tmp_path / "a.py").write_text("x = 1\n")
    os.mkfifo(tmp_path / "b.py")
    assert sources_hash(CodeSettings(source=str(tmp_path)))


def bomb(path: Path, *, text: str, rows: int, as_dictionary: bool = False) -> None:
    """Write a file of one text that stands in every row.

    Args:
        as_dictionary: let the file ask its readers for a dictionary.
    """
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))
    table = pa.table({"query": column, "positive": column})
    pq.write_table(table, path, compression="zstd", store_schema=as_dictionary)


@pytest.mark.parametrize("as_dictionary", [False, True])
def test_a_short_parquet_file_that_stands_for_gigabytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_dictionary: bool
):
    monkeypatch.setattr(arrow_growth, "_MOST_BYTES", 2**25)
    bomb(tmp_path / "a.parquet", text="a" * 1_000_000, rows=5_000, as_dictionary=as_dictionary)
    assert (tmp_path / "a.parquet").stat().st_size < 2_000
    for read in (load_collection, lambda path: [None for _ in read_parquet(path)]):
        with pytest.raises(InputError, match="bytes that stand for more than"):
            read(tmp_path / "a.parquet")


def test_rows_are_read_by_how_long_they_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arrow_growth, "_BATCH_BYTES", 1_000_000)
    bomb(tmp_path / "a.parquet", text="a" * 100_000, rows=500)
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        assert max(batch.nbytes for batch in arrow_growth.parquet_batches(file, tmp_path / "a.parquet")) < 3_000_000
    assert sum(1 for _ in open_table(tmp_path / "a.parquet").rows(refuse)) == 500
    rows = [{"query": f"query {row}", "positive": f"positive {row * 7919} {'x' * (row % 50)}"} for row in range(1000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "usual.parquet")
    with pq.ParquetFile(tmp_path / "usual.parquet") as file:
        assert arrow_growth.rows_at_a_time(file) == 256
    assert [row for _, row in open_table(tmp_path / "usual.parquet").rows(refuse)] == rows


MILLIONS = {
    "rows of nothing": pa.nulls(2_000_000),
    "a list of nothing": pa.array([[None] * 2_000_000]),
    "a list of one number": pa.array([np.zeros(2_000_000, np.int8)]),
    "lists in a list": pa.array([[[None] * 1000] * 2000]),
    "an object of nothing": pa.array([[{"x": None}] * 1_100_000]),
}


@pytest.mark.parametrize("column", MILLIONS.values(), ids=MILLIONS)
def test_a_short_parquet_file_that_stands_for_millions_of_values_is_refused(tmp_path: Path, column: pa.Array):
    pq.write_table(pa.table({"query": column, "positive": column}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"bytes that stand for more than [\d,]+ values"):
        load_collection(tmp_path / "a.parquet")


@pytest.mark.parametrize("column", [pa.nulls(2_000_000), pa.array([[None] * 2_000_000])], ids=["rows", "a list"])
def test_a_short_saved_folder_that_stands_for_millions_of_values_is_refused(tmp_path: Path, column: pa.Array):
    save(pa.table({"query": column, "positive": column}), tmp_path)
    with pytest.raises(InputError, match=r"bytes that stand for more than [\d,]+ values"):
        load_collection(tmp_path)


SHARED = {
    "a dictionary": pa.array(["a cat", "a cat"]).dictionary_encode(),
    "views": pa.array(["a cat", "a cat"], pa.string_view()),
    "views of lists": pa.array([["a cat"], ["a cat"]], pa.list_view(pa.string())),
    "runs": pa.RunEndEncodedArray.from_arrays([2], ["a cat"]),
    "a dictionary in a list": pa.ListArray.from_arrays([0, 1, 2], pa.array(["a cat", "a cat"]).dictionary_encode()),
}


@pytest.mark.parametrize("column", SHARED.values(), ids=SHARED)
def test_a_saved_folder_in_which_rows_share_their_bytes_is_refused(tmp_path: Path, column: pa.Array):
    save(pa.table({"query": column, "positive": column}), tmp_path)
    with pytest.raises(InputError, match='column "query" has the type'):
        load_collection(tmp_path)


@pytest.mark.parametrize("name", ["a dictionary", "views", "a dictionary in a list"])
def test_parquet_in_which_rows_share_their_bytes_reads_as_any(tmp_path: Path, name: str):
    try:
        pq.write_table(pa.table({"query": SHARED[name]}), tmp_path / "a.parquet")
    except pa.ArrowNotImplementedError:
        pytest.skip("this pyarrow writes no views")
    kind = pq.read_schema(tmp_path / "a.parquet").field("query").type
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        (batch,) = arrow_growth.parquet_batches(file, tmp_path / "a.parquet")
    assert batch.schema.field("query").type != kind
    assert batch.column("query").to_pylist() == SHARED[name].to_pylist()


def save(table: pa.Table, folder: Path) -> None:
    """Write a table as `save_to_disk` of `datasets` does."""
    with pa.ipc.new_stream(folder / "data.arrow", table.schema) as stream:
        stream.write_table(table)
    (folder / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')

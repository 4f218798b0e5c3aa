"""What stands in a file's place and never ends, and short files that stand for more than fits into memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsmith.data import tables
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


def bomb(path: Path, *, text: str, rows: int) -> None:
    """Write a file of one text that stands in every row."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))
    table = pa.table({"query": column, "positive": column})
    pq.write_table(table, path, compression="zstd", store_schema=False)


def test_a_short_parquet_file_that_stands_for_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "_MOST_BYTES", 2**25)
    bomb(tmp_path / "a.parquet", text="a" * 1_000_000, rows=5_000)
    assert (tmp_path / "a.parquet").stat().st_size < 2_000
    for read in (load_collection, lambda path: [None for _ in read_parquet(path)]):
        with pytest.raises(InputError, match="bytes that stand for more than"):
            read(tmp_path / "a.parquet")


def test_rows_are_read_by_how_long_they_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "_BATCH_BYTES", 1_000_000)
    bomb(tmp_path / "a.parquet", text="a" * 100_000, rows=500)
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        assert max(batch.nbytes for batch in tables.parquet_batches(file, tmp_path / "a.parquet")) < 3_000_000
    assert sum(1 for _ in open_table(tmp_path / "a.parquet").rows(refuse)) == 500
    rows = [{"query": f"query {row}", "positive": f"positive {row * 7919} {'x' * (row % 50)}"} for row in range(1000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "usual.parquet")
    with pq.ParquetFile(tmp_path / "usual.parquet") as file:
        assert tables.rows_at_a_time(file) == 256
    assert [row for _, row in open_table(tmp_path / "usual.parquet").rows(refuse)] == rows

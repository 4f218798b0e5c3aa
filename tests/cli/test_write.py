"""`embedsmith write`: the rows that it says it wrote are in the file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import datasets
import pytest

from embedsmith.cli.main import main
from embedsmith.data.examples import read_examples
from embedsmith.errors import RunError
from embedsmith.mining.dialect_files import DialectSettings
from embedsmith.mining.mine import mine
from embedsmith.mining.select import select_again, write
from embedsmith.mining.settings import MiningSettings

SETTINGS = MiningSettings(teachers=["bm25"], method="naive", floor=0.1, negatives=3, depth=10)


@pytest.fixture(scope="module")
def mined(tmp_path_factory) -> Path:
    """A run where some queries are short."""
    folder = tmp_path_factory.mktemp("write")
    rows = [
        {"query": f"{a} {b}", "positive": f"the {a} is on the {b}"}
        for a in ("cat", "dog", "owl")
        for b in ("mat", "log", "tree")
    ]
    rows.append({"query": "a lonely whale", "positive": "whale lonely"})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mine(folder / "pairs.jsonl", out=folder / "mined", settings=SETTINGS)
    return folder / "mined"


def _run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[str, int]:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(sys, "argv", ["embedsmith", *map(str, words)])
    with pytest.raises(SystemExit, match=r"\d") as ended:
        main()
    printed = capsys.readouterr()
    return printed.out + printed.err, int(ended.value.code or 0)


def test_an_n_tuple_file_holds_the_rows_that_were_announced(mined, tmp_path, monkeypatch, capsys):
    out = tmp_path / "x.parquet"
    words = ["write", mined, "--dialect", "st-n-tuple", "--negatives", 2, "--scores", "--out", out, "--json"]
    printed, code = _run(monkeypatch, capsys, *words)
    assert code == 0
    notes = json.loads(printed)
    rows = datasets.load_dataset("parquet", data_files=str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == ["anchor", "positive", "negative_1", "negative_2", "scores"]
    enough = [example for example in read_examples(mined / "negatives.jsonl") if len(example.negatives) >= 2]
    assert notes["rows"] == len(rows) == sum(len(example.positives) for example in enough)
    assert notes["rows"] + sum(notes["left_out"].values()) == 10


def test_what_was_left_out_is_told_with_its_reason(mined, tmp_path, monkeypatch, capsys):
    printed, code = _run(
        monkeypatch, capsys, "write", mined, "--dialect", "st-triplet", "--out", tmp_path / "x.parquet"
    )
    assert code == 0
    lone = sum(not example.negatives for example in read_examples(mined / "negatives.jsonl"))
    assert lone
    assert f"left out: {lone} queries with no negatives" in printed


@pytest.mark.parametrize("name", ["jsonl", "parquet"])
def test_our_own_forms_hold_everything(mined, tmp_path, name):
    written = write(mined, out=tmp_path / f"x.{name}", dialect=name)
    assert read_examples(written.path) == read_examples(mined / "negatives.jsonl")
    assert (written.rows, written.left_out) == (10, {})


def test_a_selection_is_written_as_a_mining_run_is(mined, tmp_path):
    select_again(mined, out=tmp_path / "again", changes={"negatives": 1})
    written = write(tmp_path / "again", out=tmp_path / "x.jsonl", settings=DialectSettings(negatives=5))
    assert max(len(example.negatives) for example in read_examples(written.path)) == 1


def test_a_run_that_mined_nothing_is_refused(mined, tmp_path, monkeypatch, capsys):
    with pytest.raises(RunError, match="no such run folder"):
        write(tmp_path / "none", out=tmp_path / "x.jsonl")
    printed, code = _run(monkeypatch, capsys, "write", mined, "--dialect", "st-ntuple", "--out", tmp_path / "x")
    assert code == 2
    assert 'no dialect "st-ntuple" (did you mean "st-n-tuple"?)' in printed

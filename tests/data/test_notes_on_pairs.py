"""Rows of pairs that are left out or changed are reported, and the counts add up."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from embedsmith.data.load import load_collection
from embedsmith.data.tables import open_table


def notes_of(path: Path, rows: list[dict], **options) -> tuple[list[str], list[str]]:
    """Return the queries that are kept of rows, and what is reported without the name of the file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    notes: list[str] = []
    collection = load_collection(path, on_skip=notes.append, **options)
    return list(collection.queries), [note.replace(f"{path}: ", "").replace(str(path), "FILE") for note in notes]


@pytest.mark.parametrize(
    "other", ["LS -A", "ls  -a", " ls -a\n", "ｌｓ -a", "ls -ª", "ﬆraße", "x²"], ids=lambda other: ascii(other)
)
def test_queries_that_become_one_are_told(tmp_path, other):
    first = {"ﬆraße": "STRASSE", "x²": "x2"}.get(other, "ls -a")
    rows = [{"query": query, "positive": f"p{row}"} for row, query in enumerate([first, "b", first, other, other])]
    kept, notes = notes_of(tmp_path / "pairs.jsonl", rows)
    assert kept == [first, "b"]
    shown = " ".join(other.split())
    assert notes == [
        "1 query is one with an earlier query that differs in case, width or white space only, the first: "
        f'FILE:4: "{shown}" is the same as "{first}"'
    ]


def test_each_spelling_is_counted_once_and_the_same_spelling_never(tmp_path):
    queries = ["a", "A", "a", "A", "b", "b", "c", "C ", " C", "d", "D"]
    rows = [{"query": query, "positive": f"p{row}"} for row, query in enumerate(queries)]
    _, notes = notes_of(tmp_path / "pairs.jsonl", rows)
    assert [note.partition(" queries")[0] for note in notes] == ["4"]
    _, notes = notes_of(tmp_path / "pairs.jsonl", [{"query": "a", "positive": f"p{row}"} for row in range(3)])
    assert notes == []


def test_queries_with_ids_stay_apart(tmp_path):
    rows = [{"query_id": n, "query": query, "positive": f"p{n}"} for n, query in enumerate(["a", "A", "a"])]
    assert notes_of(tmp_path / "pairs.jsonl", rows) == (["a", "A", "a"], [])


def test_passages_that_differ_in_case_stay_apart(tmp_path):
    rows = [{"query": f"q{n}", "positive": text} for n, text in enumerate(["ls -a", "ls -A", "ls  -a"])]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(load_collection(tmp_path / "pairs.jsonl").passages) == ["ls -a", "ls -A", "ls  -a"]


def test_a_negative_that_is_a_positive_and_a_pair_that_stands_there_twice_are_counted(tmp_path):
    rows = [
        {"query": "a", "positive": "x", "negative": ["y", "z"]},
        {"query": "a", "positive": "y", "negative": ["z", "z"]},
        {"query": "a", "positive": "x"},
    ]
    _, notes = notes_of(tmp_path / "pairs.jsonl", rows)
    assert notes == [
        "1 negative is left out as a positive of the same query",
        "3 pairs stand there again: what is equal counts once",
    ]


@pytest.mark.parametrize("seed", range(4))
def test_pairs_in_the_file_are_pairs_kept_and_pairs_told(tmp_path, seed):
    draw = random.Random(seed)
    words = ["a", "A", "b", "B ", "c", "", None, 3]
    rows = [
        {"query": draw.choice(words), "positive": draw.choice(words), "negative": draw.choice([None, "a", "n", ""])}
        for _ in range(120)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    notes: list[str] = []
    collection = load_collection(path, skip_bad=True, on_skip=notes.append)

    def count(pattern: str) -> int:
        return sum(int(found[1].replace(",", "")) for note in notes if (found := re.search(pattern, note)))

    kept = len(collection.grades) + len(collection.negative_queries)
    skipped = count(r"^([0-9,]+) rows? skipped")
    good = [
        row
        for row in rows
        if isinstance(row["query"], str) and row["query"] and isinstance(row["positive"], str) and row["positive"]
        if row["negative"] != ""
    ]
    assert len(list(open_table(path).rows(lambda row: None))) == len(rows) == len(good) + skipped
    pairs = len(good) + sum(row["negative"] is not None for row in good)
    assert pairs == kept + count(r": ([0-9,]+) negatives? ") + count(r": ([0-9,]+) pairs? stand")

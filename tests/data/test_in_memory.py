"""Rows in memory are read as those of a file are, and what is wrong with them is one line that names the row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embedsmith.data.columns import ColumnSettings
from embedsmith.data.in_memory import table_in_memory, write_table
from embedsmith.data.load import load_collection
from embedsmith.errors import InputError

datasets = pytest.importorskip("datasets")

PAIRS = [
    {"query": "which animal purrs?", "positive": "a cat"},
    {"query": "which animal barks?", "positive": ["a dog", "a wolf"], "negative": "a log"},
    {"query": "Which animal  barks?", "positive": "a fox"},
]
TUPLES = [{"anchor": f"query {n}", "positive": f"answer {n}", "negative_1": f"no {n}"} for n in range(300)]
GRADED = [{"query": "cat?", "document": text, "label": n % 2} for n, text in enumerate(["a dog", "a cat", "a log"])]


def written(folder: Path, rows: list[dict]) -> Path:
    """Return a file of JSON lines with the rows."""
    path = folder / "dataset.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("rows", [PAIRS, TUPLES, GRADED], ids=["pairs", "tuples", "graded"])
def test_a_list_and_a_file_of_the_same_rows_are_one_collection(tmp_path: Path, rows: list[dict]):
    notes: list[str] = []
    found = load_collection(rows, on_skip=notes.append)
    of_file: list[str] = []
    assert found == load_collection(written(tmp_path, rows), on_skip=of_file.append)
    places = [(f"{tmp_path}/dataset.jsonl:3", "dataset[2]"), (f"{tmp_path}/dataset.jsonl", "dataset")]
    for of_line, of_row in places:
        of_file = [line.replace(of_line, of_row) for line in of_file]
    assert notes == of_file


@pytest.mark.parametrize("rows", [PAIRS[:1], TUPLES, GRADED], ids=["pairs", "tuples", "graded"])
def test_a_dataset_and_a_list_of_the_same_rows_are_one_collection(rows: list[dict]):
    assert load_collection(datasets.Dataset.from_list(rows)) == load_collection(rows)


def test_a_selection_of_a_dataset_is_read_and_not_what_lies_behind_it():
    data = datasets.Dataset.from_list(TUPLES)
    assert load_collection(data.select([7, 3])) == load_collection([TUPLES[7], TUPLES[3]])


@pytest.mark.parametrize("rows", [PAIRS, TUPLES, GRADED], ids=["pairs", "tuples", "graded"])
def test_what_is_written_of_a_table_reads_the_same(tmp_path: Path, rows: list[dict]):
    table = table_in_memory(rows)
    write_table(tmp_path / "dataset.jsonl", table, ColumnSettings())
    assert load_collection(tmp_path / "dataset.jsonl") == load_collection(rows)


def test_classes_are_written_by_their_names_and_columns_that_no_pair_has_are_not(tmp_path: Path):
    rows = [{**row, "embedding": [0.5] * 8} for row in GRADED]
    data = datasets.Dataset.from_list(rows).cast_column("label", datasets.ClassLabel(names=["0", "2"]))
    write_table(tmp_path / "dataset.jsonl", table_in_memory(data), ColumnSettings())
    assert json.loads((tmp_path / "dataset.jsonl").read_text().splitlines()[1])["label"] == "2"
    assert "embedding" not in (tmp_path / "dataset.jsonl").read_text()
    assert load_collection(tmp_path / "dataset.jsonl") == load_collection(data)


def test_values_of_numpy_are_numbers_and_lists():
    rows = [{"query": np.str_("cat?"), "document": "a cat", "label": np.int64(1)}]
    rows.append({"query": "cat?", "document": "a dog", "label": np.float32(0)})
    assert load_collection(rows).qrels == {"q0": {"p0": 1}}
    given = [{"query": "cat?", "positive": np.array(["a cat", "a lion"], object)}]
    assert list(load_collection(given).passages) == ["a cat", "a lion"]


def test_a_split_of_several_is_chosen_as_in_a_folder():
    splits = datasets.DatasetDict(
        {name: datasets.Dataset.from_list(TUPLES[:n]) for name, n in (("dev", 2), ("train", 3))}
    )
    assert len(load_collection(splits).queries) == 3
    assert len(load_collection(splits, split="dev").queries) == 2
    with pytest.raises(InputError, match=r'^dataset: no split "deb" \(did you mean "dev"\?\)$') as caught:
        load_collection(splits, split="deb")
    assert "dev, train" in caught.value.hint
    del splits["train"]
    splits["test"] = splits["dev"]
    with pytest.raises(InputError, match=r"^dataset: 2 splits, and none was chosen$"):
        load_collection(splits)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "^dataset: empty, it has no rows$"),
        ([*PAIRS, {"query": "a"}], r'^dataset\[3\]: no positive; the row has "query", and nothing under "positive"'),
        ([{"query": None, "positive": "a"}], r'^dataset\[0\]: no query; .*, and nothing under "query"$'),
        ([{"title": "a", "body": "b"}], '^dataset: no query; the row has "title", "body"$'),
        ([*PAIRS, {"query": "a", "positive": 3}], r'^dataset\[3\]: "positive" is a number, wanted a string or a list'),
        ([{"query": "a", "positive": ["b", 3]}], r'^dataset\[0\]: "positive" holds a number, wanted strings'),
        ([{"query": "a", "positive": ""}], r'^dataset\[0\]: "positive" holds an empty text'),
        ([{"query": "a", "positive": ["b", object()]}], r'^dataset\[0\]: "positive" is or holds an object, wanted'),
        ([{"query": "\ud800", "positive": "b"}], r'^dataset\[0\]: "query" has half of a surrogate pair'),
        ([{"query": "a", "Query": "a", "positive": "b"}], "^dataset: two columns differ in case"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_a_remedy(rows: list[dict], message: str):
    with pytest.raises(InputError, match=message) as caught:
        load_collection(rows)
    assert caught.value.hint


def test_a_dataset_s_row_that_holds_nothing_is_named_by_its_index():
    data = datasets.Dataset.from_list([*TUPLES, {"anchor": "a", "positive": None, "negative_1": "b"}])
    with pytest.raises(InputError, match=r'^dataset\[300\]: no positive; .*, and nothing under "positive"$'):
        load_collection(data)
    notes: list[str] = []
    assert len(load_collection(data, skip_bad=True, on_skip=notes.append).queries) == 300
    assert notes[0].startswith('1 row skipped for "no positive", the first: dataset[300]: ')


def test_a_missing_column_says_how_python_names_one():
    with pytest.raises(InputError) as caught:
        load_collection([{"title": "a", "body": "b"}])
    assert caught.value.hint.endswith("--query-column, in Python ColumnSettings(query=...)")
    named = ColumnSettings(query="title", positive="body")
    assert list(load_collection([{"title": "a", "body": "b"}], columns=named).queries) == ["a"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (5, "^dataset: an int, wanted a path, a datasets.Dataset, or a list of dicts$"),
        (b"pairs", "^dataset: a bytes, wanted a path"),
        (iter(PAIRS), r"^dataset: a list_iterator, wanted .*; write list\(rows\)$"),
        ({"query": ["a"]}, r"; write datasets.Dataset.from_dict\(columns\)$"),
        (["a"], r"^dataset\[0\]: a str, wanted a dict"),
        ([{1: "a"}], r"^dataset\[0\]: the key 1 is an int, wanted a str$"),
    ],
)
def test_what_holds_no_rows_is_a_type_error_that_says_what_does(data: object, message: str):
    with pytest.raises(TypeError, match=message):
        load_collection(data)


def test_a_frame_of_pandas_is_told_how_to_become_a_dataset():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(TypeError, match=r"a DataFrame, .*; write datasets.Dataset.from_pandas\(frame\)$"):
        load_collection(pandas.DataFrame(PAIRS))

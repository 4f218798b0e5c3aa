"""`embedsmith decontaminate`: files in, the same files without what evaluation sets hold out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection
from embedsmith.data.files import read_jsonl
from embedsmith.data.load import load_collection
from embedsmith.errors import InputError, RunError
from embedsmith.prepare.contamination import ContaminationSettings
from embedsmith.prepare.decontaminate import decontaminate
from tests.cli.conftest import embedsmith_command as embedsmith_command

TEST = [{"text": "Where is my card?", "label": "a"}, {"text": "I want a new pin", "label": "b"}]
TRAIN = [
    {"label": 3, "text": "my card is lost", "extra": [1, None]},
    {"label": 1, "text": "where is MY card?", "extra": None},
    {"label": 2, "text": "I want a new pin", "extra": []},
]


def jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(path: Path) -> list[dict]:
    return [row for _, row in read_jsonl(path)]


def test_contaminated_rows_are_gone_counted_and_listed(tmp_path: Path):
    jsonl(tmp_path / "set" / "test.jsonl", TEST)
    train = jsonl(tmp_path / "set" / "train.jsonl", TRAIN)
    found = decontaminate(tmp_path / "set", against=[tmp_path / "set"], out=tmp_path / "clean.jsonl")
    assert rows_of(tmp_path / "clean.jsonl") == TRAIN[:1]
    assert (found.rows, found.kept, found.removed) == (3, 1, 2)
    assert found.by_data == {str(tmp_path / "set"): 2}
    assert found.by_how == {"exact": 1, "normalised": 1}
    assert found.evaluation_rows == {str(tmp_path / "set"): 2}
    assert rows_of(tmp_path / "clean.jsonl.removed.jsonl") == [
        {
            "place": f"{train}:2",
            "role": "row",
            "text": "where is MY card?",
            "data": str(tmp_path / "set"),
            "found": "Where is my card?",
            "how": "normalised",
            "similarity": 1.0,
        },
        {
            "place": f"{train}:3",
            "role": "row",
            "text": "I want a new pin",
            "data": str(tmp_path / "set"),
            "found": "I want a new pin",
            "how": "exact",
            "similarity": 1.0,
        },
    ]


def test_a_clean_file_is_written_as_the_kind_that_it_was(tmp_path: Path):
    test = jsonl(tmp_path / "test.jsonl", TEST)
    table = pa.table({"text": ["a pin, please", "I want a new pin"], "label": pa.array([1, 2], pa.int8())})
    pq.write_table(table, tmp_path / "train.parquet")
    decontaminate(tmp_path / "train.parquet", against=[test], out=tmp_path / "clean.parquet")
    assert pq.read_table(tmp_path / "clean.parquet") == table.slice(0, 1)
    (tmp_path / "train.tsv").write_text('text\tlabel\n"a ""new"" one"\t1\nI want a new pin\t2\n')
    decontaminate(tmp_path / "train.tsv", against=[test], out=tmp_path / "clean.tsv")
    with open(tmp_path / "clean.tsv", newline="") as file:
        assert list(csv.reader(file, delimiter="\t")) == [["text", "label"], ['a "new" one', "1"]]
    with pytest.raises(InputError, match=r'clean\.csv: a file that ends in "\.csv", wanted \.jsonl or the suffix'):
        decontaminate(tmp_path / "train.tsv", against=[test], out=tmp_path / "clean.csv")


def test_examples_lose_negatives_that_are_evaluation_texts_where_both_sides_are_of_one_kind(tmp_path: Path):
    test = jsonl(tmp_path / "test.jsonl", TEST)
    example = {
        "query": "card gone",
        "positives": [{"id": "1", "text": "no card"}],
        "negatives": [{"id": "2", "text": "I want a new pin"}, {"id": "3", "text": "a pin"}],
        "outcome": "full",
    }
    rows = [{**example, "symmetric": True}, example, {**example, "query": "Where is my card?"}]
    train = jsonl(tmp_path / "train.jsonl", rows)
    found = decontaminate(train, against=[test], out=tmp_path / "clean.jsonl")
    first, second = rows_of(tmp_path / "clean.jsonl")
    assert [passage["text"] for passage in first["negatives"]] == ["a pin"]
    assert second == example
    assert (found.removed, found.negatives) == (1, 1)
    assert [row["role"] for row in rows_of(found.removed_path)] == ["negative", "row"]


def test_of_a_beir_folder_queries_go_and_the_corpus_stays(tmp_path: Path):
    def collection(**queries: str) -> Collection:
        return Collection.of(
            name="toy",
            passage_ids=["d1", "d2"],
            passages=["a cat", "a dog"],
            query_ids=list(queries),
            queries=list(queries.values()),
            qrels={query: {"d1": 1, "d2": 0} for query in queries},
        )

    splits = {"train": collection(q1="cat?", q2="dog?", q3="cow?"), "test": collection(q4="DOG?")}
    write_beir(tmp_path / "toy", splits)
    found = decontaminate(tmp_path / "toy", against=[tmp_path / "toy"], out=tmp_path / "clean")
    clean = load_collection(tmp_path / "clean", split="train")
    assert clean.qrels == {"q1": {"d1": 1, "d2": 0}, "q3": {"d1": 1, "d2": 0}}
    assert list(clean.passages) == ["a cat", "a dog"]
    assert (found.rows, found.kept, found.by_how) == (3, 2, {"normalised": 1})
    with pytest.raises(RunError, match="clean: there already"):
        decontaminate(tmp_path / "toy", against=[tmp_path / "toy"], out=tmp_path / "clean")
    with pytest.raises(InputError, match="every query is in an evaluation set"):
        decontaminate(
            tmp_path / "toy", against=[tmp_path / "toy"], out=tmp_path / "none", split="test", against_split="all"
        )
    with pytest.raises(InputError, match="passages of a BEIR folder are many queries' and stay"):
        decontaminate(
            tmp_path / "toy",
            against=[tmp_path / "toy"],
            out=tmp_path / "none",
            settings=ContaminationSettings(passages=True),
        )


def test_the_command_counts_by_evaluation_set(embedsmith_command, tmp_path: Path):
    one, two = jsonl(tmp_path / "one.jsonl", TEST[:1]), jsonl(tmp_path / "two.jsonl", TEST[1:])
    train = jsonl(tmp_path / "train.jsonl", TRAIN)
    words = ["decontaminate", train, "--against", one, "--against", two, "--out", tmp_path / "clean.jsonl"]
    done = embedsmith_command(*words, "--json")
    assert done.code == 0
    assert done.json["by_data"] == {str(one): 1, str(two): 1}
    assert done.json["kept"] == 1
    assert "3 rows: 1 kept in" in embedsmith_command(*words).out
    done = embedsmith_command("decontaminate", train, "--against", one, "--against", one, "--out", tmp_path / "c.jsonl")
    assert (done.code, done.error) == (2, f"{one}: given twice")

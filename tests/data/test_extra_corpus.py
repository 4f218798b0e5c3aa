"""Passages of a file of their own that join a corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection
from embedsmith.data.load import load_collection
from embedsmith.errors import InputError

PAIRS = [{"query": "purr?", "positive": "Cats They purr."}, {"query": "bark?", "positive": "a dog", "neg": ["a cow"]}]
CORPUS = [
    {"_id": "d 1", "title": "Cows", "text": "They moo."},
    {"_id": "d2", "title": "Cats", "text": "They purr."},
    {"_id": "p0", "title": "", "text": "a hen"},
]


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def pairs(tmp_path) -> Path:
    return lines(tmp_path / "pairs.jsonl", PAIRS)


@pytest.fixture
def beir(tmp_path) -> Path:
    collection = Collection.of(
        name="toy",
        passage_ids=["d1", "d2"],
        passages=["a cat", "a dog"],
        query_ids=["q1"],
        queries=["purr?"],
        qrels={"q1": {"d1": 1}},
        metadata=[{"page": 1}, {}],
    )
    write_beir(tmp_path / "beir", {"train": collection})
    return tmp_path / "beir"


def test_passages_join_pairs_and_a_positive_that_is_among_them_takes_its_id(pairs, tmp_path):
    collection = load_collection(pairs, corpus=lines(tmp_path / "corpus.jsonl", CORPUS))
    assert dict(zip(collection.passage_ids, collection.passages, strict=True)) == {
        "d2": "Cats They purr.",
        "_p1": "a dog",
        "_p2": "a cow",
        "d 1": "Cows They moo.",
        "p0": "a hen",
    }
    assert collection.qrels == {"q0": {"d2": 1}, "q1": {"_p1": 1}}
    assert collection.passage_ids.take(collection.existing_negatives()[1]) == ["_p2"]


def test_parquet_and_csv_are_corpora_too(pairs, tmp_path):
    expected = load_collection(pairs, corpus=lines(tmp_path / "corpus.jsonl", CORPUS))
    pq.write_table(pa.Table.from_pylist(CORPUS), tmp_path / "corpus.parquet")
    (tmp_path / "corpus.csv").write_text("id,title,text\nd 1,Cows,They moo.\nd2,Cats,They purr.\np0,,a hen\n")
    for name in ("corpus.parquet", "corpus.csv"):
        assert load_collection(pairs, corpus=tmp_path / name) == expected


def test_passages_without_ids_are_numbered(pairs, tmp_path):
    collection = load_collection(pairs, corpus=lines(tmp_path / "c.jsonl", [{"text": "a hen"}, {"text": "a dog"}]))
    assert collection.passage_ids == ["p0", "p1", "p2", "p3"]
    assert collection.passages == ["Cats They purr.", "a dog", "a cow", "a hen"]


def test_passages_join_a_beir_folder(beir, tmp_path):
    rows = [{"_id": "d2", "text": "a dog"}, {"_id": "d3", "text": "a cow", "metadata": {"page": 3}}]
    collection = load_collection(beir, corpus=lines(tmp_path / "more.jsonl", rows))
    assert collection.passage_ids == ["d1", "d2", "d3"]
    assert collection.passages == ["a cat", "a dog", "a cow"]
    assert collection.metadata == [{"page": 1}, {}, {"page": 3}]
    assert collection.qrels == {"q1": {"d1": 1}}


def test_an_id_with_another_text_is_refused_with_both_places(beir, tmp_path):
    more = lines(tmp_path / "more.jsonl", [{"_id": "d3", "text": "x"}, {"_id": "d1", "text": "a dog"}])
    with pytest.raises(InputError, match=r'more\.jsonl:2: the id "d1" is taken by .*corpus\.jsonl:1$'):
        load_collection(beir, corpus=more)
    notes: list[str] = []
    collection = load_collection(beir, corpus=more, skip_bad=True, on_skip=notes.append)
    assert collection.passages == ["a cat", "a dog", "x"]
    assert "duplicate id" in notes[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"_id": "d3", "text": "x"}, {"_id": "d3", "text": "x"}], r'more\.jsonl:2: the id "d3" is taken by line 1'),
        ([{"text": "x"}], r"""more\.jsonl:1: no "_id", got the keys 'text'"""),
        ([{"_id": "d3", "text": ["x"]}], r'more\.jsonl:1: "text" is a list, wanted a string'),
        (
            [{"_id": "d3", "txt": "x"}],
            r'more\.jsonl:1: no "text" among the keys "_id", "txt" \(did you mean "text"\?\)',
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_named(beir, tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        load_collection(beir, corpus=lines(tmp_path / "more.jsonl", rows))


def test_a_table_without_texts_is_refused_at_once(pairs, tmp_path):
    (tmp_path / "corpus.csv").write_text("id,txt\n1,a\n")
    with pytest.raises(InputError, match=r'corpus\.csv: no column for the text; there are "id", "txt" \(did you mean'):
        load_collection(pairs, corpus=tmp_path / "corpus.csv")

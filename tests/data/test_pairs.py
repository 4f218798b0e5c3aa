"""Files of pairs, and the way to them by `load_collection`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedsmith.data.collection import Collection
from embedsmith.data.load import load_collection
from embedsmith.errors import InputError


def pairs_of(folder: Path, *rows: object) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_pairs_become_a_collection(tmp_path):
    path = pairs_of(
        tmp_path,
        {"query": "purr?", "positive": "a cat"},
        {"query": "bark?", "positive": "a dog"},
        {"query": "pet?", "positive": "a cat"},
    )
    assert load_collection(path) == Collection.of(
        name="pairs",
        passage_ids=["p0", "p1"],
        passages=["a cat", "a dog"],
        query_ids=["q0", "q1", "q2"],
        queries=["purr?", "bark?", "pet?"],
        qrels={"q0": {"p0": 1}, "q1": {"p1": 1}, "q2": {"p0": 1}},
    )


@pytest.mark.parametrize("query", ["query", "anchor", "question"])
@pytest.mark.parametrize("positive", ["positive", "passage", "document", "answer"])
def test_the_conventional_names_are_found(tmp_path, query, positive):
    collection = load_collection(pairs_of(tmp_path, {"id": 7, query: "purr?", positive: "a cat", "source": "x"}))
    assert (collection.queries, collection.passages) == (["purr?"], ["a cat"])


@pytest.mark.parametrize("key", ["pos", "positives", "positive"])
def test_a_list_is_several_positives(tmp_path, key):
    collection = load_collection(pairs_of(tmp_path, {"query": "pet?", key: ["a cat", "a dog"]}))
    assert collection.qrels == {"q0": {"p0": 1, "p1": 1}}
    assert collection.passages == ["a cat", "a dog"]


def test_rows_of_one_query_are_merged(tmp_path):
    path = pairs_of(
        tmp_path,
        {"query": "Which pet?", "positive": "a cat"},
        {"query": "milk?", "positive": "a cow"},
        {"query": " which  PET? ", "positive": "a dog"},
        {"query": "Which pet?", "positive": "a cat"},
    )
    collection = load_collection(path)
    assert collection.queries == ["Which pet?", "milk?"]
    assert collection.qrels == {"q0": {"p0": 1, "p2": 1}, "q1": {"p1": 1}}


def test_passages_that_differ_in_a_capital_stay_two(tmp_path):
    path = pairs_of(tmp_path, {"query": "all?", "answer": "ls -a"}, {"query": "almost all?", "answer": "ls -A"})
    assert load_collection(path).passages == ["ls -a", "ls -A"]


@pytest.mark.parametrize(
    "negatives",
    [
        {"neg": ["a dog", "a cow"]},
        {"negatives": ["a dog", "a cow"]},
        {"negative": ["a dog", "a cow"]},
        {"negative_1": "a dog", "negative_2": "a cow"},
        {"negative": "a dog", "negative_2": "a cow", "negative_3": None},
    ],
)
def test_negatives_join_the_corpus_without_a_judgement(tmp_path, negatives):
    path = pairs_of(
        tmp_path, {"query": "purr?", "positive": "a cat", **negatives}, {"query": "bark?", "positive": "a dog"}
    )
    collection = load_collection(path)
    assert collection.passages == ["a cat", "a dog", "a cow"]
    assert collection.qrels == {"q0": {"p0": 1}, "q1": {"p1": 1}}


def test_no_other_text_joins_the_corpus(tmp_path):
    row = {
        "query": "purr?",
        "pos": ["a cat"],
        "neg": [],
        "prompt": "Find",
        "pos_scores": [0.9],
        "neg_scores": [],
        "type": "x",
    }
    assert load_collection(pairs_of(tmp_path, row)).passages == ["a cat"]


def test_a_null_counts_as_no_column(tmp_path):
    path = pairs_of(tmp_path, {"query": "purr?", "positive": None, "passage": "a cat"})
    assert load_collection(path).passages == ["a cat"]


GOOD = {"query": "purr?", "positive": "a cat"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "a", "postive": "b"}, r'no positive; the row has "query", "postive" \(did you mean "positive"\?\)$'),
        ({"qeury": "a", "positive": "b"}, r'no query; the row has "qeury", "positive" \(did you mean "query"\?\)$'),
        ({"sentence1": "a", "sentence2": "b"}, 'no query; the row has "sentence1", "sentence2"'),
        ({"query": None}, "no query; the row has no values"),
        ({"query": "a", "positive": "b", "passage": "c"}, '"positive", "passage" could each be the positive'),
        ({"query": "a", "question": "b", "answer": "c"}, '"query", "question" could each be the query'),
        ({"query": ["a"], "positive": "b"}, '"query" is a list, wanted a string'),
        ({"query": " ", "positive": "b"}, '"query" is empty'),
        ({"query": "a", "positive": ""}, '"positive" holds an empty text'),
        ({"query": "a", "positive": 3}, '"positive" is a number, wanted a string or a list of strings'),
        ({"query": "a", "pos": "a cat"}, '"pos" is a string, wanted a list of strings'),
        ({"query": "a", "pos": []}, '"pos" is an empty list'),
        ({"query": "a", "pos": ["b", {"text": "c"}]}, '"pos" holds an object, wanted strings'),
        ({"query": "a", "pos": ["b"], "neg": "a dog"}, '"neg" is a string, wanted a list of strings'),
        ({"query": "a", "pos": ["b"], "neg": ["c", "\t"]}, '"neg" holds an empty text'),
        ({"query": "a", "positive": "b", "negativ": "c"}, r'unknown column "negativ" \(did you mean "negative"\?\)'),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_line(tmp_path, row, message):
    with pytest.raises(InputError, match=rf"pairs\.jsonl:3: {message}") as caught:
        load_collection(pairs_of(tmp_path, GOOD, GOOD, row))
    assert caught.value.hint


def test_a_file_that_mine_wrote_is_told_from_pairs(tmp_path):
    row = {"query": "purr?", "positives": [{"id": "p", "text": "a cat"}], "negatives": []}
    with pytest.raises(InputError, match='"positives" holds an object') as caught:
        load_collection(pairs_of(tmp_path, row))
    assert "`format: examples`" in caught.value.hint


def test_a_missing_side_is_answered_with_the_names_it_may_have(tmp_path):
    with pytest.raises(InputError, match="no query") as caught:
        load_collection(pairs_of(tmp_path, {"sentence1": "a"}))
    assert (
        caught.value.hint == "name the query one of query, anchor, question, or say which column it is: "
        "--query-column, in Python ColumnSettings(query=...)"
    )


def test_a_file_without_rows_is_refused(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n \n")
    with pytest.raises(InputError, match=r"pairs\.jsonl: no pairs"):
        load_collection(path)


def test_a_file_that_is_missing_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"pairs\.jsonl: no such file or folder"):
        load_collection(tmp_path / "pairs.jsonl")


@pytest.mark.parametrize("split", [None, "train", "test"])
def test_a_file_of_pairs_is_one_split_whatever_it_is_called(tmp_path, split):
    path = pairs_of(tmp_path, GOOD)
    assert load_collection(path, split=split) == load_collection(path)


def test_a_mistyped_file_is_answered_with_its_nearest_sibling(tmp_path):
    path = pairs_of(tmp_path, GOOD)
    with pytest.raises(InputError, match=r'piars\.jsonl: no such file or folder \(did you mean "pairs\.jsonl"\?\)'):
        load_collection(path.with_name("piars.jsonl"), split=None)

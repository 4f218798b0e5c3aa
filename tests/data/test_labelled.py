"""Labelled texts and pairs: what a data set asks of a model, and what its rows hold."""

import json

import pytest

from embedsmith.data.bad_rows import Tally
from embedsmith.data.labelled import read_labelled, task_of
from embedsmith.data.labelled_rows import LabelledColumns
from embedsmith.errors import InputError

STS = {"sentence1": "a cat", "sentence2": "a dog", "score": 2.5}
PAIR = {"sentence1": "a cat", "sentence2": "a dog", "label": 1}
TEXT = {"text": "a cat", "label": "animal"}
RANKED = {"query": "a cat?", "positive": ["a cat"], "negative": ["a dog", "a cow"]}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("rows", "task"),
    [
        ([STS], "sts"),
        ([PAIR], "pair-classification"),
        ([TEXT], "clustering"),
        ([RANKED], "reranking"),
        ([{"query": "a", "positive": "b", "negative": "c"}], "retrieval"),
        ([{"query": "a", "pos": ["b"], "neg": ["c"]}], "retrieval"),
        ([], "retrieval"),
    ],
)
def test_the_columns_say_what_a_data_set_asks(tmp_path, rows, task):
    assert task_of(write(tmp_path / "set" / "test.jsonl", rows)) == task
    assert task_of(tmp_path / "set") == task


def test_labelled_texts_are_to_be_classified_where_there_are_others_to_learn_from(tmp_path):
    write(tmp_path / "test.jsonl", [TEXT])
    write(tmp_path / "train.jsonl", [TEXT])
    assert task_of(tmp_path) == task_of(tmp_path / "test.jsonl") == "classification"
    write(tmp_path / "alone" / "train.jsonl", [TEXT])
    assert task_of(tmp_path / "alone") == "clustering"


def test_a_beir_folder_asks_for_retrieval_even_when_it_is_broken(tmp_path):
    write(tmp_path / "corpus.jsonl", [TEXT])
    assert task_of(tmp_path) == "retrieval"


def test_scored_pairs_are_read_by_column(tmp_path):
    data = read_labelled(write(tmp_path / "s.jsonl", [STS, {**STS, "score": "5", "more": 1}]), "sts")
    assert data.columns == {"sentence1": ["a cat"] * 2, "sentence2": ["a dog"] * 2, "score": [2.5, 5.0]}
    assert (data.name, data.split, len(data)) == (tmp_path.name, "s", 2)


def test_entailment_and_its_contrary_are_one_and_nought_and_neutral_pairs_are_left_out(tmp_path):
    for labels, wanted, left_out in (
        (["entailment", "neutral", "contradiction", "-", " Entailment"], [1, 0, 1], 2),
        ([1, 0, True, 0.0, "1", "0.0", "false"], [1, 0, 1, 0, 1, 0, 0], 0),
    ):
        data = read_labelled(write(tmp_path / "p.jsonl", [{**PAIR, "label": x} for x in labels]), "pair-classification")
        assert (data.columns["labels"], data.left_out) == (wanted, left_out)


def test_classification_learns_from_the_train_split_beside_the_one_that_is_scored(tmp_path):
    texts = [{"body": f"text {n}", "label": "x", "kind": n % 2} for n in range(4)]
    write(tmp_path / "train.jsonl", texts)
    write(tmp_path / "test.jsonl", texts[2:])
    for path, split in ((tmp_path, None), (tmp_path / "test.jsonl", None), (tmp_path, "test")):
        data = read_labelled(path, "classification", split=split, columns=LabelledColumns(text="body", label="kind"))
        assert data.columns == {"text": ["text 2", "text 3"], "label": ["0", "1"]}
        assert data.train["label"] == ["0", "1", "0", "1"]


def test_queries_that_any_order_suits_are_left_out_of_reranking(tmp_path):
    rows = [RANKED, {**RANKED, "positive": []}, {**RANKED, "negative": []}]
    data = read_labelled(write(tmp_path / "r.jsonl", rows), "reranking")
    assert data.columns == {"query": ["a cat?"], "positive": [["a cat"]], "negative": [["a dog", "a cow"]]}
    assert data.left_out == 2


def test_the_hash_follows_what_is_scored_and_what_is_learned_from(tmp_path):
    texts = [{**TEXT, "label": label} for label in "ab"]
    write(tmp_path / "test.jsonl", texts)
    hashes = set()
    for train in (texts, texts[::-1]):
        write(tmp_path / "train.jsonl", train)
        hashes |= {read_labelled(tmp_path, "classification").content_hash() for _ in range(2)}
    assert len(hashes | {read_labelled(tmp_path, "clustering", split="test").content_hash()}) == 3


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("sts", {**STS, "score": "high"}, r"test\.jsonl:2: the score is 'high', wanted a number"),
        (
            "sts",
            {"sentence1": "a", "sentense2": "b", "score": 1},
            r'test\.jsonl:2: no second; .*did you mean "sentence2"',
        ),
        ("sts", {**STS, "sentence1": 3}, "the first text is a number, wanted a string"),
        ("sts", {**STS, "score": float("nan")}, r"test\.jsonl:2: the score is nan, wanted a number"),
        ("pair-classification", {**PAIR, "label": float("nan")}, "the label is nan, wanted a name or a whole number"),
        ("pair-classification", {**PAIR, "label": None}, "no value; the row has"),
        ("reranking", {**RANKED, "positive": 3}, "a positive is a number, wanted a list of strings"),
        ("clustering", {"text": "a"}, 'no label; the row has "text"'),
        ("clustering", {"text": "a", "label": float("nan")}, "the label is nan"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_or_counted(tmp_path, task, row, message):
    good = {"sts": STS, "pair-classification": PAIR, "reranking": RANKED, "clustering": TEXT}[task]
    other = {**good, "score": 1} if task == "sts" else {**good, "label": 0}
    path = write(tmp_path / "test.jsonl", [good, row, other])
    with pytest.raises(InputError, match=message):
        read_labelled(path, task)
    tally = Tally()
    assert len(read_labelled(path, task, on_bad=tally)) == 2
    assert tally.counts.total() == 1


def test_rows_of_one_kind_only_are_refused(tmp_path):
    with pytest.raises(InputError, match=r'every row has the score "2\.5"'):
        read_labelled(write(tmp_path / "s.jsonl", [STS, STS]), "sts")
    with pytest.raises(InputError, match='every row has the label "1"'):
        read_labelled(write(tmp_path / "p.jsonl", [PAIR, PAIR]), "pair-classification")
    with pytest.raises(InputError, match=r"c\.jsonl: no row to score"):
        read_labelled(write(tmp_path / "c.jsonl", []), "clustering")


def test_a_split_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    write(tmp_path / "dev.jsonl", [TEXT])
    write(tmp_path / "train.jsonl", [TEXT])
    with pytest.raises(InputError, match='no split "test"') as caught:
        read_labelled(tmp_path, "clustering")
    assert caught.value.hint == "its splits: dev, train"
    with pytest.raises(InputError, match="no split `train` to learn the labels from"):
        (tmp_path / "train.jsonl").unlink()
        read_labelled(tmp_path, "classification", split="dev")

"""Judgements: extra ones, several splits, passages to leave out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedsmith.data.assemble import Judged, distinct
from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection
from embedsmith.data.load import load_collection
from embedsmith.data.qrels import read_exclusions, read_passage_ids
from embedsmith.errors import InputError

QRELS = {
    "train": {"q1": {"d1": 1}, "q2": {"d 2": 2, "d3": 0}},
    "dev": {"q2": {"d1": 1, "d3": 0}, "q3": {"d3": 3}},
    "test": {"q1": {"d3": 1}},
}


def toy(qrels: dict[str, dict[str, int]]) -> Collection:
    return Collection.of(
        name="toy",
        passage_ids=["d1", "d 2", "d3"],
        passages=["a", "b", "c"],
        query_ids=["q1", "q2", "q3"],
        queries=["?", "!", "."],
        qrels=qrels,
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    write_beir(tmp_path / "toy", {split: toy(qrels) for split, qrels in QRELS.items()})
    return tmp_path / "toy"


def test_all_splits_are_merged(folder):
    assert load_collection(folder, split="all").qrels == {
        "q1": {"d1": 1, "d3": 1},
        "q2": {"d 2": 2, "d3": 0, "d1": 1},
        "q3": {"d3": 3},
    }


def test_named_splits_are_merged(folder):
    merged = load_collection(folder, split="test,train")
    assert merged.qrels == {"q1": {"d1": 1, "d3": 1}, "q2": {"d 2": 2, "d3": 0}}
    with pytest.raises(InputError, match=r'no split "tran" \(did you mean "train"\?\)'):
        load_collection(folder, split="test,tran")


def test_a_split_may_be_called_all(folder):
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "all.tsv")
    assert load_collection(folder, split="all").qrels == {"q1": {"d3": 1}}


def test_two_splits_that_contradict_each_other_are_refused(folder):
    (folder / "qrels" / "more.tsv").write_text("q1\td1\t1\nq2\td 2\t1\n")
    with pytest.raises(
        InputError, match=r'more\.tsv:2: query "q2" and passage "d 2" have the grade 1 here and 2 on an'
    ):
        load_collection(folder, split="train,more")
    told: list[str] = []
    merged = load_collection(folder, split="train,more", skip_bad=True, on_skip=told.append)
    assert merged.qrels == load_collection(folder, split="train").qrels
    assert told[0].startswith('1 row skipped for "two grades"')


def test_bad_judgements_are_skipped_and_counted_by_reason(folder):
    (folder / "qrels" / "bad.tsv").write_bytes(
        b"q1\td1\t1\nq9\td1\t1\nq9\td9\t1\nq1\td9\t1\nq1\td1\nq1\td1\tx\nq\xff\td1\t1\nq2\td3\t1\n"
    )
    told: list[str] = []
    collection = load_collection(folder, split="bad", skip_bad=True, on_skip=told.append)
    assert collection.qrels == {"q1": {"d1": 1}, "q2": {"d3": 1}}
    assert [line.split(", the first: ")[0] for line in told] == [
        '1 row skipped for "wrong number of columns"',
        '1 row skipped for "the grade is not a whole number"',
        '1 row skipped for "not UTF-8"',
        '2 rows skipped for "unknown query id"',
        '1 row skipped for "unknown passage id"',
    ]


def test_distinct_judgements_are_those_of_a_dict():
    draw = np.random.default_rng(0)
    judged = Judged(*(draw.integers(0, size, 500) for size in (9, 12, 3)))
    seen: dict[tuple[int, int], int] = {}
    contradicting = []
    for at, (query, passage, grade) in enumerate(zip(judged.queries, judged.passages, judged.grades, strict=True)):
        if seen.setdefault((query, passage), grade) != grade:
            contradicting.append(at)
    expected = sorted(seen.items(), key=lambda item: item[0][0])
    kept, found = distinct(judged)
    assert found.tolist() == contradicting
    assert list(zip(zip(kept.queries, kept.passages, strict=True), kept.grades, strict=True)) == expected


@pytest.mark.parametrize(
    "content",
    [
        "query-id\tcorpus-id\tscore\nq2\td1\t1\nq1\td3\t2\nq1\td1\t0\nq2\td1\t1\n",
        "q2\t0\td1\t1\nq1\t0\td3\t2\nq1\t0\td1\t0\n",
        "q2 0 d1 1\n\nq1 Q0  d3 2\nq1 0 d1 0\n",
    ],
    ids=["beir", "trec with tabs", "trec with spaces"],
)
def test_extra_judgements_name_the_pairs_that_are_relevant(tmp_path, content):
    (tmp_path / "extra.tsv").write_text(content)
    queries, passages = read_exclusions([tmp_path / "extra.tsv"], toy(QRELS["train"]))
    assert (queries.tolist(), passages.tolist()) == ([0, 1], [2, 0])


def test_extra_judgements_of_other_things_are_counted(tmp_path):
    (tmp_path / "a.tsv").write_text("q2\td 2\t1\nq9\td1\t1\nq1\td9\t1\n")
    (tmp_path / "b.tsv").write_text("q1\td1\t1\nq2\td 2\t1\n")
    told: list[str] = []
    queries, passages = read_exclusions([tmp_path / "a.tsv", str(tmp_path / "b.tsv")], toy({}), on_skip=told.append)
    assert (queries.tolist(), passages.tolist()) == ([0, 1], [0, 1])
    assert told == [f"{tmp_path}/a.tsv: 2 of 3 judgements name a query or passage that the collection lacks"]


def test_no_file_excludes_nothing():
    assert [rows.tolist() for rows in read_exclusions([], toy({}))] == [[], []]


def test_a_run_is_no_judgement(tmp_path):
    (tmp_path / "run.txt").write_text("q1 Q0 d1 1 0.9 bm25\n")
    with pytest.raises(InputError, match=r"run\.txt:1: 6 columns, wanted 3 or 4"):
        read_exclusions([tmp_path / "run.txt"], toy({}))
    with pytest.raises(InputError, match=r'rnu\.txt: no such file or folder \(did you mean "run\.txt"\?\)'):
        read_exclusions([tmp_path / "rnu.txt"], toy({}))


def test_a_list_of_passage_ids_is_read(tmp_path):
    (tmp_path / "ids.txt").write_bytes("\ufeffd3\r\n\r\nd 2\nd9\nd3\n".encode())
    told: list[str] = []
    assert read_passage_ids(tmp_path / "ids.txt", toy({}), on_skip=told.append).tolist() == [1, 2]
    assert told == [f"{tmp_path}/ids.txt: 1 of 4 ids name a passage that the collection lacks"]

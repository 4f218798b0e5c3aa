"""Judgements: extra ones, several splits, passages to leave out."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from embedsmith.data.assemble import Judged, distinct
from embedsmith.data.bad_rows import Tally, refuse
from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection
from embedsmith.data.load import load_collection
from embedsmith.data.qrels import read_exclusions, read_judgements, read_passage_ids
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
    notes: list[str] = []
    merged = load_collection(folder, split="train,more", skip_bad=True, on_skip=notes.append)
    assert merged.qrels == load_collection(folder, split="train").qrels
    assert notes[0].startswith('1 row skipped for "two grades"')


def test_bad_judgements_are_skipped_and_counted_by_reason(folder):
    (folder / "qrels" / "bad.tsv").write_bytes(
        b"q1\td1\t1\nq9\td1\t1\nq9\td9\t1\nq1\td9\t1\nq1\td1\nq1\td1\tx\nq\xff\td1\t1\nq2\td3\t1\n"
    )
    notes: list[str] = []
    collection = load_collection(folder, split="bad", skip_bad=True, on_skip=notes.append)
    assert collection.qrels == {"q1": {"d1": 1}, "q2": {"d3": 1}}
    assert [line.split(", the first: ")[0] for line in notes] == [
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
    notes: list[str] = []
    queries, passages = read_exclusions([tmp_path / "a.tsv", str(tmp_path / "b.tsv")], toy({}), on_skip=notes.append)
    assert (queries.tolist(), passages.tolist()) == ([0, 1], [0, 1])
    assert notes == [f"{tmp_path}/a.tsv: 2 of 3 judgements name a query or passage that the collection lacks"]


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
    notes: list[str] = []
    assert read_passage_ids(tmp_path / "ids.txt", toy({}), on_skip=notes.append).tolist() == [1, 2]
    assert notes == [f"{tmp_path}/ids.txt: 1 of 4 ids name a passage that the collection lacks"]


# --- Headers, grades and lines that stand there twice, for all who read judgements -------------------------------


def of_folder(path: Path, text: str) -> dict[str, dict[str, int]]:
    """Return the judgements of a split of a BEIR folder."""
    write_beir(path / "toy", {"train": toy({"q1": {"d1": 1}})})
    (path / "toy" / "queries.jsonl").write_text(
        "".join(f'{{"_id": "q{number}", "text": "?"}}\n' for number in (1, 2, 3))
    )
    (path / "toy" / "qrels" / "new.tsv").write_bytes(text.encode())
    return load_collection(path / "toy", split="new").qrels


def of_extra(path: Path, text: str) -> dict[str, dict[str, int]]:
    """Return what a file of extra judgements excludes."""
    (path / "extra.tsv").write_bytes(text.encode())
    collection = toy({})
    found: dict[str, dict[str, int]] = {}
    for query, passage in zip(*read_exclusions([path / "extra.tsv"], collection), strict=True):
        found.setdefault(collection.query_ids[query], {})[collection.passage_ids[passage]] = 1
    return found


def of_scored(path: Path, text: str) -> dict[str, dict[str, int]]:
    """Return the judgements that a run file is scored by."""
    (path / "scored.tsv").write_bytes(text.encode())
    found = read_judgements(path / "scored.tsv", refuse, trec=True)
    qrels: dict[str, dict[str, int]] = {}
    for query, passage, grade in zip(found.query_ids, found.passage_ids, found.grades.tolist(), strict=True):
        qrels.setdefault(query, {})[passage] = grade
    return qrels


every_reader = pytest.mark.parametrize("read", [of_folder, of_extra, of_scored])
NAMES = {"query": "query-id", "passage": "corpus-id", "grade": "score"}
ROWS = [{"query": "q1", "passage": "d1", "grade": "1"}, {"query": "q2", "passage": "d3", "grade": "1"}]


@every_reader
@pytest.mark.parametrize("order", list(permutations(NAMES)))
@pytest.mark.parametrize(
    "names", [NAMES, {"query": " Query_ID", "passage": "docid", "grade": "Relevance"}], ids=["beir", "others"]
)
def test_a_header_says_which_column_is_which(tmp_path, read, order, names):
    table = [names, *ROWS]
    text = "".join("\t".join(row[column] for column in order) + "\n" for row in table)
    assert read(tmp_path, "\n" + text) == {"q1": {"d1": 1}, "q2": {"d3": 1}}


@pytest.mark.parametrize("read", [of_extra, of_scored])
@pytest.mark.parametrize("header", ["qid 0 docno rel", "rel docno iter qid", "docno\tQ0\ttopic\trelevance"])
def test_a_header_of_four_columns_says_it_too(tmp_path, read, header):
    separator = "\t" if "\t" in header else " "
    names = header.split(separator)
    of = {"qid": "query", "topic": "query", "docno": "passage", "rel": "grade", "relevance": "grade"}
    lines = [header, *(separator.join(row[of[name]] if name in of else "0" for name in names) for row in ROWS)]
    assert read(tmp_path, "\n".join(lines)) == {"q1": {"d1": 1}, "q2": {"d3": 1}}


@every_reader
@pytest.mark.parametrize(
    "header", ["query-id\tthing\tscore", "corpus-id\tquery-id\tvalue", "score\tscore\tdoc", "corpus-id\tdocid\tscore"]
)
def test_a_header_that_does_not_say_it_is_refused(tmp_path, read, header):
    with pytest.raises(InputError, match=r"\.tsv:1: the header is .*: it is not clear which column is which"):
        read(tmp_path, f"{header}\nq1\td1\t1\n")


def test_columns_in_another_order_without_a_header_are_recognised_by_their_ids(tmp_path):
    with pytest.raises(InputError, match=r'new\.tsv:1: unknown query id "d1"; there is a passage of that id') as caught:
        of_folder(tmp_path, "d1\tq1\t1\n")
    assert "which column is which" in caught.value.hint


def test_an_unknown_header_is_not_skipped_as_a_bad_row(tmp_path):
    write_beir(tmp_path / "toy", {"train": toy({"q1": {"d1": 1}})})
    (tmp_path / "toy" / "qrels" / "train.tsv").write_text("doc\tquery-id\tvalue\nd1\tq1\t1\n")
    with pytest.raises(InputError, match=r"train\.tsv:1: the header is doc, query-id, value"):
        load_collection(tmp_path / "toy", skip_bad=True)


@every_reader
@pytest.mark.parametrize("grade", ["1", "1.0", " 1", "+1", "01", "1e0"])
def test_a_grade_may_be_written_in_several_ways(tmp_path, read, grade):
    assert read(tmp_path, f"q1\td1\t{grade}\nq2\td1\t-1.0\nq2\td3\t1\n")["q1"] == {"d1": 1}


@every_reader
@pytest.mark.parametrize(
    ("grade", "message"),
    [
        *((grade, "is not a whole number") for grade in ("nan", "inf", "0.5", "", "x", "1_0", "½", "١", "9" * 5000)),
        *((grade, "wanted 1,000,000 at most") for grade in ("1000001", "-1000001", "9" * 30, "1e300")),
    ],
)
def test_a_grade_that_is_none_is_refused_with_its_line(tmp_path, read, grade, message):
    with pytest.raises(InputError, match=rf"\.tsv:2: the grade .*{message}") as caught:
        read(tmp_path, f"q1\td1\t1\nq2\td1\t{grade}\n")
    assert len(str(caught.value)) < 500


@every_reader
@pytest.mark.parametrize("header", ["", "query-id\tcorpus-id\tscore\n"])
def test_two_grades_of_a_pair_are_refused_and_a_line_may_stand_there_twice(tmp_path, read, header):
    assert read(tmp_path, f"{header}q1\td1\t1\nq2\td1\t1\nq1\td1\t1.0\n") == {"q1": {"d1": 1}, "q2": {"d1": 1}}
    line = 3 + bool(header)
    (tmp_path / "more").mkdir()
    for grade in (0, 2):
        message = rf'\.tsv:{line}: query "q1" and passage "d1" have the grade {grade} here and 1 on an earlier line'
        with pytest.raises(InputError, match=message):
            read(tmp_path / "more", f"{header}q1\td1\t1\nq2\td1\t1\nq1\td1\t{grade}\n")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_every_line_of_judgements_is_kept_or_told(tmp_path, ending):
    good = ["q1\td1\t1", "q2\td2\t0", "q3\td1\t3"]
    bad = [
        "q1\td1",
        "q1\td1\t1\t1",
        "q1\td1\tx",
        "q1\td1\tnan",
        "q1\td1\t2",
        "q1\td1\t0",
        "q\udcff\td\t1",
        "q1\td9\t9999999",
    ]
    text = ending.join([good[0], *bad, "", good[1], *bad, good[2]])
    (tmp_path / "a.tsv").write_bytes(text.encode(errors="surrogateescape"))
    tally = Tally()
    found = read_judgements(tmp_path / "a.tsv", tally)
    assert list(zip(found.query_ids, found.grades.tolist(), strict=True)) == [("q1", 1), ("q2", 0), ("q3", 3)]
    assert tally.counts.total() == 2 * len(bad)

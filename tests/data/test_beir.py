"""BEIR folders, and the way to them by `load_collection`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedsmith.data.beir import splits, write_beir
from embedsmith.data.collection import Collection
from embedsmith.data.load import load_collection
from embedsmith.errors import InputError

CORPUS = [
    {"_id": "d1", "title": "Cats", "text": "They purr."},
    {"_id": "d2", "title": "", "text": "Dogs bark."},
    {"_id": "d3", "title": "Cows", "text": ""},
]
QUERIES = [{"_id": "q1", "text": "purr?"}, {"_id": "q2", "text": "bark?"}, {"_id": "q3", "text": "milk?"}]
QRELS = "query-id\tcorpus-id\tscore\nq2\td2\t1\nq1\td1\t2\nq1\td2\t0\nq3\td1\t0\n"


def folder_of(path: Path, *, corpus=CORPUS, queries=QUERIES, **qrels: str) -> Path:
    (path / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for split, text in (qrels or {"test": QRELS}).items():
        (path / "qrels" / f"{split}.tsv").write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "toy")


def test_a_folder_becomes_a_collection(toy):
    assert load_collection(toy, split="test") == Collection.of(
        name="toy",
        passage_ids=["d1", "d2", "d3"],
        passages=["Cats They purr.", "Dogs bark.", "Cows"],
        query_ids=["q1", "q2"],
        queries=["purr?", "bark?"],
        qrels={"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}},
    )


def test_queries_come_in_the_order_of_their_file_and_not_of_the_qrels(toy):
    collection = load_collection(toy, split="test")
    assert collection.query_ids == list(collection.qrels) == ["q1", "q2"]


def test_a_query_that_has_only_grades_of_0_is_left_out(toy):
    assert "q3" not in load_collection(toy, split="test").query_ids


def test_the_header_of_the_qrels_is_optional(tmp_path, toy):
    bare = folder_of(tmp_path / "bare", test=QRELS.partition("\n")[2])
    assert load_collection(bare, split="test").qrels == load_collection(toy, split="test").qrels


def test_ids_that_are_numbers_become_strings(tmp_path):
    folder = folder_of(
        tmp_path / "toy",
        corpus=[{"_id": 31715818, "text": "a"}],
        queries=[{"_id": 1, "text": "b"}],
        test="1\t31715818\t1\n",
    )
    assert load_collection(folder, split="test").qrels == {"1": {"31715818": 1}}


@pytest.mark.parametrize("row", [{"_id": "d", "text": "a"}, {"_id": "d", "text": "a", "title": None}])
def test_a_title_may_be_missing(tmp_path, row):
    folder = folder_of(tmp_path / "toy", corpus=[row], test="q1\td\t1\n")
    assert load_collection(folder, split="test").passages == ["a"]


def test_ids_may_hold_spaces_and_qrels_may_end_lines_as_on_windows(tmp_path):
    folder = folder_of(
        tmp_path / "toy",
        corpus=[{"_id": "d 1", "text": "a"}],
        queries=[{"_id": " q 1", "text": "b"}],
        test="query-id\tcorpus-id\tscore\r\n\r\n q 1\td 1\t1\r\n",
    )
    assert load_collection(folder, split="test").qrels == {" q 1": {"d 1": 1}}


def test_a_byte_order_mark_hides_neither_the_header_nor_the_first_id(tmp_path):
    for number, text in enumerate([QRELS, QRELS.partition("\n")[2]]):
        folder = folder_of(tmp_path / str(number), test="\ufeff" + text)
        assert load_collection(folder, split="test").query_ids == ["q1", "q2"]


def test_a_judgement_that_is_repeated_counts_once(tmp_path):
    folder = folder_of(tmp_path / "toy", test="q1\td1\t1\nq1\td1\t1\n")
    assert load_collection(folder, split="test").qrels == {"q1": {"d1": 1}}


def test_metadata_is_kept_and_rows_without_any_get_an_empty_object(tmp_path):
    corpus = [{**CORPUS[0], "metadata": {"line": 3}}, CORPUS[1], {**CORPUS[2], "metadata": None}]
    assert load_collection(folder_of(tmp_path / "toy", corpus=corpus), split="test").metadata == [{"line": 3}, {}, {}]


def test_a_corpus_whose_metadata_is_empty_has_none(tmp_path):
    corpus = [{**row, "metadata": {}} for row in CORPUS]
    assert load_collection(folder_of(tmp_path / "toy", corpus=corpus), split="test").metadata == []


def test_splits_are_sorted_and_hidden_files_are_none(tmp_path):
    folder = folder_of(tmp_path / "toy", train=QRELS, dev=QRELS)
    (folder / "qrels" / "._dev.tsv").touch()
    (folder / "qrels" / "notes.txt").touch()
    assert splits(folder) == ["dev", "train"]


BAD_ROWS = [
    ({"text": "a"}, r""":4: no "_id", got the keys 'text'"""),
    ({"_id": None, "text": "a"}, ':4: no "_id", got None'),
    ({"_id": True, "text": "a"}, ':4: no "_id", got True'),
    ({"_id": "", "text": "a"}, ":4: no \"_id\", got ''"),
    ({"_id": "x", "txt": "a"}, r':4: no "text" among the keys "_id", "txt" \(did you mean "text"\?\)'),
    ({"_id": "x", "text": None}, ':4: "text" is null, wanted a string'),
    ({"_id": "x", "text": ["a", "b"]}, ':4: "text" is a list, wanted a string'),
    ({"_id": "x", "text": " \n"}, ':4: the text .*"x" (is|are) empty'),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
@pytest.mark.parametrize("file", ["corpus", "queries"])
def test_a_row_that_cannot_be_used_is_named_with_its_line(tmp_path, file, row, message):
    rows = {"corpus": CORPUS, "queries": QUERIES}[file]
    folder = folder_of(tmp_path / "toy", **{file: [*rows, row]}, test=QRELS)
    with pytest.raises(InputError, match=rf"{file}\.jsonl{message}") as caught:
        load_collection(folder, split="test")
    assert caught.value.hint


@pytest.mark.parametrize(("file", "rows", "row_id"), [("corpus", CORPUS, "d2"), ("queries", QUERIES, "q2")])
def test_an_id_that_is_taken_names_both_lines(tmp_path, file, rows, row_id):
    folder = folder_of(tmp_path / "toy", **{file: [*rows, {"_id": row_id, "text": "again"}]}, test=QRELS)
    with pytest.raises(InputError, match=rf'{file}\.jsonl:4: the id "{row_id}" is taken by line 2'):
        load_collection(folder, split="test")


def test_a_number_and_its_spelling_are_the_same_id(tmp_path):
    folder = folder_of(
        tmp_path / "toy", queries=[{"_id": 1, "text": "a"}, {"_id": "1", "text": "b"}], test="1\td1\t1\n"
    )
    with pytest.raises(InputError, match=r'queries\.jsonl:2: the id "1" is taken by line 1'):
        load_collection(folder, split="test")


@pytest.mark.parametrize(("key", "wanted"), [("title", "a string"), ("metadata", "an object")])
def test_a_title_or_metadata_of_another_type_is_named(tmp_path, key, wanted):
    folder = folder_of(tmp_path / "toy", corpus=[{**CORPUS[0], key: ["x"]}])
    with pytest.raises(InputError, match=rf'corpus\.jsonl:1: "{key}" is a list, wanted {wanted}'):
        load_collection(folder, split="test")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q9\td1\t1", r'test\.tsv:2: unknown query id "q9"; there are 3 queries'),
        ("q1\td 2\t1", r'test\.tsv:2: unknown passage id "d 2"; the corpus has 3 passages \(did you mean "d2"\?\)'),
        ("q1\td2\t0.5", r'test\.tsv:2: the grade "0\.5" is not a whole number'),
        ("q1\td2\tyes", r'test\.tsv:2: the grade "yes" is not a whole number'),
        ("q1\td2\t", r'test\.tsv:2: the grade "" is not a whole number'),
        ("q1\td2", r"test\.tsv:2: 2 columns, wanted 3"),
        ("q1 d2 1", r"test\.tsv:2: 1 column, wanted 3"),
        ("q1\t0\td2\t1", r"test\.tsv:2: 4 columns, wanted 3"),
        ("q1\td1\t0", r'test\.tsv:2: query "q1" and passage "d1" have the grade 0 here and 1 on an earlier line'),
    ],
)
def test_a_judgement_that_cannot_be_used_is_named_with_its_line(tmp_path, line, message):
    folder = folder_of(tmp_path / "toy", test=f"q1\td1\t1\n{line}\n")
    with pytest.raises(InputError, match=message) as caught:
        load_collection(folder, split="test")
    assert caught.value.hint


def test_a_broken_grade_in_the_first_line_is_no_header(tmp_path):
    folder = folder_of(tmp_path / "toy", test="q1\td1\tone\nq1\td1\t1\n")
    with pytest.raises(InputError, match=r'test\.tsv:1: the grade "one"'):
        load_collection(folder, split="test")


def test_qrels_that_are_not_utf_8_are_named_with_their_line(toy):
    (toy / "qrels" / "test.tsv").write_bytes(b"q1\td1\t1\nq\xff\td1\t1\n")
    with pytest.raises(InputError, match=r"test\.tsv:2: not UTF-8 \(byte 2 of the line\)"):
        load_collection(toy, split="test")


def test_a_large_corpus_is_counted_with_commas(tmp_path):
    corpus = [{"_id": f"document-{number:06}", "text": "a"} for number in range(20_000)]
    folder = folder_of(tmp_path / "toy", corpus=corpus, test="q1\tdocument-0000017\t1\n")
    with pytest.raises(
        InputError, match=r'"document-0000017"; the corpus has 20,000 passages \(did you mean "document-'
    ):
        load_collection(folder, split="test")


def test_a_split_without_a_positive_is_refused(tmp_path):
    folder = folder_of(tmp_path / "toy", test="q1\td1\t0\n")
    with pytest.raises(InputError, match=r"test\.tsv: no query has a passage with a grade above 0"):
        load_collection(folder, split="test")


def test_a_split_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    folder = folder_of(tmp_path / "toy", train=QRELS, test=QRELS)
    with pytest.raises(InputError, match=r'no split "tset" \(did you mean "test"\?\)') as caught:
        load_collection(folder, split="tset")
    assert caught.value.hint == "its splits: test, train"


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_a_folder_without_one_of_the_files_is_not_beir(toy, name):
    (toy / name).unlink()
    with pytest.raises(InputError, match=rf"toy: not a BEIR folder: it has no {name}"):
        load_collection(toy, split="test")


def test_a_folder_without_qrels_is_not_beir(toy):
    (toy / "qrels" / "test.tsv").unlink()
    with pytest.raises(InputError, match=r"qrels: no \.tsv file"):
        load_collection(toy, split=None)
    (toy / "qrels").rmdir()
    for split in (None, "test"):
        with pytest.raises(InputError, match="not a BEIR folder: it has no qrels folder"):
            load_collection(toy, split=split)


@pytest.mark.parametrize("split", [None, "test"])
def test_an_empty_folder_is_named_as_such(tmp_path, split):
    with pytest.raises(InputError, match="an empty folder"):
        load_collection(tmp_path, split=split)


def test_a_folder_with_other_files_is_not_beir_whatever_the_split(tmp_path):
    (tmp_path / "notes.txt").touch()
    for split in (None, "test"):
        with pytest.raises(
            InputError, match=r"not a BEIR folder: it has no corpus\.jsonl and no queries\.jsonl and no qrels"
        ):
            load_collection(tmp_path, split=split)


def test_the_only_split_need_not_be_named(toy):
    assert load_collection(str(toy), split=None) == load_collection(toy, split="test")


def test_several_splits_leave_a_choice(tmp_path):
    folder = folder_of(tmp_path / "toy", train=QRELS, dev=QRELS)
    with pytest.raises(InputError, match="there are 2 splits, and none was chosen") as caught:
        load_collection(folder, split=None)
    assert caught.value.hint == "choose dev, train or all"


def test_a_path_that_is_not_there_is_answered_with_its_nearest_sibling(toy):
    with pytest.raises(InputError, match=r'no such file or folder \(did you mean "toy"\?\)'):
        load_collection(toy.parent / "tyo", split=None)
    with pytest.raises(InputError, match=r"no such file or folder$"):
        load_collection(toy.parent / "no" / "where", split=None)


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "pairs.xlsx").touch()
    with pytest.raises(InputError, match=r'ends in "\.xlsx", wanted one of \.jsonl, \.parquet, \.csv, \.tsv'):
        load_collection(tmp_path / "pairs.xlsx", split=None)


def test_the_name_of_a_relative_folder_is_that_of_the_folder(toy, monkeypatch):
    monkeypatch.chdir(toy)
    assert load_collection(Path(), split="test").name == "toy"


def test_what_is_written_is_read_back(tmp_path):
    corpus = [{**row, "metadata": {"line": number}} for number, row in enumerate(CORPUS)]
    folder = folder_of(tmp_path / "a" / "toy", corpus=corpus, test=QRELS, train="q1\td1\t0\nq3\td3\t1\n")
    collections = {split: load_collection(folder, split=split) for split in splits(folder)}
    write_beir(tmp_path / "b" / "toy", collections)
    assert {
        split: load_collection(tmp_path / "b" / "toy", split=split) for split in splits(tmp_path / "b" / "toy")
    } == collections


def test_written_files_have_the_published_format(tmp_path):
    collection = Collection.of(
        name="toy",
        passage_ids=["d1"],
        passages=["ein Bär"],
        query_ids=["q1"],
        queries=["Bär?"],
        qrels={"q1": {"d1": 2}},
    )
    write_beir(tmp_path, {"test": collection})
    written = {str(path.relative_to(tmp_path)): path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.*")}
    assert written == {
        "corpus.jsonl": '{"_id":"d1","title":"","text":"ein Bär"}\n',
        "queries.jsonl": '{"_id":"q1","text":"Bär?"}\n',
        "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t2\n",
    }


def test_queries_of_two_splits_are_written_once(tmp_path, toy):
    collection = load_collection(toy, split="test")
    write_beir(tmp_path / "b", {"train": collection, "test": collection})
    assert len((tmp_path / "b" / "queries.jsonl").read_text().splitlines()) == 2
    assert (
        load_collection(tmp_path / "b", split="train").qrels
        == load_collection(tmp_path / "b", split="test").qrels
        == collection.qrels
    )


def toy_split(**changes) -> Collection:
    values = {
        "passage_ids": ["d1"],
        "passages": ["a"],
        "query_ids": ["q1"],
        "queries": ["b"],
        "qrels": {"q1": {"d1": 1}},
    }
    return Collection.of(name="toy", **{**values, **changes})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (toy_split(passages=["other"]), 'the splits "train" and "test" have different passages'),
        (toy_split(metadata=[{"line": 1}]), 'the splits "train" and "test" have different passages'),
        (toy_split(queries=["other"]), 'query "q1" has another text in split "test"'),
        (toy_split(query_ids=["q\t2"], qrels={"q\t2": {"d1": 1}}), r"the id 'q\\t2' holds a tab or a line break"),
    ],
)
def test_collections_that_do_not_fit_into_one_folder_are_refused(tmp_path, other, message):
    with pytest.raises(InputError, match=message):
        write_beir(tmp_path, {"train": toy_split(), "test": other})
    assert not (tmp_path / "corpus.jsonl").exists()

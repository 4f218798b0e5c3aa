"""Pairs beside a column that says how relevant the passage is: 0 is a negative, wherever pairs are read."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

import embedsmith
from embedsmith.data.collection import Collection
from embedsmith.data.columns import RELEVANCE, ColumnSettings
from embedsmith.data.examples import Example, Passage, read_examples
from embedsmith.data.labelled import task_of
from embedsmith.data.load import load_collection
from embedsmith.errors import InputError
from embedsmith.evaluation.contender import Contender
from embedsmith.evaluation.scoring import score
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.mining.dialect_files import DialectSettings
from embedsmith.mining.dialects import write_dialect
from embedsmith.prepare.contamination import ContaminationSettings
from embedsmith.prepare.decontaminate import decontaminate

PAIRS = [("purr?", "a cat", 1), ("purr?", "a dog", 0), ("bark?", "a dog", 2), ("bark?", "a cat", 0)]


def write(folder: Path, form: str, rows: list[dict[str, Any]]) -> Path:
    """Write rows in one of the forms in which pairs are read."""
    if form == "datasets":
        DatasetDict(train=Dataset.from_list(rows)).save_to_disk(str(folder / "saved"))
        return folder / "saved"
    path = folder / f"pairs.{form}"
    if form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif form == "parquet":
        Dataset.from_list(rows).to_parquet(str(path))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if form == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def judged(collection: Collection) -> dict[str, tuple[dict[str, int], list[str]]]:
    """Return by query what answers it with which grade, and the texts of its negatives."""
    texts = dict(zip(collection.passage_ids, collection.passages, strict=True))
    found = {}
    for row, (query_id, query) in enumerate(zip(collection.query_ids, collection.queries, strict=True)):
        grades = {texts[passage]: grade for passage, grade in collection.qrels[query_id].items()}
        negatives = collection.negative_passages[collection.negative_queries == row]
        found[query] = (grades, [collection.passages[passage] for passage in np.sort(negatives).tolist()])
    return found


WANTED = {"purr?": ({"a cat": 1}, ["a dog"]), "bark?": ({"a dog": 2}, ["a cat"])}


@pytest.mark.parametrize(
    ("form", "column"),
    [(form, column) for form in ("csv", "jsonl") for column in (*RELEVANCE, "Label", "labels", "scores")]
    + [(form, column) for form in ("tsv", "parquet", "datasets") for column in ("label", "score", "relevance")],
)
def test_nought_beside_a_pair_is_a_negative_of_its_query_and_more_is_a_positive(tmp_path, form, column):
    path = write(tmp_path, form, [{"query": q, "passage": p, column: grade} for q, p, grade in PAIRS])
    notes: list[str] = []
    collection = load_collection(path, on_skip=notes.append)
    assert judged(collection) == WANTED
    assert notes == [f'{collection_name(path)}: "{column}" above 0 = positive: 2; 0 = negative of the query: 2']


def collection_name(path: Path) -> str:
    return str(path / "train") if path.is_dir() else str(path)


@pytest.mark.parametrize("write_value", [float, str, lambda grade: f" {grade}.0 ", lambda grade: bool(grade)])
def test_a_grade_is_the_same_however_it_is_written(tmp_path, write_value):
    rows = [{"query": q, "passage": p, "label": write_value(min(grade, 1))} for q, p, grade in PAIRS]
    found = judged(load_collection(write(tmp_path, "jsonl", rows)))
    assert found == {"purr?": ({"a cat": 1}, ["a dog"]), "bark?": ({"a dog": 1}, ["a cat"])}


@pytest.mark.parametrize(("yes", "no"), [("relevant", "irrelevant"), ("Positive", "negative"), ("true", "false")])
def test_words_that_say_what_is_relevant_are_read(tmp_path, yes, no):
    rows = [{"query": q, "passage": p, "label": yes if grade else no} for q, p, grade in PAIRS]
    found = judged(load_collection(write(tmp_path, "csv", rows)))
    assert found == {"purr?": ({"a cat": 1}, ["a dog"]), "bark?": ({"a dog": 1}, ["a cat"])}


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize(
    ("value", "message", "remedy"),
    [
        (0.5, r'"score" is 0\.5, wanted 0 for not relevant, or a whole number', "--relevant-from"),
        ("0.95", r"\"score\" is '0\.95', wanted 0", "--relevant-from"),
        (-1, '"score" is -1, wanted 0', "--relevant-from"),
        ("news", "\"score\" is 'news', wanted a number", "--relevance-column none"),
    ],
)
def test_what_does_not_say_what_is_relevant_is_refused_and_never_skipped(tmp_path, value, message, remedy, skip_bad):
    rows = [{"query": "a", "passage": "b", "score": 1}, {"query": "a", "passage": "c", "score": value}]
    with pytest.raises(InputError, match=rf"pairs\.jsonl:2: {message}") as caught:
        load_collection(write(tmp_path, "jsonl", rows), skip_bad=skip_bad)
    assert remedy in caught.value.hint


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "", "nan"])
def test_a_row_without_a_relevance_is_no_positive(tmp_path, value):
    rows = [{"query": "a", "passage": "b", "score": 1}, {"query": "a", "passage": "c", "score": value}]
    path = write(tmp_path, "jsonl", rows)
    with pytest.raises(InputError, match=r'pairs\.jsonl:2: "score" is .*, wanted a number'):
        load_collection(path)
    assert judged(load_collection(path, skip_bad=True)) == {"a": ({"b": 1}, [])}


def test_fractions_are_read_from_a_threshold_on(tmp_path):
    rows = [{"query": q, "passage": p, "score": 0.1 + 0.4 * grade} for q, p, grade in PAIRS]
    path = write(tmp_path, "csv", rows)
    notes: list[str] = []
    found = load_collection(path, columns=ColumnSettings(relevant_from=0.5), on_skip=notes.append)
    assert judged(found) == {"purr?": ({"a cat": 1}, ["a dog"]), "bark?": ({"a dog": 1}, ["a cat"])}
    assert notes == [f'{path}: "score" from 0.5 on = positive: 2; below 0.5 = negative of the query: 2']


def test_a_column_that_says_nothing_of_relevance_is_ignored_when_the_caller_says_so(tmp_path):
    rows = [{"query": q, "passage": p, "rating": grade, "label": "news"} for q, p, grade in PAIRS]
    path = write(tmp_path, "csv", rows)
    with pytest.raises(InputError, match='"rating", "label": it is not clear what says how relevant') as caught:
        load_collection(path)
    assert caught.value.hint == "name it: --relevance-column rating, or --relevance-column none if nothing does"
    found = load_collection(path, columns=ColumnSettings(relevance="none"))
    assert judged(found)["purr?"] == ({"a cat": 1, "a dog": 1}, [])
    assert judged(load_collection(path, columns=ColumnSettings(relevance="rating"))) == WANTED


def test_rows_with_and_without_a_relevance_are_refused(tmp_path):
    rows = [{"query": "a", "passage": "b", "label": 1}, {"query": "a", "passage": "c"}]
    for some in (rows, rows[::-1]):
        with pytest.raises(InputError, match=r"pairs\.jsonl:2: .* how relevant the passage is .* in the rows before"):
            load_collection(write(tmp_path, "jsonl", some), skip_bad=True)


def test_a_relevance_that_contradicts_another_row_is_refused(tmp_path):
    rows = [{"query": q, "passage": p, "label": grade} for q, p, grade in [*PAIRS, ("Purr?", "a cat", 0)]]
    path = write(tmp_path, "jsonl", rows)
    with pytest.raises(InputError, match=r"pairs\.jsonl:5: another row gives the same query and passage"):
        load_collection(path)
    assert judged(load_collection(path, skip_bad=True)) == WANTED


def test_a_query_without_a_relevant_passage_is_told(tmp_path):
    notes: list[str] = []
    rows = [{"query": q, "passage": p, "label": grade} for q, p, grade in [*PAIRS, ("moo?", "a cat", 0)]]
    path = write(tmp_path, "jsonl", rows)
    assert judged(load_collection(path, on_skip=notes.append)) == WANTED
    assert notes[1] == f"{path}: 1 queries without a relevant passage are left out"
    with pytest.raises(InputError, match="no pairs, no row says that a passage is relevant"):
        load_collection(write(tmp_path, "jsonl", rows[-1:]))


def test_a_list_of_grades_beside_a_list_of_passages(tmp_path):
    rows = [{"query": "a", "positive": ["b", "c", "d"], "labels": [1, 0, 3]}]
    assert judged(load_collection(write(tmp_path, "parquet", rows))) == {"a": ({"b": 1, "d": 3}, ["c"])}
    with pytest.raises(InputError, match='"labels" has 2 values for 3 positives'):
        load_collection(write(tmp_path, "jsonl", [{**rows[0], "labels": [1, 0]}]))


def test_a_relevance_beside_negatives_is_named_by_the_caller(tmp_path):
    rows = [{"query": "a", "positive": "b", "negative": "c", "score": 0}]
    with pytest.raises(InputError, match='"score" beside negatives: it is not clear'):
        load_collection(write(tmp_path, "csv", rows))
    rows = [{"query": "a", "positive": "b", "negative": "c", "scores": [0.9, 0.1]}]
    assert judged(load_collection(write(tmp_path, "jsonl", rows))) == {"a": ({"b": 1}, ["c"])}


EXAMPLES = [
    Example("q1", "purr?", [Passage("1", "a cat", 0.9)], [Passage("2", "a dog", 0.5), Passage("3", "a cow", 0.0)]),
    Example("q2", "bark?", [Passage("2", "a dog", 0.8)], [Passage("1", "a cat", 0.4), Passage("3", "a cow", 0.1)]),
]
READ_BACK = {"purr?": ({"a cat": 1}, ["a dog", "a cow"]), "bark?": ({"a dog": 1}, ["a cat", "a cow"])}


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize(
    ("dialect", "columns"),
    [
        ("st-triplet", {}),
        ("st-n-tuple", {}),
        ("st-labeled-pair", {}),
        ("st-labeled-list", {"positive": "documents"}),
        ("flagembedding", {}),
    ],
)
def test_what_write_made_means_the_same_when_it_is_read_back(tmp_path, dialect, columns, scores):
    path = tmp_path / ("rows.jsonl" if dialect == "flagembedding" else "rows.parquet")
    write_dialect(dialect, path, EXAMPLES, DialectSettings(scores=scores))
    if scores and "labeled" in dialect:
        with pytest.raises(InputError, match=r"wanted 0 for not relevant") as caught:
            load_collection(path, columns=ColumnSettings(**columns))
        assert "--relevant-from" in caught.value.hint
        columns = {**columns, "relevant_from": 0.7}
    found = judged(load_collection(path, columns=ColumnSettings(**columns)))
    assert {query: (grades, sorted(negatives)) for query, (grades, negatives) in found.items()} == {
        query: (grades, sorted(negatives)) for query, (grades, negatives) in READ_BACK.items()
    }


LISTS = ["['a', 'b']", '["a","b"]', "['a' 'b']", "[]", "[{'text': 'a'}]", "{'text': 'a', 'id': 3}", '{"text": "a"}']


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet", "datasets"])
@pytest.mark.parametrize(
    "column", ["positive", "passage", "pos", "positives", "negative", "neg", "negatives", "negative_2"]
)
def test_a_list_that_was_written_as_a_text_is_no_passage(tmp_path, column, form):
    good = {"query": "x", column: "a text"} | ({"positive": "y"} if column.startswith("neg") else {})
    for number, cell in enumerate(LISTS if form in ("csv", "jsonl") else LISTS[:1]):
        (tmp_path / str(number)).mkdir()
        path = write(tmp_path / str(number), form, [{**good, column: cell}, good])
        with pytest.raises(InputError, match=rf'"{column}" is a text that holds a list or an object'):
            load_collection(path, skip_bad=number > 0)


@pytest.mark.parametrize(
    "text", ["[1] Smith et al.", "['] is a bracket", "{x} is a set", "[a-z]+", '{"a": 1}', "a [b]"]
)
def test_texts_with_brackets_are_passages(tmp_path, text):
    assert load_collection(write(tmp_path, "csv", [{"query": "x", "positive": text}])).passages == [text]


def test_a_passage_that_is_meant_to_look_like_a_list_stands_in_a_list(tmp_path):
    rows = [{"query": "x", "positive": ["['a', 'b']"]}]
    assert load_collection(write(tmp_path, "jsonl", rows)).passages == ["['a', 'b']"]


words = st.text("abc", min_size=1, max_size=2)


@settings(max_examples=40)
@given(st.lists(st.tuples(words, words, st.integers(0, 3)), min_size=1, max_size=12), st.sampled_from(["csv", "jsonl"]))
def test_any_table_of_grades_is_read_as_it_stands_or_refused_with_its_place(tmp_path_factory, rows, form):
    path = write(
        tmp_path_factory.mktemp("any"), form, [{"query": q, "passage": p, "label": grade} for q, p, grade in rows]
    )
    wanted: dict[str, tuple[dict[str, int], set[str]]] = {}
    first: dict[tuple[str, str], int] = {}
    contradicts = False
    for query, passage, grade in rows:
        contradicts |= first.setdefault((query, passage), grade) != grade
        positives, negatives = wanted.setdefault(query, ({}, set()))
        if grade:
            positives[passage] = grade
        else:
            negatives.add(passage)
    wanted = {query: sides for query, sides in wanted.items() if sides[0]}
    if contradicts:
        with pytest.raises(InputError, match=r"pairs\.\w+:\d+: another row gives the same query and passage"):
            load_collection(path)
    elif not wanted:
        with pytest.raises(InputError, match="no row says that a passage is relevant"):
            load_collection(path)
    else:
        found = judged(load_collection(path))
        assert {query: (good, set(bad)) for query, (good, bad) in found.items()} == wanted


def test_what_is_mined_and_scored_follows_the_relevance(tmp_path):
    """With every row a positive, the best that any ranking could have is another one."""
    rows = [
        {"query": f"where is the {animal}", "passage": f"the {animal} is {place}", "label": int(place == "here")}
        for animal in ("cat", "dog", "owl", "bat")
        for place in ("here", "gone")
    ]
    path = write(tmp_path, "csv", rows)
    run = embedsmith.mine(
        path, out=tmp_path / "run", settings=embedsmith.MiningSettings(teachers=["bm25"], negatives=1)
    )
    for example in read_examples(run.folder / "negatives.jsonl"):
        animal = example.query.split()[-1]
        assert [passage.text for passage in example.positives] == [f"the {animal} is here"]
    assert task_of(path) == "retrieval"
    found = score(Contender("bm25"), path, ScoringSettings())
    assert found.qrels == {f"q{n}": {f"p{2 * n}": 1} for n in range(4)}
    named = write(tmp_path, "jsonl", [{"q": row["query"], "d": row["passage"], "j": row["label"] / 2} for row in rows])
    columns = ColumnSettings(query="q", positive="d", relevance="j", relevant_from=0.5)
    assert score(Contender("bm25"), named, ScoringSettings(pair_columns=columns)).qrels == found.qrels


def test_a_list_in_a_text_is_no_passage_that_contamination_looks_at(tmp_path):
    train = write(tmp_path, "csv", [{"query": "a", "positive": "['b', 'c']"}])
    (tmp_path / "test.jsonl").write_text('{"query": "z", "positive": "b"}\n')
    wanted = ContaminationSettings(near_duplicates=0, passages=True)
    with pytest.raises(InputError, match=r'pairs\.csv:2: "positive" is a text that holds a list'):
        decontaminate(train, against=[tmp_path / "test.jsonl"], out=tmp_path / "clean.csv", settings=wanted)

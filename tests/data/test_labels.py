"""One reader of labels: conversion and scoring take the same rows, under every column's name, for the same.

Each way to the labels is tried on the same data in every form: what conversion makes a positive is scored as one.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedsmith.data.bad_rows import Tally, Unusable
from embedsmith.data.examples import read_examples
from embedsmith.data.labelled import read_labelled, task_of
from embedsmith.data.labelled_rows import (
    FIRST,
    LABEL,
    NEGATIVE,
    POSITIVE,
    QUERY,
    SECOND,
    TEXT,
    VALUE,
    LabelledColumns,
)
from embedsmith.data.labels import label_of, score_of
from embedsmith.data.load import load_collection
from embedsmith.data.pair_labels import Relation, counted, in_words, meanings_of, read_labels
from embedsmith.errors import InputError
from embedsmith.prepare.convert import Conversion, convert
from embedsmith.prepare.converters.settings import ConvertSettings
from tests.data.test_relevance import judged, write


def converted(path: Path, task: str, columns: LabelledColumns | None = None, **settings: Any) -> Conversion:
    wanted = ConvertSettings.parse({"task": task, "negatives": 0, **settings}, where="test")
    return convert(path, out=path.parent / "out.jsonl", settings=wanted, columns=columns)


def answers(path: Path, task: str, columns: LabelledColumns | None = None, **settings: Any) -> set[tuple[str, str]]:
    """Return the pairs of query and positive that conversion makes."""
    found = converted(path, task, columns, **{"symmetric": False, **settings})
    assert found.rows == found.positives + found.negatives + sum(found.dropped.values())
    examples = read_examples(path.parent / "out.jsonl")
    return {(example.query, passage.text) for example in examples for passage in example.positives}


def scored(path: Path, task: Any, columns: LabelledColumns | None = None, **settings: Any) -> set[tuple[str, str]]:
    """Return the pairs that are scored as belonging together."""
    found = read_labelled(path, task, columns=columns, **settings).columns
    rows = zip(found["sentence1"], found["sentence2"], found["labels"], strict=True)
    return {(first, second) for first, second, label in rows if label}


# --- pairs ------------------------------------------------------------------------------------------------------------

PAIRS = [("a man runs", f"hypothesis {n}", n % 3) for n in range(6)] + [("a dog sleeps", "an animal rests", 0)]
ENTAILED = {(first, second) for first, second, relation in PAIRS if relation == 0}
NLI = ("entailment", "neutral", "contradiction")
FORMS = ["jsonl", "csv", "parquet"]
SIDES = list(zip(FIRST, SECOND, strict=True))


def in_every_form(*roles: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return every choice of names in JSON lines, and the first one in every other form."""
    every = list(itertools.product(*roles))
    return [(*names, "jsonl") for names in every] + [(*every[0], form) for form in FORMS[1:]]


def rows_of(names: tuple[str, str, str], labels: Any) -> list[dict[str, Any]]:
    return [dict(zip(names, (first, second, labels(relation)), strict=True)) for first, second, relation in PAIRS]


@pytest.mark.parametrize(("sides", "value", "form"), in_every_form(SIDES, [n for n in VALUE if "score" not in n]))
def test_words_and_numbers_of_entailment_mean_the_same_in_conversion_and_in_scoring(tmp_path, sides, value, form):
    names = (*sides, value)
    for labels in (lambda relation: NLI[relation], lambda relation: f" {NLI[relation].title()} "):
        path = write(tmp_path, form, rows_of(names, labels))
        assert task_of(path) == "pair-classification"
        assert answers(path, "nli") == scored(path, "pair-classification") == scored(path, "nli") == ENTAILED
    for labels in (int, float):
        path = write(tmp_path, form, rows_of(names, labels))
        assert answers(path, "nli") == scored(path, "nli") == ENTAILED
        data = read_labelled(path, "nli")
        assert converted(path, "nli").meanings == data.meanings.plain()
        assert data.meanings.plain()["0"] == {"means": "entailment", "rows": 3}
        assert data.notes[0] == (
            f"{path}: labels: 0 = entailment: 3 rows; 1 = neutral: 2 rows; 2 = contradiction: 2 rows"
        )


@pytest.mark.parametrize(("sides", "form"), in_every_form(SIDES))
def test_nought_and_one_are_no_and_yes_of_pairs_and_ambiguous_of_an_entailment(tmp_path, sides, form):
    path = write(tmp_path, form, rows_of((*sides, "label"), lambda relation: int(relation == 0)))
    ways = [lambda: answers(path, "nli"), lambda: scored(path, "nli")]
    others = [lambda: answers(path, "pairs"), lambda: scored(path, "pair-classification")]
    if sides[0] == "premise":
        ways += others
    else:
        assert all(way() == ENTAILED for way in others)
    for way in ways:
        with pytest.raises(InputError, match="ambiguous: 0 is entailment in GLUE's RTE, 1 is in other sets") as caught:
            way()
        assert "--labels 0=entailment,1=contradiction" in caught.value.hint
    labels = "1=entailment,0=contradiction"
    assert answers(path, "nli", labels=labels) == scored(path, "nli", labels=labels) == ENTAILED
    inverted = {(first, second) for first, second, _ in PAIRS} - ENTAILED
    labels = "0=entailment,1=not_entailment"
    assert answers(path, "nli", labels=labels) == scored(path, "nli", labels=labels) == inverted
    assert answers(path, "pairs", labels=labels) == scored(path, "pair-classification", labels=labels) == inverted


@pytest.mark.parametrize("how", ["labels", "file", "positive_labels"])
def test_other_labels_mean_what_the_caller_says_in_conversion_and_in_scoring(tmp_path, how):
    path = write(tmp_path, "jsonl", rows_of(("text1", "text2", "label"), lambda relation: "xyz"[relation]))
    for way in (lambda: answers(path, "pairs"), lambda: scored(path, "pair-classification")):
        with pytest.raises(InputError, match=r'pairs\.jsonl:1: the label "x", wanted entailment, neutral') as caught:
            way()
        assert "--labels" in caught.value.hint
    (tmp_path / "labels.yaml").write_text("{x: positive, y: neutral, z: negative}")
    given = {
        "labels": {"labels": "x=positive, y=neutral, *=negative"},
        "file": {"labels": str(tmp_path / "labels.yaml")},
        "positive_labels": {"positive_labels": ["X"]},
    }[how]
    assert answers(path, "pairs", **given) == scored(path, "pair-classification", **given) == ENTAILED
    left_out = read_labelled(path, "pair-classification", **given).left_out
    assert left_out == (0 if how == "positive_labels" else 2)


def every_way(path: Path, convert_task: str, score_task: Any, **values: Any) -> list[Any]:
    """Return conversion and scoring, strict and skipping bad rows."""
    settings = ConvertSettings.parse({"task": convert_task, "negatives": 0, **values}, where="test")
    return [
        lambda: convert(path, out=path.parent / "out.jsonl", settings=settings),
        lambda: convert(path, out=path.parent / "out.jsonl", settings=settings, skip_bad=True),
        lambda: read_labelled(path, score_task),
        lambda: read_labelled(path, score_task, on_bad=Tally()),
    ]


@pytest.mark.parametrize("labels", [[0, 1, 2], [0.0, 1.0, 3.0], ["0", "1", "maybe"], [0, 1, "entailment"], [5, 1, 0]])
def test_labels_that_nothing_gives_a_meaning_are_never_skipped(tmp_path, labels):
    path = write(tmp_path, "jsonl", rows_of(("sentence1", "sentence2", "label"), lambda relation: labels[relation]))
    for way in every_way(path, "pairs", "pair-classification"):
        with pytest.raises(InputError, match=r'pairs\.jsonl:\d: the label "\w+", wanted') as caught:
            way()
        assert "--labels" in caught.value.hint


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("row", "tasks"),
    [
        ({"sentence1": "a", "sentence2": "b"}, ("pairs", "pair-classification")),
        ({"premise": "a", "hypothesis": "b"}, ("nli", "nli")),
        ({"text": "a"}, ("classification", "clustering")),
        ({"text": "a"}, ("clustering", "clustering")),
    ],
)
def test_a_score_never_passes_as_a_label(tmp_path, row, tasks, form):
    values = [0.0, 5.0, 1.0, 3.8]
    texts = [{key: f"{text} {n}" for key, text in row.items()} for n in range(4)]
    path = write(tmp_path, form, [{**some, "label": value} for some, value in zip(texts, values, strict=True)])
    for way in every_way(path, *tasks):
        with pytest.raises(InputError, match=r"(:5|:4|row 4): the label is '?3\.8'?, a fraction: is this a score\?"):
            way()


@pytest.mark.parametrize(
    ("value", "reason"),
    [(float("nan"), "no label"), (float("inf"), "no label"), ("nan", "no label"), (" ", "no label")],
)
@pytest.mark.parametrize("tasks", [("pairs", "pair-classification"), ("clustering", "clustering")])
def test_a_label_that_is_not_finite_is_a_bad_row_and_no_class(tmp_path, tasks, value, reason):
    labels = [0, 1, 0, 1, value]
    row = {"text": "a"} if tasks[0] == "clustering" else {"sentence1": "a", "sentence2": "b"}
    rows = [{**{key: f"{text} {n}" for key, text in row.items()}, "label": label} for n, label in enumerate(labels)]
    strict, skipping, scoring, counting = every_way(write(tmp_path, "jsonl", rows), *tasks)
    for way in (strict, scoring):
        with pytest.raises(
            InputError, match=r"pairs\.jsonl:5: the label is (nan|inf|'nan'|an empty text), wanted a name"
        ):
            way()
    assert skipping().dropped[reason] == 1
    assert len(counting()) == 4


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sides", "value", "form"), in_every_form(SIDES, VALUE))
def test_scores_are_read_alike_in_conversion_and_in_scoring(tmp_path, sides, value, form):
    rows = [{sides[0]: f"a {n}", sides[1]: f"b {n}", value: n / 2} for n in range(11)]
    path = write(tmp_path, form, rows)
    assert task_of(path) == ("sts" if "score" in value else "pair-classification")
    assert read_labelled(path, "sts").columns["score"] == [n / 2 for n in range(11)]
    assert answers(path, "sts") == {(f"a {n}", f"b {n}") for n in range(8, 11)}


def test_of_a_score_and_a_label_each_task_takes_its_own(tmp_path):
    rows = [{"sentence1": f"a {n}", "sentence2": f"b {n}", "score": n, "label": NLI[n % 3]} for n in range(6)]
    path = write(tmp_path, "jsonl", rows)
    assert task_of(path) == "sts"
    assert read_labelled(path, "sts").columns["score"] == [0, 1, 2, 3, 4, 5]
    assert scored(path, "pair-classification") == answers(path, "nli") == {("a 0", "b 0"), ("a 3", "b 3")}
    assert answers(path, "sts") == {("a 4", "b 4"), ("a 5", "b 5")}


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), "nan", "high", None])
def test_a_score_that_is_not_finite_is_a_bad_row(tmp_path, value):
    rows = [{"sentence1": f"a {n}", "sentence2": "b", "score": score} for n, score in enumerate([5, 0, value])]
    strict, skipping, scoring, counting = every_way(write(tmp_path, "jsonl", rows), "sts", "sts")
    for way in (strict, scoring):
        with pytest.raises(InputError, match=r"pairs\.jsonl:3: (the score is|no value)"):
            way()
    assert sum(skipping().dropped.values()) == 1
    assert counting().columns["score"] == [5, 0]


# --- classes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "label", "form"), in_every_form(TEXT, LABEL))
def test_classes_are_read_alike_in_conversion_and_in_scoring(tmp_path, text, label, form):
    rows = [{text: f"text {n}", label: f" class {n % 2} "} for n in range(6)]
    path = write(tmp_path, form, rows)
    assert task_of(path) == "clustering"
    found = read_labelled(path, "clustering").columns
    assert found == {"text": [f"text {n}" for n in range(6)], "label": [f"class {n % 2}" for n in range(6)]}
    pairs = answers(path, "clustering")
    assert len(pairs) == 6
    assert all(int(query[-1]) % 2 == int(positive[-1]) % 2 for query, positive in pairs)


KINDS = [int, float, str, lambda n: f"{n}.0", lambda n: f" {n}", bool, lambda n: str(bool(n))]


@pytest.mark.parametrize(("train", "test"), [(one, other) for one in KINDS for other in KINDS if one is not other])
def test_a_class_is_the_same_however_the_splits_write_its_number(tmp_path, train, test):
    for split, kind in (("train", train), ("test", test)):
        rows = [{"text": f"{split} {n}", "label": kind(n % 2)} for n in range(4)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_labelled(tmp_path, "classification")
    assert found.columns["label"] == found.train["label"] == ["0", "1", "0", "1"]
    assert found.notes == []


def test_whole_numbers_and_floats_of_two_parquet_files_are_the_same_classes(tmp_path):
    import pandas as pd

    texts = [f"text {n}" for n in range(4)]
    pd.DataFrame({"text": texts, "label": [0, 1, 2, 0]}).to_parquet(tmp_path / "train.parquet")
    pd.DataFrame({"text": texts, "label": [0, 1, None, 2]}).to_parquet(tmp_path / "test.parquet")
    found = read_labelled(tmp_path, "classification", on_bad=Tally())
    assert found.columns["label"] == ["0", "1", "2"]


def test_labels_of_the_test_split_that_training_lacks_are_told(tmp_path):
    def write_split(split: str, labels: str) -> None:
        rows = [{"text": f"text {n}", "label": label} for n, label in enumerate(labels)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    write_split("train", "aabb")
    write_split("test", "abccd")
    assert read_labelled(tmp_path, "classification").notes == [
        f'{tmp_path}: train has no row with 2 labels of test ("c", "d"): 3 of 5 rows cannot be predicted correctly'
    ]
    write_split("test", "ccd")
    with pytest.raises(InputError, match='no label of test is in train: "c", "d"; train has 2 others'):
        read_labelled(tmp_path, "classification")


# --- reranking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("negative", NEGATIVE)
@pytest.mark.parametrize("positive", POSITIVE)
@pytest.mark.parametrize("query", QUERY)
def test_judged_queries_are_read_alike_in_conversion_and_in_scoring(tmp_path, query, positive, negative):
    rows = [{query: f"query {n}", positive: [f"good {n}"], negative: [f"bad {n}", "worse"]} for n in range(3)]
    path = write(tmp_path, "jsonl", rows)
    found = read_labelled(path, "reranking").columns
    assert found["positive"] == [[f"good {n}"] for n in range(3)]
    assert found["negative"] == [[f"bad {n}", "worse"] for n in range(3)]
    assert answers(path, "reranking", symmetric=None) == {(f"query {n}", f"good {n}") for n in range(3)}


def test_a_list_that_was_written_as_a_text_is_neither_passage_nor_text_nor_label(tmp_path):
    rows = [{"query": "q", "positive": "['a', 'b']", "negative": "c"}, {"query": "r", "positive": "a", "negative": "c"}]
    for way in every_way(write(tmp_path, "csv", rows), "reranking", "reranking"):
        with pytest.raises(InputError, match=r"pairs\.csv:2: a positive holds a list or an object"):
            way()
    for row in ({"text": "['a', 'b']", "label": "x"}, {"text": "a", "label": "['x', 'y']"}):
        path = write(tmp_path, "csv", [row, {"text": "b", "label": "y"}])
        for way in every_way(path, "clustering", "clustering"):
            with pytest.raises(InputError, match=r"pairs\.csv:2: the (text|label) (is|holds) .* list"):
                way()


def test_columns_that_the_caller_names_are_those_of_conversion_and_of_scoring(tmp_path):
    named = LabelledColumns(first="left", second="right", value="same")
    path = write(tmp_path, "csv", rows_of(("left", "right", "same"), lambda relation: int(relation == 0)))
    assert task_of(path, named) == "pair-classification"
    assert task_of(path) == "retrieval"
    assert answers(path, "pairs", named) == scored(path, "pair-classification", named) == ENTAILED
    named = LabelledColumns(text="left", label="same")
    assert task_of(path, named) == "clustering"
    assert read_labelled(path, "clustering", columns=named).columns["label"] == ["1", "0", "0", "1", "0", "0", "1"]


# --- values, by their properties --------------------------------------------------------------------------------------

numbers = st.integers(-(10**12), 10**12)
names = st.text(min_size=1, max_size=12).filter(lambda text: text.strip())


@given(numbers)
def test_a_whole_number_has_one_name(number):
    spellings = [number, str(number), f" {number}\t", f"{number}.0", f"{number}.", float(number)]
    assert {label_of(value) for value in spellings} == {str(number)}
    assert {score_of(value) for value in spellings} == {float(number)}


@given(names, st.sampled_from(["", " ", "\t", "\n"]))
def test_a_name_is_itself_without_the_space_around_it(name, space):
    try:
        found = label_of(name)
    except Unusable:
        return
    assert label_of(f"{space}{name}{space}") == found == label_of(found)


@given(st.floats())
def test_a_float_is_a_label_where_it_is_whole_and_a_score_where_it_is_finite(value):
    spellings = [value, repr(value)]
    for spelling in spellings:
        if value == value and abs(value) != float("inf"):
            assert score_of(spelling) == value
        else:
            with pytest.raises(Unusable, match="wanted a number"):
                score_of(spelling)
        if value.is_integer():
            assert label_of(spelling) == str(int(value))
        else:
            with pytest.raises(Unusable, match=r"wanted a name or a whole number|is this a score\?"):
                label_of(spelling)


@given(st.dictionaries(names.map(str.strip), st.sampled_from(["positive", "neutral", "negative"]), min_size=1))
def test_labels_mean_what_the_caller_says_whatever_they_are_called(tmp_path_factory, meanings):
    try:
        named = {label_of(label): word for label, word in meanings.items()}
    except Unusable:
        return
    relations = {"positive": Relation.ANSWERS, "neutral": Relation.MIGHT, "negative": Relation.DOES_NOT}
    found = counted((f"a:{n}", label) for n, label in enumerate(named))
    read = meanings_of(found, given=named)
    assert {label: meaning.relation for label, meaning in read.items()} == {
        label: relations[word] for label, word in named.items()
    }
    path = tmp_path_factory.mktemp("labels") / "labels.json"
    path.write_text(json.dumps(named))
    assert read_labels(str(path)) == named
    assert in_words(found, read).count("1 row") >= len(named)


def test_what_is_no_table_of_labels_is_named(tmp_path):
    for labels, message in [
        ("0=", "not LABEL=MEANING"),
        ("=a", "not LABEL=MEANING"),
        ("0=a,0.0=b", 'the label "0" stands there twice'),
        ("nowhere.yaml", "no such file, and not LABEL=MEANING"),
        (str(tmp_path), "a folder, wanted a file of labels"),
        ("0.5=a", "is this a score"),
    ]:
        with pytest.raises(InputError, match=message):
            read_labels(labels)
    found = counted([("a:1", "0")])
    with pytest.raises(InputError, match=r'the meaning "entialment" of the label "0" is unknown .*"entailment"'):
        meanings_of(found, given={"0": "entialment"})
    with pytest.raises(InputError, match='a:1: the label "0" is not among those that --labels names: 1'):
        meanings_of(found, given={"1": "entailment"})


# --- names of classes that the file brings along ----------------------------------------------------------------------


def with_classes(folder: Path, form: str, rows: list[dict[str, Any]], names: list[str]) -> Path:
    from datasets import ClassLabel, Dataset

    data = Dataset.from_list(rows)
    data = data.cast_column("label", ClassLabel(names=names))
    if form == "parquet":
        data.to_parquet(str(folder / "pairs.parquet"))
        return folder / "pairs.parquet"
    data.save_to_disk(str(folder / "saved"))
    return folder / "saved"


@pytest.mark.parametrize("form", ["parquet", "datasets"])
@pytest.mark.parametrize("names", [["entailment", "not_entailment"], ["not_entailment", "entailment"]])
def test_the_names_of_classes_that_a_file_brings_along_say_what_its_numbers_mean(tmp_path, names, form):
    entailed = names.index("entailment")
    rows = rows_of(("premise", "hypothesis", "label"), lambda relation: entailed if relation == 0 else 1 - entailed)
    path = with_classes(tmp_path, form, rows, names)
    assert answers(path, "nli") == scored(path, "nli") == scored(path, "pair-classification") == ENTAILED
    assert read_labelled(path, "nli").meanings.plain()[str(entailed)] == {"means": "entailment", "rows": 3}


def test_names_of_classes_that_say_nothing_are_refused_and_numbers_for_names_are_numbers(tmp_path):
    rows = rows_of(("sentence1", "sentence2", "label"), lambda relation: int(relation == 0))
    with pytest.raises(InputError, match=r'the label "[01]", wanted entailment, neutral'):
        scored(with_classes(tmp_path, "parquet", rows, ["sunny", "rainy"]), "pair-classification")
    assert scored(with_classes(tmp_path, "parquet", rows, ["0", "1"]), "pair-classification") == ENTAILED


@pytest.mark.parametrize("form", ["parquet", "datasets"])
def test_the_names_of_classes_say_what_is_relevant_beside_a_pair(tmp_path, form):
    rows = [{"question": "q", "passage": f"p{n}", "label": n % 2} for n in range(4)]
    path = with_classes(tmp_path, form, rows, ["entailment", "not_entailment"])
    assert judged(load_collection(path)) == {"q": ({"p0": 1, "p2": 1}, ["p1", "p3"])}
    with pytest.raises(InputError, match="\"label\" is 'sunny', wanted a number"):
        load_collection(with_classes(tmp_path, "parquet", rows, ["sunny", "rainy"]))

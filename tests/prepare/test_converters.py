"""Converters: labelled rows become examples whose positives are right and whose negatives are not."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from embedsmith.data.bad_rows import Tally, refuse
from embedsmith.data.examples import Example
from embedsmith.data.labelled_rows import (
    JudgedQuery,
    LabelledColumns,
    LabelledText,
    TextPair,
    judged_queries,
    labelled_texts,
    text_pairs,
)
from embedsmith.data.labels import label_of
from embedsmith.data.normalised import normalised
from embedsmith.data.pair_labels import counted, meanings_of, read_labels
from embedsmith.data.tables import open_table
from embedsmith.errors import InputError, SettingsError
from embedsmith.prepare.converters.classes import convert_classes, label_text, read_label_texts
from embedsmith.prepare.converters.drafts import Converted, capped
from embedsmith.prepare.converters.negatives import random_rows, with_negatives
from embedsmith.prepare.converters.pairs import convert_related, convert_sts
from embedsmith.prepare.converters.reranking import convert_reranking
from embedsmith.prepare.converters.settings import ConvertSettings


def settings(task: str, **values) -> ConvertSettings:
    return ConvertSettings.parse({"task": task, **values}, where="test")


def examples(converted: Converted, *, negatives: int = 3, seed: int = 0) -> list[Example]:
    return list(with_negatives(converted, negatives=negatives, seed=seed, instruction="do it", symmetric=False))


def pairs(*rows: tuple[str, str, str | float]) -> list[TextPair]:
    return [TextPair(f"t:{number}", *row) for number, row in enumerate(rows, start=1)]


def related(rows: list[TextPair], settings: ConvertSettings) -> Converted:
    """Return the drafts of pairs whose labels mean what they say."""
    found = counted((row.place, label_of(row.value)) for row in rows)
    named = [row._replace(value=label_of(row.value)) for row in rows]
    given = read_labels(settings.labels) if settings.labels else None
    meanings = meanings_of(found, is_nli=settings.task == "nli", given=given, positive=settings.positive_labels)
    return convert_related(named, meanings, settings)


def sides(converted: Converted) -> list[tuple[str, list[str], list[str]]]:
    """Return (query, positives, negatives that the data gives) of each draft."""
    texts = converted.passages.texts
    return [(d.query, [texts[p] for p in d.positives], [texts[n] for n in d.negatives]) for d in converted.drafts]


@pytest.fixture
def crowd() -> list[LabelledText]:
    """300 texts of 5 unbalanced labels, some of them twice and some under two labels."""
    draw = random.Random(0)
    labels = ["a", "b", "b", "c", "c", "c", "d", "d", "d", "d"]
    return [
        LabelledText(f"t:{n}", draw.choice(["Text {}", "text  {}"]).format(draw.randrange(120)), draw.choice(labels))
        for n in range(300)
    ] + [LabelledText("t:300", "alone", "e")]


# --- classes ----------------------------------------------------------------------------------------------------------


def test_by_example_a_positive_shares_the_label_and_no_negative_shares_any(crowd):
    labels: dict[str, set[str]] = {}
    for item in crowd:
        labels.setdefault(normalised(item.text), set()).add(item.label)
    of_place = {item.place: item for item in crowd}
    found = examples(convert_classes(crowd, settings("clustering")), negatives=4)
    assert len(found) > 150
    for example in found:
        item = of_place[example.query_id]
        (positive,) = example.positives
        own = labels[normalised(example.query)]
        assert item.label in labels[normalised(positive.text)]
        assert normalised(positive.text) != normalised(example.query)
        negatives = [normalised(passage.text) for passage in example.negatives]
        assert len(set(negatives)) == len(negatives)
        assert all(not labels[text] & own for text in negatives)
        free = [text for text in labels if not labels[text] & own]
        assert len(negatives) == min(4, len(free))


def test_every_other_text_of_the_class_can_be_the_positive():
    texts = [LabelledText(f"t:{n}", f"text {n}", "ab"[n % 2]) for n in range(8)]
    drawn: dict[str, set[str]] = {}
    for seed in range(60):
        found = convert_classes(texts, settings("clustering", convert_seed=seed))
        for query, (positive,), _ in sides(found):
            drawn.setdefault(query, set()).add(positive)
    for n in range(8):
        assert drawn[f"text {n}"] == {f"text {other}" for other in range(n % 2, 8, 2)} - {f"text {n}"}


def test_rows_are_counted_by_what_became_of_them(crowd):
    counts = convert_classes(crowd, settings("clustering")).counts()
    different = {(normalised(item.text), item.label) for item in crowd}
    assert counts.rows == 301
    assert counts.positives == len(different) - 1
    assert counts.dropped == {
        "the same text and label again": 301 - len(different),
        "the only text of its label": 1,
    }


def test_by_label_the_own_label_is_the_positive_and_a_text_of_two_labels_has_two_right_ones():
    texts = [("one", "card_arrival"), ("two", "lost"), ("three", "pin"), ("ONE", "pin")]
    rows = [LabelledText(f"t:{n}", *row) for n, row in enumerate(texts)]
    found = examples(convert_classes(rows, settings("classification", style="label")), negatives=9)
    assert [(e.query, e.positives[0].text, sorted(n.text for n in e.negatives)) for e in found] == [
        ("one", "card arrival", ["lost"]),
        ("two", "lost", ["card arrival", "pin"]),
        ("three", "pin", ["card arrival", "lost"]),
        ("ONE", "pin", ["lost"]),
    ]
    assert [e.outcome for e in found] == ["short"] * 4
    assert found[0].positives[0].id == "label:card_arrival"


@pytest.mark.parametrize(
    ("task", "labels", "style", "by_label"),
    [
        ("classification", 2, "auto", True),
        ("classification", 3, "auto", False),
        ("clustering", 2, "auto", False),
        ("clustering", 3, "label", True),
        ("classification", 2, "example", False),
    ],
)
def test_two_classes_are_told_apart_by_their_labels_and_more_by_examples(task, labels, style, by_label):
    rows = [LabelledText(f"t:{n}", f"text {n}", "abc"[n % labels]) for n in range(9)]
    found = convert_classes(rows, settings(task, style=style))
    assert (len(found.passages) == labels) is by_label


def test_a_cap_leaves_a_random_choice_of_each_label():
    rows = [LabelledText(f"t:{n}", f"text {n}", "big" if n < 50 else "small") for n in range(53)]
    kept = [
        frozenset(
            d.place for d in convert_classes(rows, settings("clustering", max_per_label=5, convert_seed=s)).drafts
        )
        for s in (0, 0, 1)
    ]
    assert kept[0] == kept[1] != kept[2]
    labels = Counter("big" if int(place[2:]) < 50 else "small" for place in kept[0])
    assert labels == {"big": 5, "small": 3}
    counts = convert_classes(rows, settings("clustering", max_per_label=5)).counts()
    assert counts.dropped == {"beyond max_per_label": 45}


def test_labels_get_their_texts_from_a_file(tmp_path: Path):
    path = tmp_path / "labels.yaml"
    path.write_text("0: not toxic\n1: toxic\n")
    assert read_label_texts(path) == {"0": "not toxic", "1": "toxic"}
    path.write_text('["not toxic", "toxic"]')
    assert read_label_texts(path) == {"0": "not toxic", "1": "toxic"}
    rows = [LabelledText("t:1", "you", "1"), LabelledText("t:2", "me", "0")]
    found = convert_classes(rows, settings("classification"), read_label_texts(path))
    assert sides(found) == [("you", ["toxic"], []), ("me", ["not toxic"], [])]
    with pytest.raises(InputError, match='the label "1" says nothing') as caught:
        convert_classes(rows, settings("classification"))
    assert "--labels" in caught.value.hint
    with pytest.raises(InputError, match='no text for the label "2"; there are texts for 2 labels'):
        label_text("2", read_label_texts(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("just words", "not the texts of labels"),
        ("a: [3]", "not the texts of labels"),
        ("a: ''", "not the texts of labels"),
        ("a: Same\nb: same", 'two labels have the text "same"'),
    ],
)
def test_a_bad_file_of_labels_is_named(tmp_path: Path, text: str, message: str):
    path = tmp_path / "labels.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"labels\.yaml: {message}"):
        read_label_texts(path)


def test_one_label_alone_is_an_error():
    with pytest.raises(InputError, match="all 2 texts have the label a"):
        convert_classes([LabelledText("t:1", "x", "a"), LabelledText("t:2", "y", "a")], settings("clustering"))


# --- pairs ------------------------------------------------------------------------------------------------------------

SIMILAR = pairs(
    ("a plane takes off", "a plane is taking off", 5.0),
    ("a plane takes off", "an aircraft departs", 4.0),
    ("a plane takes off", "a bird takes off", 2.5),
    ("a plane takes off", "a plane lands", 3.9),
    ("a man eats", "a woman sings", 0.4),
    ("An aircraft departs", "a plane  takes off", 4.4),
    ("the same", "The same", 5.0),
)


def test_similar_texts_answer_each_other_in_both_directions():
    found = convert_sts(SIMILAR, settings("sts"))
    assert sides(found) == [
        ("a plane takes off", ["a plane is taking off"], ["a bird takes off"]),
        ("a plane is taking off", ["a plane takes off"], []),
        ("a plane takes off", ["an aircraft departs"], ["a bird takes off"]),
        ("an aircraft departs", ["a plane takes off"], []),
    ]
    assert [draft.query_id for draft in found.drafts] == ["t:1", "t:1:reversed", "t:2", "t:2:reversed"]
    assert found.counts() == (
        7,
        2,
        1,
        {
            "a score between 2.5 and 4": 1,
            "the same pair again": 1,
            "the same text on both sides": 1,
            "no example whose negative it could be": 1,
        },
    )


def test_what_is_similar_to_something_similar_is_no_negative():
    found = examples(convert_sts(SIMILAR, settings("sts")), negatives=20)
    negatives = {example.query_id: {passage.text for passage in example.negatives} for example in found}
    others = {"a man eats", "a woman sings"}
    assert negatives["t:1"] == others | {"a bird takes off"}
    # It is similar to what an aircraft's departure is similar to, and nobody has compared the two.
    assert negatives["t:1:reversed"] == others | {"a bird takes off"}
    assert negatives["t:2:reversed"] == others | {"a bird takes off"}


def test_one_sided_pairs_have_their_second_texts_for_passages():
    found = convert_sts(SIMILAR, settings("sts", symmetric=False))
    assert [draft.query_id for draft in found.drafts] == ["t:1", "t:2", "t:6"]
    assert "a man eats" not in found.passages.texts


def test_a_scale_without_a_positive_pair_is_an_error_that_says_which_it_is():
    with pytest.raises(InputError, match=r"no pair has a score of 4 or more; they run from 0\.1 to 0\.9") as caught:
        convert_sts(pairs(("a", "b", 0.9), ("a", "c", 0.1)), settings("sts"))
    assert "--threshold" in caught.value.hint


PREMISES = [
    ("two dogs run", "animals move", "entailment"),
    ("two dogs run", "dogs sleep", "contradiction"),
    ("two dogs run", "dogs race for a prize", "neutral"),
    ("a man cooks", "a man swims", "contradiction"),
    ("a boy reads", "a child has a book", "entailment"),
    ("a boy reads", "nobody knows", "-"),
]


@pytest.mark.parametrize("numbers", [False, True])
def test_entailed_texts_are_positives_and_what_contradicts_the_premise_is_negative(numbers):
    names = {"entailment": "0", "neutral": "1", "contradiction": "2", "-": "-1"}
    rows = [(first, second, names[label] if numbers else label.title()) for first, second, label in PREMISES]
    found = related(pairs(*rows), settings("nli"))
    assert sides(found) == [
        ("two dogs run", ["animals move"], ["dogs sleep"]),
        ("a boy reads", ["a child has a book"], []),
    ]
    assert found.counts() == (
        6,
        2,
        1,
        {"neutral": 1, "no agreed label": 1, "no example whose negative it could be": 1},
    )
    first, second = examples(found, negatives=9)
    assert {passage.text for passage in first.negatives} == {
        "dogs sleep",
        "a man swims",
        "a child has a book",
        "nobody knows",
    }
    assert first.negatives[0].teacher == "given"
    assert {passage.teacher for passage in first.negatives[1:]} == {"random passage"}
    assert "nobody knows" not in {passage.text for passage in second.negatives}


def test_a_label_that_is_no_entailment_is_named_with_its_row():
    with pytest.raises(InputError, match='t:1: the label "maybe", wanted entailment, neutral or contradiction'):
        related(pairs(("a", "b", "maybe")), settings("nli"))


def test_pairs_that_belong_together_answer_each_other():
    rows = pairs(("how to swim?", "how do I swim?", "1"), ("how to swim?", "how to skim?", "0"), ("x", "y", "0"))
    found = related(rows, settings("pairs"))
    assert sides(found) == [
        ("how to swim?", ["how do I swim?"], ["how to skim?"]),
        ("how do I swim?", ["how to swim?"], []),
    ]
    assert found.counts() == (3, 1, 1, {"no example whose negative it could be": 1})
    assert len(related(rows, settings("pairs", symmetric=False)).drafts) == 1


def test_other_labels_of_pairs_are_named_by_the_caller():
    rows = pairs(("a", "b", "duplicate"), ("a", "c", "distinct"))
    with pytest.raises(InputError, match='t:2: the label "distinct", wanted entailment') as caught:
        related(rows, settings("pairs"))
    assert "--labels" in caught.value.hint
    assert len(related(rows, settings("pairs", labels="duplicate=positive,*=negative")).drafts) == 2
    assert len(related(rows, settings("pairs", positive_labels=["Duplicate"])).drafts) == 2
    written = ConvertSettings.parse(settings("pairs").model_dump(), where="recipe")
    with pytest.raises(InputError, match='the label "distinct", wanted'):
        related(rows, written)
    with pytest.raises(InputError, match="no pair has a positive label; there are duplicate, distinct"):
        related(rows, settings("pairs", positive_labels=["same"]))


def test_no_negative_is_a_positive_of_the_same_text_in_a_thousand_random_pairs():
    draw = random.Random(1)
    rows = [
        (f"text {draw.randrange(60)}", f"text {draw.randrange(60)}", draw.choice([5.0, 3.0, 0.0])) for _ in range(1000)
    ]
    found = convert_sts(pairs(*rows), settings("sts"))
    first: dict[frozenset[str], float] = {}
    for one, two, score in rows:
        first.setdefault(frozenset((one, two)), score)
    for example in examples(found, negatives=5):
        for passage in example.negatives:
            assert passage.text != example.query
            # Pairs that nobody has scored are absent; those that have been are dissimilar.
            assert first.get(frozenset((example.query, passage.text)), 0.0) <= 2.5
    found.counts()


# --- reranking --------------------------------------------------------------------------------------------------------


def test_judged_passages_keep_their_roles():
    rows = [
        JudgedQuery("t:1", "who?", ["she", "he"], ["it", "they", "WHO?"]),
        JudgedQuery("t:2", "Who?", ["they"], ["nobody"]),
        JudgedQuery("t:3", "where?", [], ["here"]),
    ]
    found = convert_reranking(rows)
    assert sides(found) == [("who?", ["she", "he"], ["it"]), ("Who?", ["they"], ["nobody"])]
    assert found.counts() == (3, 2, 0, {"no positive": 1})
    first = examples(found, negatives=9)[0]
    assert first.negatives[0].text == "it"
    assert {passage.text for passage in first.negatives} == {"it", "nobody", "here"}
    assert len(examples(found, negatives=0)[0].negatives) == 1


# --- all of them ------------------------------------------------------------------------------------------------------


def test_a_cap_of_examples_keeps_the_directions_of_a_pair_together():
    rows = pairs(*((f"a {n}", f"b {n}", 5.0) for n in range(40)), ("a 0", "z", 0.0), ("q", "r", 0.0))
    found = convert_sts(rows, settings("sts"))
    few = capped(found, 21, seed=0)
    assert len(few.drafts) == 20
    assert Counter(Counter(draft.place for draft in few.drafts).values()) == {2: 10}
    counts = few.counts()
    assert counts.dropped["beyond max_examples"] == 30
    assert [d.place for d in few.drafts] == [d.place for d in capped(found, 21, seed=0).drafts]
    assert [d.place for d in few.drafts] != [d.place for d in capped(found, 21, seed=1).drafts]


def test_random_rows_are_all_equally_likely_and_never_excluded():
    excluded, taken = np.array([0, 3, 4, 9]), [7]
    counts = Counter(
        row for seed in range(3000) for row in random_rows(np.random.default_rng(seed), 2, 10, excluded, taken)
    )
    assert set(counts) == {1, 2, 5, 6, 8}
    assert all(abs(count - 1200) < 120 for count in counts.values())


def test_the_same_seed_draws_the_same_negatives(crowd):
    found = convert_classes(crowd, settings("clustering"))
    assert examples(found, seed=3) == examples(found, seed=3) != examples(found, seed=4)


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        ("sts", {"style": "label"}, "style is for classification and clustering, the task is sts"),
        ("nli", {"threshold": 3.0}, "threshold is for sts, the task is nli"),
        ("sts", {"threshold": 2.0}, "exclude_above is 2.5, wanted less than threshold, 2"),
        ("sts", {"instruction": "a", "instruction_for": "sts"}, "instruction and instruction_for are both given"),
        ("clasification", {}, "task"),
    ],
)
def test_settings_that_say_nothing_for_the_task_are_refused(task, values, message):
    with pytest.raises(SettingsError, match=message):
        settings(task, **values)


# --- rows -------------------------------------------------------------------------------------------------------------


def table(folder: Path, *rows: dict):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_table(path)


def test_columns_are_found_by_their_conventional_names(tmp_path: Path):
    none = LabelledColumns()
    found = labelled_texts(
        table(tmp_path, {"sentence": "x", "label": 3, "label_text": "pin"}, {"text": "y", "intent": True}), none, refuse
    )
    assert list(found) == [("rows:1", "x", "pin"), ("rows:2", "y", "1")]
    lists = table(tmp_path, {"sentences": ["x", "y"], "labels": ["a", 2]})
    assert list(labelled_texts(lists, none, refuse)) == [("rows:1.1", "x", "a"), ("rows:1.2", "y", "2")]
    rows = table(tmp_path, {"premise": "x", "hypothesis": "y", "label": 0}, {"s1": "x", "s2": "y", "gold_label": "-"})
    tally = Tally()
    assert list(text_pairs(rows, none, tally, scores=False)) == [("rows:1", "x", "y", "0")]
    assert list(tally.counts) == ["no first"]
    scored = table(tmp_path, {"sentence1": "x", "sentence2": "y", "score": "4.5"})
    assert list(text_pairs(scored, none, refuse, scores=True)) == [("rows:1", "x", "y", 4.5)]
    judged = table(tmp_path, {"query": "q", "positive": "p", "negative": ["n"]})
    assert list(judged_queries(judged, none, refuse)) == [("rows:1", "q", ["p"], ["n"])]
    named = LabelledColumns(text="body", label="fine")
    fine = table(tmp_path, {"text": "x", "body": "long", "label": "a", "fine": "a:b"})
    assert list(labelled_texts(fine, named, refuse)) == [("rows:1", "long", "a:b")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, "no label"),
        ({"text": "", "label": "a"}, "the text is empty"),
        ({"text": 3, "label": "a"}, "the text is a number, wanted a string"),
        ({"text": "x", "label": 1.5}, r"the label is 1\.5, a fraction: is this a score\?"),
        ({"text": "x", "label": ["a", "b"]}, "the label is a list"),
        ({"txt": "x", "label": "a"}, r'no text; the row has "txt", "label" \(did you mean "text"'),
        ({"text": "x", "sentence": "y", "label": "a"}, '"text", "sentence" could each be the text'),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, row: dict, message: str):
    rows = table(tmp_path, {"text": "fine", "label": "a"}, row)
    with pytest.raises(InputError, match=rf"rows\.jsonl:2: {message}"):
        list(labelled_texts(rows, LabelledColumns(), refuse))


def test_a_score_that_is_no_number_is_named(tmp_path: Path):
    rows = table(tmp_path, {"sentence1": "x", "sentence2": "y", "score": "high"})
    with pytest.raises(InputError, match=r"rows\.jsonl:1: the score is 'high', wanted a number"):
        list(text_pairs(rows, LabelledColumns(), refuse, scores=True))

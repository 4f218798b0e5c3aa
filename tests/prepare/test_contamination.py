"""Contamination: what an evaluation set holds is found in training data, and nothing else is."""

from __future__ import annotations

import random

import pytest

from embedsmith.data.bad_rows import Unusable
from embedsmith.mining.near_duplicates import shingles
from embedsmith.prepare.contamination import (
    ContaminationSettings,
    EvaluationIndex,
    checked_texts,
    clean_negatives,
)
from tests.near import jaccard


def index(*rows: list[str], **values) -> EvaluationIndex:
    made = EvaluationIndex(ContaminationSettings(**values), shingles=shingles)
    for row in rows:
        made.add("test", row)
    return made


def test_the_same_text_is_told_from_one_that_differs_in_case_and_space():
    found = index(["Where is my card?"], near_duplicates=0)
    assert found.match(["Where is my card?"])[2:] == ("Where is my card?", "exact", 1.0)
    assert found.match(["where  is MY card?"])[2:] == ("Where is my card?", "normalised", 1.0)
    assert found.match(["Where is your card?"]) is None
    assert found.match([]) is None


def test_near_duplicates_are_those_whose_share_of_shingles_reaches_the_limit():
    """Against the share itself, of every text with every other."""
    draw = random.Random(0)
    words = [f"w{n}" for n in range(40)]
    texts = [" ".join(draw.choices(words, k=draw.randrange(4, 60))) for _ in range(60)]
    changed = []
    for text in texts * 3:
        own = text.split()
        for _ in range(draw.randrange(1, 4)):
            own[draw.randrange(len(own))] = draw.choice(words)
        changed.append(" ".join(own))
    found = index(*([text] for text in texts), near_duplicates=0.7)
    sets = [frozenset(shingles(text)) for text in texts]
    hits, missed, wrong = 0, 0, 0
    for text in changed:
        share = max(jaccard(frozenset(shingles(text)), other) for other in sets)
        match = found.match([text])
        if match is not None and match.how == "near":
            wrong += share < 0.7
            assert match.similarity == pytest.approx(share, abs=1e-4)
        hits += share >= 0.7
        missed += share >= 0.7 and match is None
    assert hits > 30
    assert wrong == 0
    assert missed <= hits * 0.02


def test_the_most_similar_text_and_its_set_are_named():
    made = EvaluationIndex(ContaminationSettings(near_duplicates=0.5), shingles=shingles)
    made.add("far", ["the cat sat on the mat and the dog sat on the log today"])
    made.add("near", ["the cat sat on the mat and the dog sat on the log tonight here"])
    match = made.match(["the cat sat on the mat and the dog sat on the log tonight"])
    assert match is not None
    assert (match.data, match.how) == ("near", "near")


def test_a_pair_is_the_same_only_with_both_of_its_texts_where_all_are_wanted():
    rows = [["a man eats", "a man dines"], ["a dog runs", "a dog sleeps"]]
    strict, loose = index(*rows, match="all"), index(*rows)
    assert loose.match(["a man eats", "a woman sings"]) is not None
    assert strict.match(["a man eats", "a woman sings"]) is None
    # Two texts of the evaluation set, but of two of its rows.
    assert strict.match(["a man eats", "a dog runs"]) is None
    assert strict.match(["A man dines", "a man eats"]) is not None


def test_all_texts_of_a_row_may_be_near_duplicates():
    one = "the quick brown fox jumps over the lazy dog near the river bank in spring"
    two = "a slow green turtle crawls under the busy cat far from the sandy beach in autumn"
    strict = index([one, two], match="all", near_duplicates=0.7)
    match = strict.match([one + " time", two + " time"])
    assert match is not None
    assert match.how == "near"
    assert strict.match([one + " time", "something else"]) is None
    # As similar as the row is the text that differs most.
    mixed = strict.match([one, two + " time"])
    assert mixed is not None
    assert (mixed.text, mixed.how) == (two + " time", "near")


@pytest.mark.parametrize(
    ("row", "values", "texts"),
    [
        ({"text": "a", "label": "x", "title": "t"}, {}, ["a"]),
        ({"sentence1": "a", "sentence2": "b", "score": 1.0}, {}, ["a", "b"]),
        ({"premise": "a", "hypothesis": "b"}, {}, ["a", "b"]),
        ({"query": "a", "positive": "b", "negative": ["c"]}, {}, ["a"]),
        ({"query": "a", "positive": "b", "negative": ["c"]}, {"passages": True}, ["a", "b", "c"]),
        ({"query": "a", "positives": [{"text": "b"}], "negatives": [{"text": "c"}]}, {}, ["a"]),
        ({"query": "a", "positives": [{"text": "b"}], "negatives": [{"text": "c"}]}, {"passages": True}, ["a", "b"]),
        ({"query": "a", "positives": [{"text": "b"}], "negatives": [], "symmetric": True}, {}, ["a", "b"]),
        ({"text": "a", "body": "b"}, {"columns": ["body"]}, ["b"]),
        ({"sentences": ["a", "b"], "labels": [1, 2]}, {}, ["a", "b"]),
    ],
)
def test_the_texts_that_count_follow_from_what_a_row_is(row, values, texts):
    assert checked_texts(row, ContaminationSettings(**values)) == texts


def test_a_row_without_a_known_text_is_told_to_name_its_column():
    with pytest.raises(Unusable, match='no text; the row has "utterance"') as caught:
        checked_texts({"utterance": "hello"}, ContaminationSettings())
    assert "--column" in caught.value.hint


def test_negatives_that_are_evaluation_texts_leave_their_example():
    found = index(["lost card"], near_duplicates=0)
    row = {"query": "q", "positives": [], "negatives": [{"text": "Lost card"}, {"text": "pin"}], "outcome": "full"}
    clean, gone = clean_negatives(row, found)
    assert clean == {"query": "q", "positives": [], "negatives": [{"text": "pin"}], "outcome": "short"}
    assert [match.text for match in gone] == ["Lost card"]
    assert clean_negatives(clean, found) == (clean, [])
    assert len(row["negatives"]) == 2

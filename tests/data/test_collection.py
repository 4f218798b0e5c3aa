"""A collection, and what two texts must share to be one."""

from __future__ import annotations

import sys
from dataclasses import FrozenInstanceError

import pytest

from embedsmith.data.collection import Collection, join_title, normalised


@pytest.fixture
def toy() -> Collection:
    return Collection(
        name="toy",
        passage_ids=["d2", "d1", "d3"],
        passages=["a dog", "a cat", "a cow"],
        query_ids=["q1", "q2"],
        queries=["cat?", "pets?"],
        qrels={"q1": {"d1": 1}, "q2": {"d1": 2, "d3": 0, "d2": 1}},
    )


def test_positives_come_in_corpus_order(toy):
    assert toy.positives("q2") == ["d2", "d1"]


def test_a_grade_of_0_is_no_positive(toy):
    assert "d3" not in toy.positives("q2")


def test_a_query_without_judgements_has_no_positives(toy):
    assert toy.positives("q9") == []


def test_the_index_of_a_passage_is_its_row(toy):
    assert {passage_id: toy.passages[row] for passage_id, row in toy.passage_index.items()} == {
        "d2": "a dog",
        "d1": "a cat",
        "d3": "a cow",
    }


def test_a_collection_cannot_be_rebound(toy):
    with pytest.raises(FrozenInstanceError, match="name"):
        toy.name = "other"


@pytest.mark.parametrize(
    ("title", "text", "joined"),
    [("Cats", "They purr.", "Cats They purr."), ("", "They purr.", "They purr."), ("Cats", "", "Cats"), ("", "", "")],
)
def test_title_and_text_are_joined_by_one_space(title, text, joined):
    assert join_title(title, text) == joined


def test_a_text_without_title_keeps_its_white_space():
    # Code and shell commands: leading space means something.
    assert join_title("", "    return 1\n") == "    return 1\n"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The CAT", "the cat"),
        (" a\t b\n", "a b"),
        ("ｃａｔ", "cat"),
        ("ﬁne", "fine"),
        ("STRASSE", "straße"),
        ("a\u00a0b", "a b"),
    ],
)
def test_case_width_and_white_space_make_no_other_text(one, other):
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(("one", "other"), [("cat", "cats"), ("a b", "ab"), ("resume", "résumé"), ("a-b", "a b")])
def test_letters_accents_and_marks_make_another_text(one, other):
    assert normalised(one) != normalised(other)


def test_normalising_twice_changes_nothing_for_any_character():
    characters = (chr(code) for code in range(sys.maxunicode + 1))
    assert [c for c in characters if normalised(normalised(c)) != normalised(c)] == []

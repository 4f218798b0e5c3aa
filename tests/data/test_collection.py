"""A collection, and what two texts must share to be one."""

from __future__ import annotations

import random
import sys
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from embedsmith.data.collection import Collection, join_title
from embedsmith.data.normalised import normalised


@pytest.fixture
def toy() -> Collection:
    return Collection.of(
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


def test_judgements_are_rows_by_query_and_then_as_they_were_given():
    collection = Collection.of(
        name="toy",
        passage_ids=["d1", "d2", "d 3"],
        passages=["a", "b", "c"],
        query_ids=["q1", "q2"],
        queries=["?", "!"],
        qrels={"q2": {"d 3": 2, "d1": 0, "d2": 1}, "q1": {"d2": 1}},
    )
    assert collection.judged_queries.tolist() == [0, 1, 1, 1]
    assert collection.judged_passages.tolist() == [1, 2, 0, 1]
    assert collection.grades.tolist() == [1, 2, 0, 1]
    queries, passages = collection.positive_pairs()
    assert (queries.tolist(), passages.tolist()) == ([0, 1, 1], [1, 2, 1])
    assert collection.qrels == {"q1": {"d2": 1}, "q2": {"d 3": 2, "d1": 0, "d2": 1}}


def test_a_collection_without_negatives_of_its_own_has_two_empty_arrays(toy):
    queries, passages = toy.existing_negatives()
    assert queries.tolist() == passages.tolist() == []


def test_texts_are_grouped_as_by_a_dict():
    draw = random.Random(0)
    words = ["cat", "CAT", "ｃａｔ", "dog", " dog", "red", "straße", "STRASSE"]
    passages = [" ".join(draw.choices(words, k=2)) for _ in range(200)]
    queries = [" ".join(draw.choices([*words, "milk"], k=2)) for _ in range(60)]
    collection = Collection.of(
        name="toy",
        passage_ids=map(str, range(200)),
        passages=passages,
        query_ids=map(str, range(60)),
        queries=queries,
        qrels={},
    )
    number: dict[str, int] = {}
    expected = [number.setdefault(normalised(text), len(number)) for text in passages]
    of_passages, of_queries = collection.text_groups()
    assert of_passages.tolist() == expected
    # A query whose text is no passage's has a number too, and other queries of the same text have the same one.
    assert of_queries.tolist() == [number.setdefault(normalised(text), len(number)) for text in queries]
    assert of_queries.min() <= of_passages.max() < of_queries.max()


def changed(**values) -> Collection:
    plain = {
        "name": "toy",
        "passage_ids": ["d1", "d2"],
        "passages": ["a", "b"],
        "query_ids": ["q1"],
        "queries": ["?"],
        "qrels": {"q1": {"d1": 1}},
    }
    return Collection.of(**{**plain, **values})


def test_a_hash_depends_on_ids_texts_and_judgements_and_not_on_the_name():
    others = [
        changed(passage_ids=["d1", "d3"]),
        changed(passages=["a", "c"]),
        changed(query_ids=["q2"], qrels={"q2": {"d1": 1}}),
        changed(queries=["!"]),
        changed(qrels={"q1": {"d2": 1}}),
        changed(qrels={"q1": {"d1": 2}}),
        replace(changed(), negative_queries=np.array([0]), negative_passages=np.array([1])),
    ]
    assert len({collection.content_hash() for collection in [changed(), *others]}) == 8
    assert all(other != changed() for other in others)
    assert changed(name="other").content_hash() == changed().content_hash()


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

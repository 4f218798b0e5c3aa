"""The round trip: a query is kept if one of its passages is among the first that a teacher finds."""

from __future__ import annotations

import numpy as np
import pytest

from embedsmith.data.collection import Collection
from embedsmith.data.ties import NO_PASSAGE
from embedsmith.errors import InputError
from embedsmith.prepare.found_again import found_texts, not_found, without_queries


class Ranked:
    """A teacher whose scores of each query are given; the best first, nothing where a score is 0."""

    name = "ranked"

    def __init__(self, scores: dict[str, list[float]], *, proposes: bool = True) -> None:
        self._scores, self.proposes = scores, proposes

    def search(self, queries, k):
        scores = np.array([self._scores[query] for query in queries], np.float32)
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(scores, rows, axis=1)
        return np.where(found > 0, rows, NO_PASSAGE), found


def side(qrels: dict[str, list[int]], passages: list[str]) -> Collection:
    return Collection.of(
        name="side",
        passage_ids=[f"p{number}" for number in range(len(passages))],
        passages=passages,
        query_ids=list(qrels),
        queries=[f"query {name}" for name in qrels],
        qrels={name: {f"p{row}": 1 for row in rows} for name, rows in qrels.items()},
        metadata=[{"place": number} for number in range(len(passages))],
    )


PASSAGES = ["a cat", "a dog", "an owl", "A  Cat"]


@pytest.mark.parametrize(
    ("within", "lost"), [(1, ["second", "third", "tied"]), (2, ["third", "tied"]), (3, ["tied"]), (4, []), (9, [])]
)
def test_a_query_is_lost_if_none_of_its_passages_is_among_the_first(within: int, lost: list[str]):
    teacher = Ranked(
        {
            "query first": [0.1, 0.9, 0.3, 0.2],
            "query second": [0.1, 0.8, 0.9, 0.05],
            "query third": [0.2, 0.8, 0.9, 0.1],
            "query tied": [0.4, 0.9, 0.8, 0.4],
            "query copy": [0.1, 0.2, 0.3, 0.9],
        }
    )
    collection = side({"first": [1], "second": [1], "third": [0], "tied": [0], "copy": [0]}, PASSAGES)
    found = not_found(collection, teacher, within=within)
    # The fourth passage of "tied" ties with its own, so the draw would decide; where all four count it is found.
    assert found == lost


def test_one_of_several_passages_is_enough():
    teacher = Ranked({"query both": [0.1, 0.9, 0.2, 0.05]})
    assert not_found(side({"both": [0, 1]}, PASSAGES), teacher, within=1) == []


def test_what_a_teacher_does_not_find_at_all_is_not_found():
    teacher = Ranked({"query none": [0.0, 0.9, 0.0, 0.0]})
    assert found_texts(teacher, PASSAGES, ["query none"], within=9) == [{"a dog"}]


def test_a_teacher_that_only_rescores_is_refused():
    with pytest.raises(InputError, match="ranked scores passages and finds none"):
        found_texts(Ranked({}, proposes=False), PASSAGES, [], within=1)


def test_a_side_without_some_queries_keeps_all_else():
    whole = side({"a": [0], "b": [1, 2], "c": [2]}, PASSAGES)
    assert without_queries(whole, ["b"]) == side({"a": [0], "c": [2]}, PASSAGES)
    assert without_queries(whole, []) == whole

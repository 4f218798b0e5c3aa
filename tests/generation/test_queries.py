"""What of an answer is a query."""

import pytest

from embedsmith.generation.answers import Rejects, json_in, lines
from embedsmith.generation.queries import queries_in
from embedsmith.services.chat import Answer

PASSAGE = "The cat sat on the mat and looked at the dog, which slept on the log."

PROMPT = "Write two queries of one line each about {{passage}}"


def found(text: str, *, wanted: int = 2, cut_off: bool = False) -> tuple[list[str], dict[str, int]]:
    rejects = Rejects()
    answer = Answer(text, cut_off, 1, 1)
    queries = list(queries_in(answer, PASSAGE, wanted=wanted, prompt=PROMPT, rejects=rejects, passage_id="d1"))
    return queries, dict(rejects.counts)


@pytest.mark.parametrize(
    ("text", "queries", "rejected"),
    [
        ("where do cats sit\nwhat do dogs do", ["where do cats sit", "what do dogs do"], {}),
        ("Sure! Here are 2 queries:\n\n1. where do cats sit\n2) *what do dogs do*", None, {}),
        ('- "where do cats sit"\n- "what do dogs do"', None, {}),
        ("Query 1: where do cats sit\nQuery 2: what do dogs do", None, {}),
        ("<think>1. hm\n2. hm</think>\nwhere do cats sit\nwhat do dogs do", None, {}),
        ("where do cats sit\nwhat do dogs do\nmore\nand more", None, {"more than were asked for": 2}),
        ("where do cats sit\nWhere  do CATS sit", ["where do cats sit"], {"said twice": 1}),
        ("what does the passage say\n...", [], {"speaks of the passage": 1, "no words": 1}),
        ("the cat sat on the mat and looked at the dog", [], {"copied from the passage": 1}),
        ("dog, which slept", ["dog, which slept"], {}),
        ("cat " * 200, [], {"too long": 1}),
        ("queries of one\nwhat do dogs do", ["what do dogs do"], {"copied from the prompt": 1}),
        ("", [], {"no query in the answer": 1}),
        ("Here are some queries:", [], {"no query in the answer": 1}),
        ("2024 cat shows", ["2024 cat shows"], {}),
        ("日本の猫", ["日本の猫"], {}),
    ],
)
def test_queries_are_the_lines_that_can_be_used(text, queries, rejected):
    expected = ["where do cats sit", "what do dogs do"] if queries is None else queries
    assert found(text) == (expected, rejected)


def test_the_last_line_of_an_answer_that_was_cut_off_is_left_out():
    assert found("where do cats sit\nwhat do do", cut_off=True) == (["where do cats sit"], {"cut off": 1})


def test_rejects_can_be_read():
    rejects = Rejects()
    list(queries_in(Answer("?!", False, 1, 1), PASSAGE, wanted=2, prompt=PROMPT, rejects=rejects, passage_id="d1"))
    assert rejects.rows == [{"reason": "no words", "query": "?!", "passage_id": "d1"}]


def test_a_list_in_markdown_is_read_as_its_lines():
    assert lines("* **Question 1:** why?\n\n• (2) how?") == ["why?", "how?"]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ('{"a": 1}', dict, {"a": 1}),
        ('{bad} {"a": {"b": 2}} {"c": 3}', dict, {"a": {"b": 2}}),
        ('["a", "b"', list, None),
        ("[" * 100_000, list, None),
        ('I like [brackets]. ["a"]', list, ["a"]),
        ("", dict, None),
    ],
)
def test_json_is_found_in_the_middle_of_talk(text, kind, value):
    assert json_in(text, kind) == value

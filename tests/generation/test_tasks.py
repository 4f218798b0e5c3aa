"""What of an answer is a task, and what an example of one."""

import json

import pytest

from embedsmith.generation.answers import Rejects
from embedsmith.generation.tasks import Triplet, tasks_in, triplet_in
from embedsmith.services.chat import Answer

PROMPT = 'Think of {{number}} tasks, such as "Given a symptom, find its causes". "query": a {{few words | sentence}}.'
GOOD = {
    "query": "why do cats purr",
    "positive": "Cats purr because they are well, or ill.",
    "negative": "Dogs bark.",
}


def tasks(text: str, *, cut_off: bool = False) -> tuple[list[str], dict[str, int]]:
    rejects = Rejects()
    return list(tasks_in(Answer(text, cut_off, 1, 1), prompt=PROMPT, rejects=rejects)), dict(rejects.counts)


def triplet(text: str, kind: str = "short-long", *, cut_off: bool = False) -> tuple[Triplet | None, dict[str, int]]:
    rejects = Rejects()
    answer = Answer(text, cut_off, 1, 1)
    return triplet_in(answer, kind, task="a task", prompt=PROMPT, rejects=rejects), dict(rejects.counts)


@pytest.mark.parametrize(
    ("text", "found", "rejected"),
    [
        ('["Given a, find b", "Given\\n c, find d"]', ["Given a, find b", "Given c, find d"], {}),
        ('Sure:\n```json\n["Given a, find b"]\n```', ["Given a, find b"], {}),
        ("1. Given a, find b", [], {"not a JSON list": 1}),
        ('["Given a, find b", 3, "", {"task": "x"}]', ["Given a, find b"], {"not a text": 3}),
        ('["Given a symptom, find its causes"]', [], {"copied from the prompt": 1}),
        (json.dumps(["x" * 500]), [], {"too long": 1}),
    ],
)
def test_tasks_are_the_texts_of_a_json_list(text, found, rejected):
    assert tasks(text) == (found, rejected)


def test_a_list_that_was_cut_off_says_so():
    assert tasks('["Given a, find b", "Giv', cut_off=True) == ([], {"cut off": 1})


def test_an_example_is_an_object_with_three_texts():
    assert triplet(f"Here it is: {json.dumps(GOOD)} Good luck!") == (Triplet(**GOOD), {})
    assert triplet(json.dumps({**GOOD, "query": "  why? ", "comment": 3}))[0] == Triplet(**{**GOOD, "query": "why?"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"negative": None}, '"negative" is not a text'),
        ({"query": ["a"]}, '"query" is not a text'),
        ({"positive": " "}, '"positive" is empty'),
        ({"positive": "Why do CATS purr"}, "the positive is the query"),
        ({"negative": "why do cats purr"}, "the negative is the query"),
        ({"negative": "cats purr because they are WELL, or ill."}, "the negative is the positive"),
        ({"query": "given a symptom, find its"}, "copied from the prompt"),
        ({"positive": "It purrs."}, "the positive is shorter than the query"),
    ],
)
def test_an_example_that_cannot_be_used_is_told_why(change, reason):
    assert triplet(json.dumps({**GOOD, **change})) == (None, {reason: 1})


def test_a_key_that_is_missing_is_named():
    assert triplet('{"query": "a", "positive": "b"}') == (None, {'no "negative"': 1})
    assert triplet("{}") == (None, {'no "query"': 1})


@pytest.mark.parametrize(("text", "cut_off"), [("no idea", False), ('{"query": "a"', False), ('{"query": "a"', True)])
def test_what_is_no_object_is_told(text, cut_off):
    assert triplet(text, cut_off=cut_off) == (None, {"cut off" if cut_off else "not a JSON object": 1})


def test_the_lengths_are_those_of_the_kind():
    assert triplet(json.dumps(GOOD), "long-short") == (None, {"the positive is longer than the query": 1})
    turned = {**GOOD, "query": GOOD["positive"], "positive": "purring"}
    assert triplet(json.dumps(turned), "long-short")[0] == Triplet(**turned)
    assert triplet(json.dumps(turned), "short-short")[0] == Triplet(**turned)

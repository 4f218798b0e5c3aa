"""Training examples: a file gives back what was written, and a bad line names itself."""

import json

import pytest

from embedsmith.data.examples import Example, Passage, read_examples, write_examples
from embedsmith.errors import InputError

EXAMPLES = [
    Example(
        query_id="q1",
        query="where is the parser?\n",
        positives=[Passage("d1", "def parse(): …", 0.75), Passage("d2", "🙂", None)],
        negatives=[Passage("d3", "a log", 0.5, "bm25", 3), Passage("d4", "a cat", -0.25, "bm25", 7)],
        outcome="full",
    ),
    Example("q2", "nothing to contrast", [Passage("d1", "def parse(): …", 1.0)], [], "none"),
]


def test_a_file_gives_back_what_was_written(tmp_path):
    write_examples(tmp_path / "examples.jsonl", EXAMPLES)
    assert read_examples(tmp_path / "examples.jsonl") == EXAMPLES


def test_a_line_is_what_the_documentation_says(tmp_path):
    write_examples(tmp_path / "examples.jsonl", EXAMPLES)
    first = json.loads((tmp_path / "examples.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert list(first) == ["query_id", "query", "positives", "negatives", "outcome"]
    assert first["positives"][0] == {"id": "d1", "text": "def parse(): …", "score": 0.75}
    assert first["negatives"][0] == {"id": "d3", "text": "a log", "score": 0.5, "teacher": "bm25", "rank": 3}


def test_what_is_not_given_has_a_value(tmp_path):
    path = tmp_path / "examples.jsonl"
    path.write_text('{"query": "q", "positives": [{"text": "p"}]}\n')
    assert read_examples(path) == [Example(f"{path}:1", "q", [Passage("p", "p")], [], "full")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"positives": [{"text": "p"}]}, "no query"),
        ({"query": " ", "positives": [{"text": "p"}]}, "no query"),
        ({"query": 3, "positives": [{"text": "p"}]}, "no query"),
        ({"query": "q"}, "no positives"),
        ({"query": "q", "positives": []}, "no positives"),
        ({"query": "q", "positives": "p"}, '"positives" is a str, wanted a list'),
        ({"query": "q", "positives": ["p"]}, '"positives" holds a passage without text'),
        ({"query": "q", "positives": [{"id": "d1"}]}, '"positives" holds a passage without text'),
        (
            {"query": "q", "positives": [{"text": "p"}], "negatives": [{"text": ""}]},
            '"negatives" holds a passage without',
        ),
        ({"query": "q", "positives": [{"text": "p"}], "negatives": None}, '"negatives" is a NoneType, wanted a list'),
    ],
)
def test_a_bad_line_is_named_with_what_is_wrong(tmp_path, row, message):
    path = tmp_path / "examples.jsonl"
    path.write_text('{"query": "q", "positives": [{"text": "p"}]}\n\n' + json.dumps(row) + "\n")
    with pytest.raises(InputError, match=rf"examples\.jsonl:3: {message}") as caught:
        read_examples(path)
    assert caught.value.hint


def test_a_file_without_examples_is_an_error(tmp_path):
    (tmp_path / "examples.jsonl").write_text("\n")
    with pytest.raises(InputError, match=r"examples\.jsonl: no examples"):
        read_examples(tmp_path / "examples.jsonl")

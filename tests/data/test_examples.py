"""Training examples: a file gives back what was written, and a bad line names itself."""

import json
import random
import re

import numpy as np
import pyarrow.parquet
import pytest

from embedsmith.data.examples import (
    Example,
    Passage,
    iter_examples,
    read_examples,
    write_examples,
    write_examples_parquet,
)
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
    Example("q3", "a cat", [Passage("d5", "a tom")], [], "none", instruction="Retrieve similar text", symmetric=True),
]


FORMATS = pytest.mark.parametrize(
    ("name", "write"), [("examples.jsonl", write_examples), ("examples.parquet", write_examples_parquet)]
)


@FORMATS
def test_a_file_gives_back_what_was_written(tmp_path, name, write):
    write(tmp_path / name, EXAMPLES)
    assert read_examples(tmp_path / name) == EXAMPLES


@FORMATS
def test_any_text_comes_back_to_the_character(tmp_path, name, write):
    """Separators of lines in JSON, Python and Unicode, quotes, controls, what is longer in UTF-16, and joined signs."""
    parts = ["\n", "\r\n", "\u2028", "\x85", "\x00", "\x1f", '"', "\\", "\\ud83d", "{", "\t", " ", "\ufeff", "\ufffd"]
    parts += ["é", "e\u0301", "🙂", "👩\u200d💻", "\U0010ffff", "null", "NaN", "2020-01-01", "x"]
    draw = random.Random(0)

    def text() -> str:
        return "".join(draw.choices(parts, k=draw.randrange(12))) + "."

    def passages(**fields) -> list[Passage]:
        return [Passage(text(), text(), round(draw.uniform(-9, 9), 6), **fields) for _ in range(draw.randrange(1, 4))]

    examples = [
        Example(text(), text(), passages(), passages(teacher=text(), rank=draw.randrange(1, 2**40)), text())
        for _ in range(500)
    ]
    write(tmp_path / name, examples)
    assert read_examples(tmp_path / name) == examples


@FORMATS
def test_many_examples_come_back_in_their_order(tmp_path, name, write):
    examples = [Example(f"q{number}", "q", [Passage("p", "p")], []) for number in range(2001)]
    write(tmp_path / name, iter(examples))
    assert read_examples(tmp_path / name) == examples
    assert next(iter_examples(tmp_path / name)) == examples[0]


def test_parquet_is_written_in_row_groups(tmp_path):
    examples = (Example(f"q{number}", "q", [Passage("p", "p")], []) for number in range(2001))
    write_examples_parquet(tmp_path / "examples.parquet", examples)
    file = pyarrow.parquet.ParquetFile(tmp_path / "examples.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [1000, 1000, 1]


@FORMATS
def test_scores_are_rounded_to_six_decimals(tmp_path, name, write):
    passages = [
        Passage("a", "a", 0.12345649),
        Passage("b", "b", -2.0000005e-5),
        Passage("c", "c", float(np.float32(0.1))),
    ]
    write(tmp_path / name, [Example("q", "q", passages, [])])
    scores = [passage.score for passage in read_examples(tmp_path / name)[0].positives]
    assert scores == [0.123456, -0.00002, 0.1]
    assert {type(score) for score in scores} == {float}


@FORMATS
@pytest.mark.parametrize(
    ("example", "message"),
    [
        (Example("q", "q", [], []), "no positives"),
        (Example("q", "half \ud83d", [Passage("d", "d")], []), "half of a surrogate pair"),
        (Example("q", "q", [Passage("d", "d")], [Passage("d", "\ude42 half")]), "half of a surrogate pair"),
        (Example("q", "q", [Passage("d", "d", float("inf"))], []), "the score of passage 'd' is inf, wanted a finite"),
    ],
)
def test_an_example_that_no_file_can_hold_is_named_and_nothing_is_written(tmp_path, name, write, example, message):
    with pytest.raises(InputError, match=rf"{re.escape(name)}: example 4 \(query 'q'\): {message}"):
        write(tmp_path / name, [*EXAMPLES, example])
    assert list(tmp_path.iterdir()) == []


def test_an_id_with_half_of_a_surrogate_pair_is_named_in_characters_that_can_be_printed(tmp_path):
    with pytest.raises(InputError, match=r"query '\\ud83d'") as caught:
        write_examples(tmp_path / "examples.jsonl", [Example("\ud83d", "q", [Passage("d", "d")], [])])
    str(caught.value).encode()


@FORMATS
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_old_file_as_it_was(tmp_path, name, write, error):
    def interrupted():
        yield from EXAMPLES * 1500
        raise error("stopped")

    with pytest.raises(error, match="stopped"):
        write(tmp_path / name, interrupted())
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / name, EXAMPLES)
    with pytest.raises(error, match="stopped"):
        write(tmp_path / name, interrupted())
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert read_examples(tmp_path / name) == EXAMPLES


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
        (
            {"query": "q", "positives": [{"text": "p", "score": "1"}]},
            "\"positives\" holds the score '1', wanted a finite",
        ),
        ({"query": "q", "positives": [{"text": "p", "score": True}]}, '"positives" holds the score True'),
        ({"query": "q", "positives": [{"text": "p", "score": float("nan")}]}, '"positives" holds the score nan'),
        ({"query": "q", "positives": [{"text": "p", "rank": 1.5}]}, '"positives" holds the rank 1.5, wanted a whole'),
        (
            {"query": "q", "positives": [{"text": "p", "teacher": 1}]},
            '"positives" holds the teacher 1, wanted a string',
        ),
        ({"query": "q", "positives": [{"text": "p"}], "instruction": 3}, "the instruction is 3, wanted a string"),
        (
            {"query": "q", "positives": [{"text": "p"}], "symmetric": "no"},
            "\"symmetric\" is 'no', wanted true or false",
        ),
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


def test_a_bad_row_of_parquet_is_named_with_what_is_wrong(tmp_path):
    path = tmp_path / "examples.parquet"
    rows = [{"query": "q", "positives": [{"text": "p"}]}, {"query": None, "positives": [{"text": "p"}]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    with pytest.raises(InputError, match=r"examples\.parquet: row 2: no query"):
        read_examples(path)


def test_what_parquet_does_not_give_has_a_value(tmp_path):
    path = tmp_path / "examples.parquet"
    row = {"query_id": None, "query": "q", "positives": [{"id": None, "text": "p"}], "negatives": [], "outcome": None}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    assert read_examples(path) == [Example(f"{path}: row 1", "q", [Passage("p", "p")], [], "full")]


def test_a_parquet_file_that_is_missing_or_none_is_named(tmp_path):
    path = tmp_path / "examples.parquet"
    with pytest.raises(InputError, match=r"examples\.parquet: no such file"):
        read_examples(path)
    write_examples(path, EXAMPLES)
    with pytest.raises(InputError, match=r"examples\.parquet: not a Parquet file"):
        read_examples(path)
    write_examples_parquet(path, EXAMPLES)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"examples\.parquet: not a Parquet file, or only the beginning"):
        read_examples(path)
    write_examples_parquet(path, [])
    with pytest.raises(InputError, match=r"examples\.parquet: no examples"):
        read_examples(path)

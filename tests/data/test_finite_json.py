"""JSON that we write holds no number that is not finite: whoever has an undefined value says null, or an error."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import numpy as np
import pytest

import embedsmith
from embedsmith.cli import console
from embedsmith.data.files import read_jsonl, write_json, write_jsonl
from embedsmith.errors import InputError
from embedsmith.evaluation.per_query import read_per_query
from embedsmith.evaluation.significance import compare_seeds
from embedsmith.mining.dialect_files import _json

NOT_FINITE = [math.nan, math.inf, -math.inf]
PACKAGE = Path(embedsmith.__file__).parent


@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_number_that_is_not_finite_is_not_written(tmp_path, value):
    path = tmp_path / "a.json"
    for write in (
        lambda: write_json(path, {"a": [value]}),
        lambda: write_jsonl(path, [{"a": 1.0}, {"a": {"b": [value]}}]),
        lambda: console.print_json({"a": value}),
        lambda: _json({"a": value}),
    ):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write()
    assert list(tmp_path.iterdir()) == []
    write_jsonl(path, [{"a": None, "b": 1.5}])
    assert path.read_text() == '{"a":null,"b":1.5}\n'


def test_what_another_program_wrote_becomes_null_when_it_is_copied(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"text": "a", "more": [1, math.nan]}], nan_as_null=True)
    assert [row for _, row in read_jsonl(tmp_path / "a.jsonl")] == [{"text": "a", "more": [1, None]}]


def test_every_writer_of_json_refuses_what_is_not_finite():
    """json.dump writes NaN, and orjson null, by default: each call is named here or says so itself."""
    calls = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = getattr(node.func.value, "id", "")
            if owner in ("json", "orjson") and node.func.attr in ("dump", "dumps"):
                strict = any(k.arg == "allow_nan" and k.value.value is False for k in node.keywords)
                if not strict:
                    calls.add((path.relative_to(PACKAGE).as_posix(), owner))
    assert calls == {
        ("data/files.py", "orjson"),  # looked at behind it
        ("training/checkpoints.py", "json"),  # hashed or measured, not written
        ("data/json_text.py", "json"),  # of a line that was read, to find half of a surrogate pair
        ("data/in_memory.py", "orjson"),  # in memory, where what is not a number is nothing
        ("data/texts.py", "json"),  # metadata, in memory
        ("models/end_of_text.py", "json"),  # a tokenizer's rules, in memory
        ("models/late.py", "json"),  # a text with the places of its chunks, in memory
        ("pages/model_card.py", "json"),  # a name, in quotes
        ("prepare/documents/reader_process.py", "json"),  # texts and places, to the process that asked
        ("prepare/documents/reading.py", "json"),  # a name, to the process that reads
        ("recipes/shelf.py", "orjson"),  # for a hash
        ("serving/server/application.py", "orjson"),  # vectors are looked at before
        ("services/journal.py", "orjson"),  # answers in words
        ("services/requests.py", "json"),  # a request
        ("settings.py", "json"),  # for a hash
        ("vectors/store.py", "json"),  # in memory
    }


def test_scores_in_a_file_that_are_not_finite_are_named(tmp_path):
    path = tmp_path / "per_query.jsonl"
    path.write_text('{"query_id": "a", "ndcg@10": 0.5}\n{"query_id": "b", "ndcg@10": NaN}\n')
    with pytest.raises(InputError, match=r'per_query\.jsonl:2: "ndcg@10" is nan, wanted a finite number'):
        read_per_query(path)


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_query_has_no_interval(seeds):
    with pytest.raises(InputError, match="one query says nothing about others"):
        compare_seeds([np.full((seeds, 1), 0.5)])

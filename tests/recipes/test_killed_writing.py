"""A `build` that is killed while a model of its own process writes queries ends as one that was not."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests import forks

KILLED_AFTER = 11
"""Answers: in the middle of the second batch of eight."""
WRITTEN_FOR = 20

_COUNTED = """
import os, runpy, signal, sys
from embedsmith.services.journal import Journal
most, said = int(sys.argv.pop(1)), sys.argv.pop(1)
add = Journal.add
def counted(self, key, entry):
    add(self, key, entry)
    with open(said, "a") as file:
        file.write(key + "\\n")
    if most and sum(1 for _ in open(said)) == most:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.add = counted
sys.argv[0] = "embedsmith"
runpy.run_module("embedsmith", run_name="__main__")
"""
"""The command, which notes each answer that it writes down, and is killed behind so many of them; 0 for never."""


@pytest.fixture
def words(tmp_path: Path, tiny_bert: Path, tiny_writer: Path) -> list[str]:
    """The command without its `--out`."""
    documents = tmp_path / "documents"
    documents.mkdir()
    for number, thing in enumerate(("apple", "pear", "plum", "mat", "log", "tree")):
        sections = "".join(
            f"## How to {verb} the {thing}\n\nTo {verb} it, look at {number}. The cat sat on the {thing}.\n\n"
            for verb in ("find", "sort", "read", "open", "feed")
        )
        (documents / f"{thing}.md").write_text(f"# All of the {thing}\n\nA page of the {thing}.\n\n{sections}")
    writer = Path(shutil.copytree(tiny_writer, tmp_path / "writer"))
    config = json.loads((writer / "config.json").read_text())
    (writer / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    settings = {
        "data.documents.documents.max_tokens": 60,
        "data.documents.documents.written_for": WRITTEN_FOR,
        "student.passage_max_tokens": 100,
        "student.query_max_tokens": 100,
        "mining.teachers": "[bm25]",
        "mining.depth": 10,
        "mining.negatives": 1,
        "mining.short": "random",
        "stages.0.steps": 1,
        "stages.0.batch_size": 4,
        "stages.0.guide": "false",
        "evaluation.elsewhere": "null",
        "evaluation.baselines": "[]",
    }
    named = ["build", str(documents), "--student", str(tiny_bert), "--generator", str(writer)]
    return [*named, *(word for name, value in settings.items() for word in ("--set", f"{name}={value}"))]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_build_killed_while_it_writes_queries_writes_the_rest_and_the_same_bytes(words: list[str], tmp_path: Path):
    def build(out: str, said: str, most: int = 0) -> tuple[int, list[str], str]:
        (tmp_path / said).touch()
        done = forks.run(_COUNTED, most, tmp_path / said, *words, "--out", tmp_path / out)
        return done.returncode, (tmp_path / said).read_text().split(), done.stderr

    code, asked, errors = build("whole", "asked")
    assert (code, len(asked)) == (0, WRITTEN_FOR), errors[-2000:]
    code, before, errors = build("cut", "before", KILLED_AFTER)
    assert (code, before) == (-signal.SIGKILL, asked[:KILLED_AFTER]), errors[-2000:]
    assert not (tmp_path / "cut" / "data" / "documents" / "written.jsonl").exists()
    code, after, errors = build("cut", "after")
    assert (code, after) == (0, asked[KILLED_AFTER:]), errors[-2000:]
    written = [path for part in ("data", "mined", "model") for path in sorted((tmp_path / "whole" / part).rglob("*"))]
    compared = [path for path in written if path.suffix in (".jsonl", ".tsv", ".safetensors")]
    names = {path.name for path in compared}
    assert {"answers.jsonl", "written.jsonl", "negatives.jsonl", "model.safetensors"} <= names
    for path in compared:
        again = tmp_path / "cut" / path.relative_to(tmp_path / "whole")
        assert again.read_bytes() == path.read_bytes(), path.name
    assert not list((tmp_path / "cut").rglob("*.partial"))

"""`search --judge` at the terminal, and what it wrote evaluated."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

import embedsmith
from tests.recipes.test_documents import documents, run

__all__ = ["documents", "run"]

ASKED = ["how is a pear opened", "where is the cat", "what is read"]


def test_it_is_judged_at_the_terminal_and_evaluated(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedsmith_command
):
    (tmp_path / "asked.txt").write_text("\n".join(ASKED))
    words = ["search", run, "--judge", "--queries", tmp_path / "asked.txt"]
    monkeypatch.setattr("sys.stdin", io.StringIO("1, 2\n99\ns\nq\n"))
    done = embedsmith_command(*words)
    assert done.code == 0, done.err
    assert f"query 1 of 3: {ASKED[0]}" in done.out and "numbers of 0 to" in done.out
    assert "1 queries with an answer are in" in done.out
    monkeypatch.setattr("sys.stdin", io.StringIO("0\n3\n"))
    done = embedsmith_command(*words)
    assert f"query 1 of 3: {ASKED[0]}" not in done.out and f"query 3 of 3: {ASKED[2]}" in done.out
    assert "1 queries were judged before" in done.out and "2 queries with an answer" in done.out
    found = embedsmith.evaluate(run, run / "judged")
    assert len(found.per_query) == 2 and 0 < found.mean["ndcg@10"] <= 1
    kept = [json.loads(line) for line in (run / "judged" / "judgements.jsonl").read_text().splitlines()]
    assert [sum(one["grades"].values()) for one in kept] == [2, 0, 1]


def test_queries_without_judging_are_refused(run: Path, tmp_path: Path, embedsmith_command):
    (tmp_path / "asked.txt").write_text("a\n")
    done = embedsmith_command("search", run, "--queries", tmp_path / "asked.txt")
    assert done.code == 2 and "--queries is for --judge" in done.err


@pytest.mark.parametrize("flag", ["--json", "--hybrid"])
def test_what_judging_does_not_heed_is_refused(run: Path, embedsmith_command, flag: str):
    done = embedsmith_command("search", run, "--judge", "where is the cat", flag)
    assert done.code == 2 and f"{flag} is not for --judge" in done.err


def test_top_is_how_many_passages_of_each_finder_are_judged(
    run: Path, monkeypatch: pytest.MonkeyPatch, embedsmith_command
):
    monkeypatch.setattr("sys.stdin", io.StringIO("q\n"))
    done = embedsmith_command("search", run, "--judge", "where might a plum be", "--top", "1")
    assert done.code == 0, done.err
    shown = [line for line in done.out.splitlines() if line[:3].strip().isdigit()]
    assert 1 <= len(shown) <= 3

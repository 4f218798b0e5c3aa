"""The commands that ask a chat model, as they are typed."""

import json
from pathlib import Path

import pytest

from embedsmith.data.examples import read_examples
from embedsmith.generation.settings import JudgeSettings, QuerySettings, TaskSettings


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    texts = [f"the {a} sat near the {p}" for a in ("cat", "dog", "owl") for p in ("mat", "log")]
    path.write_text("".join(json.dumps({"_id": str(row), "text": text}) + "\n" for row, text in enumerate(texts)))
    return path


def writes(prompt: str) -> str:
    words = prompt.split()
    return f"which {words[1]} likes a {words[5]}"


def test_from_passages_alone_to_judged_negatives(embedsmith_command, chat_server, corpus, tmp_path):
    chat_server.say = writes
    run, mined, after = tmp_path / "run", tmp_path / "mined", tmp_path / "after"
    url = ["--url", chat_server.name]
    done = embedsmith_command(
        "synthesize", "queries", corpus, *url, "--out", run, "--teacher", "bm25", "--queries", 1, "--json"
    )
    assert done.code == 0
    assert (done.json["queries"], done.json["kept"], done.json["written"], done.json["rejected"]) == (6, 6, 6, {})
    words = ["--teacher", "bm25", "--method", "naive", "--negatives", 2]
    assert embedsmith_command("mine", run, "--out", mined, *words).code == 0
    chat_server.say = lambda prompt: "yes" if "owl" in prompt else "no"
    done = embedsmith_command("judge", mined, *url, "--positives", 3, "--json")
    assert done.code == 0
    assert 0 < done.json["negatives"]["yes"] < done.json["negatives"]["asked"] == 12
    shares = done.json["negatives"]["yes"] / 12
    assert done.json["false_negative_share"] == pytest.approx(shares, abs=1e-4)
    assert embedsmith_command("select", mined, "--out", after, "--json").json["excluded_by_judge"] > 0
    done = embedsmith_command("judge", after, *url, "--positives", 0)
    assert done.code == 0
    assert "negatives" in done.out and "share of yes" in done.out and "select" in done.out


def test_what_was_rejected_is_shown_with_its_share(embedsmith_command, chat_server, corpus, tmp_path):
    chat_server.say = lambda prompt: f"{writes(prompt)}\nwhat does this passage say"
    words = ["--url", chat_server.name, "--teacher", "bm25", "--out", tmp_path / "run"]
    done = embedsmith_command("synthesize", "queries", corpus, *words)
    assert done.code == 0
    assert "6 queries for 6 of 6 passages; 6 of 12 written were kept" in done.out
    assert "rejected: 6 (50%) speaks of the passage" in done.out
    assert f"mine {tmp_path / 'run'} --out" in done.out


def test_a_budget_that_is_spent_is_told_and_is_no_error(embedsmith_command, chat_server, corpus, tmp_path):
    chat_server.say = writes
    words = ["--url", chat_server.name, "--teacher", "bm25", "--out", tmp_path / "run", "--answer-tokens", 20]
    done = embedsmith_command("synthesize", "queries", corpus, *words, "--budget-tokens", 500, "--concurrency", 1)
    assert done.code == 0
    assert "the budget is spent" in done.err and "larger --budget-tokens goes on" in done.err
    assert embedsmith_command("synthesize", "queries", corpus, *words).code == 0
    assert len(chat_server.requests) == 6


def test_tasks_are_written_and_told(embedsmith_command, chat_server, tmp_path):
    def say(prompt: str) -> str:
        if not prompt.startswith("Task: "):
            return '["Given a cat, find its dog"]'
        return json.dumps({"query": f"a cat {len(chat_server.requests)}", "positive": "its good dog", "negative": "no"})

    chat_server.say = say
    words = ["--url", chat_server.name, "--kind", "short-long", "--tasks", 1, "--out", tmp_path / "run"]
    done = embedsmith_command("synthesize", "tasks", *words)
    assert done.code == 0
    assert "1 of 1 tasks and 2 of 2 examples were kept" in done.out
    examples = read_examples(tmp_path / "run" / "examples.jsonl")
    assert {example.instruction for example in examples} == {"Given a cat, find its dog"}
    assert f"train {tmp_path / 'run' / 'examples.jsonl'} --out" in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--url", "localhost:8000#m"], "begins with neither https:// nor http://"),
        (["--url", "http://localhost:1/v1"], "no model"),
        ([], "nobody writes: name a chat model by --url, or a model of this machine by --generator"),
        (["--generator", "nowhere/there/model"], "no such model folder"),
        (["--url", "http://localhost:1/v1#m", "--prompts", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_a_mistake_is_told_in_one_line(embedsmith_command, corpus, tmp_path, words, message):
    done = embedsmith_command("synthesize", "queries", corpus, "--out", tmp_path / "run", *words)
    assert (done.code, message in done.error) == (2, True)
    assert not (tmp_path / "run").exists()


def test_a_server_that_is_not_there_ends_with_exit_code_1(embedsmith_command, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    words = ["--url", "http://127.0.0.1:9/v1#m", "--teacher", "bm25", "--out", tmp_path / "run"]
    done = embedsmith_command("synthesize", "queries", corpus, *words)
    assert done.code == 1
    assert "cannot be reached" in done.err and "Traceback" not in done.err


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        (["synthesize", "queries"], QuerySettings),
        (["synthesize", "tasks"], TaskSettings),
        (["judge"], JudgeSettings),
    ],
)
def test_every_setting_has_its_option(embedsmith_command, command, settings):
    shown = embedsmith_command(*command, "--help").out
    named = {
        "kinds": "kind",
        "generators": "generator",
        "max_tokens": "answer-tokens",
        "temperature": "chat-temperature",
    }
    for name in settings.model_fields:
        if name != "teacher_settings":
            assert f"--{named.get(name, name).replace('_', '-')}" in shown

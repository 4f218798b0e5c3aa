"""Queries for a user's own passages: kept when the passage is found again, and paid for once."""

import json
import signal
from collections import Counter
from pathlib import Path

import pytest

from embedsmith.data.load import load_collection
from embedsmith.errors import InputError, RunError
from embedsmith.generation.settings import QuerySettings
from embedsmith.mining.mine import mine
from embedsmith.prepare.synthesize import synthesize_queries
from embedsmith.runs.run import read_manifest
from embedsmith.services.chat import ServerSettings
from embedsmith.services.requests import Refused
from tests import forks

ANIMALS, PLACES = ["cat", "dog", "owl", "bat"], ["mat", "log", "tree"]
PASSAGES = {f"{a}-{p}": f"A {a} lives here. It sits near some {p}." for a in ANIMALS for p in PLACES}
KEY = "sk-never-to-be-seen"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"_id": key, "text": text}) + "\n" for key, text in PASSAGES.items()))
    return path


def writes(prompt: str) -> str:
    """Return queries for a passage: for trees one that leads elsewhere."""
    words = prompt.split("\n")[0].replace(".", "").split()
    animal, place = words[1], words[8]
    return f"1. which {animal} likes a {'log' if place == 'tree' else place}\n2. animals"


def settings_for(server, **others) -> QuerySettings:
    return QuerySettings(url=server.name, **{"teacher": "bm25", "found_within": 1, **others})


def test_queries_that_find_their_passage_again_become_a_beir_folder(chat_server, corpus, tmp_path):
    chat_server.say = writes
    run = synthesize_queries(corpus, out=tmp_path / "run", settings=settings_for(chat_server))
    counts = run.manifest["counts"]["queries"]
    assert (counts["passages"], counts["asked"], counts["answered"], counts["written"]) == (12, 12, 12, 24)
    # "animals" is in no passage, and a query about a log does not lead to a tree.
    assert (counts["kept"], counts["queries"]) == (8, 8)
    assert counts["rejected"] == {"passage not found again": 16}
    assert counts["kept"] + sum(counts["rejected"].values()) == counts["written"]
    rejected = [json.loads(line) for line in (run.folder / "rejected.jsonl").read_text().splitlines()]
    assert Counter(row["reason"] for row in rejected) == counts["rejected"]
    collection = load_collection(run.folder)
    assert list(collection.passages) == list(PASSAGES.values())
    found = {
        query: collection.positives(query_id)
        for query_id, query in zip(collection.query_ids, collection.queries, strict=True)
    }
    assert found == {f"which {a} likes a {p}": [f"{a}-{p}"] for a in ANIMALS for p in PLACES if p != "tree"}
    assert read_manifest(mine(run.folder, out=tmp_path / "mined").folder)["counts"]["mining"]["queries"] == 8


def test_a_query_that_two_passages_answer_is_one_query_with_both(chat_server, corpus, tmp_path):
    chat_server.say = lambda prompt: "where a cat lives" if "cat" in prompt else "?"
    settings = settings_for(chat_server, found_within=12)
    run = synthesize_queries(corpus, out=tmp_path / "run", settings=settings)
    collection = load_collection(run.folder)
    assert [collection.positives(query) for query in collection.query_ids] == [["cat-mat", "cat-log", "cat-tree"]]


@pytest.mark.parametrize(("limit", "kept"), [(0.8, 12), (0.0, 24)])
def test_a_query_that_is_almost_another_one_is_dropped_and_counted(chat_server, corpus, tmp_path, limit, kept):
    def says(prompt: str) -> str:
        words = prompt.split("\n")[0].replace(".", "").split()
        named = " and ".join(f"the {words[1]} {where} the {words[8]}" for where in ("on", "by", "near"))
        return f"{named}\n{named}?"

    chat_server.say = says
    settings = settings_for(chat_server, found_within=12, near_duplicates=limit)
    run = synthesize_queries(corpus, out=tmp_path / "run", settings=settings)
    counts = run.manifest["counts"]["queries"]
    # A question mark is no word; an animal or a place is in every other shingle.
    assert (counts["written"], counts["kept"], len(load_collection(run.folder).queries)) == (24, kept, kept)
    assert counts["rejected"] == ({"almost the same as another one": 12} if kept == 12 else {})
    for line in (run.folder / "rejected.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert (row["reason"], row["query"]) == ("almost the same as another one", f"{row['other']}?")


def test_a_long_document_becomes_passages_with_ids_of_their_own(chat_server, tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text(
        json.dumps({"_id": "d", "text": "A cat sat there. " * 3 + "A dog ran off. " * 3, "metadata": {"page": 7}})
        + "\n"
        + json.dumps({"_id": "e", "text": "An owl."})
        + "\n"
    )
    chat_server.say = lambda prompt: f"the {prompt.split()[1]} tale"
    run = synthesize_queries(path, out=tmp_path / "run", settings=settings_for(chat_server, passage_characters=50))
    collection = load_collection(run.folder)
    assert list(collection.passage_ids) == ["d#1", "d#2", "e"]
    assert [len(text) <= 50 for text in collection.passages] == [True] * 3
    assert [row.get("page") for row in collection.metadata] == [7, 7, None]
    assert read_manifest(run.folder)["counts"]["queries"]["documents"] == 2


def test_some_passages_are_drawn_and_the_whole_corpus_is_searched(chat_server, corpus, tmp_path):
    chat_server.say = writes
    run = synthesize_queries(corpus, out=tmp_path / "run", settings=settings_for(chat_server, passages=5))
    assert (len(chat_server.requests), len(load_collection(run.folder).passages)) == (5, 12)


def test_a_budget_ends_the_work_with_what_is_there_and_a_larger_one_goes_on(chat_server, corpus, tmp_path):
    chat_server.say = writes
    settings = settings_for(chat_server, max_tokens=20)
    small, large = ServerSettings(budget_tokens=600, concurrency=2), ServerSettings(budget_tokens=90_000)
    run = synthesize_queries(corpus, out=tmp_path / "run", settings=settings, server=small)
    counts = run.manifest["counts"]["queries"]
    assert (run.manifest["status"], counts["budget_spent"], counts["tokens"] <= 600) == ("running", True, True)
    assert 0 < len(load_collection(run.folder).queries) == counts["queries"] < 8
    run = synthesize_queries(corpus, out=tmp_path / "run", settings=settings, server=large)
    assert (run.manifest["status"], len(load_collection(run.folder).queries)) == ("finished", 8)
    assert len(chat_server.requests) == 12
    with pytest.raises(RunError, match="finished already"):
        synthesize_queries(corpus, out=tmp_path / "run", settings=settings, server=large)


PROGRAM = """
import os, signal, sys
from embedsmith.cli.main import main
from embedsmith.data import files
from embedsmith.services import journal

left = int(sys.argv.pop())

def step(act):
    def counted(*words):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return act(*words)
    return counted

files.os.fsync, files.os.replace = step(os.fsync), step(os.replace)
main()
"""


def test_a_run_killed_among_its_answers_ends_as_one_never_killed_and_pays_once(chat_server, corpus, tmp_path):
    chat_server.say = writes
    words = ["synthesize", "queries", corpus, "--url", chat_server.name, "--teacher", "bm25", "--found-within", 1]

    # Some writes of the run itself come before the first answer.
    line = [*words, "--out", tmp_path / "cut", "--concurrency", 1, 24]
    killed = forks.run(PROGRAM, *line)
    assert killed.returncode == -signal.SIGKILL
    assert 0 < len(chat_server.requests) < 12
    settings, one = settings_for(chat_server), ServerSettings(concurrency=1)
    synthesize_queries(corpus, out=tmp_path / "cut", settings=settings, server=one)
    assert Counter(chat_server.prompts).most_common(1)[0][1] == 1
    assert len(chat_server.requests) == 12
    whole = synthesize_queries(corpus, out=tmp_path / "whole", settings=settings, server=one)
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "rejected.jsonl", "answers.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_the_key_of_the_environment_is_sent_and_written_nowhere(chat_server, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDSMITH_API_HOSTS", "127.0.0.1")
    monkeypatch.setenv("EMBEDSMITH_API_KEY", KEY)
    chat_server.say = writes
    run = synthesize_queries(corpus, out=tmp_path / "run", settings=settings_for(chat_server))
    assert {headers["Authorization"] for _, _, headers, _ in chat_server.requests} == {f"Bearer {KEY}"}
    assert not [path for path in run.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_a_users_prompt_is_asked_with_and_is_part_of_the_run(chat_server, corpus, tmp_path):
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "queries.txt").write_text("{{passage}}\n\n{{queries}} Fragen, bitte.")
    chat_server.say = writes
    settings = settings_for(chat_server)
    run = synthesize_queries(corpus, out=tmp_path / "run", settings=settings, prompts=prompts)
    assert all(prompt.endswith("\n\n2 Fragen, bitte.") for prompt in chat_server.prompts)
    assert (run.folder / "prompts" / "queries.txt").read_text() == "{{passage}}\n\n{{queries}} Fragen, bitte.\n"
    with pytest.raises(RunError, match="holds another run"):
        synthesize_queries(corpus, out=tmp_path / "run", settings=settings)


def test_a_model_that_writes_nothing_useful_is_an_error_with_the_reasons(chat_server, corpus, tmp_path):
    chat_server.say = lambda prompt: "This passage is nice."
    with pytest.raises(InputError, match=r"none has a query that can be used .12 speaks of the passage"):
        synthesize_queries(corpus, out=tmp_path / "run", settings=settings_for(chat_server))
    assert len((tmp_path / "run" / "rejected.jsonl").read_text().splitlines()) == 12


def test_a_wrong_key_leaves_no_run_behind(chat_server, corpus, tmp_path):
    chat_server.first = [(401, {}, "no")]
    with pytest.raises(Refused, match="HTTP 401"):
        synthesize_queries(corpus, out=tmp_path / "run", settings=settings_for(chat_server))
    assert len(chat_server.requests) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.jsonl", None, "none.jsonl: no such file or folder"),
        ("empty.jsonl", "", r"empty\.jsonl: no passages"),
        ("bad.jsonl", '{"_id": "a"}\n', r'bad\.jsonl:1: no "text"'),
    ],
)
def test_a_corpus_that_cannot_be_used_is_told_before_anything_is_asked(chat_server, tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        synthesize_queries(tmp_path / name, out=tmp_path / "run", settings=settings_for(chat_server))
    assert chat_server.requests == []
    assert not (tmp_path / "run").exists()


def test_each_kind_of_passage_has_a_prompt_of_its_own(chat_server, tmp_path):
    asked: list[str] = []
    chat_server.say = lambda prompt: asked.append(prompt) or "is it cat or sat or add"
    rows = [
        {"_id": "a", "text": "def add(): ...", "metadata": {"kind": "code"}},
        {"_id": "b", "text": "cat | mouse", "metadata": {"kind": "rows"}},
        {"_id": "c", "text": "A cat sat.", "metadata": {}},
    ]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = synthesize_queries(
        tmp_path / "corpus.jsonl", out=tmp_path / "run", settings=settings_for(chat_server, found_within=9)
    )
    said = {prompt.split("\n")[0]: prompt for prompt in asked}
    assert "developer" in said["def add(): ..."]
    assert "table or answer" in said["cat | mouse"]
    assert "to which the text above is the answer" in said["A cat sat."]
    assert {path.name for path in (run.folder / "prompts").iterdir()} == {
        "queries.txt",
        "queries-code.txt",
        "queries-rows.txt",
    }

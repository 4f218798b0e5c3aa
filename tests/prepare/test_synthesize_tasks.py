"""Synthetic tasks: what becomes of good, bad and repeated answers, and what is paid for them."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from embedsmith.data.examples import read_examples
from embedsmith.errors import InputError, SettingsError
from embedsmith.generation.settings import KINDS, TaskSettings
from embedsmith.prepare.synthesize_tasks import synthesize_tasks
from embedsmith.services.chat import ServerSettings

LENGTHS = {"passage of about": (3, 30), "label, title or name": (30, 3), "same length": (8, 8)}


def kind_of(prompt: str) -> str:
    """Return which kind of task a prompt asks for."""
    marks = {"short-long": "longer passage", "long-short": "short label", "short-short": "another short text"}
    return next(kind for kind, mark in marks.items() if mark in prompt)


class Writer:
    """A chat model whose every third list is no JSON, every fourth example repeated, every fifth without a negative."""

    def __init__(self) -> None:
        self.lists = Counter()
        self.examples = 0

    def __call__(self, prompt: str) -> str:
        task = re.match(r"Task: (.*)", prompt)
        if task:
            self.examples += 1
            query, positive = next(lengths for mark, lengths in LENGTHS.items() if mark in prompt)
            number = 0 if self.examples % 4 == 0 else self.examples
            row = {"query": f"q{number} " * query, "positive": f"p{number} " * positive, "negative": f"n{number}"}
            if self.examples % 5 == 0:
                del row["negative"]
            return f"```json\n{json.dumps(row)}\n```"
        kind = kind_of(prompt)
        self.lists[kind] += 1
        first = 3 * self.lists[kind]
        listed = json.dumps([f"Given {kind} {number}, find it" for number in range(first, first + 4)])
        return listed[:-1] if self.lists[kind] % 3 == 0 else listed


def settings_for(server, **others) -> TaskSettings:
    return TaskSettings(url=server.name, **{"tasks": 10, "tasks_at_once": 4, **others})


ONE = ServerSettings(concurrency=1)


def test_tasks_become_examples_with_the_task_as_instruction(chat_server, tmp_path: Path):
    chat_server.say = Writer()
    run = synthesize_tasks(out=tmp_path / "run", settings=settings_for(chat_server), server=ONE)
    counts = run.manifest["counts"]["tasks"]
    # Lists overlap by one task, and every third is broken: 4, 3 and none; of the next 4 the last is one too many.
    assert counts["tasks_of_kinds"] == dict.fromkeys(KINDS, 10)
    assert set(counts["tasks_rejected"]) == {"said twice", "not a JSON list", "more than were asked for"}
    assert counts["tasks_rejected"]["more than were asked for"] == 3
    assert (counts["tasks"], counts["asked"], counts["answered"]) == (30, 60, 60)
    assert counts["rejected"]['no "negative"'] == 12
    assert counts["examples"] + sum(counts["rejected"].values()) == counts["written"] == 60
    examples = read_examples(run.folder / "examples.jsonl")
    assert len(examples) == counts["examples"]
    assert len({example.query for example in examples}) == len(examples)
    for example in examples:
        kind = re.match(r"Given (.*) \d+, find it", example.instruction or "")[1]
        assert example.query_id.startswith(kind)
        assert (len(example.positives), len(example.negatives)) == (1, 1)
        longer = len(example.positives[0].text) - len(example.query)
        assert {"short-long": longer > 0, "long-short": longer < 0, "short-short": longer == 0}[kind]
    tasks = [json.loads(line) for line in (run.folder / "tasks.jsonl").read_text().splitlines()]
    assert Counter(row["kind"] for row in tasks) == dict.fromkeys(KINDS, 10)
    assert sum(row["examples"] for row in tasks) == len(examples)


def test_only_the_kinds_that_are_asked_for_are_written(chat_server, tmp_path):
    chat_server.say = Writer()
    run = synthesize_tasks(out=tmp_path / "run", settings=settings_for(chat_server, kinds=["long-short"]), server=ONE)
    assert run.manifest["counts"]["tasks"]["tasks_of_kinds"] == {"long-short": 10}
    assert {kind_of(prompt) for prompt in chat_server.prompts if not prompt.startswith("Task: ")} == {"long-short"}


def test_a_budget_is_kept_over_both_steps_and_a_larger_one_goes_on_for_the_rest(chat_server, tmp_path):
    chat_server.say = Writer()
    settings = settings_for(chat_server, max_tokens=100, kinds=["short-long"], tasks=4)
    run = synthesize_tasks(
        out=tmp_path / "run", settings=settings, server=ServerSettings(budget_tokens=1500, concurrency=1)
    )
    counts = run.manifest["counts"]["tasks"]
    assert (run.manifest["status"], counts["budget_spent"]) == ("running", True)
    assert counts["tokens"] <= 1500
    assert 0 < counts["answered"] < 8
    asked = len(chat_server.requests)
    run = synthesize_tasks(out=tmp_path / "run", settings=settings, server=ONE)
    assert run.manifest["status"] == "finished"
    assert run.manifest["counts"]["tasks"]["answered"] == 8
    assert len(chat_server.requests) == asked + 8 - counts["answered"]


def test_tasks_and_examples_that_are_almost_others_are_dropped_and_counted(chat_server, tmp_path):
    task = "Given what a customer writes to a shop about an order, find the article of the handbook"
    query = "my parcel was left with a neighbour of mine who is away until the end of the month"

    def says(prompt: str) -> str:
        if not prompt.startswith("Task: "):
            return json.dumps([task, f"{task}.", "Given a song's title, find its text", task.upper()])
        ending = "!" if "song" in prompt else ""
        return json.dumps({"query": query + ending, "positive": query * 2, "negative": "the shop opens at nine"})

    chat_server.say = says
    settings = settings_for(chat_server, kinds=["short-long"], tasks=2, examples=1)
    run = synthesize_tasks(out=tmp_path / "run", settings=settings, server=ONE)
    counts = run.manifest["counts"]["tasks"]
    assert counts["tasks_rejected"] == {"almost the same as another one": 1, "said twice": 1}
    assert (counts["tasks"], counts["examples"], counts["rejected"]) == (2, 1, {"almost the same as another one": 1})
    every = settings_for(chat_server, kinds=["short-long"], tasks=3, examples=1, near_duplicates=0)
    counts = synthesize_tasks(out=tmp_path / "all", settings=every, server=ONE).manifest["counts"]["tasks"]
    assert (counts["tasks"], counts["examples"]) == (3, 2)


def test_a_model_that_cannot_write_json_is_an_error_with_the_reasons(chat_server, tmp_path):
    chat_server.say = lambda prompt: "Sure! I would love to."
    settings = settings_for(chat_server, kinds=["short-short"])
    with pytest.raises(InputError, match=r"of 0 tasks none has an example .*\(15 not a JSON list\)"):
        synthesize_tasks(out=tmp_path / "run", settings=settings, server=ONE)
    # Five rounds of three lists: no longer.
    assert len(chat_server.requests) == 15
    assert len((tmp_path / "run" / "rejected.jsonl").read_text().splitlines()) == 15


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(SettingsError, match=r'no kind "shortlong" \(did you mean "short-long"\?\)'):
        TaskSettings.parse({"url": "http://x#y", "kinds": ["shortlong"]}, where="options")

"""Tasks that a chat model thinks of, and examples of each: a run whose examples can be trained on.

RUN/examples.jsonl    training examples, each with its task as the instruction
RUN/tasks.jsonl       {"task", "kind", "examples"}, one a line
RUN/rejected.jsonl    what could not be used, with the reason
RUN/answers.jsonl     what was paid for
RUN/prompts/          the prompts as they were used
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedsmith.data.examples import Example, Passage, write_examples
from embedsmith.data.files import write_jsonl
from embedsmith.errors import InputError
from embedsmith.generation.answers import Different, Rejects
from embedsmith.generation.settings import TaskSettings
from embedsmith.generation.tasks import Triplet, tasks_in, triplet_in
from embedsmith.generation.templates import Template, read_templates, write_templates
from embedsmith.generation.writers import Writer, check_writers, open_writers
from embedsmith.mining.near_duplicates import shingles
from embedsmith.pages.bars import draws_bars
from embedsmith.progress import Progress, silent
from embedsmith.runs.run import Run
from embedsmith.services.chat import Question, ServerSettings
from embedsmith.settings import fingerprint

_ROUNDS = 5
"""Times that more tasks are asked for, where there are still too few different ones."""

Written = tuple[str, str, Triplet]
"""Kind, task, example."""


@draws_bars
def synthesize_tasks(
    *,
    out: str | Path,
    settings: TaskSettings,
    server: ServerSettings | None = None,
    prompts: str | Path | None = None,
    on_progress: Progress = silent,
    progress: bool = True,
) -> Run:
    """Let a chat model think of tasks, and write examples of each.

    A budget that is spent ends the work with what is there; the run then waits for a larger one.

    Args:
        out: the run folder; a run that was cut short goes on.
        settings: which model, how many tasks and examples.
        server: how the server is asked.
        prompts: a folder with prompts in the place of ours: `tasks-KIND.txt`, `example-KIND.txt`.
        on_progress: called with the progress of the work, in place of bars.
        progress: draw bars, where there is a terminal or a notebook.

    Raises:
        InputError, ModelError, RunError, SettingsError: see `embedsmith.errors`.
        ConnectionError: the server cannot be reached, or is busy or failing for too long.
    """
    names = {f"tasks-{kind}": ["number"] for kind in settings.kinds}
    names |= {f"example-{kind}": ["task"] for kind in settings.kinds}
    templates = read_templates(names, prompts)
    # What is missing is reported before anything is paid for.
    different = Different(settings.near_duplicates, shingles=shingles)
    check_writers(settings)
    inputs = {"prompts": {name: fingerprint(template.text) for name, template in templates.items()}}
    with Run.open(out, command="synthesize tasks", settings=settings, inputs=inputs) as run:
        chat = open_writers(settings.writers, run.folder / "answers.jsonl", server)
        write_templates(run.folder / "prompts", templates)
        no_tasks, no_examples = Rejects(), Rejects()
        with run.timed("tasks"):
            tasks = [
                (kind, task)
                for kind in settings.kinds
                for task in _tasks(chat, kind, templates[f"tasks-{kind}"], settings, no_tasks, on_progress)
            ]
        with run.timed("examples"):
            wanted = [(kind, task, number) for kind, task in tasks for number in range(settings.examples)]
            questions = [
                _question(templates[f"example-{kind}"], task, number, settings) for kind, task, number in wanted
            ]
            answers = chat.ask(questions, what="ask for examples", on_progress=on_progress)
        found: list[Written] = []
        for (kind, task, _), answer in zip(wanted, answers, strict=True):
            prompt = templates[f"example-{kind}"].text
            triplet = triplet_in(answer, kind, task=task, prompt=prompt, rejects=no_examples) if answer else None
            if not triplet:
                continue
            if flaw := different.flaw(triplet.query):
                no_examples.add(flaw, task=task, answer=triplet.query)
            else:
                different.add(triplet.query)
                found.append((kind, task, triplet))
        _write(run.folder, tasks, found, no_tasks, no_examples)
        run.count("tasks", _counts(chat, tasks, answers, found, no_tasks, no_examples))
        if not chat.is_spent:
            if not found:
                reasons = (no_examples.counts if tasks else no_tasks.counts).most_common(3)
                raise InputError(
                    f"{run.folder}: of {len(tasks):,} tasks none has an example that can be used "
                    f"({', '.join(f'{number:,} {reason}' for reason, number in reasons) or 'no answer'})",
                    hint="read rejected.jsonl there; try a larger model, other prompts, or more --max-tokens",
                )
            run.finish()
    return run


def _tasks(
    chat: Writer, kind: str, template: Template, settings: TaskSettings, rejects: Rejects, on_progress: Progress
) -> list[str]:
    """Return different tasks of a kind, as many as are wanted where the model thinks of so many."""
    tasks = Different(settings.near_duplicates, shingles=shingles)
    asked = 0
    for _ in range(_ROUNDS):
        missing = math.ceil((settings.tasks - len(tasks.texts)) / settings.tasks_at_once)
        if missing <= 0 or chat.is_spent:
            break
        values = {"number": str(min(settings.tasks, settings.tasks_at_once))}
        questions = [
            Question(
                template.filled(values, random.Random(f"{settings.seed} {kind} {number}")),
                max_tokens=settings.max_tokens,
                temperature=settings.temperature,
                seed=settings.seed + number,
            )
            for number in range(asked, asked + missing)
        ]
        asked += missing
        for answer in chat.ask(questions, what=f"ask for {kind} tasks", on_progress=on_progress):
            for task in tasks_in(answer, prompt=template.text, rejects=rejects) if answer else ():
                if flaw := tasks.flaw(task):
                    rejects.add(flaw, answer=task)
                elif len(tasks.texts) == settings.tasks:
                    rejects.add("more than were asked for", answer=task)
                else:
                    tasks.add(task)
    return tasks.texts


def _question(template: Template, task: str, number: int, settings: TaskSettings) -> Question:
    """Return what is asked for one example of a task."""
    return Question(
        template.filled({"task": task}, random.Random(f"{settings.seed} {task} {number}")),
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        seed=settings.seed + number,
    )


def _write(
    folder: Path,
    tasks: list[tuple[str, str]],
    found: list[Written],
    no_tasks: Rejects,
    no_examples: Rejects,
) -> None:
    """Write tasks, examples, and what is neither."""
    number_of = Counter((kind, task) for kind, task, _ in found)
    rows = ({"task": task, "kind": kind, "examples": number_of[kind, task]} for kind, task in tasks)
    write_jsonl(folder / "tasks.jsonl", rows)
    rejected = [
        {"step": step, **row} for step, own in (("task", no_tasks), ("example", no_examples)) for row in own.rows
    ]
    write_jsonl(folder / "rejected.jsonl", rejected)
    write_examples(folder / "examples.jsonl", _examples(found))


def _examples(found: list[Written]) -> Iterator[Example]:
    """Yield training examples."""
    for kind, task, triplet in found:
        query_id = f"{kind}-{fingerprint([task, triplet.query])}"
        yield Example(
            query_id=query_id,
            query=triplet.query,
            positives=[Passage(f"{query_id}-positive", triplet.positive)],
            negatives=[Passage(f"{query_id}-negative", triplet.negative)],
            instruction=task,
        )


def _counts(
    chat: Writer,
    tasks: list[tuple[str, str]],
    answers: list[Any],
    found: list[Written],
    no_tasks: Rejects,
    no_examples: Rejects,
) -> dict[str, Any]:
    """Return what came of it all."""
    return {
        "tasks": len(tasks),
        "tasks_of_kinds": dict(Counter(kind for kind, _ in tasks)),
        "tasks_rejected": dict(no_tasks.counts.most_common()),
        "asked": len(answers),
        "answered": sum(answer is not None for answer in answers),
        "not_answered": chat.failures[:10],
        "written": len(found) + sum(no_examples.counts.values()),
        "examples": len(found),
        "examples_of_kinds": dict(Counter(kind for kind, _, _ in found)),
        "rejected": dict(no_examples.counts.most_common()),
        "tokens": chat.tokens,
        "budget_spent": chat.is_spent,
    }

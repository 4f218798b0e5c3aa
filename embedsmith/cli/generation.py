"""The commands that ask a language model: synthesize queries, synthesize tasks, judge."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from embedsmith.cli import console
from embedsmith.cli.app import TEACHER_FLAGS, Json, MinedRun, Out, app, typed
from embedsmith.cli.commands import Commands, command
from embedsmith.cli.help import ADVANCED, READING
from embedsmith.cli.options import Given, settings_of, with_options
from embedsmith.generation.settings import JudgeSettings, QuerySettings, TaskSettings
from embedsmith.progress import duration
from embedsmith.services.chat import ServerSettings
from embedsmith.teachers.settings import TeacherSettings

Prompts = Annotated[
    Path | None,
    typer.Option(
        help="Folder with prompts in the place of ours; each run holds those that it used, to copy from.",
        rich_help_panel=f"{ADVANCED}writing",
    ),
]

_FLAGS: dict[str, str | None] = {
    f"{group}.{field}": flag
    for group in ("queries", "tasks", "judge")
    for field, flag in {"max_tokens": "answer-tokens", "temperature": "chat-temperature"}.items()
}
_FLAGS |= {"queries.generators": "generator", "tasks.generators": "generator"}
_RENAMED = {
    "--max-tokens": "--answer-tokens",
    "--temperature": "--chat-temperature",
    "--memory-gib": "--search-memory-gib",
}

synthesize = typer.Typer(
    help="Let a language model write training data: queries for your passages, or tasks with examples.",
    no_args_is_help=True,
    cls=Commands,
)
app.add_typer(synthesize, name="synthesize")


@command(synthesize, device=True, cluster=True, overwrites=True, renamed=_RENAMED)
@with_options(
    flags={**TEACHER_FLAGS, **_FLAGS},
    first=[
        "queries.url",
        "queries.generators",
        "queries.queries",
        "queries.passages",
        "queries.teacher",
        "server.budget_tokens",
    ],
    queries=QuerySettings,
    server=ServerSettings,
    teacher=TeacherSettings,
)
def queries(
    corpus: Annotated[
        Path, typer.Argument(help="Your passages: JSON lines, CSV or Parquet with a `text`, or a BEIR folder.")
    ],
    out: Out,
    queries: Given,
    server: Given,
    teacher: Given,
    prompts: Prompts = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out rows that cannot be used.", rich_help_panel=READING)
    ] = False,
    as_json: Json = False,
) -> None:
    """Write queries for your own passages: RUN is then a BEIR folder, ready for `mine`.

    A query is kept when a teacher finds its passage again. Keys: EMBEDSMITH_API_KEY, OPENAI_API_KEY.

    Examples:
        embedsmith synthesize queries passages.jsonl --url http://localhost:8000/v1#qwen --out runs/written
        embedsmith synthesize queries passages.jsonl --generator model.gguf --out runs/written
    """
    from embedsmith.prepare.synthesize import synthesize_queries

    settings = settings_of(QuerySettings, queries, teacher_settings=settings_of(TeacherSettings, teacher))
    with console.progress() as on_progress:
        run = synthesize_queries(
            corpus,
            out=out,
            settings=settings,
            server=settings_of(ServerSettings, server),
            prompts=prompts,
            skip_bad=skip_bad,
            on_skip=console.note,
            on_progress=on_progress,
        )
    counts = run.manifest["counts"]["queries"]
    if as_json:
        console.print_json({"run": str(run.folder), "seconds": run.seconds, **counts})
        return
    console.line(
        f"{counts['queries']:,} queries for {counts['passages_with_queries']:,} of {counts['asked']:,} passages; "
        f"{counts['kept']:,} of {counts['written']:,} written were kept ({duration(run.seconds)})"
    )
    _show_rejected(counts)
    console.next_steps(f"{typed()} mine {shlex.quote(str(run.folder))} --out runs/mined")


@command(synthesize, overwrites=True, renamed=_RENAMED)
@with_options(
    flags={"tasks.kinds": "kind", **_FLAGS},
    first=["tasks.url", "tasks.generators", "tasks.tasks", "tasks.examples", "tasks.kinds", "server.budget_tokens"],
    tasks=TaskSettings,
    server=ServerSettings,
)
def tasks(
    out: Out,
    tasks: Given,
    server: Given,
    prompts: Prompts = None,
    as_json: Json = False,
) -> None:
    """Let a chat model think of tasks and write examples of each: RUN/examples.jsonl, to train on.

    The two steps of NV-Embed's synthetic data. Keys: EMBEDSMITH_API_KEY, OPENAI_API_KEY.

    Examples:
        embedsmith synthesize tasks --url http://localhost:8000/v1#qwen --tasks 20 --out runs/tasks
    """
    from embedsmith.prepare.synthesize_tasks import synthesize_tasks

    with console.progress() as on_progress:
        run = synthesize_tasks(
            out=out,
            settings=settings_of(TaskSettings, tasks),
            server=settings_of(ServerSettings, server),
            prompts=prompts,
            on_progress=on_progress,
        )
    counts = run.manifest["counts"]["tasks"]
    if as_json:
        console.print_json({"run": str(run.folder), "seconds": run.seconds, **counts})
        return
    written = counts["tasks"] + sum(counts["tasks_rejected"].values())
    console.line(
        f"{counts['tasks']:,} of {written:,} tasks and {counts['examples']:,} of {counts['written']:,} examples "
        f"were kept ({duration(run.seconds)})"
    )
    for reason, number in counts["tasks_rejected"].items():
        console.line(f"  rejected: {number:,} ({number / written:.0%} of the tasks) {reason}")
    _show_rejected(counts)
    examples = shlex.quote(str(run.folder / "examples.jsonl"))
    console.next_steps(f"{typed()} train {examples} --out runs/model")


def _show_rejected(counts: dict[str, Any]) -> None:
    """Show what was rejected and why, what the server would not answer, and what it all cost."""
    written = counts["written"]
    for reason, number in counts["rejected"].items():
        console.line(f"  rejected: {number:,} ({number / written:.0%}) {reason}")
    for failure in counts["not_answered"][:3]:
        console.note(f"a question without an answer: {failure}")
    if counts["budget_spent"]:
        console.note(
            f"the budget is spent: {counts['answered']:,} of {counts['asked']:,} questions have an answer; the same "
            "command with a larger --budget-tokens goes on"
        )
    console.line(f"{counts['tokens']:,} tokens")


@command(app, renamed=_RENAMED)
@with_options(
    flags=_FLAGS,
    first=["judge.url", "judge.queries", "judge.positives", "server.budget_tokens"],
    judge=JudgeSettings,
    server=ServerSettings,
)
def judge(
    run: MinedRun,
    judge: Given,
    server: Given,
    prompts: Prompts = None,
    as_json: Json = False,
) -> None:
    """Ask a chat model which mined negatives answer their query after all; `select` leaves them out from then on.

    Known positives are judged too: they measure the judge's recall. What was asked once, of RUN or of
    another selection from the same candidates, is not asked again. Keys: EMBEDSMITH_API_KEY,
    OPENAI_API_KEY.

    Examples:
        embedsmith judge runs/mined --url http://localhost:8000/v1#qwen --queries 200
    """
    from embedsmith.mining.judge import judge as judge_run
    from embedsmith.mining.judge import plain
    from embedsmith.mining.verdicts import judge_folder

    with console.progress() as on_progress:
        found = judge_run(
            run,
            settings=settings_of(JudgeSettings, judge),
            server=settings_of(ServerSettings, server),
            prompts=prompts,
            on_progress=on_progress,
        )
    for failure in found.failures[:3]:
        console.note(f"a question without an answer: {failure}")
    if found.budget_spent:
        console.note("the budget is spent; the same command with a larger --budget-tokens goes on")
    if found.cannot_tell:
        console.note(
            "this judge says yes to negatives about as often as to known positives, and its verdicts count all the "
            f"same; remove {judge_folder(run)} to be rid of them"
        )
    if as_json:
        console.print_json({"run": str(run), **plain(found)})
        return
    console.out.print(
        console.figures_table(
            f"{found.judge} on {run}: does the passage answer the query?",
            {
                name: [
                    "–" if row.share is None else f"{row.share:.3f}",
                    *(f"{count:,}" for count in (row.yes, row.no, row.unclear, row.unanswered)),
                ]
                for name, row in {
                    "negatives": found.negatives,
                    "first negatives": found.first,
                    "known positives": found.positives,
                }.items()
            },
            ["share of yes", "yes", "no", "unclear", "unanswered"],
        )
    )
    console.line(f"{found.tokens:,} tokens")
    console.next_steps(f"{typed()} select {shlex.quote(str(run))} --out runs/judged")

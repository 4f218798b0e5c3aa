"""The commands that go from data to scores at once: quickstart, run."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from embedsmith.cli import console
from embedsmith.cli.app import MOST_SEED, Json, Seed, app, typed
from embedsmith.cli.commands import command
from embedsmith.cli.minutes import in_minutes
from embedsmith.errors import SettingsError
from embedsmith.progress import duration
from embedsmith.recipes.quickstart import StudentName

Out = Annotated[Path | None, typer.Option(help="Run folder to write; one that was cut short goes on.")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a value by its path, such as stages.0.learning_rate=1e-5; may be repeated.",
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        help="End within so many minutes: measure this machine, and shorten texts and steps to fit.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print data, steps, tokens, memory and time; train nothing.")]


@command(app, device=True, overwrites=True, usual_out=lambda values: Path("runs") / f"quickstart-{values['student']}")
def quickstart(
    source: Annotated[
        str, typer.Option(help="Folder of Python files; `stdlib` is the standard library of the running Python.")
    ] = "stdlib",
    student: Annotated[
        StudentName, typer.Option(help="minilm: fine-tune all-MiniLM-L6. smollm2: make an NV-Embed of SmolLM2-135M.")
    ] = "minilm",
    out: Annotated[
        Path | None, typer.Option(help="Run folder; by default runs/quickstart-STUDENT. A cut-short run goes on.")
    ] = None,
    minutes: Annotated[
        float,
        typer.Option(min=0.1, help="End within so many minutes: measure this machine, and choose what fits."),
    ] = 10.0,
    seed: Seed = 0,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Build a code-search model for Python code: harvest, mine, train, evaluate.

    Pairs are the first sentence of a docstring and the function without it, under its qualified name; evaluation is on
    modules never seen. How much is read and trained on is what this machine does in --minutes.

    Examples:
        embedsmith quickstart
        embedsmith quickstart --minutes 30
        embedsmith quickstart --source my/project --out runs/mine
    """
    from embedsmith.models.devices import has_cuda
    from embedsmith.recipes.quickstart import quickstart_recipe
    from embedsmith.recipes.run import run_recipe

    recipe = quickstart_recipe(source=source, student=student, seed=seed, on_gpu=has_cuda())
    folder = out or Path("runs") / recipe.name
    recipe, planned = in_minutes(recipe, minutes, folder, dry_run=dry_run, as_json=as_json)
    if dry_run:
        return
    with console.progress() as on_progress:
        run = run_recipe(recipe, out=folder, command="quickstart", planned=planned, on_progress=on_progress)
    _show_skipped(folder, verbose=console.is_verbose())
    search_hint = "open a zip file and list its members" if source == "stdlib" else _example_query(folder)
    show_run(run, as_json=as_json, search_hint=search_hint)


@command(app, device=True, cluster=True, overwrites=True)
def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="The recipe: data, mining, student, stages.")],
    out: Out = None,
    changes: Changes = None,
    minutes: Minutes = None,
    seed: Annotated[int | None, typer.Option(min=0, max=MOST_SEED, help="Seed; the recipe's by default.")] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Carry out a whole recipe: data, mining, training and scores before and after.

    On several devices: torchrun --nproc-per-node N -m embedsmith run ...

    Examples:
        embedsmith run recipe.yaml --out runs/first --minutes 15
        embedsmith run recipe.yaml --out runs/second --set stages.0.learning_rate=1e-5
        embedsmith run recipe.yaml --dry-run
    """
    refuse_without(out, dry_run=dry_run)
    changes = [*(changes or []), *([] if seed is None else [f"seed={seed}"])]
    carry_out(recipe, out, changes, minutes=minutes, dry_run=dry_run, as_json=as_json)


def refuse_without(out: Path | None, *, dry_run: bool) -> None:
    """Raise SettingsError where a run folder is needed and none is named."""
    if out is None and not dry_run:
        raise SettingsError("--out is missing", hint="name the run folder to write: --out RUN")


def carry_out(
    path: Path,
    out: Path | None,
    changes: list[str],
    *,
    minutes: float | None = None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Carry out a recipe and show what came of it, or what would."""
    from embedsmith.recipes.recipe import read_recipe
    from embedsmith.recipes.run import run_recipe

    recipe, planned = planned_recipe(read_recipe(path, changes=changes), minutes, out, dry_run=dry_run, as_json=as_json)
    if dry_run:
        return
    assert out
    with console.progress() as on_progress:
        run = run_recipe(recipe, out=out, planned=planned, on_skip=console.note, on_progress=on_progress)
    show_run(run, as_json=as_json, search_hint="")


def planned_recipe(
    recipe: Any, minutes: float | None, out: Path | None, *, dry_run: bool, as_json: bool
) -> tuple[Any, dict[str, Any] | None]:
    """Return the recipe to carry out, and what its run keeps of the plan; show the plan where one is asked for."""
    if minutes is not None:
        return in_minutes(recipe, minutes, out, dry_run=dry_run, as_json=as_json)
    if dry_run:
        from embedsmith.recipes.plan import plan_of_recipe

        with console.progress() as on_progress:
            plan = plan_of_recipe(recipe, on_skip=console.note, on_progress=on_progress)
        show_plan(plan, as_json=as_json)
    return recipe, None


def show_plan(plan: Any, *, as_json: bool) -> None:
    """Show what a training run is going to do."""
    if as_json:
        console.print_json(asdict(plan))
        return
    console.line("checked: what each step needs is there")
    for data in plan.data:
        mined = f"to be mined in {data.passages:,} passages" if data.to_be_mined else f"{data.negatives:,} negatives"
        without = f"; {data.removed:,} rows removed that evaluation sets hold" if data.removed else ""
        labels = f"; {data.labels}" if data.labels else ""
        console.line(f"data {data.name}: {data.queries:,} queries, {mined}{without}{labels}")
    console.line(f"student: {plan.parameters:,} parameters; {plan.opening_gib:.1f} GiB to open it")
    for stage in plan.stages:
        console.line(
            f"stage {stage.name}: {stage.steps:,} steps of {stage.queries_a_step:,} queries and about "
            f"{stage.tokens_a_step:,} tokens; {stage.trained_parameters:,} parameters trained ({_parts(stage)}); about "
            f"{duration(stage.seconds)} and {stage.memory_gib:.1f} GiB, of {plan.free_gib:.1f} GiB free on "
            f"{plan.device}"
        )
        rows = {
            part.data: [
                f"{part.examples:,}",
                f"{part.negatives:.1f}",
                f"{part.weight:g}",
                f"{part.queries:,}",
                f"{part.share:.1%}",
                f"{part.passes:.2f}",
            ]
            for part in stage.blend
        }
        columns = ["examples", "negatives", "weight", "drawn", "share", "passes"]
        console.out.print(console.figures_table(f"What stage {stage.name} sees", rows, columns))
    total = sum(stage.seconds for stage in plan.stages)
    console.line(f"training: about {duration(total)}, mining and scoring aside")


def _parts(stage: Any) -> str:
    """Return how many parameters of each part of the model a stage trains."""
    counts = {name: getattr(stage.trained, name) for name in ("backbone", "adapters", "pooling")}
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


def show_run(run: Any, *, as_json: bool, search_hint: str) -> None:
    """Show the scores of a recipe's run, and what to try next."""
    from embedsmith.recipes.report import shown_metrics
    from embedsmith.recipes.verdict import verdicts
    from embedsmith.runs.named import ELSEWHERE
    from embedsmith.runs.scores import HYBRID, read_scores

    scores = read_scores(run.folder).metrics()
    if as_json:
        flat = next(iter(scores.values())) if len(scores) == 1 else {"scores": scores}
        console.print_json({**flat, "seconds": run.seconds, "run": str(run.folder)})
        return
    for name, rows in scores.items():
        last = ("before", *(label for label in rows if label.startswith("after ")), "after", HYBRID)
        order = [*(label for label in rows if label not in last), *last]
        rows = {label: rows[label] for label in order if label in rows}
        console.out.print(
            console.scores_table(f"Scores on {name}{_unseen(run.folder, name)}", rows, shown_metrics(rows))
        )
    for verdict in verdicts(run.folder):
        for line in verdict.lines():
            console.line(line)
    folder = shlex.quote(str(run.folder))
    console.line(f"Took {duration(run.seconds)}. Read {run.folder / 'report.md'}")
    console.next_steps(
        *([f"{typed()} search {folder} {shlex.quote(search_hint)}"] if search_hint else []),
        *(
            f"{typed()} evaluate {folder} {folder}/data/{name}/test"
            for name in scores
            if name != ELSEWHERE and (run.folder / "data" / name / "test").is_dir()
        ),
        f"{typed()} compare {folder}",
        f"{typed()} export-model {folder} --out my-model",
        f"{typed()} run {folder}/recipe.yaml --out runs/again",
    )


def _unseen(folder: Path, name: str) -> str:
    """Return of what the queries of a data set are that the run harvested, nothing for another one."""
    from embedsmith.data.files import read_json

    done = folder / "data" / name / "done.json"
    if not done.is_file():
        return ""
    return f", queries of {'files' if 'test_files' in read_json(done) else 'modules'} never seen"


def _example_query(folder: Path) -> str:
    """Return something to search for in the code of a quickstart: what one of its functions says that it does."""
    from embedsmith.data.files import read_jsonl

    _, first = next(read_jsonl(folder / "data" / "code" / "test" / "queries.jsonl"))
    return str(first["text"])


def _show_skipped(folder: Path, *, verbose: bool) -> None:
    """Say how many files could not be read, and which on request."""
    from embedsmith.data.files import read_json

    skipped = read_json(folder / "data" / "code" / "done.json")["skipped"]
    if skipped:
        more = "" if verbose else " (--verbose names them)"
        console.line_beside(f"{len(skipped):,} files could not be read{more}")
    for row in skipped if verbose else ():
        place = row["path"] if row["line"] is None else f"{row['path']}:{row['line']}"
        console.line_beside(f"  {place}: {row['reason']}")

"""The command that trains on mined negatives: train."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from embedsmith.cli import console
from embedsmith.cli.app import MOST_SEED, Json, app, typed
from embedsmith.cli.commands import command
from embedsmith.cli.options import Given, settings_of, with_options
from embedsmith.cli.recipes import Changes, DryRun, Out, carry_out, refuse_without, show_plan
from embedsmith.errors import SettingsError
from embedsmith.models.settings import StudentSettings
from embedsmith.progress import duration
from embedsmith.training.settings import StageSettings


@command(app, device=True, overwrites=True)
@with_options(
    first=[
        *("student.name", "student.instruction", "student.pooling"),
        *("stage.epochs", "stage.steps", "stage.batch_size", "stage.learning_rate", "stage.hard_negatives"),
        *("stage.lora_rank", "student.query_max_tokens", "student.passage_max_tokens"),
    ],
    flags={
        "student.name": "student",
        "stage.name": None,
        "stage.remine": None,
        "stage.lora_targets": "lora-target",
        "stage.query_max_tokens": "stage-query-max-tokens",
        "stage.passage_max_tokens": "stage-passage-max-tokens",
    },
    student=StudentSettings,
    stage=StageSettings,
)
def train(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run of `mine` or `select`, a part of a recipe's, or a file of examples."),
    ],
    student: Given,
    stage: Given,
    out: Out = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MOST_SEED, help="Seed of new weights, batches and dropout; or 0.")
    ] = None,
    changes: Changes = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train a student on mined negatives, in one stage.

    On several devices: torchrun --nproc-per-node N -m embedsmith train ...

    Examples:
        embedsmith train runs/mined --out runs/model
        embedsmith train runs/mined --student intfloat/e5-small-v2 --epochs 2 --out runs/e5
        embedsmith train runs/mined --dry-run
    """
    refuse_without(out, dry_run=dry_run)
    if source.suffix in (".yaml", ".yml"):
        flags = [*student.flags.values(), *stage.flags.values()]
        _train_recipe(source, out, flags, seed, changes or [], dry_run=dry_run, as_json=as_json)
        return
    from embedsmith.recipes.overrides import overridden, override_of
    from embedsmith.training.train import TrainingSettings
    from embedsmith.training.train import train as train_run

    given = {"student": settings_of(StudentSettings, student), "stage": settings_of(StageSettings, stage)}
    plain = {part: settings.model_dump(mode="json", exclude_unset=True) for part, settings in given.items()}
    asked = overridden(
        {**plain, "seed": seed or 0}, dict(map(override_of, changes or [])), TrainingSettings, called="training"
    )
    settings = TrainingSettings.parse(asked, where="options")
    if dry_run:
        from embedsmith.recipes.plan import plan_of_run

        show_plan(plan_of_run(source, settings), as_json=as_json)
        return
    assert out
    with console.progress() as on_progress:
        run = train_run(
            source,
            out=out,
            student=settings.student,
            stage=settings.stage,
            seed=settings.seed,
            on_progress=on_progress,
        )
    if as_json:
        console.print_json({"run": str(out), "seconds": run.seconds, "model": run.manifest["counts"]["model"]})
        return
    console.line(f"trained {out / 'model'} in {duration(run.seconds)}")
    console.next_steps(
        f"{typed()} evaluate {shlex.quote(str(out))} {_data_of(source)} --before-and-after",
        f"{typed()} export-model {shlex.quote(str(out))} --out my-model",
    )


def _data_of(source: Path) -> str:
    """Return the path of the data that a run was mined from; `DATA` where it has no test split, or is gone."""
    from embedsmith.evaluation.before_and_after import has_split
    from embedsmith.runs.lineage import lineage
    from embedsmith.runs.part import is_run

    if not is_run(source):
        return "DATA"
    *_, (_, manifest) = lineage(source)
    data = Path(manifest["inputs"].get("data") or "DATA")
    if not has_split(str(data), "test"):
        return "DATA"
    return shlex.quote(str(data.relative_to(Path.cwd()) if data.is_relative_to(Path.cwd()) else data))


def _train_recipe(
    path: Path,
    out: Path | None,
    flags: list[str],
    seed: int | None,
    changes: list[str],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Carry out a recipe, as `train` did before there was `run`."""
    if flags:
        raise SettingsError(
            f"{flags[0]}: a recipe has its own settings",
            hint=f"change them in {path}, or with --set, such as --set stages.0.learning_rate=1e-5",
        )
    console.note(f"`train` takes recipes for one more version; from now on: {typed()} run {shlex.quote(str(path))}")
    changes = changes if seed is None else [*changes, f"seed={seed}"]
    carry_out(path, out, changes, dry_run=dry_run, as_json=as_json)

"""The command that repeats a recipe with other settings: ablate."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from embedsmith.cli import console
from embedsmith.cli.app import Json, Out, app, typed
from embedsmith.cli.commands import command
from embedsmith.progress import duration


@command(app, device=True, cluster=True, overwrites=True)
def ablate(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE.yaml", help="A recipe, or an ablation such as recipes/ablations/*.yaml.")
    ],
    out: Out,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="A setting and its values: mining.method=naive,percpos; numbers in lists: stages.0.steps=30,60; "
            "lists as values: mining.teachers=[bm25],[random]. Several make a grid.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting for every row: stages.0.steps=60.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A BEIR folder or pairs, in the place of the recipe's one data set.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds of every row; the file's, or 3.")] = None,
    metric: Annotated[str, typer.Option(help="What the rows are compared by.")] = "ndcg@10",
    shared: Annotated[
        Path | None,
        typer.Option(help="Keep here what cells share, for other ablations too: more seeds or rows cost only the new."),
    ] = None,
    keep_models: Annotated[
        bool, typer.Option(help="Keep every cell's trained model; its scores are always kept.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells and what they share, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Carry out a recipe with every combination of some settings, and tell which ones make a difference.

    What is equal in several cells is made once. Ends in a table with spread over seeds and significance against the
    first row.

    Examples:
        embedsmith ablate recipes/ablations/methods.yaml --out runs/methods
        embedsmith ablate recipe.yaml --vary mining.method=naive,percpos --out runs/two
    """
    from embedsmith.data.files import read_json
    from embedsmith.recipes.ablation.ablate import ablate as carry_out
    from embedsmith.recipes.ablation.ablate import check, plan
    from embedsmith.recipes.ablation.grid import read_ablation

    ablation = read_ablation(
        recipe,
        vary=vary or (),
        set_=set_ or (),
        data=data,
        seeds=seeds,
        metric=metric,
        keep_models=keep_models,
    )
    if dry_run:
        check(ablation, out, console.note)
        _show_plan(plan(ablation), as_json=as_json)
        return
    with console.progress() as on_progress:
        run = carry_out(ablation, out=out, shared=shared, on_skip=console.note, on_progress=on_progress)
    table = read_json(run.folder / "table.json")
    if as_json:
        console.print_json({"run": str(run.folder), "seconds": run.seconds, **table})
        return
    for line in (run.folder / "table.md").read_text(encoding="utf-8").rstrip().split("\n"):
        console.line(line)
    folder = shlex.quote(str(run.folder))
    console.line(f"Took {duration(run.seconds)}. Look at {run.folder / 'report.html'}")
    first = table["rows"][0]
    best = max((row for row in table["rows"] if row["is_paired"]), key=lambda row: row["mean"])
    if best is not first:
        places = [shlex.quote(f"{run.folder}/{row['folder']}/seed-0") for row in (first, best)]
        console.next_steps(f"{typed()} compare {' '.join(places)}")
    else:
        console.next_steps(f"{typed()} compare {folder}/{first['folder']}/seed-0")


def _show_plan(planned: list[Any], *, as_json: bool) -> None:
    """Show what each cell makes, and what it takes from others."""
    if as_json:
        cells = [
            {
                "row": one.cell.row,
                "seed": one.cell.seed,
                "folder": one.cell.folder,
                "makes": one.makes,
                "takes": one.finds,
            }
            for one in planned
        ]
        console.print_json({"cells": cells, "makes": _totals(planned)})
        return
    for one in planned:
        taken = f"; takes {', '.join(one.finds)}" if one.finds else ""
        console.line(f"{one.cell.name}: makes {', '.join(one.makes) or 'nothing'}{taken}")
    totals = ", ".join(f"{part} {count:,} times" for part, count in _totals(planned).items())
    console.line(f"{len(planned):,} cells; made: {totals}")


def _totals(planned: list[Any]) -> dict[str, int]:
    """Return how often each part is made."""
    totals: dict[str, int] = {}
    for one in planned:
        for part in one.makes:
            totals[part] = totals.get(part, 0) + 1
    return totals

"""An ablation carried out: each cell a recipe's run, what is equal made once, at the end a table.

RUN/cells/01-naive/seed-0/   a run folder as `embedsmith run RECIPE.yaml` makes it
RUN/shared/                  what several cells need: vectors, candidates, stages; see `embedsmith.recipes.shelf`
RUN/table.json, table.md     the rows with their means, spread and significance
RUN/report.html              the same to look at
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedsmith.data.files import atomic_write, remove_below, write_json
from embedsmith.errors import EmbedsmithError, InputError, SettingsError, did_you_mean
from embedsmith.evaluation.metrics import DEFAULT_METRICS
from embedsmith.mining.ensembles import PCA
from embedsmith.pages.bars import draws_bars
from embedsmith.progress import Progress, silent
from embedsmith.recipes.ablation.grid import Ablation, Cell, cells_of
from embedsmith.recipes.ablation.mining import measure_mining, teacher_of_hardness, varies_mining
from embedsmith.recipes.ablation.page import ablation_page
from embedsmith.recipes.ablation.table import in_markdown, table_of
from embedsmith.recipes.preconditions import Preconditions
from embedsmith.recipes.recipe import Recipe
from embedsmith.recipes.run import run_recipe
from embedsmith.recipes.shelf import Shelf
from embedsmith.runs.run import Run, finished, read_manifest
from embedsmith.settings import fingerprint
from embedsmith.variables import Written


@dataclass
class Planned:
    """What a cell will make, and what it will find made by another one."""

    cell: Cell
    makes: list[str] = field(default_factory=list)
    finds: dict[str, str] = field(default_factory=dict)
    """Part -> the cell that makes it."""


@draws_bars
def ablate(
    ablation: Ablation,
    *,
    out: str | Path,
    shared: str | Path | None = None,
    on_skip: Callable[[str], None] | None = None,
    on_progress: Progress = silent,
    progress: bool = True,
) -> Run:
    """Carry out every cell of an ablation into a run folder; one that was cut short goes on.

    Args:
        ablation: what is compared.
        out: the run folder.
        shared: a shelf that several ablations use, so that one with more seeds or rows makes nothing twice; the run's
            own when not given.
        on_skip: called, when a run begins, with what of each data set is left out and what its labels mean.
        on_progress: called with the progress of the work, in place of bars.
        progress: draw bars, where there is a terminal or a notebook.

    Raises:
        InputError, ModelError, RunError, SettingsError: see `embedsmith.errors`.
    """
    cells = cells_of(ablation)
    written = Written(*(cell.recipe for cell in cells))
    on_progress = written.progress(on_progress)
    with written.errors(), Run.open(out, command="ablate", settings=ablation, inputs={}) as run:
        shelf = Shelf(shared or run.folder / "shared")
        preconditions = check(ablation, run.folder, on_skip) if run.is_new else Preconditions()
        teacher = teacher_of_hardness(ablation) if varies_mining(ablation) else None
        for number, cell in enumerate(cells):
            on_progress("cells", number, len(cells), cell.name)
            with run.timed("cells"):
                within = _within(cell, number, cells, on_progress)
                manifest = _carry_out(run.folder / cell.folder, cell, shelf, preconditions, within)
            _check_data(run, cell, manifest["content"])
            if teacher and cell.seed == 0:
                with run.timed("audit"):
                    measure_mining(run.folder / cell.folder, cell.recipe, teacher, on_progress=within)
            if not ablation.keep_models:
                remove_below(run.folder, run.folder / cell.folder / "model")
                remove_below(run.folder, run.folder / cell.folder / "stages")
        on_progress("cells", len(cells), len(cells))
        if not (shared or ablation.keep_models):
            remove_below(run.folder, shelf.folder)
        _write(run.folder, run.manifest)
        run.finish()
    return run


def check(ablation: Ablation, folder: Path, on_skip: Callable[[str], None] | None = None) -> Preconditions:
    """Return what has looked at every row, if all of them can be carried out and compared.

    Args:
        folder: of the ablation's run.
        on_skip: called, once for each data set, with what of it is left out and what its labels mean.

    Raises:
        InputError, ModelError, SettingsError: a cell could not be carried out, which is named; or its scores could not
            be compared by the metric.
    """
    if ablation.metric not in DEFAULT_METRICS:
        raise SettingsError(
            f"metric: {ablation.metric} is not measured{did_you_mean(ablation.metric, DEFAULT_METRICS)}",
            hint=f"name one of {', '.join(DEFAULT_METRICS)}",
        )
    preconditions = Preconditions(on_skip)
    for cell in cells_of(ablation):
        if cell.seed == 0:
            try:
                data = preconditions.check(cell.recipe, Run.follow(folder / cell.folder))
            except EmbedsmithError as error:
                raise error.within(cell.name) from error
            if not any(one.test or cell.recipe.data[name].is_harvested for name, one in data.items()):
                raise InputError(
                    f"{cell.name}: none of its data is scored on retrieval, and rows are compared by {ablation.metric}",
                    hint="give the recipe data with queries, passages and a test split",
                )
    return preconditions


def write_ablation_report(run: str | Path) -> tuple[Path, dict[str, Any]]:
    """Write RUN/table.json, table.md and report.html; return the page's path, and the table as plain values.

    Raises:
        RunError: the ablation is not finished.
    """
    folder = Path(run)
    return _write(folder, finished(folder))


def _write(folder: Path, manifest: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Write what came out, to be read by programs and by people."""
    table = table_of(folder, Ablation.parse(manifest["settings"], where=str(folder)))
    write_json(folder / "table.json", table.plain())
    with atomic_write(folder / "table.md") as file:
        file.write(in_markdown(table))
    path = folder / "report.html"
    with atomic_write(path) as file:
        file.write(ablation_page(folder, manifest, table))
    return path, table.plain()


def plan(ablation: Ablation) -> list[Planned]:
    """Return what each cell will make, and what it shares with an earlier one; nothing is read or computed.

    Two cells may have more in common than their settings say, such as negatives of two methods that happen to be the
    same: what is made is recognised by its content.
    """
    makers: dict[str, str] = {}
    planned = []
    for cell in cells_of(ablation):
        one = Planned(cell)
        for part, identity in _parts(cell.recipe).items():
            maker = makers.setdefault(f"{part} {fingerprint(identity)}", cell.name)
            if maker == cell.name:
                one.makes.append(part)
            else:
                one.finds[part] = maker
        planned.append(one)
    return planned


def _parts(recipe: Recipe) -> dict[str, Any]:
    """Return what each part of a run depends on, by the settings alone."""
    plain = recipe.model_dump(mode="json")
    mining = plain["mining"]
    candidates = [mining["teachers"], mining["teacher_settings"], mining["depth"]]
    candidates.append(mining["pca_variance"] if mining["ensemble"] == PCA else None)
    parts: dict[str, Any] = {}
    for name, data in plain["data"].items():
        if data["format"] == "documents":  # which are cut to what the student reads
            data = {**data, "student": [plain["student"]["name"], plain["student"]["passage_max_tokens"]]}
        if recipe.data[name].is_harvested:
            parts[f"data {name}"] = data
        parts[f"candidates {name}"] = [data, candidates]
    before: list[Any] = [plain["student"], plain["seed"], mining]
    for stage in plain["stages"]:
        used = {name: data for name, data in plain["data"].items() if not stage["data"] or name in stage["data"]}
        before = [*before, stage, used]
        parts[f"stage {stage['name']}"] = before
    return parts


def _carry_out(
    folder: Path, cell: Cell, shelf: Shelf, preconditions: Preconditions, on_progress: Progress
) -> dict[str, Any]:
    """Carry out one cell unless it is finished, and return its manifest.

    Raises:
        EmbedsmithError: as the recipe's run raises it, with the cell's name.
    """
    if (folder / "manifest.json").is_file():
        manifest = read_manifest(folder)
        if manifest["status"] == "finished" and manifest["settings"] == cell.recipe.model_dump(mode="json"):
            return manifest
    try:
        run = run_recipe(cell.recipe, out=folder, shelf=shelf, preconditions=preconditions, on_progress=on_progress)
        return run.manifest
    except EmbedsmithError as error:
        raise error.within(cell.name) from error


def _check_data(run: Run, cell: Cell, content: dict[str, str]) -> None:
    """Hold a cell to the data that the cells before it had.

    Raises:
        RunError: it has changed meanwhile.
    """
    for name, settings in cell.recipe.data.items():
        for part in (name, f"{name} (test)"):
            if part in content:
                run.same_content(f"{part} {settings.fingerprint()}", content[part])


def _within(cell: Cell, number: int, cells: list[Cell], on_progress: Progress) -> Progress:
    """Return a progress function for the work inside a cell: a note beside the count of cells."""

    def tell(what: str, done: int, total: int, note: str = "") -> None:
        on_progress("cells", number, len(cells), f"{cell.name}: {what} {done:,}/{total:,} {note}".rstrip())

    return tell

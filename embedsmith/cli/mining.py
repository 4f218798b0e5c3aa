"""The commands of mining: mine, select, audit, report, export-negatives."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from embedsmith.cli import console
from embedsmith.cli.app import MOST_SEED, TEACHER_FLAGS, Data, Json, MinedRun, Out, app, typed
from embedsmith.cli.commands import command
from embedsmith.cli.options import Given, settings_of, with_options
from embedsmith.data.columns import ColumnSettings
from embedsmith.data.source import SourceSettings
from embedsmith.mining.dialect_files import DialectSettings
from embedsmith.mining.dialects import DIALECTS
from embedsmith.mining.settings import MiningSettings, SelectionSettings
from embedsmith.progress import duration
from embedsmith.teachers.settings import TeacherSettings

_FLAGS: dict[str, str | None] = {
    "mining.teachers": "teacher",
    "mining.weights": "weight",
    "selection.weights": "weight",
    **TEACHER_FLAGS,
    "source.exclude_qrels": "exclude-qrels",
    "columns.query": "query-column",
    "columns.positive": "positive-column",
    "columns.negative": "negative-column",
    "columns.query_id": "query-id-column",
    "columns.positive_id": "positive-id-column",
    "columns.relevance": "relevance-column",
}


@command(app, device=True, cluster=True, overwrites=True, renamed={"--memory-gib": "--search-memory-gib"})
@with_options(
    flags=_FLAGS,
    first=["mining.teachers", "mining.negatives", "mining.method", "mining.ratio"],
    source=SourceSettings,
    columns=ColumnSettings,
    mining=MiningSettings,
    teacher=TeacherSettings,
)
def mine(
    data: Data,
    out: Out,
    source: Given,
    columns: Given,
    mining: Given,
    teacher: Given,
    as_json: Json = False,
) -> None:
    """Mine hard negatives for your queries: RUN/negatives.jsonl.

    Examples:
        embedsmith mine pairs.jsonl --out runs/mined
        embedsmith mine scifact --teacher bm25 --teacher intfloat/e5-small-v2 --ensemble rrf --out runs/mined
    """
    from embedsmith.mining.mine import mine as mine_run

    with console.progress() as on_progress:
        run = mine_run(
            data,
            out=out,
            settings=settings_of(MiningSettings, mining, teacher_settings=settings_of(TeacherSettings, teacher)),
            source=settings_of(SourceSettings, source, columns=settings_of(ColumnSettings, columns)),
            on_skip=console.note,
            on_plan=console.print_plan,
            on_progress=on_progress,
        )
    _show_mined(run, as_json=as_json)


@command(app, overwrites=True)
@with_options(
    flags=_FLAGS,
    first=["selection.method", "selection.ratio", "selection.margin", "selection.threshold", "selection.negatives"],
    selection=SelectionSettings,
)
def select(
    source: MinedRun,
    out: Out,
    selection: Given,
    target_false_negatives: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Choose ratio, margin or threshold by the audit: the hardest with at most this rate."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Select negatives again, by another method, from what `mine` found. No model is loaded.

    What is not given stays as it was in RUN.

    Examples:
        embedsmith select runs/mined --method marginpos --margin 0.1 --out runs/margin
        embedsmith select runs/mined --target-false-negatives 0.05 --out runs/safe
    """
    from embedsmith.mining.select import select_again

    with console.progress() as on_progress:
        run = select_again(
            source, out=out, changes=selection, target_false_negatives=target_false_negatives, on_progress=on_progress
        )
    settings = run.manifest["settings"]
    if target_false_negatives is not None and not as_json:
        found = run.manifest["counts"]["calibration"]
        console.line(
            f"{settings['method']} ratio {settings['ratio']}, margin {settings['margin']}, threshold "
            f"{settings['threshold']}: false-negative rate {found['false_negative_rate']:.3f}, hardness "
            f"{found['hardness']:.3f}, full rows {found['full_rows']:.2f}"
        )
    _show_mined(run, as_json=as_json)


@command(app)
def audit(
    run: MinedRun,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of the draws.")] = 0,
    draws: Annotated[int, typer.Option(min=1, help="Draws of the positive that is kept; figures are means.")] = 5,
    as_json: Json = False,
) -> None:
    """Measure how many mined negatives are positives after all, for every method side by side.

    Of each query with several positives one is kept and the others are hidden. What is mined and hidden is a false
    negative. No model and no judge is asked.

    Examples:
        embedsmith audit runs/mined
        embedsmith audit runs/recipe/mined/scifact --draws 20
    """
    from embedsmith.mining.select import audit_run

    with console.progress() as on_progress:
        found = audit_run(run, seed=seed, draws=draws, on_progress=on_progress)
    if as_json:
        console.print_json({"run": str(run), "methods": {name: vars(row) for name, row in found.items()}})
        return
    title, (_, *columns), rows = found.figures()
    table = {name: list(figures) for name, *figures in rows}
    console.out.print(console.figures_table(title.replace("audit,", f"audit of {run}:", 1), table, columns))
    folder = shlex.quote(str(run))
    console.next_steps(
        f"{typed()} select {folder} --target-false-negatives 0.05 --out runs/selected",
        f"{typed()} report {folder}",
    )


@command(app)
def report(
    run: Annotated[Path, typer.Argument(help="A run of `mine` or `select`, a recipe's run, or an ablation.")],
    as_json: Json = False,
) -> None:
    """Write RUN/report.html, one page that opens in any browser, without a network.

    Of mining: scores, losses, rules, suspected false negatives and samples to read. Of a recipe's run: scores beside
    the baselines, with intervals, and the queries won and lost. With --json its numbers are printed.

    Examples:
        embedsmith report runs/mined
        embedsmith report runs/quickstart-minilm
    """
    from embedsmith.recipes.report_pages import report as write_report

    with console.progress() as on_progress:
        written = write_report(run, on_progress=on_progress)
    if as_json:
        console.print_json({"run": str(run), "report": str(written), **written.numbers})
        return
    console.line(str(written))
    folder = shlex.quote(str(run))
    if (run / "scores.json").is_file():
        console.next_steps(f"{typed()} compare {folder}")
    elif (run / "negatives.jsonl").is_file():
        console.next_steps(f"{typed()} train {folder} --out runs/model")


@command(app)
@with_options(first=["writing.negatives"], writing=DialectSettings)
def write(
    run: MinedRun,
    out: Annotated[Path, typer.Option(help="File to write; for tevatron and nemo a folder.")],
    writing: Given,
    dialect: Annotated[
        str, typer.Option(metavar=f"[{'|'.join(DIALECTS)}]", help="The library, and its kind of rows.")
    ] = "jsonl",
    as_json: Json = False,
) -> None:
    """Write mined negatives as a file that another training library reads.

    What a dialect cannot say is left out and counted, never filled up.

    Examples:
        embedsmith export-negatives runs/mined --dialect st-triplet --out triplets.parquet
        embedsmith export-negatives runs/mined --dialect flagembedding --out train.jsonl
    """
    from embedsmith.mining.select import write as write_run

    written = write_run(run, out=out, dialect=dialect, settings=settings_of(DialectSettings, writing))
    if as_json:
        same = {} if written.negatives is None else {"negatives": written.negatives, "cut": written.cut}
        console.print_json({"path": str(written.path), "rows": written.rows, "left_out": written.left_out, **same})
        return
    console.line(f"{written.rows:,} rows in {written.path}")
    for reason, number in written.left_out.items():
        console.line(f"left out: {number:,} queries with {reason}")
    if written.cut:
        console.line(
            f"left out: {written.cut:,} negatives beyond {written.negatives} of a query; --negatives asks for more"
        )
    console.next_steps(f"{typed()} train {shlex.quote(str(run))} --out runs/model")


def _show_mined(run: Any, *, as_json: bool) -> None:
    """Show what a run of `mine` or `select` found, and what to do next."""
    counts = run.manifest["counts"]["mining"]
    if as_json:
        calibration = run.manifest["counts"].get("calibration")
        extra = {"settings": run.manifest["settings"], "calibration": calibration} if calibration else {}
        console.print_json({"run": str(run.folder), "seconds": run.seconds, **counts, **extra})
        return
    rare = {"filled up": counts["filled"], "dropped": counts["dropped"]}
    console.line(
        f"{counts['negatives']:,} negatives for {counts['queries']:,} queries: {counts['full']:,} have all "
        f"{run.manifest['settings']['negatives']}, {counts['short']:,} fewer, {counts['none']:,} none"
        + "".join(f", {number:,} {what}" for what, number in rare.items() if number)
        + f" ({duration(run.seconds)})"
    )
    for teacher, recall in run.manifest["counts"].get("recall", {}).items():
        console.line(f"approximate search with {teacher}: recall {recall:.3f} against exact")
    folder = shlex.quote(str(run.folder))
    console.next_steps(f"{typed()} train {folder} --out runs/model", f"{typed()} audit {folder}")

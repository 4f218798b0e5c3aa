"""The commands that score and search: evaluate, search."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedsmith.cli import console
from embedsmith.cli.app import METRICS, Json, app, typed
from embedsmith.cli.commands import command
from embedsmith.cli.options import settings_of, with_options
from embedsmith.data.columns import ColumnSettings
from embedsmith.data.labelled_rows import LabelledColumns
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.models.settings import ChunkSettings
from embedsmith.teachers.settings import TeacherSettings

_FLAGS: dict[str, str | None] = {
    "scoring.metrics": "metric",
    "scoring.positive_labels": "positive-label",
    **{f"columns.{name}": f"{name}-column" for name in LabelledColumns.model_fields},
    # Those of pairs are the same, and are read for both.
    "columns.query": None,
    "columns.positive": None,
    "columns.negative": None,
    **{f"pairs.{name}": f"{name.replace('_', '-')}-column" for name in ColumnSettings.model_fields},
    "pairs.relevant_from": "relevant-from",
    "reading.seed": None,
    "reading.batch_size": "rescoring-batch-size",
    "reading.memory_gib": "search-memory-gib",
}

if TYPE_CHECKING:
    from embedsmith.runs.scores import Scoreboard


@command(
    app,
    device=True,
    cluster=True,
    overwrites=True,
    renamed={"--batch-size": "--rescoring-batch-size", "--memory-gib": "--search-memory-gib"},
)
@with_options(
    flags=_FLAGS,
    first=["scoring.metrics", "scoring.task"],
    scoring=ScoringSettings,
    chunks=ChunkSettings,
    columns=LabelledColumns,
    pairs=ColumnSettings,
    reading=TeacherSettings,
)
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="A run, a folder, a hub id, package:NAME/path, bm25, static:…, cross-encoder:…, a URL, "
            "or a run file of TREC."
        ),
    ],
    data: Annotated[
        list[str] | None,
        typer.Argument(
            help="BEIR folders, files of pairs (JSON lines, Parquet, CSV), folders of labelled texts or pairs. With a "
            "run file, judgements as well."
        ),
    ] = None,
    *,
    scoring: dict[str, Any],
    chunks: dict[str, Any],
    columns: dict[str, Any],
    pairs: dict[str, Any],
    reading: dict[str, Any],
    benchmark: Annotated[
        str | None, typer.Option(help='Benchmark or task of mteb, such as "MTEB(eng, v2)" or SciFact.')
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write scores, each query's and the ranking to; one that was cut short goes on."),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(
            envvar="EMBEDSMITH_VECTORS",
            help="Keep vectors here. By default a run keeps its own, the rest lies in ~/.cache/embedsmith.",
        ),
    ] = None,
    before_and_after: Annotated[
        bool, typer.Option("--before-and-after", help="Score RUN's model and the model it was made of, in one table.")
    ] = False,
    panel: Annotated[
        list[str] | None,
        typer.Option(
            help="With --before-and-after: other data, which training may have cost something. By default stsb, "
            "banking77, stackoverflow_titles and scifact below the folder EMBEDSMITH_DATA, where it has them."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a model or a baseline on retrieval, STS, pair classification, classification, clustering, reranking.

    What the data asks for is found from its columns. Vectors are kept, so a second evaluation costs seconds.

    Examples:
        embedsmith evaluate runs/model scifact --before-and-after
        embedsmith evaluate bm25 pairs.jsonl --metric ndcg@10 --out runs/bm25
        embedsmith evaluate runs/model --benchmark STSBenchmark
    """
    from embedsmith.errors import SettingsError
    from embedsmith.evaluation.before_and_after import before_and_after as compare_with_start
    from embedsmith.evaluation.contender import Contender
    from embedsmith.evaluation.evaluate import evaluate_all, evaluate_into
    from embedsmith.runs.scores import MODEL, read_scores

    if not (data or benchmark or before_and_after):
        raise SettingsError("no data to score it on", hint="name a BEIR folder or a file, or --benchmark NAME")
    if before_and_after and benchmark:
        raise SettingsError("--before-and-after does not run a benchmark", hint="evaluate RUN and its start one by one")
    named = {
        "chunks": settings_of(ChunkSettings, chunks),
        "columns": settings_of(LabelledColumns, columns),
        "pair_columns": settings_of(ColumnSettings, pairs),
    }
    settings = settings_of(ScoringSettings, {**scoring, **named})
    reads = settings_of(TeacherSettings, reading)
    command = shlex.join(["embedsmith", *sys.argv[1:]])
    with console.progress() as tell:
        if before_and_after:
            table = compare_with_start(
                model,
                data or [],
                panel or _default_panel(),
                scoring=settings,
                reading=reads,
                vectors=vectors,
                out=out,
                command=command,
                on_skip=console.note,
                on_progress=tell,
            )
            _show_before_and_after(model, table, as_json=as_json)
            if not as_json:
                _next_of_before_and_after(model, out)
            return
        contender = Contender(model, reading=reads, vectors=vectors, on_progress=tell)
        if out:
            evaluate_into(
                out, contender, data or [], settings, benchmark=benchmark, command=command, on_skip=console.note
            )
            found = read_scores(out)
        else:
            found = evaluate_all(contender, data or [], settings, benchmark=benchmark, on_skip=console.note)
    if as_json:
        means = {"means": found.means[MODEL]} if benchmark else {}
        console.print_json({"scores": found.of_label(MODEL), **means} | ({"run": str(out)} if out else {}))
        return
    _show_scores(model, found, settings.metrics or METRICS)
    if not out:
        console.next_steps(f"{typed()} {shlex.join(sys.argv[1:])} --out runs/scores")
    elif any(found.per_query_files(name) for name in found.scores):
        console.next_steps(f"{typed()} compare {shlex.quote(str(out))} ANOTHER")
    else:
        rest = shlex.join([*(data or []), *(["--benchmark", benchmark] if benchmark else [])])
        console.next_steps(f"{typed()} evaluate ANOTHER {rest} --out {shlex.quote(f'{out}-of-another')}")


def _next_of_before_and_after(model: str, out: Path | None) -> None:
    """Print what to do with a trained model whose gain is known."""
    kept = (
        f"{typed()} compare {shlex.quote(str(out))}" if out else f"{typed()} {shlex.join(sys.argv[1:])} --out runs/gain"
    )
    console.next_steps(kept, f"{typed()} export-model {shlex.quote(model)} --out my-model")


def _default_panel() -> list[str]:
    """Return the data sets of the general panel that EMBEDSMITH_DATA holds."""
    from embedsmith.evaluation.before_and_after import PANEL

    folder = os.environ.get("EMBEDSMITH_DATA")
    return [str(path) for name in PANEL if (path := Path(folder) / name).is_dir()] if folder else []


def _show_scores(model: str, board: Scoreboard, metrics: list[str]) -> None:
    """Print a table for each kind of task and its metrics."""
    kinds: dict[tuple[str, tuple[str, ...]], dict[str, dict[str, float]]] = {}
    for name, labels in board.scores.items():
        task, (score,) = board.data[name].task, labels.values()
        shown = tuple(metrics) if task == "retrieval" else tuple(score.metrics)
        kinds.setdefault((task, shown), {})[name] = score.metrics
    for (task, shown), rows in kinds.items():
        console.out.print(console.scores_table(f"{task.replace('-', ' ')}: {model}", rows, list(shown)))
    for means in board.means.values():
        rows = {name: {"mean": value} for name, value in means.items()}
        console.out.print(console.scores_table("Means over all tasks, over types, and of each type", rows, ["mean"]))


def _show_before_and_after(model: str, table: dict[str, dict[str, Any]], *, as_json: bool) -> None:
    """Print one line for each data set."""
    if as_json:
        console.print_json({"run": model, "before_and_after": table})
        return
    rows = {
        name: [
            row["task"],
            row["metric"],
            f"{row['before']:.3f}",
            f"{row['after']:.3f}",
            f"{row['after'] - row['before']:+.3f}",
        ]
        for name, row in table.items()
    }
    columns = ["task", "metric", "before", "after", "difference"]
    console.out.print(console.figures_table(f"{model} and its start", rows, columns))

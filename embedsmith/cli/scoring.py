"""The commands that score and search: evaluate, search."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedsmith.cli import console
from embedsmith.cli.app import METRICS, Json, app
from embedsmith.cli.options import settings_of, with_options
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.teachers.settings import TeacherSettings

_FLAGS: dict[str, str | None] = {"scoring.metrics": "metric", "reading.seed": None}

if TYPE_CHECKING:
    from embedsmith.pipeline.find import Hit


@app.command()
@with_options(flags=_FLAGS, scoring=ScoringSettings, reading=TeacherSettings)
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="A run, a folder, a hub id, package:NAME/path, bm25, static:…, cross-encoder:…, a URL, "
            "or a run file of TREC."
        ),
    ],
    data: Annotated[
        list[str],
        typer.Argument(
            help="BEIR folders, files of pairs (JSON lines, Parquet, CSV), folders of labelled texts or pairs. With a "
            "run file, judgements as well."
        ),
    ],
    scoring: dict[str, Any],
    reading: dict[str, Any],
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
    as_json: Json = False,
) -> None:
    """Score a model or a baseline on retrieval, STS, pair classification, classification, clustering, reranking.

    What the data asks for is found from its columns. Vectors are kept, so a second evaluation costs seconds.
    """
    from embedsmith.data.files import read_json
    from embedsmith.pipeline.contender import Contender
    from embedsmith.pipeline.evaluate import evaluate_into, score

    settings = settings_of(ScoringSettings, scoring)
    with console.progress() as tell:
        contender = Contender(model, reading=settings_of(TeacherSettings, reading), vectors=vectors, on_progress=tell)
        if out:
            command = shlex.join(["embedsmith", *sys.argv[1:]])
            evaluate_into(out, contender, data, settings, command=command, on_skip=console.note)
            found = read_json(out / "scores.json")
            scores, tasks = found["scores"], {path: about["task"] for path, about in found["data"].items()}
        else:
            scored = {path: score(contender, path, settings, on_skip=console.note) for path in data}
            scores = {path: one.scores.mean for path, one in scored.items()}
            tasks = {path: one.about["task"] for path, one in scored.items()}
    if as_json:
        console.print_json({"scores": scores} | ({"run": str(out)} if out else {}))
        return
    _show_scores(model, scores, tasks, settings.metrics or METRICS)


def _show_scores(model: str, scores: dict[str, dict[str, float]], tasks: dict[str, str], metrics: list[str]) -> None:
    """Print a table for each kind of task."""
    for task in dict.fromkeys(tasks.values()):
        rows = {path: scores[path] for path in scores if tasks[path] == task}
        shown = metrics if task == "retrieval" else list(next(iter(rows.values())))
        console.out.print(console.scores_table(f"{task.replace('-', ' ')}: {model}", rows, shown))


@app.command()
def search(
    run: Annotated[Path, typer.Argument(help="A run with a trained model, such as the quickstart's.")],
    query: Annotated[
        str | None, typer.Argument(help="What to look for, in words. Without it, each line that is typed is a query.")
    ] = None,
    k: Annotated[int, typer.Option("--top", "-k", min=1, help="How many passages.")] = 5,
    data: Annotated[
        Path | None, typer.Option(help="Corpus to search; by default the code the run was made of.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Search the code that a quickstart was made of, with the model that it trained.

    The model is loaded once: without QUERY, every line of the standard input is answered as soon as it is there.
    """
    from embedsmith.pipeline.find import Finder, refuse_empty

    if query is not None:
        refuse_empty(query)
    with console.progress(show=False) as tell:
        finder = Finder(run, data=data, on_progress=tell)
    for asked in [query] if query is not None else console.lines("query> "):
        _show_hits(asked, finder.find(asked, k), as_json=as_json)


def _show_hits(query: str, hits: list[Hit], *, as_json: bool) -> None:
    """Show what was found for a query."""
    if as_json:
        console.print_json({"query": query, "hits": [vars(hit) for hit in hits]})
        return
    for hit in hits:
        where = hit.metadata
        is_code = {"file", "line", "name"} <= where.keys()
        passage = " ".join(hit.text[:100].split())
        place = f"{where['file']}:{where['line']} {where['name']}" if is_code else f"{hit.id}: {passage}"
        console.out.print(f"{hit.score:.3f}  {place}", markup=False)

"""The commands that score and search: evaluate, search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedsmith.cli import console
from embedsmith.cli.app import METRICS, Json, app

if TYPE_CHECKING:
    from embedsmith.pipeline.find import Hit


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A run, a folder, a hub id, package:NAME/path, or bm25.")],
    data: Annotated[list[Path], typer.Argument(help="BEIR folders, or files of pairs (JSON lines, Parquet, CSV).")],
    split: Annotated[str | None, typer.Option(help="Split of a BEIR folder; test where there is one.")] = None,
    vectors: Annotated[Path | None, typer.Option(help="Keep vectors here; a run keeps its own.")] = None,
    as_json: Json = False,
) -> None:
    """Score a model's retrieval: nDCG@10, recall@10, MRR@10."""
    from embedsmith.pipeline.evaluate import evaluate as scores_of

    with console.progress() as tell:
        scores = {
            str(path): scores_of(model, path, split=split, vectors=vectors, on_progress=tell).mean for path in data
        }
    if as_json:
        console.print_json({"scores": scores})
        return
    console.out.print(console.scores_table(f"Scores of {model}", scores, METRICS))


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

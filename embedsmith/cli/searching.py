"""The command that uses a run's model: search, and judging what it finds."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedsmith.cli import console
from embedsmith.cli.app import Json, app, typed
from embedsmith.cli.commands import command
from embedsmith.cli.judging import judge_queries
from embedsmith.cli.places import is_code, place_of
from embedsmith.errors import SettingsError

if TYPE_CHECKING:
    from embedsmith.serving.search import Hit


@command(app, device=True)
def search(
    run: Annotated[Path, typer.Argument(help="A run with a trained model, such as the quickstart's.")],
    query: Annotated[
        str | None, typer.Argument(help="What to look for, in words. Without it, each line that is typed is a query.")
    ] = None,
    k: Annotated[int, typer.Option("--top", "-k", min=1, help="How many passages; with --judge, of each finder.")] = 5,
    data: Annotated[Path | None, typer.Option(help="Corpus to search; by default what the run was made of.")] = None,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="Fuse what the model finds with what BM25 finds.")] = False,
    judge: Annotated[
        bool, typer.Option("--judge", help="Say which of the passages found answer a query: judgements to evaluate on.")
    ] = False,
    queries: Annotated[
        Path | None,
        typer.Option(help="File of queries to judge, as `build --queries` reads it; by default typed ones."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search the code or the documents that a run was made of, with the model that it trained.

    The model is loaded once: without QUERY, every line of the standard input is answered as soon as it is there.

    Examples:
        embedsmith search runs/quickstart-minilm "open a zip file"
        embedsmith search runs/model "error E1234" --data corpus.jsonl --hybrid
        embedsmith search runs/manuals --judge --queries asked.txt
    """
    from embedsmith.serving.search import Finder, refuse_empty

    if judge:
        for flag, is_given in {"--json": as_json, "--hybrid": hybrid}.items():
            if is_given:
                hint = "judge without it: what is said lies in RUN/judged, and BM25's passages are among those shown"
                raise SettingsError(f"{flag} is not for --judge", hint=hint)
        judge_queries(run, query, queries, data=data, each=k)
        return
    if queries is not None:
        raise SettingsError("--queries is for --judge", hint="add --judge, or give the query itself")
    if query is not None:
        refuse_empty(query)
    with console.progress(show=False) as tell:
        finder = Finder(run, data=data, hybrid=hybrid, on_progress=tell)
    for asked in [query] if query is not None else console.lines("query> "):
        _show_hits(asked, finder.find(asked, k), as_json=as_json)
    if query is not None and not as_json:
        place = shlex.join([str(run), *(["--data", str(data)] if data else []), *(["--hybrid"] if hybrid else [])])
        console.next_steps(
            f"{typed()} search {place}", f"{typed()} export-model {shlex.quote(str(run))} --out my-model"
        )


def _show_hits(query: str, hits: list[Hit], *, as_json: bool) -> None:
    """Show what was found for a query."""
    if as_json:
        console.print_json({"query": query, "hits": [vars(hit) for hit in hits]})
        return
    for hit in hits:
        passage = "" if is_code(hit) else f": {' '.join(hit.text[:100].split())}"
        console.line(f"{hit.score:.3f}  {place_of(hit)}{passage}")

"""The command that goes from a folder of documents to a model: build."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from embedsmith.cli import console
from embedsmith.cli.app import Json, Seed, app
from embedsmith.cli.commands import command
from embedsmith.cli.recipes import Changes, DryRun, Minutes, planned_recipe, refuse_without, show_run
from embedsmith.models.settings import MINILM

_SHOWN_REASONS = 5


@command(app, device=True, cluster=True, overwrites=True)
def build(
    docs: Annotated[
        str,
        typer.Argument(
            metavar="DOCS",
            help="Folder of documents: text, Markdown, reStructuredText, HTML, PDF, DOCX, EPUB, CSV, JSON lines, mail, "
            "source code; each may be packed as .gz, .bz2 or .xz.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Run folder to write; one that was cut short goes on.")] = None,
    queries: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Your own queries, scored apart: text (behind a tab the file that answers), or JSON lines or CSV with "
            "query and answer.",
        ),
    ] = None,
    generators: Annotated[
        list[str] | None,
        typer.Option(
            "--generator",
            metavar="MODEL",
            help="Language model that writes queries for the passages too: a hub id, a folder, package:NAME/path, a "
            "GGUF file, or https://HOST/v1#MODEL. Give it again for several, which take turns.",
        ),
    ] = None,
    student: Annotated[
        str, typer.Option(metavar="MODEL", help="Model to train, which finds the negatives too.")
    ] = MINILM,
    changes: Changes = None,
    minutes: Minutes = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Build a search model for a folder of documents: read, cut, pair, mine, train, evaluate.

    Pairs come from how the documents are written: headings and their sections, questions and answers, links, terms,
    sentences and where they stand, comments and code. Evaluation is on files never seen.

    Examples:
        embedsmith build manuals --out runs/manuals --minutes 10
        embedsmith build manuals --out runs/asked --queries asked.txt --set stages.0.steps=300
        embedsmith build manuals --dry-run
    """
    from embedsmith.models.devices import has_cuda
    from embedsmith.recipes.build import build_recipe
    from embedsmith.recipes.run import run_recipe

    refuse_without(out, dry_run=dry_run)
    recipe = build_recipe(
        docs,
        queries=queries,
        generators=generators or [],
        student=student,
        seed=seed,
        on_gpu=has_cuda(),
        changes=changes or [],
    )
    recipe, planned = planned_recipe(recipe, minutes, out, dry_run=dry_run, as_json=as_json)
    if dry_run:
        return
    assert out
    with console.progress() as on_progress:
        run = run_recipe(
            recipe, out=out, command="build", planned=planned, on_skip=console.note, on_progress=on_progress
        )
    for name in recipe.data:
        show_harvest(run.folder / "data" / name, verbose=console.is_verbose())
        if written := run.manifest["counts"].get(f"written {name}"):
            kept = f"{written['queries']:,} queries written for {written['asked']:,} passages"
            console.line_beside(f"{kept}; rejected: {_counted(written['rejected']) or 'none'}")
        if not as_json and (run.folder / "data" / name / "done.json").is_file():
            show_sources(run.folder, name)
    show_run(run, as_json=as_json, search_hint=example_query(run.folder, next(iter(recipe.data))))


def show_sources(run: Path, name: str) -> None:
    """Show the scores on the queries of each source."""
    from embedsmith.recipes.by_source import METRIC, scores_by_source
    from embedsmith.runs.scores import HYBRID

    found = scores_by_source(run, name)
    labels = list(dict.fromkeys(label for one in found.values() for label in one.scores))
    last = ("before", "after", HYBRID)
    order = [*(label for label in labels if label not in last), *last]
    order = [label for label in order if label in labels]
    rows = {
        source: [f"{one.queries:,}", *(f"{one.scores[label]:.3f}" for label in order)] for source, one in found.items()
    }
    console.out.print(console.figures_table(f"{METRIC} by the source of the query", rows, ["queries", *order]))


def show_harvest(folder: Path, *, verbose: bool) -> None:
    """Say beside the results how many files were read, which were not and why, and what came of them."""
    from embedsmith.data.files import read_json, read_jsonl
    from embedsmith.recipes.harvested import count_by_source

    path = folder / "done.json"
    if not path.is_file():  # data of another format, which a change has put in their place
        return
    done = read_json(path)
    skipped, counts = done["skipped"], done.get("counts", {})
    for line in _lines(skipped, counts, verbose=verbose):
        console.line_beside(line)
    if (lost := folder / "not_found.jsonl").is_file():
        by_source = count_by_source(str(row["_id"]) for _, row in read_jsonl(lost))
        console.line_beside(f"not found again by the teacher, and not trained on: {_counted(by_source) or 'none'}")
    for row in skipped if verbose else ():
        place = row["path"] if row["line"] is None else f"{row['path']}:{row['line']}"
        console.line_beside(f"  {place}: {row['reason']}")
    for file in done.get("read_in_part", []) if verbose else ():
        console.line_beside(f"  {file}: its beginning was read")


def _lines(skipped: list[dict[str, Any]], counts: dict[str, Any], *, verbose: bool) -> list[str]:
    """Return what is said of a harvest of documents, one line for files, passages and pairs each."""
    of_them = {"in part": counts.get("files_read_in_part", 0), "unpacked": counts.get("files_unpacked", 0)}
    said = [f"{count:,} {how}" for how, count in of_them.items() if count]
    read = f"{counts.get('files_read', 0):,} files read" + (f" ({', '.join(said)})" if said else "")
    reasons = Counter(row["reason"] for row in skipped)
    skips = "; ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(_SHOWN_REASONS))
    rest = reasons.total() - sum(count for _, count in reasons.most_common(_SHOWN_REASONS))
    other = f"; {rest:,} for other reasons" if rest else ""
    more = "" if verbose else " (--verbose names them)"
    lines = [f"{read}, {len(skipped):,} not: {skips}{other}{more}" if skipped else read]
    if "passages" in counts:
        lines.append(
            f"{counts['passages']:,} passages; {counts['copies']:,} copies of them and {counts['near_copies']:,} near "
            "copies found"
        )
        if everything := counts.get("all_passages"):
            lines.append(f"these are of some files, drawn at random; search is over all {everything:,} passages")
        lines.append(f"pairs found: {_counted(counts['pairs'])}")
        lines.append(f"queries to train on: {_counted(counts['trained_on'])}")
    return lines


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {source}" for source, count in counts.items())


def example_query(folder: Path, name: str) -> str:
    """Return something to search for in what a run was made of: a query of its test."""
    from embedsmith.data.files import read_jsonl

    path = folder / "data" / name / "test" / "queries.jsonl"
    if not path.is_file():
        return ""
    _, first = next(read_jsonl(path))
    return str(first["text"])

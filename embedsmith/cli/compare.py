"""The command that compares two runs query by query: compare."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from embedsmith.cli import console
from embedsmith.cli.app import MOST_SEED, Json, app, typed
from embedsmith.cli.commands import command

_SHOWN_CHARACTERS = 66


@command(app, renamed={"--against": "--baseline"})
def compare(
    run_a: Annotated[Path, typer.Argument(help="A recipe's run, or a folder that `evaluate --out` wrote.")],
    run_b: Annotated[
        Path | None,
        typer.Argument(help="Another. Without it: the trained model of RUN_A against what else that run scored."),
    ] = None,
    metric: Annotated[str, typer.Option(help="A metric that was measured.")] = "ndcg@10",
    baseline: Annotated[
        str, typer.Option(help="With one run: what its trained model is held against: before, teacher, bm25.")
    ] = "before",
    show: Annotated[int, typer.Option(min=0, help="Queries to read, of those lost and of those won.")] = 5,
    seed: Annotated[
        int, typer.Option(min=0, max=MOST_SEED, help="Seed of the bootstrap and of the randomisation test.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Compare two runs on the same queries: difference, interval, p value, the queries won and lost.

    The interval is a paired bootstrap's, the p value a randomisation test's, both over queries.

    Examples:
        embedsmith compare runs/model
        embedsmith compare runs/scores-before runs/scores-after --metric recall@10
    """
    from embedsmith.evaluation.compare import compare as compared

    found = compared(run_a, run_b, metric=metric, against=baseline, shown=show, seed=seed)
    if as_json:
        console.print_json({"comparisons": [dataclasses.asdict(one) for one in found]})
        return
    for one in found:
        _show(one)
    runs = [str(run) for run in (run_a, run_b) if run]
    others = [name for name in _measured(runs[0]) if name != metric and all(name in _measured(run) for run in runs)]
    again = shlex.join([*runs, *(["--baseline", baseline] if baseline != "before" else [])])
    more = f"--metric {others[0]}" if others else f"--show {show + 20}"
    console.next_steps(
        *([f"{typed()} report {shlex.quote(str(run_a))}"] if run_b is None and _has_page(run_a) else []),
        f"{typed()} compare {again} {more}",
    )


def _measured(run: str) -> list[str]:
    """Return the metrics that a run has measured on all of its data."""
    from embedsmith.runs.scores import read_scores

    found = [list(metrics) for labels in read_scores(Path(run)).metrics().values() for metrics in labels.values()]
    return [name for name in found[0] if all(name in metrics for metrics in found)]


def _has_page(run: Path) -> bool:
    """Return whether `report` writes a page of scores of a run: of a recipe's."""
    from embedsmith.runs.run import read_manifest

    return read_manifest(run)["command"] in ("build", "quickstart", "train")


def _show(one: Any) -> None:
    """Show one comparison."""
    difference = one.difference
    on = f" on {one.data}" if one.data else ""
    lines = [
        f"{one.metric}{on}, {difference.queries:,} queries",
        f"  A {difference.a:.4f}  {one.a}",
        f"  B {difference.b:.4f}  {one.b}",
        f"  B − A {difference.mean:+.4f}, 95% interval {difference.low:+.4f} to {difference.high:+.4f}, "
        f"p {in_words(difference.p)}",
        f"  B is better on {difference.wins:,} queries, worse on {difference.losses:,}, equal on {difference.ties:,}",
    ]
    for line in lines:
        console.line(line)
    for title, queries in (("B lost most on", one.losses), ("B won most on", one.wins)):
        if queries:
            console.line(f"{title}:")
        for query in queries:
            console.line(f"  {query.a:.3f} → {query.b:.3f}  {_short(query.query or query.query_id)}")
            for label, ranked in (("A first", query.first_a), ("B first", query.first_b), ("answer", query.answer)):
                if ranked:
                    text = _short(f"{ranked.id}: {ranked.text}" if ranked.text else ranked.id)
                    console.line(f"    {label:>7}  {text}")


def in_words(p: float) -> str:
    """Return a p value in as many digits as tell something.

    >>> in_words(0.03412), in_words(0.00009999)
    ('0.034', '< 0.001')
    """
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _short(text: str) -> str:
    """Return a text in one line of a readable length."""
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"

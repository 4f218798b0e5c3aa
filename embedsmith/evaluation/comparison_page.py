"""The page of a recipe's run: scores beside the baselines, differences of single queries, what was won and lost."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from embedsmith.data.files import atomic_write
from embedsmith.errors import RunError
from embedsmith.evaluation.compare import METRIC, Comparison, QueryDifference, Side, compare_sides, sides_of
from embedsmith.evaluation.per_query import read_per_query
from embedsmith.evaluation.significance import compare_paired, holm, mean_interval
from embedsmith.pages.charts import Dots, Series, dots_svg, histogram_svg
from embedsmith.pages.page import render, shortened
from embedsmith.runs.run import read_manifest
from embedsmith.runs.scores import MODEL, read_scores

_BINS = 20


def write_evaluation_report(run: str | Path) -> tuple[Path, dict[str, Any]]:
    """Write RUN/report.html; return its path, and the numbers that are in it as plain values.

    Args:
        run: a recipe's run that scored its trained model.

    Raises:
        RunError: nothing was scored.
    """
    folder = Path(run)
    manifest = read_manifest(folder)
    board = read_scores(folder)
    if not any(label != MODEL for name in board.scores for label in board.per_query_files(name)):
        raise RunError(f"{folder}: nothing was scored", hint="give the recipe data with a test split, and run it again")
    found = [_measured(side) for side in sides_of(folder)]
    path = folder / "report.html"
    with atomic_write(path) as file:
        file.write(
            render(
                Path(__file__).with_name("comparison.html"),
                version=manifest["versions"].get("embedsmith", "?"),
                name=manifest["settings"].get("name", folder.resolve().name),
                folder=folder.resolve().name,
                versions=", ".join(f"{name} {version}" for name, version in manifest["versions"].items()),
                metric=METRIC,
                data=[_shown(one) for one in found],
            )
        )
    return path, {"metric": METRIC, "data": {one["data"]: _plain(one) for one in found}}


def _measured(side: Side) -> dict[str, Any]:
    """Return every score on one data set with its interval, and the trained model's difference from each."""
    labels = side.labels
    stages = [label for label in labels if label.startswith("after ")]
    last = [label for label in ("before", *stages, "after") if label in labels]
    order = [*(label for label in labels if label not in last), *last]
    scores = {label: read_per_query(side.labelled(label).path) for label in order}
    after = scores["after"].values(METRIC)
    paired = {label: own.values(METRIC)[own.rows_of(scores["after"])] for label, own in scores.items()}
    others = {label: compare_paired(own, after) for label, own in paired.items() if label != "after"}
    corrected = dict(zip(others, holm([one.p for one in others.values()]), strict=True))
    against = next((label for label in ("before", "teacher") if label in others), next(iter(others), None))
    return {
        "data": side.data,
        "queries": len(after),
        "scores": {
            label: {
                **{name: float(values.mean()) for name, values in own.metrics.items()},
                "interval": mean_interval(own.values(METRIC)),
                "difference": others.get(label),
                "p": corrected.get(label),
            }
            for label, own in scores.items()
        },
        "against": against,
        "differences": after - paired[against] if against else np.zeros(0),
        "comparison": _against(side, against) if against else None,
    }


def _against(side: Side, label: str) -> Comparison:
    """Return the trained model compared with what else its run scored."""
    return compare_sides(side.labelled(label), side, metric=METRIC)


def _plain(one: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of one data set as plain values."""
    scores = {
        label: {
            **row,
            "interval": asdict(row["interval"]),
            "difference": asdict(row["difference"]) if row["difference"] else None,
        }
        for label, row in one["scores"].items()
    }
    return {"queries": one["queries"], "scores": scores, "against": one["against"]}


def _shown(one: dict[str, Any]) -> dict[str, Any]:
    """Return what the page shows of one data set."""
    comparison = one["comparison"]
    others = (METRIC, "interval", "difference", "p")
    metrics = [name for name in one["scores"]["after"] if name not in others]
    return {
        "data": one["data"],
        "queries": one["queries"],
        "metrics": metrics,
        "scores": one["scores"],
        "against": one["against"],
        "summary": _in_words(one),
        "chart": _dots(one),
        "histogram": _histogram(one["differences"]) if comparison and np.any(one["differences"]) else "",
        "difference": comparison.difference if comparison else None,
        "groups": [
            ("Lost most", [_query(query, one["against"]) for query in comparison.losses]),
            ("Won most", [_query(query, one["against"]) for query in comparison.wins]),
        ]
        if comparison
        else [],
    }


def _in_words(one: dict[str, Any]) -> str:
    """Return in a sentence what training did."""
    if one["against"] is None:
        return f"{METRIC} of the trained model: {one['scores']['after'][METRIC]:.4f}. Nothing else was scored."
    difference, p = (one["scores"][one["against"]][key] for key in ("difference", "p"))
    what = "the student before training" if one["against"] == "before" else f"the {one['against']}"
    sign = "above" if difference.mean > 0 else "below"
    if p >= 0.05:
        return f"No difference from {what} beyond chance: {difference.mean:+.4f} {METRIC}, p {p:.2f}."
    return (
        f"{abs(difference.mean):.4f} {METRIC} {sign} {what}, 95% interval {difference.low:+.4f} to "
        f"{difference.high:+.4f}: better on {difference.wins:,} queries, worse on {difference.losses:,}, equal on "
        f"{difference.ties:,}."
    )


def _dots(one: dict[str, Any]) -> str:
    """Return every score with its interval."""
    rows = [
        Dots(label, row["interval"].mean, row["interval"].low, row["interval"].high)
        for label, row in one["scores"].items()
    ]
    caption = "; ".join(f"{row.name} {row.mean:.4f}" for row in rows)
    return dots_svg(f"{METRIC} on {one['data']}: {caption}", rows, x_label=METRIC)


def _histogram(differences: Float64[np.ndarray, " Q"]) -> str:
    """Return the differences of single queries, those without one left out."""
    moved = differences[np.abs(differences) > 1e-9]
    counts, edges = np.histogram(moved, bins=_BINS, range=(-1, 1))
    return histogram_svg(
        f"Difference in {METRIC} of each query: {len(moved):,} queries moved.",
        edges.round(2).tolist(),
        [Series("queries", counts.tolist())],
        x_label=f"difference in {METRIC}",
        y_label="queries",
        marks=[(0.0, "0: equal")],
    )


def _query(query: QueryDifference, against: str) -> dict[str, Any]:
    """Return a query to read."""
    return {
        "id": query.query_id,
        "text": shortened(query.query) if query.query else None,
        "a": query.a,
        "b": query.b,
        "passages": [
            {
                "label": label,
                "id": ranked.id,
                "text": shortened(ranked.text or ""),
                "is_answer": query.answer is not None and query.answer.id == ranked.id,
            }
            for label, ranked in (
                ("First before" if against == "before" else f"First by {against}", query.first_a),
                ("First now", query.first_b),
                ("An answer", query.answer),
            )
            if ranked
        ],
    }

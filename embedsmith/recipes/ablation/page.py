"""The page of an ablation: the table, a drawing of it, and what each row changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from embedsmith.pages.charts import Dots, Point, dots_svg, line_svg
from embedsmith.pages.page import render
from embedsmith.progress import duration
from embedsmith.recipes.ablation.grid import in_words as value_in_words
from embedsmith.recipes.ablation.table import Row, Table, cells_in_words, columns_of, in_words

_LINE = 3
"""Points of a line, at least."""


def ablation_page(folder: Path, manifest: dict[str, Any], table: Table) -> str:
    """Return the page."""
    return render(
        Path(__file__).with_name("ablation.html"),
        version=manifest["versions"].get("embedsmith", "?"),
        name=table.name,
        folder=folder.resolve().name,
        said=in_words(table),
        columns=columns_of(table),
        rows=[_row(table, row) for row in table.rows],
        first=table.rows[0].name,
        chart=_chart(table),
        sweeps=_sweeps(table),
        seeds=table.seeds,
        detectable=None if table.detectable is None else f"{table.detectable:.4f}",
        recipe=yaml.safe_dump(manifest["settings"]["recipe"], sort_keys=False, allow_unicode=True),
        versions=", ".join(f"{name} {version}" for name, version in table.versions.items()),
        time=duration(sum(manifest["seconds"].values())),
    )


def _row(table: Table, row: Row) -> dict[str, Any]:
    """Return what the page shows of a row."""
    return {
        "name": row.name,
        "cells": cells_in_words(table, row)[1:],
        "significant": row.is_significant,
        "changes": [f"{name}: {value_in_words(value)}" for name, value in row.changes.items()],
        "metrics": row.metrics,
        "time": duration(row.seconds),
    }


def sweeps_of(rows: Sequence[Row]) -> list[tuple[str, str, list[tuple[float, Row]]]]:
    """Return every group of three rows or more that differ in one number: its setting, what they share, the rows.

    A grid has a group for each line in it.
    """
    found: dict[tuple[str, str], list[tuple[float, Row]]] = {}
    for row in rows:
        for name, value in row.changes.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                others = (f"{other}: {value_in_words(own)}" for other, own in row.changes.items() if other != name)
                found.setdefault((name, "; ".join(sorted(others))), []).append((float(value), row))
    return [
        (name, shared, sorted(points, key=lambda point: point[0]))
        for (name, shared), points in found.items()
        if len(points) >= _LINE
    ]


def _sweeps(table: Table) -> list[dict[str, str]]:
    """Return a line for each number that is swept."""
    first = table.rows[0]
    drawn = []
    for name, shared, points in sweeps_of(table.rows):
        caption = ", ".join(f"{value:g} {row.mean:.4f}" for value, row in points)
        # What is on the line needs no mark beside it.
        mark = None if any(row is first for _, row in points) else first.mean
        line = [Point(value, row.mean, row.deviation, row.seeds if len(row.seeds) > 1 else ()) for value, row in points]
        drawing = line_svg(f"{table.metric} by {name}: {caption}", line, x_label=name, y_label=table.metric, mark=mark)
        drawn.append({"name": name, "shared": shared, "drawing": drawing})
    return drawn


def _chart(table: Table) -> str:
    """Return each row's mean with the interval of its difference from the first row."""
    first = table.rows[0].mean
    rows = []
    for row in table.rows:
        difference = row.difference
        low, high = (first + difference.low, first + difference.high) if difference else (row.mean, row.mean)
        rows.append(Dots(row.name, row.mean, low, high, row.seeds if len(row.seeds) > 1 else ()))
    caption = "; ".join(f"{row.name} {row.mean:.4f}" for row in table.rows)
    return dots_svg(f"{table.metric}: {caption}", rows, x_label=table.metric, mark=first)

"""The page of an ablation: the table, a drawing of it, and what each row changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from embedsmith.pipeline.ablation import in_words as value_in_words
from embedsmith.pipeline.ablation_table import Row, Table, cells_in_words, columns_of, in_words
from embedsmith.pipeline.charts import Dots, dots_svg
from embedsmith.pipeline.page import render


def ablation_page(folder: Path, manifest: dict[str, Any], table: Table) -> str:
    """Return the page."""
    return render(
        "ablation_report.html",
        version=manifest["versions"]["embedsmith"],
        name=table.name,
        folder=folder.resolve().name,
        said=in_words(table),
        columns=columns_of(table),
        rows=[_row(table, row) for row in table.rows],
        first=table.rows[0].name,
        chart=_chart(table),
        seeds=table.seeds,
        detectable=f"{table.detectable:.4f}",
        recipe=yaml.safe_dump(manifest["settings"]["recipe"], sort_keys=False, allow_unicode=True),
        versions=", ".join(f"{name} {version}" for name, version in table.versions.items()),
        seconds=sum(manifest["seconds"].values()),
    )


def _row(table: Table, row: Row) -> dict[str, Any]:
    """Return what the page shows of a row."""
    return {
        "name": row.name,
        "cells": cells_in_words(table, row)[1:],
        "significant": row.is_significant,
        "changes": [f"{name}: {value_in_words(value)}" for name, value in row.changes.items()],
        "metrics": row.metrics,
        "seconds": row.seconds,
    }


def _chart(table: Table) -> str:
    """Return each row's mean with the interval of its difference from the first row."""
    first = table.rows[0].mean
    rows = []
    for row in table.rows:
        difference = row.difference
        low, high = (first + difference.low, first + difference.high) if difference else (row.mean, row.mean)
        rows.append(Dots(row.name, row.mean, low, high, row.seeds if len(row.seeds) > 1 else ()))
    told = "; ".join(f"{row.name} {row.mean:.4f}" for row in table.rows)
    return dots_svg(f"{table.metric}: {told}", rows, x_label=table.metric, mark=first)

"""The page of a run, whichever command made it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedsmith.evaluation.comparison_page import write_evaluation_report
from embedsmith.mining.page import write_mining_report
from embedsmith.progress import Progress, silent
from embedsmith.recipes.ablation.ablate import write_ablation_report
from embedsmith.runs.run import read_manifest


def write_page(run: str | Path, *, on_progress: Progress = silent) -> tuple[Path, dict[str, Any]]:
    """Write RUN/report.html; return its path, and the numbers that are in it as plain values.

    Args:
        run: a finished run of `mine` or `select`, a recipe's run, or an ablation.
        on_progress: called with the progress of the work.

    Raises:
        InputError, RunError: the run is missing or unfinished, or has nothing to show.
    """
    match read_manifest(run)["command"]:
        case "ablate":
            return write_ablation_report(run)
        case "quickstart" | "train":
            return write_evaluation_report(run)
        case _:
            return write_mining_report(run, on_progress=on_progress)

"""The page of a run, whichever command made it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from embedsmith.evaluation.comparison_page import write_evaluation_report
from embedsmith.mining.page import write_mining_report
from embedsmith.pages.bars import draws_bars
from embedsmith.progress import Progress, silent
from embedsmith.recipes.ablation.ablate import write_ablation_report
from embedsmith.runs.run import read_manifest


@dataclass(frozen=True)
class Report:
    """A page that was written: `print` names its file, a notebook shows it."""

    path: Path
    numbers: dict[str, Any]
    """What the page shows, as plain values."""

    def __str__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        # In a frame the page keeps its own styles, and the notebook its own.
        page = escape(self.path.read_text(encoding="utf-8"))
        return f'<iframe sandbox srcdoc="{page}" style="width: 100%; height: 40em; border: 0"></iframe>'


@draws_bars
def report(run: str | Path, *, on_progress: Progress = silent, progress: bool = True) -> Report:
    """Write RUN/report.html, one page that opens in any browser, without a network.

    Args:
        run: a finished run of `mine` or `select`, a recipe's run, or an ablation.
        on_progress: called with the progress of the work, in place of bars.
        progress: draw bars, where there is a terminal or a notebook.

    Raises:
        InputError, RunError: the run is missing or unfinished, or has nothing to show.
    """
    return Report(*write_page(run, on_progress=on_progress))


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
        case "build" | "quickstart" | "train":
            return write_evaluation_report(run)
        case _:
            return write_mining_report(run, on_progress=on_progress)

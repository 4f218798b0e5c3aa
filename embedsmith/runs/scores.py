"""The scores of a recipe's run, as it keeps them.

RUN/scores.json    data set -> what was scored -> metric -> value
"""

from __future__ import annotations

from pathlib import Path

from embedsmith.data.files import read_json
from embedsmith.data.plain_values import are_numbers
from embedsmith.errors import RunError

RunScores = dict[str, dict[str, dict[str, float]]]


def scores_path(run: Path) -> Path:
    """Return the file of a run's scores."""
    return run / "scores.json"


def read_run_scores(run: Path) -> RunScores:
    """Return what a recipe's run has scored so far: data set -> what was scored -> metric -> value.

    Raises:
        InputError: the file is not JSON.
        RunError: it holds something else.
    """
    path = scores_path(run)
    found: RunScores = read_json(path) if path.is_file() else {}
    if found != {} and not are_numbers(found, depth=3):
        raise RunError(
            f"{path}: no scores by data set, model and metric",
            hint="remove it and run again: in the same folder if the run was cut short, else with another --out",
        )
    return found

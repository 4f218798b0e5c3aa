"""What the mined negatives of an ablation's cells are like: how hard, and how many are false.

CELL/mined/figures.json    data set -> its figures, written once
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from embedsmith.data.files import read_json, write_json
from embedsmith.data.plain_values import is_number
from embedsmith.errors import InputError, RunError
from embedsmith.mining.audit import audit
from embedsmith.mining.candidates import read_candidates
from embedsmith.mining.mine import near_of
from embedsmith.mining.samplers import NONE
from embedsmith.mining.select import Mined
from embedsmith.mining.selection import OUTCOMES, select
from embedsmith.mining.settings import MiningSettings
from embedsmith.progress import Progress, silent
from embedsmith.recipes.ablation.grid import Ablation, with_changes
from embedsmith.recipes.data import training_side
from embedsmith.recipes.recipe import Recipe


@dataclass(frozen=True)
class MiningFigures:
    """One data set's mined negatives."""

    hardness: float | None
    """Mean score of the negatives by one teacher for all rows; None where it has not scored them."""
    false_negatives: float | None
    """Share of hidden positives among the negatives, by the audit; None where no query has several positives."""


def varies_mining(ablation: Ablation) -> bool:
    """Return whether the rows of an ablation mine differently."""
    return len({mining.fingerprint() for mining in _minings(ablation)}) > 1


def teacher_of_hardness(ablation: Ablation) -> str:
    """Return the teacher that most rows have: scores of two teachers share no scale."""
    return Counter(name for mining in _minings(ablation) for name in mining.teachers).most_common(1)[0][0]


def measure_mining(cell: Path, recipe: Recipe, teacher: str, *, on_progress: Progress = silent) -> None:
    """Write the figures of a cell's mined negatives, once.

    Args:
        cell: the folder of its run.
        teacher: the one whose scores say how hard a negative is.
    """
    path = _path(cell)
    if not path.is_file():
        names = [name for name in recipe.data if (cell / "mined" / name / "candidates").is_dir()]
        found = {name: asdict(_measured(_mined(cell, recipe, name), teacher, on_progress)) for name in names}
        write_json(path, found)


def read_mining(cell: Path) -> dict[str, MiningFigures]:
    """Return the figures of a cell's mined negatives by data set; nothing where they were not measured.

    Raises:
        InputError, RunError: the file holds something else.
    """
    path = _path(cell)
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict) or not all(map(_are_figures, found.values())):
        raise RunError(
            f"{path}: no figures of mined negatives", hint="remove it, and give the ablation's command again with --out"
        )
    return {name: MiningFigures(**own) for name, own in found.items()}


def _are_figures(own: Any) -> bool:
    """Return whether a value holds the figures of one data set."""
    names = {field.name for field in fields(MiningFigures)}
    return (
        isinstance(own, dict)
        and own.keys() == names
        and all(value is None or is_number(value) for value in own.values())
    )


def _path(cell: Path) -> Path:
    return cell / "mined" / "figures.json"


def _minings(ablation: Ablation) -> list[MiningSettings]:
    return [with_changes(ablation.recipe, changes).mining for changes in ablation.rows.values()]


def _mined(cell: Path, recipe: Recipe, name: str) -> Mined:
    """Return what a cell mined of one data set."""
    collection, listed = training_side(cell, name, recipe.data[name])
    return Mined(cell, recipe.mining, collection, read_candidates(cell / "mined" / name / "candidates"), listed)


def _measured(mined: Mined, teacher: str, on_progress: Progress) -> MiningFigures:
    """Return the figures of one data set."""
    candidates, settings = mined.candidates, mined.settings
    listed, near = mined.excluded(settings), near_of(mined.candidates, mined.collection, settings, on_progress)
    selection = select(candidates, settings, listed=listed, near=near)
    kept = (selection.places != NONE) & (selection.outcome != OUTCOMES.index("dropped"))[:, None]
    hardness = None
    if teacher in candidates.teachers and kept.any():
        row, column = np.nonzero(kept)
        scores = candidates.scores[candidates.teachers.index(teacher)]
        known = scores[selection.row_query[row], selection.places[row, column]]
        known = known[~np.isnan(known)]
        hardness = float(known.mean()) if len(known) else None
    try:
        ways = audit(candidates, {"": settings}, listed=listed, near=near, on_progress=on_progress)
        rate = ways[""].false_negative_rate
    except InputError:
        rate = None
    return MiningFigures(hardness, rate)

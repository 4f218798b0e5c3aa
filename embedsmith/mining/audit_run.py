"""Auditing a mining run: what is each method worth on its data?"""

from __future__ import annotations

from pathlib import Path

from embedsmith.mining.audit import DRAWS, Audit, audit, side_by_side
from embedsmith.mining.mine import near_of, read_mined
from embedsmith.progress import Progress, silent


def audit_run(
    run: str | Path, *, seed: int = 0, draws: int = DRAWS, on_progress: Progress = silent
) -> dict[str, Audit]:
    """Return the hold-out audit of every method, and of the run's own settings as `this run`.

    Args:
        run: a finished run of `mine` or `select`.
        seed: of the draws of the positives that are kept.
        draws: how many.
        on_progress: told of the draws.

    Raises:
        InputError: no query has several positives.
        RunError: the run is missing, unfinished or of another command.
    """
    mined = read_mined(run)
    near = near_of(mined.candidates, mined.collection, mined.settings, on_progress)
    ways = side_by_side(mined.settings)
    listed = mined.excluded(mined.settings)
    return audit(mined.candidates, ways, listed=listed, near=near, seed=seed, draws=draws, on_progress=on_progress)

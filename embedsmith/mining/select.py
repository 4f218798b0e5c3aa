"""Runs that mined, read again: selected from, audited, and written in the form that another training library reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedsmith.data.collection import Collection
from embedsmith.data.locks import writes_out
from embedsmith.data.source import SourceSettings
from embedsmith.data.tables import HUB
from embedsmith.errors import InputError, RunError, SettingsError
from embedsmith.mining.audit import DRAWS, Audits, audit, calibrate, side_by_side
from embedsmith.mining.candidates import Candidates, read_candidates
from embedsmith.mining.dialect_files import DialectSettings
from embedsmith.mining.dialects import ExampleFile, Written, write_dialect
from embedsmith.mining.exclusions import Listed
from embedsmith.mining.mine import exclusions_of, hash_of_listed, near_of, read_source, with_given, write_selection
from embedsmith.mining.results import MiningRun
from embedsmith.mining.selection import select
from embedsmith.mining.settings import MiningSettings, SelectionSettings
from embedsmith.mining.verdicts import excluded_by, false_negatives, write_false_negatives
from embedsmith.pages.bars import draws_bars
from embedsmith.progress import Progress, silent
from embedsmith.runs.lineage import selected_from
from embedsmith.runs.mined import read_false_negatives
from embedsmith.runs.origin import CANDIDATES, check_origin, content_of
from embedsmith.runs.run import finished, read_manifest
from embedsmith.settings import fingerprint


@dataclass(frozen=True)
class Mined:
    """A finished run of `mine` or `select`, read again."""

    folder: Path
    settings: SelectionSettings
    collection: Collection
    candidates: Candidates
    listed: Listed
    """What the source's settings exclude."""

    def excluded(self, settings: SelectionSettings) -> Listed:
        """Return all that some settings exclude beside the known positives."""
        return with_given(self.listed, self.collection, settings)


@draws_bars
def select_again(
    source: str | Path,
    *,
    out: str | Path,
    changes: dict[str, Any] | None = None,
    target_false_negatives: float | None = None,
    on_progress: Progress = silent,
    progress: bool = True,
) -> MiningRun:
    """Select negatives from the candidates of a run with other settings, into another run folder.

    Args:
        source: a finished run of `mine` or `select`.
        changes: the settings that differ from the source's.
        target_false_negatives: choose the ceiling by the audit, the highest with at most this rate.
        on_progress: called with the progress of the audits, in place of bars.
        progress: draw bars, where there is a terminal or a notebook.

    Raises:
        InputError, RunError, SettingsError: see `embedsmith.errors`.
    """
    if target_false_negatives is not None and not 0 <= target_false_negatives <= 1:
        raise SettingsError(
            f"target_false_negatives: {target_false_negatives:g}, wanted a rate", hint="give a number from 0 to 1"
        )
    mined, content = read_mined(source), content_of(source)
    judged = false_negatives(source)
    mined = replace(mined, listed=excluded_by(judged, mined.listed, mined.collection))
    kept = mined.settings.model_dump(include=set(SelectionSettings.model_fields))
    settings = SelectionSettings.parse({**kept, **(changes or {})}, where="options")
    listed = mined.excluded(settings)
    inputs = {"run": str(Path(source).resolve()), "target_false_negatives": target_false_negatives}
    if judged:
        inputs["judged"] = fingerprint(judged)
    with MiningRun.open(out, command="select", settings=settings, inputs=inputs) as run, run.timed("select"):
        run.same_content(CANDIDATES, content)
        near = near_of(mined.candidates, mined.collection, settings, on_progress)
        if target_false_negatives is not None:
            settings, measured = calibrate(
                mined.candidates, settings, target_false_negatives, listed=listed, near=near, on_progress=on_progress
            )
            run.choose(settings)
            run.count("calibration", vars(measured))
        selection = select(mined.candidates, settings, listed=listed, near=near)
        # A later verdict must not change what is reported of this run.
        write_false_negatives(run.folder, judged)
        write_selection(run.folder, selection, mined.candidates, mined.collection, settings)
        run.count("mining", selection.counts)
        run.finish()
    return run


def read_mined(folder: str | Path) -> Mined:
    """Return what a run of `mine` or `select` was made of.

    Raises:
        RunError: the run is missing, unfinished, or of another command; or its data has changed.
        InputError: its data or candidates are gone.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest["command"] not in ("mine", "select"):
        raise RunError(
            f"{folder}: made by `{manifest['command']}`, wanted a run of `mine` or `select`",
            hint="mine first: embedsmith mine DATA --out RUN",
        )
    finished(folder)
    if manifest["command"] == "select":
        selected_from(folder)  # a run that is gone, or made from itself, is an error
        check_origin(folder)
        origin = read_mined(manifest["inputs"]["run"])
        settings: SelectionSettings = SelectionSettings.parse(manifest["settings"], where=str(folder))
        listed = excluded_by(read_false_negatives(folder), origin.listed, origin.collection)
        return Mined(folder, settings, origin.collection, origin.candidates, listed)
    settings = MiningSettings.parse(manifest["settings"], where=str(folder))
    data = manifest["inputs"].get("data")
    if not isinstance(data, str):
        raise RunError(f"{folder}: its manifest names no data", hint="mine again into another folder")
    if not data.startswith(HUB) and not Path(data).exists():
        raise InputError(f"{folder}: the data it was mined from is gone: {data}", hint="put it back, or mine again")
    source = SourceSettings.parse(manifest["inputs"].get("source"), where=str(folder))
    collection, listed = read_source(data, source, None)
    name = manifest["inputs"].get("name", collection.name)
    if manifest["content"].get(name) != collection.content_hash():
        raise RunError(f"{folder}: {data} has changed since it was mined", hint="mine it again into another folder")
    if manifest["content"].get(exclusions_of(name), hash_of_listed(listed)) != hash_of_listed(listed):
        raise RunError(
            f"{folder}: what {source.exclude_qrels or source.exclude_ids} excludes has changed since it was mined",
            hint="mine it again into another folder",
        )
    candidates = read_candidates(folder / "candidates")
    if (len(candidates.rows), len(candidates.passage_text)) != (len(collection.queries), len(collection.passages)):
        raise RunError(f"{folder}: its candidates are those of other data", hint="mine it again into another folder")
    return Mined(folder, settings, collection, candidates, listed)


@draws_bars
def audit_run(
    run: str | Path, *, seed: int = 0, draws: int = DRAWS, on_progress: Progress = silent, progress: bool = True
) -> Audits:
    """Return the hold-out audit of every method, and of the run's own settings as `this run`.

    Args:
        run: a finished run of `mine` or `select`.
        seed: of the draws of the positives that are kept.
        draws: how many.
        on_progress: called with the progress of the draws, in place of bars.
        progress: draw bars, where there is a terminal or a notebook.

    Raises:
        InputError: no query has several positives.
        RunError: the run is missing, unfinished or of another command.
    """
    mined = read_mined(run)
    near = near_of(mined.candidates, mined.collection, mined.settings, on_progress)
    ways = side_by_side(mined.settings)
    listed = mined.excluded(mined.settings)
    return audit(mined.candidates, ways, listed=listed, near=near, seed=seed, draws=draws, on_progress=on_progress)


@writes_out
def write(
    run: str | Path, *, out: str | Path, dialect: str = "jsonl", settings: DialectSettings | None = None
) -> Written:
    """Write the examples of a run in a dialect; what it cannot say is left out and counted.

    Args:
        run: a finished run of `mine` or `select`.
        out: the file, or for `tevatron` and `nemo` the folder, to write.
        dialect: see `embedsmith.mining.dialects`.
        settings: how many negatives, scores, the instruction.

    Raises:
        RunError: the run is missing, unfinished or of another command.
        InputError, SettingsError: as `write_dialect`.
    """
    manifest = finished(run)
    path = Path(run) / "negatives.jsonl"
    if not path.is_file():
        raise RunError(
            f"{run}: made by `{manifest['command']}`, wanted a run of `mine` or `select`",
            hint="mine first: embedsmith mine DATA --out RUN",
        )
    check_origin(run)
    return write_dialect(dialect, Path(out), ExampleFile(path), settings)

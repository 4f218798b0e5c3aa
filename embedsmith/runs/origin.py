"""Runs that were made of other runs: what they were made of is still the same, or they say so.

RUN/manifest.json: content    of a run of `select`, "candidates": a fingerprint of what it was selected from;
                              of a run of `train`, the hash of each file of examples that it read
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from embedsmith.errors import RunError
from embedsmith.runs.lineage import selected_from
from embedsmith.runs.mined import content_of_candidates, read_false_negatives
from embedsmith.runs.part import is_run
from embedsmith.runs.run import finished, read_manifest
from embedsmith.settings import fingerprint

CANDIDATES = "candidates"
"""What a run of `select` calls the content of what it was selected from."""


def content_of(run: str | Path) -> str:
    """Return a fingerprint of all that a selection from a run of `mine` or `select` reads there.

    Raises:
        RunError: the run is missing or not finished.
        InputError: its candidates are gone.
    """
    manifest = finished(run)
    if manifest["command"] == "select":
        selected_from(run)  # it ends
        return fingerprint([content_of(manifest["inputs"]["run"]), read_false_negatives(Path(run))])
    return fingerprint([manifest["content"], content_of_candidates(Path(run) / "candidates")])


def check_origin(run: str | Path) -> None:
    """Refuse a run of `select` whose origin was mined again since, in its place.

    A run that an older version has made does not know what its origin was like; one whose origin is gone holds its
    negatives by itself.

    Raises:
        RunError: the origin is another one by now, or is just being mined again.
    """
    manifest = read_manifest(run)
    known = manifest["content"].get(CANDIDATES)
    if manifest["command"] != "select" or known is None:
        return
    origin = Path(manifest["inputs"].get("run", ""))
    if is_run(origin) and content_of(origin) != known:
        raise RunError(
            f"{run}: {origin} was mined again since these negatives were selected from it",
            hint=f"select again: embedsmith select {origin} --out ANOTHER",
        )


def hash_of_examples(path: Path) -> str:
    """Return what tells a file of examples from others."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def has_changed(manifest: dict[str, Any]) -> bool:
    """Return whether a file of examples that a run of `train` has read holds others by now; False where it is gone."""
    files = {Path(name): known for name, known in manifest["content"].items() if Path(name).is_absolute()}
    return any(path.is_file() and hash_of_examples(path) != known for path, known in files.items())

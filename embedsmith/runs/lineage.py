"""What a run was made from: the run that its manifest names, the one that this names, and so on, each once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedsmith.errors import RunError
from embedsmith.runs.part import is_run
from embedsmith.runs.run import read_manifest

_PARENTS = {"select": "run", "train": "mined"}
"""Command -> the input that names the run from which it made its own."""


def lineage(folder: str | Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield a run and its manifest, then those that it was made from, as far as they are still there.

    Raises:
        RunError: the folder is no run; or a run was made from itself, or from one that was made from it.
    """
    seen: set[Path] = set()
    here: Path | None = Path(folder)
    while here is not None:
        if here.resolve() in seen:
            raise RunError(
                f"{here / 'manifest.json'}: the run is made from itself",
                hint="the manifest was edited, or copied from elsewhere: make the run again",
            )
        seen.add(here.resolve())
        manifest = read_manifest(here)
        yield here, manifest
        named = _parent_of(manifest)
        here = Path(named) if named and is_run(named) else None


def selected_from(folder: str | Path) -> Path:
    """Return the run whose candidates a run has: itself, or the one behind it and others of `select`.

    Raises:
        RunError: a run is missing, or made from itself.
    """
    for here, manifest in lineage(folder):
        if manifest.get("command") != "select":
            return here
    parent = _parent_of(manifest)
    raise RunError(
        f"{here}: the run that it selected from is gone: {parent or 'its manifest names none'}",
        hint="put it back, or mine again",
    )


def _parent_of(manifest: dict[str, Any]) -> str:
    """Return what a manifest says its run was made from; nothing is not the working directory, which may be a run."""
    return str(manifest.get("inputs", {}).get(_PARENTS.get(manifest.get("command", ""), ""), ""))

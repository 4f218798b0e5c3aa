"""The data sets that a run's manifest names, as far as others ask: where they lie, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedsmith.errors import RunError
from embedsmith.settings import MOST_SEEDS

ELSEWHERE = "elsewhere"
"""How a recipe's run names the data of `evaluation.elsewhere`, which the student is not trained for."""


def named_data(run: Path, manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings of each data set of a recipe's run by its name; nothing for a run that is of no recipe.

    Each has a `path`, and a `test_split` that is a text or None.

    Raises:
        RunError: the manifest holds something else.
    """
    found = manifest["settings"].get("data", {})
    if isinstance(found, list):  # `evaluate` lists paths there
        return {}
    if not isinstance(found, dict) or not all(map(_is_data, found.values())):
        raise RunError(f"{run / 'manifest.json'}: no data sets under settings.data", hint="run the command again")
    return {name: {"test_split": None, **settings} for name, settings in found.items()}


def source_of_run(run: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the data that a run of `mine` names were read; nothing where its manifest does not say.

    Raises:
        RunError: the manifest holds something else.
    """
    found = manifest["inputs"].get("source", {})
    if not isinstance(found, dict) or not _reads(found):
        raise RunError(f"{run / 'manifest.json'}: nothing fits under inputs.source", hint="run the command again")
    return found


def seed_of(run: Path, manifest: Mapping[str, Any]) -> int:
    """Return the seed of a run, 0 where it has none.

    Raises:
        RunError: the manifest holds something else.
    """
    seed = manifest["settings"].get("seed", 0)
    if type(seed) is not int or not 0 <= seed < MOST_SEEDS:
        raise RunError(f"{run / 'manifest.json'}: no seed under settings.seed", hint="run the command again")
    return seed


def _is_data(settings: Any) -> bool:
    """Return whether a value holds the settings of a data set."""
    return (
        isinstance(settings, dict)
        and isinstance(settings.get("path"), str)
        and isinstance(settings.get("test_split"), str | None)
        and _reads(settings)
    )


def _reads(settings: Mapping[str, Any]) -> bool:
    """Return whether what settings say of reading a data set is of the right kinds."""
    wanted = {"corpus": str | None, "split": str | None, "skip_bad": bool | None, "columns": dict | None}
    return all(isinstance(settings.get(name), kind) for name, kind in wanted.items())

"""The licence of a model, as its folder or package states it: what is trained from it must carry it on."""

from __future__ import annotations

import importlib.metadata

from embedsmith.data.plain_yaml import licence_in
from embedsmith.models.names import ModelSource

UNSTATED = "other"
"""The hub's word for a licence that has no identifier; here also for one that is not stated."""


def licence_of(source: ModelSource) -> str:
    """Return a licence's identifier, `apache-2.0` for example, or `other` where none is stated on this machine.

    The model card's comes first; then that of the package that carries the model. A hub id is not looked up.
    """
    if source.local is None:
        return UNSTATED
    folder = source.local if source.local.is_dir() else source.local.parent
    return licence_in(folder / "README.md") or _of_package(source.name) or UNSTATED


def _of_package(name: str) -> str | None:
    """Return the licence that an installed package's metadata states."""
    if not name.startswith("package:"):
        return None
    package = name.removeprefix("package:").partition("/")[0]
    for distribution in importlib.metadata.packages_distributions().get(package, []):
        metadata = importlib.metadata.metadata(distribution)
        for field in ("License-Expression", "License"):
            if field in metadata and "\n" not in metadata[field]:
                return metadata[field].lower()
    return None

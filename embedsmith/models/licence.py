"""The licence of a model, as its folder or package states it: what is trained from it must carry it on."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import yaml

from embedsmith.data.plain_yaml import plain_yaml
from embedsmith.models.names import ModelSource

UNSTATED = "other"
"""The hub's word for a licence that has no identifier; here also for one that is not stated."""
_IDENTIFIER = re.compile(r"[\w.+-]{1,64}")
_LONGEST_CARD = 2**20
"""Bytes of a card that are looked through for its front matter."""


def licence_of(source: ModelSource) -> str:
    """Return a licence's identifier, `apache-2.0` for example, or `other` where none is stated on this machine.

    The model card's comes first; then that of the package that carries the model. A hub id is not looked up.
    """
    if source.local is None:
        return UNSTATED
    folder = source.local if source.local.is_dir() else source.local.parent
    return licence_in(folder / "README.md") or _of_package(source.name) or UNSTATED


def licence_in(card: Path) -> str | None:
    """Return the licence that the front matter of a card names, as an identifier; None where it names none."""
    if not card.is_file():
        return None
    with card.open("rb") as file:
        text = file.read(_LONGEST_CARD).decode("utf-8", "replace")
    if not text.startswith("---\n"):
        return None
    try:
        front = plain_yaml(text[4:].partition("\n---")[0])
    except yaml.YAMLError:
        return None
    licence = front.get("license") if isinstance(front, dict) else None
    return licence.lower() if isinstance(licence, str) and _IDENTIFIER.fullmatch(licence) else None


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

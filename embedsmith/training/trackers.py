"""Trackers of a stage's figures: TensorBoard, or others that transformers knows."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedsmith.errors import SettingsError, did_you_mean
from embedsmith.training.compat import TENSORBOARD_FOLDER, trackers_known


def trackers(names: str) -> list[str]:
    """Return the trackers of a setting; `auto` is TensorBoard where it is installed.

    Raises:
        SettingsError: transformers does not know one, or it is not installed.

    >>> trackers("none")
    []
    """
    if names == "auto":
        return ["tensorboard"] if importlib.util.find_spec("tensorboard") else []
    asked = [] if names == "none" else [name.strip() for name in names.split(",")]
    known, installed = trackers_known()
    for name in asked:
        if name not in known:
            raise SettingsError(
                f'report_to: unknown "{name}"{did_you_mean(name, known)}',
                hint=f"transformers knows {', '.join(sorted(known))}; none for none",
            )
        if name not in installed:
            raise SettingsError(f"report_to: {name} is not installed", hint=f"pip install {name}, or report_to: none")
    return asked


@contextmanager
def tensorboard_in(folder: Path | None) -> Iterator[None]:
    """Let the Trainer's TensorBoard write below a folder: its callback reads the environment when it is made."""
    name = TENSORBOARD_FOLDER
    before = os.environ.get(name)
    if folder is not None and before is None:
        os.environ[name] = str(folder)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)

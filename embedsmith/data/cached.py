"""The user's cache folder: what can be made again, and may be removed at any time."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder `embedsmith` in the user's cache: in `~/.cache`, or in `XDG_CACHE_HOME` where that is set."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "embedsmith"

"""The default folder of vector stores."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """Return the user's folder of vectors: `~/.cache/embedsmith/vectors`, or below `XDG_CACHE_HOME` where that is set.

    Everything in it can be made again; it may be removed at any time.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "embedsmith" / "vectors"

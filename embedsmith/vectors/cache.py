"""The default folder of vector stores."""

from __future__ import annotations

from pathlib import Path

from embedsmith.data.cached import cache_folder


def user_cache() -> Path:
    """Return the user's folder of vectors: `~/.cache/embedsmith/vectors`, or below `XDG_CACHE_HOME` where that is set.

    Everything in it can be made again; it may be removed at any time.
    """
    return cache_folder() / "vectors"

"""Temporary run folders, for callers who name none; removed when Python exits."""

from __future__ import annotations

import atexit
import logging
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from embedsmith.data.files import remove_below
from embedsmith.errors import RunError

_log = logging.getLogger("embedsmith")


def folder_or_temporary(out: str | Path | None, command: str) -> Path:
    """Return the folder that a caller names, or a new one that is removed when Python ends, which is said in a line."""
    if out is not None:
        return Path(out)
    folder = Path(tempfile.mkdtemp(prefix=f"embedsmith-{command}-"))
    atexit.register(_remove, folder, os.getpid())
    _log.warning("no out: the run lies in %s, which is removed when Python ends", folder)
    return folder


def _remove(folder: Path, owner: int) -> None:
    """Remove a folder, unless this is a process that its owner has forked."""
    if os.getpid() == owner:
        with suppress(OSError, RunError):
            remove_below(folder.parent, folder)

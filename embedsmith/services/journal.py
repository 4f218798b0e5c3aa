"""A journal: what was paid for, written down line by line as it comes; a killed process loses nothing that is in it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import orjson

from embedsmith.errors import InputError


class Journal:
    """Entries by key, in a file of JSON lines that only ever grows.

    The file holds as many bytes of its last line as were written when the process was killed or the disk was full: what
    has no end is cut off when it is opened again.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there.

        Raises:
            InputError: a line is damaged.
        """
        self._path = path
        self._entries: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        if path.is_file():
            self._read()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the entry of a key, None where there is none."""
        return self._entries.get(key)

    def add(self, key: str, entry: dict[str, Any]) -> None:
        """Write an entry; when this returns no kill can undo it. Called from any thread."""
        line = orjson.dumps({"key": key, **entry}, option=orjson.OPT_APPEND_NEWLINE)
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: one write, and nothing that waits in this process.
            with open(self._path, "ab", buffering=0) as file:
                start = file.tell()
                if file.write(line) < len(line):
                    os.ftruncate(file.fileno(), start)
                    raise OSError(28, os.strerror(28), str(self._path))
                os.fsync(file.fileno())
            self._entries[key] = entry

    def _read(self) -> None:
        """Read the entries; cut off a last line without an end."""
        whole = 0
        with open(self._path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    entry = orjson.loads(line)
                    self._entries[entry.pop("key")] = entry
                except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
                    raise InputError(
                        f"{self._path}:{number}: a damaged line", hint="remove the line; what it held is asked again"
                    ) from None
                whole += len(line)
        if whole < self._path.stat().st_size:
            os.truncate(self._path, whole)

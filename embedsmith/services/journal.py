"""A journal of paid answers, appended line by line as they arrive; a killed process loses nothing that is in it."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import IO, Any

import orjson

from embedsmith.data.locks import file_held
from embedsmith.errors import InputError


def _private(path: str, flags: int) -> int:
    """Open a file that, where it is new, nobody else may read: it holds what was asked and answered."""
    return os.open(path, flags, 0o600)


class Journal:
    """Entries by key, in a file of JSON lines that only ever grows. Any number of threads and processes may add to it.

    Each line is written while the file is locked. A last line without an end, found by who has the lock, is that of a
    process that was killed: it is cut off before the next line is written, and at no other time.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there.

        Raises:
            InputError: a line is damaged.
        """
        self._path = path
        self._entries: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._read_to = 0
        """Bytes of the file that were read: whole lines."""
        self._lines = 0
        self.refresh()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the entry of a key, None where there is none."""
        return self._entries.get(key)

    def entries(self) -> list[dict[str, Any]]:
        """Return all entries that were read, in the order in which they were first added."""
        return list(self._entries.values())

    def refresh(self) -> None:
        """Read what other processes have added.

        Raises:
            InputError: a line is damaged.
        """
        if self._path.is_file():
            with self._lock, open(self._path, "rb") as file:
                self._read_on(file)

    def add(self, key: str, entry: dict[str, Any]) -> None:
        """Write an entry, unless there is one of this key; when this returns no kill can undo it.

        Called from any thread.
        """
        line = orjson.dumps({"key": key, **entry}, option=orjson.OPT_APPEND_NEWLINE)
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: one write, and nothing that waits in this process.
            with open(self._path, "a+b", buffering=0, opener=_private) as file, file_held(file):
                self._read_on(file)
                if key in self._entries:
                    return
                if os.fstat(file.fileno()).st_size > self._read_to:
                    file.truncate(self._read_to)
                if file.write(line) < len(line):
                    file.truncate(self._read_to)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
                os.fsync(file.fileno())
                self._read_to += len(line)
                self._lines += 1
            self._entries[key] = entry

    def _read_on(self, file: IO[bytes]) -> None:
        """Read the whole lines that are new."""
        file.seek(self._read_to)
        *lines, _ = file.read().split(b"\n")
        for line in lines:
            try:
                entry = orjson.loads(line)
                self._entries[entry.pop("key")] = entry
            except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
                where = f"{self._path}:{self._lines + 1}"
                raise InputError(
                    f"{where}: a damaged line", hint="remove the line; what it held is asked again"
                ) from None
            self._read_to += len(line) + 1
            self._lines += 1

"""Rows that lie on disk while they are worked on, in a file without a name that is gone with its process."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_WAITING = 1 << 20
"""Bytes that are written at once."""


class Spool:
    """A list of byte strings that only grows; in memory are eight bytes for each.

    >>> spool = Spool()
    >>> spool.add(b"a cat"), spool.add(b""), spool[0], spool[1], len(spool)
    (0, 1, b'a cat', b'', 2)
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Open the file.

        Args:
            folder: on whose disk it lies; by default where the system keeps temporary files.
        """
        self._folder = str(folder or tempfile.gettempdir())
        # Unbuffered: rows are read out of order, and a buffer would be filled for each.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._starts = array("q", [0])
        self._waiting = bytearray()

    def add(self, row: bytes) -> int:
        """Add a row at the end, and return its number."""
        self._waiting += row
        self._starts.append(self._starts[-1] + len(row))
        if len(self._waiting) >= _WAITING:
            self._write()
        return len(self) - 1

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> bytes:
        start, end = self._starts[number], self._starts[number + 1]
        if self._waiting:
            self._write()
        self._file.seek(start)
        row = self._file.read(end - start) or b""
        while len(row) < end - start:  # the system reads two gigabytes at once, at most
            row += self._file.read(end - start - len(row)) or b""
        return row

    def __iter__(self) -> Iterator[bytes]:
        return (self[number] for number in range(len(self)))

    def _write(self) -> None:
        waiting, self._waiting = memoryview(self._waiting), bytearray()
        try:
            self._file.seek(0, 2)
            while waiting:
                waiting = waiting[self._file.write(waiting) or 0 :]
        except OSError as error:
            error.filename = error.filename or self._folder  # a file without a name says nothing
            raise


class JsonSpool(Spool):
    """A list of JSON values that only grows.

    >>> spool = JsonSpool()
    >>> spool.put({"cat": "猫"}), spool.value(0)
    (0, {'cat': '猫'})
    """

    def put(self, value: Any) -> int:
        """Add a value at the end, and return its number."""
        # Not by orjson: what names a file or a link may hold half of a surrogate pair.
        return self.add(json.dumps(value, allow_nan=False).encode())

    def value(self, number: int) -> Any:
        """Return a value by its number."""
        return json.loads(self[number])

    def values(self) -> Iterator[Any]:
        """Yield all values in order."""
        return map(json.loads, self)

"""How much of a file is read, so that no file can take all the time or all the memory."""

from __future__ import annotations

import io
import zipfile

MAX_BYTES = 32_000_000
"""Bytes of a file. What is a stream of lines is read to here; of anything else a longer file is not read."""

MAX_TEXT = 10_000_000
"""Characters of a document; what is behind them is left out."""

MAX_BLOCKS = 200_000
"""Blocks of a document; what is behind them is left out. Each takes half a kilobyte beside its text."""

MAX_LINKS = 200_000
"""Links and anchors of a document; those behind them are left out."""

MAX_SECONDS = 60.0
"""Of reading one file."""

MAX_MEMORY = 2 * 2**30
"""Bytes of memory that reading a file may ask for, where the system can tell."""

MAX_UNPACKED = 100_000_000
"""Bytes of all members of a packed file together."""

MAX_MEMBERS = 10_000

MAX_DEPTH = 200
"""Elements within each other, in documents of elements."""


class Unreadable(ValueError):
    """A file that is not what it should be, or goes beyond a limit: one line that says why."""


class Packed:
    """The members of a zip file, none of which unpacks to more than is left of the limit for all of them."""

    def __init__(self, content: bytes) -> None:
        """Read the list of members.

        Raises:
            Unreadable: it has too many; zipfile.BadZipFile: it is no zip file.
        """
        self._zip = zipfile.ZipFile(io.BytesIO(content))
        self._left = MAX_UNPACKED
        self.names = self._zip.namelist()
        if len(self.names) > MAX_MEMBERS:
            raise Unreadable(f"{len(self.names):,} packed files in it, at most {MAX_MEMBERS:,} are read")

    def read(self, name: str) -> bytes:
        """Return a member's bytes; what its header says of their number is not believed.

        Raises:
            Unreadable: there is no such member, it is encrypted, or the members unpack to too much.
        """
        try:
            with self._zip.open(name) as member:
                content = member.read(self._left + 1)
        except KeyError:
            raise Unreadable(f"no {name} in it") from None
        except (RuntimeError, NotImplementedError) as error:  # a password; a method that zipfile does not know
            raise Unreadable(f"{name} in it cannot be unpacked: {error}") from None
        self._left -= len(content)
        if self._left < 0:
            raise Unreadable(f"unpacks to more than {MAX_UNPACKED:,} bytes")
        return content

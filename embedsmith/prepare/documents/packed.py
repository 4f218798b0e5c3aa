"""Files that are packed alone, as `changelog.gz` is: no more of one is unpacked than is read of a file."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from pathlib import PurePosixPath

from embedsmith.prepare.documents.limits import Unreadable

PACKED = (".gz", ".bz2", ".xz")

_XZ_MEMORY = 128 * 2**20
"""Bytes that unpacking xz may take: `xz -9` makes files that need 65 MiB."""


def is_packed(file: str) -> bool:
    """Tell by its name whether a file is packed alone.

    >>> is_packed("changelog.GZ"), is_packed("book.epub")
    (True, False)
    """
    return PurePosixPath(file.lower()).suffix in PACKED


def name_inside(file: str) -> str:
    """Return what a packed file is called once it is unpacked; another file has its own name.

    >>> name_inside("a/guide.html.gz"), name_inside("a/guide.html")
    ('a/guide.html', 'a/guide.html')
    """
    return file[: file.rindex(".")] if is_packed(file) else file


def unpacked(content: bytes, file: str, most: int) -> bytes:
    """Return the first bytes that a packed file unpacks to; what its header says of their number is not believed.

    Args:
        content: of the file.
        file: its name.
        most: bytes to return, at most.

    Raises:
        Unreadable: it is damaged, or needs too much memory.
    """
    try:
        match PurePosixPath(file.lower()).suffix:
            case ".gz":
                return gzip.GzipFile(fileobj=io.BytesIO(content)).read(most)
            case ".bz2":
                return bz2.BZ2File(io.BytesIO(content)).read(most)
            case _:
                return _from_xz(content, most)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise Unreadable(f"damaged: {error}") from None


def _from_xz(content: bytes, most: int) -> bytes:
    """Return the first bytes that the streams of an xz file unpack to."""
    parts: list[bytes] = []
    while content and most > 0:
        stream = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        while not stream.eof and most > 0:
            part = stream.decompress(content, max_length=most)
            if not part and stream.needs_input:
                raise EOFError("it ends before its end-of-stream marker")
            parts.append(part)
            most -= len(part)
            content = b""
        content = stream.unused_data.lstrip(b"\0")  # between streams there may be padding
    return b"".join(parts)

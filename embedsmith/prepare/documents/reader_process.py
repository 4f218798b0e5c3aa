"""The process that reads files: what a file does to its reader (a crash, no end, no memory) happens here.

It takes a JSON array [folder, file] a line, and answers with {"blocks": [...], "is_whole": ...} or {"reason": "..."}.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from embedsmith.prepare.documents.blocks import Block
from embedsmith.prepare.documents.kinds import blocks_of, is_stream, kind_of
from embedsmith.prepare.documents.limits import MAX_BLOCKS, MAX_BYTES, MAX_LINKS, MAX_MEMORY, MAX_TEXT, Unreadable
from embedsmith.prepare.documents.packed import is_packed, unpacked
from embedsmith.system import bound_memory, opened_at_once

_MISTAKES_OF_READERS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What libraries raise where a file is broken in a way that they did not think of."""


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer each request until there are no more."""
    for line in requests:
        root, file = json.loads(line)
        answers.write(json.dumps(answer_of(Path(root), file)).encode() + b"\n")
        answers.flush()


def answer_of(root: Path, file: str) -> dict[str, Any]:
    """Return the blocks of a file, or why there are none."""
    try:
        can_be_cut = is_stream(kind_of(file) or "")
        content, is_whole = _content(root / file, can_be_cut=can_be_cut)
        if is_packed(file):
            content, is_whole = _unpacked(content, file, can_be_cut=can_be_cut)
        blocks = blocks_of(file, content, is_whole=is_whole)
    except Unreadable as error:
        return {"reason": str(error)}
    except OSError as error:
        return {"reason": f"cannot be read: {error.strerror or error}"}
    except _MISTAKES_OF_READERS as error:
        said = (str(error).splitlines() or [""])[0][:200]
        return {"reason": f"damaged: {type(error).__name__}{': ' if said else ''}{said}"}
    if not any(block.text for block in blocks):
        return {"reason": "no text in it"}
    return _within_limits(blocks, is_whole=is_whole)


def _within_limits(blocks: Sequence[Block], *, is_whole: bool) -> dict[str, Any]:
    """Return as many blocks, characters and links as are read of a document."""
    taken, characters, links = [], MAX_TEXT, MAX_LINKS
    for block in blocks[:MAX_BLOCKS]:
        is_whole = is_whole and len(block.text) <= characters
        own = replace(
            block,
            text=block.text[:characters],
            links=block.links[:links],
            anchors=block.anchors[: max(0, links - len(block.links))],
        )
        taken.append(own.plain())
        characters -= len(own.text)
        links -= len(own.links) + len(own.anchors)
        if characters <= 0:
            break
    return {"blocks": taken, "is_whole": is_whole and len(blocks) <= MAX_BLOCKS}


def _content(path: Path, *, can_be_cut: bool) -> tuple[bytes, bool]:
    """Return a file's bytes, and whether they are all of it.

    Raises:
        Unreadable: it is no file, too long, or changes while it is read.
    """
    # A pipe without a writer is opened at once so, and is distinguished from a file before anything is read from it.
    with opened_at_once(path) as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise Unreadable("not a regular file")
        if before.st_size > MAX_BYTES and not can_be_cut:
            raise Unreadable(f"{before.st_size:,} bytes, at most {MAX_BYTES:,} are read")
        content = file.read(MAX_BYTES + 1)
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Unreadable("changed while it was read")
    return content[:MAX_BYTES], len(content) <= MAX_BYTES


def _unpacked(content: bytes, file: str, *, can_be_cut: bool) -> tuple[bytes, bool]:
    """Return what a packed file holds, and whether that is all of it.

    Raises:
        Unreadable: it is damaged, or holds too much.
    """
    inside = unpacked(content, file, MAX_BYTES + 1)
    if len(inside) > MAX_BYTES and not can_be_cut:
        raise Unreadable(f"unpacks to more than {MAX_BYTES:,} bytes")
    return inside[:MAX_BYTES], len(inside) <= MAX_BYTES


def main() -> None:
    """Answer over the standard streams; what libraries write goes nowhere."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    bound_memory(MAX_MEMORY)  # a file that asks for too much has an error
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()

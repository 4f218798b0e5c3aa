"""All documents of a folder, read by a process of their own that is stopped when a file takes too long."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from embedsmith.prepare.documents.blocks import Document, Unread, block_of
from embedsmith.prepare.documents.kinds import check_libraries
from embedsmith.prepare.documents.limits import MAX_SECONDS
from embedsmith.prepare.documents.questions import questions_as_headings
from embedsmith.prepare.documents.walking import walk


def check_documents(root: Path) -> None:
    """Refuse a folder that holds no document, or one that needs a library that is not there; none is read.

    Raises:
        InputError: says which, and what to install.
    """
    check_libraries(walk(root).files)


def read_documents(
    root: Path, *, max_seconds: float = MAX_SECONDS, on_file: Callable[[int, int], None] | None = None
) -> Iterator[Document | Unread]:
    """Yield each file of a folder that is not hidden: as it was read, or why it was not.

    Args:
        root: the folder.
        max_seconds: of reading one file, after which it is given up.
        on_file: called with (files done, files in all) after each file.

    Raises:
        InputError: there is no such folder, it holds no document, or a library is not installed.
    """
    found = walk(root)
    check_libraries(found.files)
    yield from found.passed_over
    with _Reader(max_seconds) as reader:
        for done, file in enumerate(found.files, start=1):
            yield reader.read(root, file)
            if on_file is not None:
                on_file(done, len(found.files))


class _Reader:
    """The process that reads, begun anew where a file has ended it."""

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def read(self, root: Path, file: str) -> Document | Unread:
        """Return a file as it was read, or why it was not."""
        answer, timed_out = self._ask([str(root.resolve()), file])
        if timed_out:
            return Unread(file, f"took longer than {self._max_seconds:g} seconds")
        if answer is None:
            return Unread(file, "ended its reader")
        if "reason" in answer:
            return Unread(file, str(answer["reason"]))
        return Document.of(file, questions_as_headings(map(block_of, answer["blocks"])), is_whole=answer["is_whole"])

    def _ask(self, request: list[str]) -> tuple[dict[str, Any] | None, bool]:
        """Return the answer, None where the process ended without one, and whether it took too long."""
        process = self._running()
        assert process.stdin and process.stdout
        is_late = threading.Event()

        def give_up() -> None:
            is_late.set()
            process.kill()

        timer = threading.Timer(self._max_seconds, give_up)
        timer.start()
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            timer.cancel()
        if not line.endswith(b"\n"):
            self._stop()
            return None, is_late.is_set()
        answer: dict[str, Any] = json.loads(line)
        return answer, False

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            command = [sys.executable, "-m", "embedsmith.prepare.documents.reader_process"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for stream in (process.stdin, process.stdout):
                if stream:
                    with contextlib.suppress(BrokenPipeError):  # what it has not read any more
                        stream.close()
            process.wait()

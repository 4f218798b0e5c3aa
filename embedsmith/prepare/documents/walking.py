"""Which files of a folder are looked at, and which are passed over at once.

Hidden files, what other projects have installed there, and environments are none of the user's documents. Links to
folders are not followed: what they show is elsewhere in the folder, foreign, or a loop.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from embedsmith.errors import InputError
from embedsmith.prepare.code import FOREIGN_FOLDERS
from embedsmith.prepare.documents.blocks import Unread
from embedsmith.prepare.documents.kinds import kind_of
from embedsmith.prepare.documents.packed import is_packed
from embedsmith.prepare.functions import printable


@dataclass(frozen=True)
class Found:
    """The files of a folder, by their paths from there, in order."""

    files: list[str]
    passed_over: list[Unread]


def walk(root: Path) -> Found:
    """Return the files to read, and those that are not, each with its reason.

    Raises:
        InputError: there is no such folder, or nothing in it that can be read.
    """
    if not root.is_dir():
        what = "is a file, wanted a folder of documents" if root.exists() else "no such folder"
        raise InputError(f"{root}: {what}", hint="name the folder that the documents lie in")
    files: list[PurePosixPath] = []
    passed_over: list[Unread] = []

    def unreadable(error: OSError) -> None:
        folder = os.path.relpath(error.filename, root)
        passed_over.append(Unread(printable(folder), f"cannot be listed: {error.strerror}"))

    for folder, folders, names in os.walk(root, onerror=unreadable):
        here = PurePosixPath(Path(folder).relative_to(root).as_posix())
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        passed_over += [Unread(printable(str(here / name)), "a link to a folder") for name in links]
        folders[:] = sorted(name for name in folders if name not in links and _is_own(Path(folder, name)))
        for name in names:
            if name.startswith("."):
                continue
            file = here / name
            reason = _reason(Path(folder, name), str(file))
            if reason:
                passed_over.append(Unread(printable(str(file)), reason))
            else:
                files.append(file)
    if not files:
        kinds = (
            "text, Markdown, reStructuredText, HTML, PDF, DOCX, EPUB, CSV, JSON lines, mail, source code; .gz of them"
        )
        raise InputError(f"{root}: no file that can be read", hint=f"these are: {kinds}")
    return Found([str(file) for file in sorted(files, key=lambda file: file.parts)], passed_over)


def _reason(path: Path, file: str) -> str:
    """Return why a file is not even opened, nothing where it may be."""
    if printable(file) != file:
        return "its name is not UTF-8"
    try:
        status = os.stat(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):  # to open a named pipe would wait for ever
        return "not a regular file"
    if not status.st_size:
        return "empty"
    if kind_of(file) is None:
        return f"no reader for {''.join(PurePosixPath(file).suffixes[-2 if is_packed(file) else -1 :]).lower()}"
    return ""


def _is_own(folder: Path) -> bool:
    """Tell whether a folder may hold the user's documents."""
    name = folder.name
    return not (name.startswith(".") or name in FOREIGN_FOLDERS or os.path.exists(folder / "pyvenv.cfg"))

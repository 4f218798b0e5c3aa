"""Files that are either whole or absent: atomic writing, and JSON lines with line numbers."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
import orjson

from embedsmith.data.bad_rows import BadRow, OnBad, Unusable, refuse
from embedsmith.data.json_text import json_of, object_of
from embedsmith.errors import InputError, RunError
from embedsmith.system import open_up, sync, sync_folder

_PARTIAL = ".partial"
"""How the name of what is not whole yet ends."""


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary name beside `path`, and rename it to `path` when the block ends well.

    A reader sees the old file or the new one, never half of one; an error leaves the old one as it was.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with _whole_file(path) as partial, open(partial, mode, **text) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`, and rename what the block has written there to `path` when it ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    try:
        yield partial
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as error:
        # A write that fails names no file, and the temporary name says nothing.
        if error.errno and error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(target: Path, *, replaces: bool = True) -> Iterator[Path]:
    """Give a folder under a temporary name beside `target`, and put it in the target's place when the block ends well.

    A reader sees the old folder or the new one (between two renames neither); an error leaves the old one as it was.

    Args:
        replaces: take the place of a folder that is there; else only that of an empty one.

    Raises:
        InputError: there is something in the place, and nothing is to be replaced; or the place is a link.
    """
    target = Path(os.path.abspath(target))
    refuse_link(target)
    if not replaces:
        _refuse_taken(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(target)
    partial.mkdir()
    try:
        with _system_errors(target):
            yield partial
        _sync_tree(partial)
        if replaces and target.is_dir():
            _exchange(partial, target)
        else:
            _move(partial, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_link(target: Path) -> None:
    """Raise InputError where a file or a folder is to be written and a link is, which would be gone afterwards."""
    if target.is_symlink():
        raise InputError(
            f"{target}: a link to {os.readlink(target)}", hint="name the place that it leads to, or another one"
        )


def refuse_foreign(path: Path, *, is_ours: Callable[[Path], bool]) -> None:
    """Raise InputError where something is that the user has not named, and that is to be written beside what he has.

    Args:
        path: of the file to write.
        is_ours: whether a file there is what the same command has written before.
    """
    refuse_link(path)
    if path.exists() and not (path.is_file() and is_ours(path)):
        raise InputError(
            f"{path}: there already, and to be written beside --out", hint="move it away, or choose another --out"
        )


def partial_name(target: Path) -> Path:
    """Return a new name beside a target for what is not whole yet."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}")


def _refuse_taken(target: Path) -> None:
    """Raise InputError where there is something that is not an empty folder."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"{target}: is there already", hint="remove it, or name another folder")


def _exchange(partial: Path, target: Path) -> None:
    """Put a folder in the place of another, which is removed."""
    old = partial_name(target)
    target.rename(old)
    try:
        partial.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)


def _move(partial: Path, target: Path) -> None:
    """Put a folder where none is, or an empty one."""
    try:
        os.replace(partial, target)
    except OSError:
        _refuse_taken(target)  # another process has been quicker
        raise


def _sync_tree(folder: Path) -> None:
    """Let the files of a folder, whoever wrote them, reach the disk, with the rights that the umask leaves."""
    rights = folder.stat().st_mode
    for path, _, names in os.walk(folder):
        for name in names:
            # Some libraries let nobody but the owner read what they write.
            open_up(os.path.join(path, name), rights)
            sync(os.path.join(path, name))
        sync_folder(Path(path))


@contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    """Raise what safetensors tells of the system as the OSError that it is."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            number = int(found[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def remove_partials(folder: Path, *, but: Collection[str] = ()) -> None:
    """Remove what was left below a folder, under a temporary name, by processes that were killed.

    The caller holds the lock of the folder, else what a living process is writing would be gone.

    Args:
        but: names of folders that have locks of their own; they are not looked into.
    """
    for path, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            if name.startswith(".") and name.endswith(_PARTIAL):
                remove_below(folder, Path(path, name))
        folders[:] = [name for name in folders if name not in but]


def remove_partials_of(target: Path) -> None:
    """Remove what killed processes have left of one file or folder; the caller holds its lock."""
    target = Path(os.path.abspath(target))
    if target.parent.is_dir():
        for path in target.parent.iterdir():
            # Of `a`, not of `a.npy`, which another process may be writing.
            if re.fullmatch(rf"\.{re.escape(target.name)}\.[0-9a-f]+{re.escape(_PARTIAL)}", path.name):
                remove_below(target.parent, path)


def remove_below(folder: Path, path: Path) -> None:
    """Remove a file or a folder that lies below a folder of ours; without effect where there is none.

    All that the package removes goes through here. A link is removed as such, if what it names lies below the folder.

    Raises:
        RunError: the path, or the link that it is, leads out of the folder.
    """
    root = os.path.realpath(folder)
    itself = os.path.join(os.path.realpath(path.parent), path.name)
    places = [os.path.realpath(path) if path.name in ("", "..") else itself, os.path.realpath(path)]
    if not all(place.startswith(os.path.join(root, "")) for place in places):
        raise RunError(
            f"{path}: is to be removed, and leads out of {folder} to {places[1]}",
            hint="nothing was removed there; take the link away, or choose another --out",
        )
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """Return what matches a pattern below a folder, sorted, without hidden files and what hidden folders hold.

    Systems put files of their own beside others' (`.DS_Store`, `._test.csv`), and what is not whole yet is hidden too.
    """
    found = folder.glob(pattern)
    return sorted(path for path in found if not any(part[0] == "." for part in path.relative_to(folder).parts))


def write_array(path: Path, array: np.ndarray) -> None:
    """Write one array as `.npy`."""
    with atomic_write(path, "wb") as file:
        # Not straight from numpy to the file: where a disk is full, numpy does not say so.
        np.lib.format.write_array(_Pipe(file), array, allow_pickle=False)


def read_array(path: Path) -> np.ndarray:
    """Return the array of an `.npy` file as a memory map.

    Raises:
        InputError: the file is missing, is none, or is shorter than its header says.
    """
    try:
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", hint="check the path") from None
    # The header is an expression of Python, over which its parser may stumble in any way.
    except (OSError, ValueError, TypeError, SyntaxError, OverflowError, MemoryError, EOFError, TokenError) as error:
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: damaged: {what}", hint="remove it, and make it again") from None
    return array


class _Pipe:
    """A file as numpy takes it for something that can only be written to."""

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write


def write_tensors(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write torch tensors by name as `.safetensors`."""
    from safetensors.torch import save_file

    with _whole_file(path) as partial, _system_errors(path):
        with open(partial, "xb") as file:
            rights = os.fstat(file.fileno()).st_mode
        save_file(dict(tensors), partial, metadata={"format": "pt"})
        open_up(partial, rights)  # safetensors lets nobody but the owner read
        sync(partial)


def write_text(path: Path, text: str) -> None:
    """Write a text."""
    with atomic_write(path) as file:
        file.write(text)


def link_file(source: Path, target: Path) -> None:
    """Give a file another name, which appears at once, or copy it where the file system has no links or is another one.

    What is under the name already is replaced.
    """
    with _whole_file(target) as partial:
        try:
            os.link(source, partial)
        except OSError:
            shutil.copy2(source, partial)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document, indented.

    Raises:
        ValueError: a number is not finite, for which JSON has no form: whoever has an undefined value writes null.
    """
    with atomic_write(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=2, allow_nan=False)
        file.write("\n")


def write_jsonl(path: Path, rows: Iterable[Any], *, nan_as_null: bool = False) -> int:
    """Write one JSON object a line, without spaces between; return how many.

    Args:
        path: the file.
        rows: the objects.
        nan_as_null: write null for a number that is not finite, in rows that another program made.

    Raises:
        ValueError: a number is not finite.
    """
    count = 0
    with atomic_write(path, "wb") as file:
        for row in rows:
            line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
            # orjson writes null for what is not finite, without a word.
            if b"null" in line and not nan_as_null:
                json.dumps(row, allow_nan=False)
            file.write(line)
            count += 1
    return count


def check_regular(path: Path) -> None:
    """Raise InputError where something is neither a file nor a folder: a pipe waits for ever, a device has no end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: a pipe or a device, wanted a file", hint="write what it gives into a file first")


def read_json(path: Path, *, finite: bool = False) -> Any:
    """Return the JSON document of a file.

    Args:
        path: the file.
        finite: refuse NaN and infinity, which Python reads and `write_json` does not write again.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    check_regular(path)
    try:
        value = json_of(path.read_text(encoding="utf-8-sig"))  # editors on Windows write a mark of UTF-8 first
        if finite:
            json.dumps(value, allow_nan=False)
        return value
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", hint="check the path") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}", hint="mend or remove the file") from None


def read_jsonl(path: Path, *, on_bad: OnBad = refuse) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for each line that is not blank.

    Raises:
        InputError: the file is missing, a line is not a JSON object, or is not UTF-8; names file and line.
    """
    check_regular(path)
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", hint="check the path") from None
    with file:
        for number, raw in enumerate(lines_of(file), start=1):
            try:
                row = object_of(raw, is_first=number == 1)
            except Unusable as flaw:
                on_bad(BadRow(f"{path}:{number}", flaw))
                continue
            if row is not None:
                yield number, row


def lines_of(file: Iterable[bytes]) -> Iterator[bytes]:
    r"""Yield the lines of a file that was opened in binary, whether they end in LF, in CRLF or in CR.

    >>> list(lines_of([b"a\r\n", b"b\rc\n"]))
    [b'a\r\n', b'b\r', b'c\n']
    """
    for raw in file:
        if b"\r" in raw:
            yield from raw.splitlines(keepends=True)
        else:
            yield raw

"""Files that are either whole or absent: atomic writing, and JSON lines with line numbers."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from embedsmith.data.bad_rows import BadRow, OnBad, Unusable, kind, refuse
from embedsmith.errors import InputError


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary name beside `path`, and rename it to `path` when the block ends well.

    A reader sees the old file or the new one, never half of one; an error leaves the old one as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with open(partial, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        # A write that fails names no file, and the temporary name says nothing.
        if error.errno and error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give a folder under a temporary name beside `target`, and put it in the target's place when the block ends well.

    A reader sees the old folder or the new one; an error leaves the old one as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        with _system_errors(target):
            yield partial
        partial.chmod(0o755)
        if target.is_dir():
            old = target.with_name(f".{target.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
            partial.rename(target)
            shutil.rmtree(old)
        else:
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    """Raise what safetensors tells of the system as the OSError that it is."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        if told := re.search(r"\(os error (\d+)\)", str(error)):
            number = int(told[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def remove_partials(folder: Path) -> None:
    """Remove what `atomic_write` and others left below a folder when they were killed."""
    for path in sorted(folder.rglob(".*.partial")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write one array as `.npy`."""
    with atomic_write(path, "wb") as file:
        # Not straight from numpy to the file: where a disk is full, numpy does not say so.
        np.lib.format.write_array(_Pipe(file), array, allow_pickle=False)


class _Pipe:
    """A file as numpy takes it for something that can only be written to."""

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document, indented."""
    with atomic_write(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """Write one JSON object a line, without spaces between; return how many."""
    count = 0
    with atomic_write(path, "wb") as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


def read_json(path: Path) -> Any:
    """Return the JSON document of a file.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", hint="check the path") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}", hint="mend or remove the file") from None


def read_jsonl(path: Path, *, on_bad: OnBad = refuse) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for each line that is not blank.

    Raises:
        InputError: the file is missing, a line is not a JSON object, or is not UTF-8; names file and line.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", hint="check the path") from None
    with file:
        for number, raw in enumerate(file, start=1):
            try:
                row = orjson.loads(raw)
            except orjson.JSONDecodeError:
                if not raw.strip():
                    continue
                # It takes no byte order mark and no NaN, and its messages say less.
                try:
                    row = _loads(raw, is_first=number == 1)
                except Unusable as flaw:
                    on_bad(BadRow(f"{path}:{number}", flaw))
                    continue
            if not isinstance(row, dict):
                what = f"got {kind(row)}, wanted an object"
                on_bad(BadRow(f"{path}:{number}", Unusable(what, reason="not an object", hint='write {"key": value}')))
                continue
            yield number, row


def _loads(raw: bytes, *, is_first: bool) -> Any:
    """Return the JSON value of a line.

    Raises:
        Unusable: it has none.
    """
    try:
        value = json.loads(raw.decode("utf-8-sig" if is_first else "utf-8"))
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise Unusable(
            f"not UTF-8 (byte {error.start + 1} of the line)", reason="not UTF-8", hint="save the file as UTF-8"
        ) from None
    except UnicodeEncodeError:
        raise Unusable(
            "half of a surrogate pair, which no text can hold",
            reason="half of a surrogate pair",
            hint="remove the broken escape",
        ) from None
    except (ValueError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise Unusable(
            f"broken JSON: {what}", reason="broken JSON", hint="each line holds one whole JSON object"
        ) from None
    return value

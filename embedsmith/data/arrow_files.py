"""Arrow files of others: what is broken in them is one line, and no length or offset of theirs is trusted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedsmith.errors import InputError


@contextmanager
def whole(path: Path, what: str) -> Iterator[None]:
    """Raise InputError where Arrow finds within the block that a file is no whole one.

    Args:
        what: kind of the file, such as "Parquet".
    """
    import pyarrow as pa

    try:
        yield
    # A name of a column may be other than UTF-8.
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        # What the system says has a number; what Arrow says of a file's content has none.
        if isinstance(error, OSError) and error.errno:
            raise
        raise InputError(f"{path}: not a whole {what} file: {one_line(error)}", hint="write it again") from None


def check_offsets(batch: Any) -> None:
    """Raise ArrowInvalid where a batch of a file points out of it: Arrow would read there, and the process end.

    Texts may be other than UTF-8, which is a matter of single rows.
    """
    import pyarrow as pa

    as_bytes = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    for column in batch.columns:
        column.validate()
        (column.view(as_bytes[column.type]) if column.type in as_bytes else column).validate(full=True)


def class_names(metadata: Mapping[bytes, bytes] | None, place: str) -> dict[str, tuple[str, ...]]:
    """Return the names of classes that `datasets` has put into the metadata of a schema.

    Raises:
        InputError: what is there is not what `datasets` writes.
    """
    try:
        known = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        features = (known.get("info") or {}).get("features") or {}
        found = {
            column: tuple(feature["names"])
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (ValueError, TypeError, AttributeError, RecursionError):
        found = {"": (None,)}
    if not all(isinstance(name, str) for names in found.values() for name in names):
        raise InputError(
            f"{place}: the metadata that `datasets` keeps beside the columns is damaged",
            hint="write the file again with `datasets`, or without the metadata",
        )
    return found


def one_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

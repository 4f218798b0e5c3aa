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


def check_readable(schema: Any, place: str, *, hint: str) -> None:
    """Raise InputError where a stream has no columns, or one of a type that `datasets` does not save.

    Of such types some have no class in pyarrow, and some let a few bytes stand in every row.
    """
    if not schema.names:
        raise InputError(f"{place}: no columns", hint=hint)
    for column in schema:
        if (odd := _odd_in(column.type)) is not None:
            raise InputError(f'{place}: column "{column.name}" has the type {odd!s:.60}, which no text has', hint=hint)


def _odd_in(kind: Any) -> Any:
    """Return what is no type of a saved data set in an Arrow type; None where all is.

    >>> import pyarrow as pa
    >>> print(_odd_in(pa.list_(pa.string())), _odd_in(pa.list_(pa.string_view())))
    None string_view
    """
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return _odd_in(kind.storage_type)
    types = pa.types
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if lists or types.is_struct(kind) or types.is_map(kind):
        children = (_odd_in(kind.field(number).type) for number in range(kind.num_fields))
        return next((odd for odd in children if odd is not None), None)
    plain = (types.is_null, types.is_boolean, types.is_integer, types.is_floating, types.is_decimal)
    texts = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
    times = (types.is_date, types.is_time, types.is_timestamp, types.is_duration)
    return None if any(fits(kind) for fits in (*plain, *texts, *times)) else kind


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

"""Parquet files that are whole or absent, written and read a thousand rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedsmith.data.arrow_files import one_line, whole
from embedsmith.data.arrow_growth import parquet_batches
from embedsmith.data.files import atomic_write, check_regular
from embedsmith.data.tables import check_schema
from embedsmith.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_GROUP = 1000
"""Rows of a row group, which is what is held in memory."""


def write_parquet(path: Path, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows, of each what the schema names; return how many."""
    count = 0
    with open_parquet(path, schema) as append:
        for row in rows:
            append(row)
            count += 1
    return count


@contextmanager
def open_parquet(path: Path, schema: pa.Schema) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that appends a row to the file, which is at `path` when the block ends well."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    group: list[dict[str, Any]] = []
    with atomic_write(path, "wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(group, schema))
            group.clear()

        def append(row: dict[str, Any]) -> None:
            group.append(row)
            if len(group) == _GROUP:
                flush()

        yield append
        flush()


def read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number from 1, row) for each row.

    Raises:
        InputError: the file is missing, is not Parquet, is damaged, or holds a value that Python cannot.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_regular(path)
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", hint="check the path") from None
    except pa.ArrowInvalid:
        raise InputError(
            f"{path}: not a Parquet file, or only the beginning of one", hint="write it anew, or name JSON lines .jsonl"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        with whole(path, "Parquet"):
            raise error
    with whole(path, "Parquet"), file:
        check_schema(file.schema_arrow, str(path))
        yield from enumerate(_plain(parquet_batches(file, path), path), start=1)


def _plain(batches: Iterable[Any], path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of Arrow batches."""
    for batch in batches:
        try:
            rows = batch.to_pylist()
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"{path}: a value that is not UTF-8, or out of range: {one_line(error)}", hint="write it anew"
            ) from None
        yield from rows

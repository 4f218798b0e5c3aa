"""How much the rows of an Arrow or Parquet file may grow in memory: a short file may stand for any number of values.

Examples: a column of nulls takes no bytes. A run of one value takes a few.
A text in a dictionary is repeated in every row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedsmith.errors import InputError

BATCH = 256
"""Rows that are read at a time: a few bytes of a file may stand for a text of megabytes in every row."""
_BATCH_BYTES = 2**28
_MOST_BYTES, _MOST_TO_ONE = 2**30, 1000
"""A file gives no more bytes than the first, or than that many for each of its own."""
_MOST_VALUES, _MOST_VALUES_TO_ONE = 2**20, 32
"""A file gives no more values than the first, or than that many for each of its bytes."""
_FEWEST_TO_ONE = 100
"""Bytes from one byte of a compressed column: texts that people write give 20 at the most."""
_FLAT = 8
"""Depth of lists in lists that are counted; deeper ones are refused."""


class Growth:
    """What the batches of one file have come to so far."""

    def __init__(self, path: Path) -> None:
        """Begin with nothing.

        Args:
            path: of the file, whose size is the measure.
        """
        self._path = path
        self._size = path.stat().st_size
        self._bytes = self._values = 0

    def add(self, batch: Any) -> None:
        """Count a batch of Arrow.

        Raises:
            InputError: the file stands for more than anybody has written into it.
        """
        self._bytes += batch.nbytes
        self._values += sum(_values_in(column, _FLAT) for column in batch.columns)
        if self._bytes > max(_MOST_BYTES, _MOST_TO_ONE * self._size):
            self.refuse(f"{self._bytes:,}")
        self.check_values(self._values)

    def check_values(self, count: int) -> None:
        """Raise InputError where a file holds more values than a file of its size does."""
        if count > max(_MOST_VALUES, _MOST_VALUES_TO_ONE * self._size):
            self.refuse(f"{count:,} values")

    def refuse(self, what: str) -> None:
        """Raise InputError: the file stands for more than that."""
        raise InputError(
            f"{self._path}: {self._size:,} bytes that stand for more than {what}",
            hint="write it again without the rows that repeat each other",
        )


def _values_in(array: Any, depth: int) -> int:
    """Return how many values an array holds, those of its lists and objects among them."""
    import pyarrow as pa

    kind, count = array.type, len(array)
    if isinstance(kind, pa.BaseExtensionType):
        return _values_in(array.storage, depth)
    if pa.types.is_struct(kind):
        return count + sum(_values_in(array.field(number), depth - 1) for number in range(kind.num_fields))
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind)
    if is_list or pa.types.is_fixed_size_list(kind):
        # `flatten` keeps to the rows of a slice, `values` does not.
        return count + (_values_in(array.flatten(), depth - 1) if depth and count else 0)
    return count


def parquet_batches(file: Any, path: Path, columns: list[str] | None = None) -> Iterator[Any]:
    """Yield the batches of an open Parquet file, in which every row has its own copy of a text.

    Raises:
        InputError: a short file stands for more than anybody has written into it.
        ArrowInvalid, OSError: the file is damaged.
    """
    growth = Growth(path)
    for batch in file.iter_batches(batch_size=rows_at_a_time(file, columns, growth), columns=columns):
        batch = _decoded(batch)
        growth.add(batch)
        yield batch


def _decoded(batch: Any) -> Any:
    """Return a batch without the dictionaries and views that a Parquet file may ask for."""
    for number, field in enumerate(batch.schema):
        kind = _plain(field.type)
        if kind != field.type:
            batch = batch.set_column(number, field.with_type(kind), batch.column(number).cast(kind))
    return batch


def _plain(kind: Any) -> Any:
    """Return a type in which every value has its own bytes.

    >>> import pyarrow as pa
    >>> _plain(pa.list_(pa.dictionary(pa.int8(), pa.string()))), _plain(pa.string_view())
    (ListType(list<item: string>), DataType(large_string))
    """
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_plain(kind.value_type)))
    views = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    return views.get(kind, kind)


def rows_at_a_time(file: Any, columns: list[str] | None = None, growth: Growth | None = None) -> int:
    """Return how many rows of an open Parquet file are read at a time.

    A text that a dictionary holds once stands in any number of rows: where little was compressed from much, a batch of
    the longest text that there may be still fits into memory.

    Args:
        columns: that are read; None for all.
        growth: what the file has come to so far.

    Raises:
        InputError: the file says of itself that it has more values than a file of its size does.
    """
    metadata, longest = file.metadata, 1
    paths = [file.schema.column(number).path for number in range(metadata.num_columns)]
    read = [
        number
        for number, path in enumerate(paths)
        if columns is None or any(path == name or path.startswith(f"{name}.") for name in columns)
    ]
    if growth:
        growth.check_values(metadata.num_rows)
    for group in range(metadata.num_row_groups):
        # Where a group is damaged reading raises; what its metadata is asked would end the process.
        next(file.iter_batches(batch_size=1, row_groups=[group], columns=columns), None)
        for column in read:
            chunk = metadata.row_group(group).column(column)
            if growth:
                growth.check_values(chunk.num_values)
            if chunk.total_uncompressed_size > _FEWEST_TO_ONE * chunk.total_compressed_size:
                longest = max(longest, chunk.total_uncompressed_size)
    return min(BATCH, max(1, _BATCH_BYTES // longest))

"""Tables: rows of JSON lines, CSV, Parquet, a `datasets` folder or a data set on the hub, as they stream by.

What is read at a time is a few thousand rows; a row is a dict of plain values for as long as it takes to read it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from embedsmith.data.arrow_files import check_offsets, check_readable, class_names, one_line, whole
from embedsmith.data.arrow_growth import BATCH, Growth, parquet_batches
from embedsmith.data.bad_rows import BadRow, OnBad, Unusable, refuse
from embedsmith.data.csv_rows import csv_rows
from embedsmith.data.files import check_regular, read_json, read_jsonl
from embedsmith.errors import InputError, did_you_mean

SUFFIXES = (".jsonl", ".parquet", ".csv", ".tsv")
HUB = "hf:"

Unit = Literal["line", "row", "index"]
"""How an error names a row: the line of a file, a row counted from 1, or a Python index counted from 0."""


@dataclass(frozen=True)
class Table:
    """A named stream of rows that can be read again and again."""

    name: str
    """The path, as messages show it."""
    stem: str
    """The name without folder and suffix."""
    unit: Unit
    columns: tuple[str, ...] | None
    """The columns that every row has; None for JSON lines, where each row has its own keys."""
    reader: Callable[[Sequence[str] | None, OnBad], Iterator[tuple[int, dict[str, Any]]]]
    has_lists: bool = True
    """Whether a value may be a list."""
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Column of whole numbers -> what 0, 1, 2... stand for, as `ClassLabel` of `datasets` has it."""

    def rows(self, on_bad: OnBad, columns: Sequence[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (number from 1, row); of a table with columns only those that are asked for."""
        return self.reader(columns, on_bad)

    def place(self, number: int) -> str:
        """Return where a row stands.

        >>> Table("a.parquet", "a", "row", ("query",), lambda columns, on_bad: iter([])).place(17)
        'a.parquet: row 17'
        """
        if self.unit == "index":
            return f"{self.name}[{number - 1}]"
        return f"{self.name}:{number}" if self.unit == "line" else f"{self.name}: row {number:,}"


def open_table(path: Path) -> Table:
    """Return the table in a file.

    Raises:
        InputError: there is no such file, its suffix is unknown, or it is not what its suffix says.
    """
    check_exists(path)
    if path.suffix == ".jsonl":
        return Table(str(path), path.stem, "line", None, lambda _, on_bad: _json_rows(path, on_bad))
    if path.suffix in (".csv", ".tsv"):
        return _csv_table(path, delimiter="\t" if path.suffix == ".tsv" else ",")
    if path.suffix == ".parquet":
        return _parquet_table(path)
    raise InputError(
        f'{path}: a file that ends in "{path.suffix}", wanted one of {", ".join(SUFFIXES)}',
        hint='write JSON lines, {"query": "...", "positive": "..."} each',
    )


def check_exists(path: Path) -> None:
    """Raise InputError where there is nothing at a path; names the nearest sibling."""
    if not path.exists():
        siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"{path}: no such file or folder{did_you_mean(path.name, siblings)}", hint="check the path")
    check_regular(path)


def _json_rows(path: Path, on_bad: OnBad) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line, object) of each line of a file of JSON lines."""
    flaws: dict[tuple[str, ...], Unusable | None] = {}
    for number, row in read_jsonl(path, on_bad=on_bad):
        keys = tuple(row)
        if keys not in flaws:
            flaws[keys] = _same_names(keys)
        if (flaw := flaws[keys]) is not None:
            on_bad(BadRow(f"{path}:{number}", flaw))
            continue
        yield number, row


def check_names(names: Iterable[str], place: str) -> None:
    """Raise InputError where two columns have one name: only one of them would be read."""
    flaw = _same_names(names)
    if flaw is not None:
        raise InputError(f"{place}: {flaw}", hint=flaw.hint)


def _same_names(names: Iterable[str]) -> Unusable | None:
    """Return what is wrong with names of columns of which two are equal, but perhaps for case and white space.

    >>> str(_same_names(["Query", "positive", "query "]))
    'two columns differ in case or spaces only: "Query" and "query "'
    """
    seen: dict[str, str] = {}
    for name in names:
        folded = " ".join(name.casefold().split())
        if folded in seen:
            other = seen[folded]
            what = (
                f'two columns are called "{name}"'
                if other == name
                else (f'two columns differ in case or spaces only: "{other}" and "{name}"')
            )
            return Unusable(what, reason="two columns of one name", hint="rename or remove one of the two")
        seen[folded] = name
    return None


# --- CSV --------------------------------------------------------------------------------------------------------------


def _csv_table(path: Path, *, delimiter: str) -> Table:
    """Return the table of a CSV file whose first line names the columns."""
    header = next(csv_rows(path, delimiter, refuse), (1, []))[1]
    if not header:
        raise InputError(f"{path}: an empty file", hint="the first line names the columns, as in query,positive")
    check_names(header, f"{path}:1")

    def read(columns: Sequence[str] | None, on_bad: OnBad) -> Iterator[tuple[int, dict[str, Any]]]:
        rows = csv_rows(path, delimiter, on_bad, width=len(header))
        next(rows)
        asked = set(header if columns is None else columns)
        wanted = [(place, name) for place, name in enumerate(header) if name in asked]
        for number, row in rows:
            # CSV has no way to tell an empty text from none.
            yield number, {name: row[place] or None for place, name in wanted}

    return Table(str(path), path.stem, "line", tuple(header), read, has_lists=False)


# --- Arrow ------------------------------------------------------------------------------------------------------------


def _parquet_table(path: Path) -> Table:
    """Return the table of a Parquet file."""
    import pyarrow.parquet as pq

    with whole(path, "Parquet"), pq.ParquetFile(path) as file:
        names, classes = tuple(file.schema_arrow.names), class_names(file.schema_arrow.metadata, str(path))

    def batches(columns: Sequence[str] | None) -> Iterator[Any]:
        with whole(path, "Parquet"), pq.ParquetFile(path) as file:
            yield from parquet_batches(file, path, None if columns is None else list(columns))

    return arrow_table(str(path), path.stem, names, batches, classes)


def saved_tables(folder: Path) -> dict[str, Table]:
    """Return the splits of a folder that `save_to_disk` of `datasets` wrote; a single data set is the split "".

    Raises:
        InputError: a file is missing or cannot be used.
    """
    if (folder / "dataset_dict.json").is_file():
        named = read_json(folder / "dataset_dict.json")
        names = named.get("splits") if isinstance(named, dict) else None
        if not isinstance(names, list) or not names:
            raise InputError(f"{folder / 'dataset_dict.json'}: names no splits", hint=_SAVE_AGAIN)
        return {name: _saved_table(_named(folder, name, "dataset_dict.json"), folder.name) for name in names}
    return {"": _saved_table(folder, folder.name)}


_SAVE_AGAIN = "save the data again"
_LONGEST_NAME = 255
"""Bytes of a file's name, on every file system that is in use."""


def _named(folder: Path, name: Any, by: str) -> Path:
    """Return what a file of a folder names in it.

    Raises:
        InputError: the name leads elsewhere.
    """
    is_name = isinstance(name, str) and name.isprintable() and len(name.encode()) <= _LONGEST_NAME
    if not is_name or name != os.path.basename(name) or name in ("", ".", ".."):
        raise InputError(f"{folder / by}: names {name!r:.100}, which is no name in its folder", hint=_SAVE_AGAIN)
    return folder / name


def is_saved(folder: Path) -> bool:
    """Return whether `save_to_disk` of `datasets` wrote a folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _saved_table(folder: Path, stem: str) -> Table:
    """Return the table of one data set: Arrow streams that `state.json` lists."""
    files = _stream_files(folder)

    def batches(columns: Sequence[str] | None) -> Iterator[Any]:
        for file in files:
            with whole(file, "Arrow"):
                stream = _stream(file)
                growth = Growth(file)
                if stream.schema.names != schema.names:
                    raise InputError(f"{file}: other columns than those of {files[0]}", hint=_SAVE_AGAIN)
                for batch in stream:
                    check_offsets(batch)
                    growth.add(batch)
                    yield batch if columns is None else batch.select(list(columns))

    with whole(files[0], "Arrow"):
        schema = _stream(files[0]).schema
        names = tuple(schema.names)
    return arrow_table(str(folder), stem, names, batches, class_names(schema.metadata, str(files[0])))


def _stream_files(folder: Path) -> list[Path]:
    """Return the files that the `state.json` of a data set lists.

    Raises:
        InputError: it lists none, a selection of their rows, or files elsewhere.
    """
    state = read_json(folder / "state.json")
    listed = state.get("_data_files") if isinstance(state, dict) else None
    listed = listed if isinstance(listed, list) else []
    names = [file.get("filename") if isinstance(file, dict) else None for file in listed]
    files = [_named(folder, name, "state.json") for name in names]
    if not files or state.get("_indices_data_files"):
        raise InputError(
            f"{folder}: its state.json names {'a selection of rows' if files else 'no data files'}",
            hint="save it again: dataset.flatten_indices().save_to_disk(...)",
        )
    return files


def _stream(file: Path) -> Any:
    """Return the Arrow stream of a file."""
    import pyarrow as pa

    if not file.is_file():
        raise InputError(f"{file}: no such file, state.json names it", hint="copy the whole folder")
    stream = pa.ipc.open_stream(pa.memory_map(str(file)))
    check_readable(stream.schema, f"{file}", hint=_SAVE_AGAIN)
    return stream


def arrow_table(
    name: str,
    stem: str,
    columns: tuple[str, ...],
    batches: Callable[[Sequence[str] | None], Iterator[Any]],
    class_names: Mapping[str, tuple[str, ...]],
    unit: Unit = "row",
) -> Table:
    """Return the table that Arrow batches make."""
    check_names(columns, name)

    def read(wanted: Sequence[str] | None, on_bad: OnBad) -> Iterator[tuple[int, dict[str, Any]]]:
        number = 1
        for batch in batches(wanted):
            check_schema(batch.schema, name)
            for start in range(0, batch.num_rows, BATCH):
                some = batch.slice(start, BATCH)
                yield from _plain_rows(table, some, number, on_bad)
                number += some.num_rows

    table = Table(name, stem, unit, columns, read, class_names=class_names)
    return table


def check_schema(schema: Any, place: str) -> None:
    """Raise InputError where two columns of an Arrow schema, or two fields of an object in one, have one name."""
    check_names(schema.names, place)
    for column in schema:
        _check_structs(column.type, f'{place}: column "{column.name}"')


def _check_structs(kind: Any, place: str) -> None:
    """Raise InputError where an Arrow type holds objects with two fields of one name."""
    import pyarrow as pa

    children = [kind.field(number) for number in range(kind.num_fields)]
    if pa.types.is_struct(kind):
        check_names([child.name for child in children], place)
    for child in children:
        _check_structs(child.type, place)


def _plain_rows(table: Table, batch: Any, number: int, on_bad: OnBad) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number, row) of an Arrow batch whose first row has that number."""
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError) as error:  # not UTF-8; a day that Python's calendar does not have
        if batch.num_rows == 1:
            on_bad(BadRow(table.place(number), _unreadable(error)))
            return
        for row in range(batch.num_rows):
            yield from _plain_rows(table, batch.slice(row, 1), number + row, on_bad)
        return
    yield from enumerate(rows, start=number)


def _unreadable(error: ValueError | OverflowError) -> Unusable:
    """Return what is wrong with a row that Python cannot hold."""
    if isinstance(error, UnicodeDecodeError):
        return Unusable(f"not UTF-8: {error}", reason="not UTF-8", hint="write it anew")
    what = f"a value out of range: {one_line(error)}"
    return Unusable(what, reason="a value out of range", hint="write it as a text, or leave its column out")

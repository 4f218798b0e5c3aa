"""Rows that the caller holds in memory: read as those of a file are, and written into one.

A list of dicts, or what the package `datasets` has open: a `Dataset`, or a `DatasetDict` of splits. A row's place in an
error is its index: `dataset[3]`. A list's values are what JSON can hold, numbers and arrays of NumPy among them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from embedsmith.data.bad_rows import BadRow, OnBad, Unusable, refuse
from embedsmith.data.columns import ColumnSettings, readable
from embedsmith.data.files import write_jsonl
from embedsmith.data.hub import dataset_table
from embedsmith.data.tables import Table, check_names
from embedsmith.errors import InputError, did_you_mean

Rows = Any
"""A `datasets.Dataset` or `DatasetDict`, or a sequence of dicts; the package itself is loaded by whoever has one."""

NAME = "dataset"
"""How rows in memory are called in errors, and the file that they are written into."""
_WANTED = "a path, a datasets.Dataset, or a list of dicts"
_JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


def is_in_memory(data: object) -> bool:
    """Return whether data are rows that the caller holds, not the name of some.

    >>> is_in_memory("pairs.jsonl"), is_in_memory([{"query": "cat?", "positive": "a cat"}])
    (False, True)
    """
    return not isinstance(data, str | os.PathLike | Table)


def table_in_memory(data: Rows, split: str | None = None) -> Table:
    """Return the table of rows in memory.

    Args:
        data: what holds them.
        split: of a `DatasetDict`; by default train where there is one, or the only one.

    Raises:
        TypeError: it is nothing that holds rows.
        InputError: it holds none, or there is no such split, or a choice of several.

    >>> table = table_in_memory([{"query": "cat?", "positive": "a cat"}])
    >>> table.columns, table.place(1)
    (('query', 'positive'), 'dataset[0]')
    """
    if _is_of_datasets(data, "DatasetDict"):
        return _dataset(_chosen(data, split))
    if _is_of_datasets(data, "Dataset"):
        return _dataset(data)
    if isinstance(data, Sequence) and not isinstance(data, bytes | bytearray):
        return _list_table(data)
    raise TypeError(f"{NAME}: {_called(data)}, wanted {_WANTED}{_remedy(data)}")


def splits_in_memory(data: Rows) -> list[str]:
    """Return the splits of a `DatasetDict`; other rows have none to choose."""
    return list(data) if _is_of_datasets(data, "DatasetDict") else []


def tables_in_memory(data: Rows) -> dict[str, Table]:
    """Return the tables of rows in memory by split; rows without splits are one table, called `dataset`.

    Raises:
        TypeError: it is nothing that holds rows.
        InputError: it holds none.

    >>> list(tables_in_memory([{"text": "cat", "label": "animal"}]))
    ['dataset']
    """
    if _is_of_datasets(data, "DatasetDict"):
        return {str(split): _dataset(rows) for split, rows in data.items()}
    return {NAME: table_in_memory(data)}


def write_table(path: Path, table: Table, columns: ColumnSettings) -> None:
    """Write the rows of a table of pairs as JSON lines, as far as pairs are read of them: the file reads the same."""
    names = readable(table.columns or (), columns)
    write_jsonl(path, (_named(row, table.class_names) for _, row in table.rows(refuse, names)), nan_as_null=True)


def _named(row: dict[str, Any], classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return a row in which the numbers of classes are their names.

    >>> _named({"label": 1, "query": "cat?"}, {"label": ("no", "yes")})
    {'label': 'yes', 'query': 'cat?'}
    """
    return {
        name: classes[name][value] if name in classes and value in range(len(classes[name])) else value
        for name, value in row.items()
    }


def _is_of_datasets(data: object, name: str) -> bool:
    """Return whether an object is of a class of the package `datasets`, which is loaded where there is one."""
    library = sys.modules.get("datasets")
    return library is not None and isinstance(data, getattr(library, name))


def _chosen(splits: Any, split: str | None) -> Any:
    """Return one of the splits of a `DatasetDict`."""
    known = list(splits)
    if split is None:
        split = "train" if "train" in known else known[0] if len(known) == 1 else None
    if split in known:
        return splits[split]
    what = f"{len(known)} splits, and none was chosen" if split is None else f'no split "{split}"'
    raise InputError(
        f"{NAME}: {what}{did_you_mean(split or '', known)}",
        hint=f"choose one of {', '.join(known)}, or join some with datasets.concatenate_datasets",
    )


def _dataset(data: Any) -> Table:
    """Return the table of a `Dataset`."""
    if not len(data):
        raise _empty()
    return dataset_table(NAME, NAME, data, unit="index")


def _list_table(rows: Sequence[Any]) -> Table:
    """Return the table of a list of dicts, whose columns are the keys of all of them.

    Raises:
        TypeError: an item is no dict.
        InputError: there are none, or two columns have one name.
    """
    if not len(rows):
        raise _empty()
    names: dict[str, None] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(f'{NAME}[{number}]: {_called(row)}, wanted a dict, {{"query": "...", "positive": "..."}}')
        for name in row:
            if not isinstance(name, str):
                raise TypeError(f"{NAME}[{number}]: the key {name!r} is {_called(name)}, wanted a str")
        names.update(dict.fromkeys(row))
    columns = tuple(names)
    check_names(columns, NAME)

    def read(wanted: Sequence[str] | None, on_bad: OnBad) -> Iterator[tuple[int, dict[str, Any]]]:
        asked = columns if wanted is None else tuple(wanted)
        for number, row in enumerate(rows, start=1):
            try:
                yield number, {name: _plain(row.get(name), name) for name in asked}
            except Unusable as flaw:
                on_bad(BadRow(table.place(number), flaw))

    table = Table(NAME, NAME, "index", columns, read)
    return table


def _plain(value: Any, name: str) -> Any:
    """Return a value as a file of JSON lines would give it.

    >>> _plain(("a", "b"), "positive")
    ['a', 'b']

    Raises:
        Unusable: no file can hold it.
    """
    try:
        return value if value is None else orjson.loads(_json(value))
    except orjson.JSONEncodeError as error:
        if "surrogates" in str(error):
            what = f'"{name}" has half of a surrogate pair, which no text can hold'
            raise Unusable(what, reason="half of a surrogate pair", hint="remove it") from None
        raise Unusable(
            f'"{name}" is or holds {_called(_strangest(value))}, wanted texts or numbers',
            reason=f'"{name}" is neither text nor number',
            hint=f'write "{name}": "..."',
        ) from None


def _json(value: Any) -> bytes:
    """Return a value as JSON.

    Raises:
        JSONEncodeError: it has no form there.
    """
    return orjson.dumps(value, default=_of_numpy, option=_JSON)


def _of_numpy(value: Any) -> Any:
    """Return an array as a list: one of objects is no number to JSON.

    Raises:
        TypeError: it is none.
    """
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(type(value).__name__)


def _strangest(value: Any) -> Any:
    """Return the part of a value that JSON cannot hold, the value itself where it is no list."""
    return next((one for one in value if not _fits(one)), value) if isinstance(value, list | tuple) else value


def _fits(value: Any) -> bool:
    """Return whether JSON can hold a value."""
    try:
        _json(value)
    except orjson.JSONEncodeError:
        return False
    return True


def _empty() -> InputError:
    """Return what is wrong with data without rows."""
    return InputError(f"{NAME}: empty, it has no rows", hint='give rows such as {"query": "...", "positive": "..."}')


def _called(value: object) -> str:
    """Return the type of a value, in words.

    >>> _called(1), _called(iter([]))
    ('an int', 'a list_iterator')
    """
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _remedy(data: object) -> str:
    """Return what makes rows of something that holds some in another way, or nothing."""
    if type(data).__module__.split(".")[0] == "pandas":
        return "; write datasets.Dataset.from_pandas(frame)"
    if isinstance(data, Mapping):
        return "; write datasets.Dataset.from_dict(columns)"
    return "; write list(rows)" if isinstance(data, Iterable) and not isinstance(data, bytes | bytearray) else ""

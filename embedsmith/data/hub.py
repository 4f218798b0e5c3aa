"""Data sets that `datasets` opens: of the Hugging Face hub, or already open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from embedsmith.data.arrow_files import class_names, one_line
from embedsmith.data.arrow_growth import BATCH
from embedsmith.data.reachable import offline_where_the_hub_is_silent
from embedsmith.data.tables import HUB, Table, Unit, arrow_table
from embedsmith.errors import InputError


def hub_tables(name: str, split: str | None) -> dict[str, Table]:
    """Return the splits of a data set on the Hugging Face hub, or the one that is asked for.

    Args:
        name: `hf:OWNER/NAME` or `hf:OWNER/NAME/CONFIG`.
        split: None for all of them.

    Raises:
        InputError: the name is malformed, the `datasets` package is not installed, or the hub has no such data set.
        OSError: the hub cannot be reached.
    """
    parts = name.removeprefix(HUB).split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise InputError(f'"{name}" names no data set', hint="write hf:OWNER/NAME or hf:OWNER/NAME/CONFIG")
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"{name}: to read a data set of the hub, the package datasets is needed",
            hint='pip install "embedsmith[datasets]", or save it elsewhere with save_to_disk and copy the folder here',
        ) from None
    config = parts[2] if len(parts) == 3 else None
    try:
        with offline_where_the_hub_is_silent():
            found = datasets.load_dataset("/".join(parts[:2]), config, split=split)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise InputError(f"{name}: {one_line(error)}", hint="check the name, and whether it is public") from None
    except ValueError as error:  # an unknown configuration or split, also one that the cache lacks
        raise InputError(f"{name}: {one_line(error)}", hint="name one of those that there are") from None
    except OSError as error:
        raise ConnectionError(f"{name}: the hub cannot be reached: {one_line(error)}") from None
    splits = found if isinstance(found, dict) else {split or "": found}
    return {key: dataset_table(name, parts[1], dataset) for key, dataset in splits.items()}


def dataset_table(name: str, stem: str, dataset: Any, unit: Unit = "row") -> Table:
    """Return the table of a `Dataset` of `datasets`."""

    def batches(columns: Sequence[str] | None) -> Iterator[Any]:
        some = dataset if columns is None else dataset.select_columns(list(columns))
        yield from some.with_format("arrow").iter(batch_size=BATCH)

    schema = dataset.features.arrow_schema
    return arrow_table(name, stem, tuple(dataset.column_names), batches, class_names(schema.metadata, name), unit)

"""The names and folders of several data sets that are scored together: no two share either."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embedsmith.data.tables import HUB
from embedsmith.errors import InputError
from embedsmith.evaluation.scoring import need_mteb
from embedsmith.settings import folder_name

_RESERVED = ("mteb", "scores")
"""Folders of a run that hold something else."""


def check_names(data: Sequence[str], benchmark: str | None = None) -> None:
    """Refuse data whose scores would stand under one name.

    Raises:
        InputError: a data set is given twice, or is called as a task of the benchmark is.
    """
    known: dict[str, str] = {}
    for name in data:
        if (place := _place(name)) in known:
            other = "" if known[place] == name else f", as {known[place]} too"
            raise InputError(f"{name}: given twice{other}", hint="name each data set once")
        known[place] = name
    if benchmark and data:
        need_mteb(benchmark)
        from embedsmith.evaluation.benchmarks import tasks_named

        tasks = {task.metadata.name for task in tasks_named(benchmark)}
        for name in data:
            if name in tasks:
                raise InputError(
                    f"{name}: a data set, and a task of {benchmark}", hint=f"write ./{name} for the folder"
                )


def _place(data: str) -> str:
    """Return what two names of one data set have in common."""
    return data if data.startswith(HUB) else str(Path(data).resolve())


def places_of(data: Sequence[str]) -> dict[str, str]:
    """Return the folder within an evaluation's that each data set's files go to: "", itself, where there is only one.

    No two are the same, on a disk that takes `NQ` for `nq` either.

    >>> places_of(["a/toy"])
    {'a/toy': ''}
    >>> places_of(["a/nq-dev", "b/NQ-dev/", "nq-dev-2.jsonl", "mteb"])
    {'a/nq-dev': 'nq-dev', 'b/NQ-dev/': 'NQ-dev-2', 'nq-dev-2.jsonl': 'nq-dev-2-2', 'mteb': 'mteb-2'}
    """
    if len(data) == 1:
        return {data[0]: ""}
    places: dict[str, str] = {}
    taken = {*_RESERVED}
    for name in data:
        stem = place = stem_of(name)
        number = 1
        while place.casefold() in taken:
            number += 1
            place = f"{stem}-{number}"
        taken.add(place.casefold())
        places[name] = place
    return places


def stem_of(data: str) -> str:
    """Return the last part of a path, without what a file's name ends with.

    >>> stem_of("data/nq.jsonl"), stem_of("hf:owner/nq"), stem_of("hf:owner/.."), stem_of("z/nq/k/..")
    ('nq', 'nq', 'data', 'nq')
    """
    path = Path(_place(data))
    return folder_name(path.name.removesuffix(path.suffix))

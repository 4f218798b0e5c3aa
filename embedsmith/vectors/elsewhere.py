"""A store that others fill: the workers of a cluster, each a shard at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from embedsmith.data.files import remove_partials
from embedsmith.data.locks import Lock, OnWait, waiting
from embedsmith.errors import InputError
from embedsmith.vectors.filling import ShardTask, stores_beside
from embedsmith.vectors.shards import open_when_there
from embedsmith.vectors.store import VectorStore


def fill_elsewhere(
    store: VectorStore,
    carry_out: Callable[[Iterator[ShardTask], Callable[[int], None]], Iterator[int]],
    *,
    dimensions: int,
    on_progress: Callable[[int, int], None] | None = None,
    on_wait: OnWait | None = None,
) -> VectorStore:
    """Have other processes write the shards that a store lacks; return the store.

    The bytes are those of `VectorStore.fill_each`. This process alone hands out shards of the store; another one waits.

    Args:
        store: what is to be filled.
        carry_out: is given the shards, and what to call with the texts that are encoded of those under way; yields the
            number of each shard that is written. It may take shards ahead.
        dimensions: D.
        on_progress: called with (texts done, N), first with what was there already.
        on_wait: called with the process that is waited for, where one is filling the store.

    Raises:
        InputError: a shard is not where it was to be written.
    """
    with waiting(Lock.in_folder(store.folder), on_wait):
        remove_partials(store.folder)
        store.settle(dimensions)
        missing = store.missing()
        done, told = len(store) - sum(map(store.rows_of, missing)), -1

        def tell(under_way: int = 0) -> None:
            nonlocal told
            # A shard that is begun again on another machine is not shown as a step back.
            if on_progress and min(done + under_way, len(store)) > told:
                told = min(done + under_way, len(store))
                on_progress(told, len(store))

        tell()
        files = store.files()
        for number in carry_out(_tasks(store, missing, dimensions), tell):
            path, rows = files[number]
            if open_when_there(path, rows, dimensions) is None:
                raise InputError(
                    f"{path}: a worker has written it, and it is not there",
                    hint="name a place on a file system that all machines of the cluster see",
                )
            done += rows
            tell()
        remove_partials(store.folder)  # of workers that died
    assert done == len(store), f"vectors for {done} of {len(store)} texts"
    return store


def _tasks(store: VectorStore, shards: Sequence[int], dimensions: int) -> Iterator[ShardTask]:
    """Yield shards as others fill them."""
    folder = Path(os.path.abspath(store.folder))
    others = [other.name for other in stores_beside(folder)]
    for number in shards:
        start, texts = store.part(number)
        yield ShardTask(folder, number, start, texts, len(store), dimensions, others)

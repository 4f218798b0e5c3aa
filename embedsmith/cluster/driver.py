"""The driver's side of a cluster: shards are handed to the workers of Ray, which writes, moves and restarts all else.

A shard is a task. Ray gives a task whose machine died to another one, and a machine that joins gets the next; what is
done lies in the store, so a command that is given again goes on there. A process of a worker keeps the model that it
has opened, so each loads it once. The driver holds the texts of the shards under way, and of a search the best
passages so far: queries x depth.

Shapes: Q queries, D dimensions, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np
import torch
from jaxtyping import Float32, Int64

from embedsmith.cluster.asked import Asked
from embedsmith.cluster.pool import Needs, Pool
from embedsmith.cluster.worker import AskedModel, AskedSearch, Task, encode_shard, search_shards, versions
from embedsmith.models.devices import kind_of
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.measured import speeds
from embedsmith.models.settings import Role
from embedsmith.topk.exact import merged
from embedsmith.vectors.elsewhere import fill_elsewhere
from embedsmith.vectors.shards import read_description
from embedsmith.vectors.store import VectorStore

Found = tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]

_WORTH = 2e11
"""Products of numbers from which on a search is handed out: some seconds on one core."""
_PLACES = 1 << 22
"""Places of a result that come back at once: 50 MB."""
_SHARES = 4
"""Parts of a search for each worker: who is slower gets fewer."""


class Cluster:
    """Encodes and searches by the workers of a cluster."""

    def __init__(self, name: str, asked: Asked) -> None:
        """Take note of what is asked for; nothing is started."""
        self._pool = Pool(name, asked)

    def close(self) -> None:
        """End the cluster that was started, or the connection."""
        self._pool.close()

    def encodes(self, model: Any, shards_left: int) -> TypeGuard[EmbeddingModel]:
        """Return whether so many shards are for the workers.

        A single shard is not: the driver has the model open already. Nor is a model that they cannot open, because it
        was handed over in Python or lies behind a URL.
        """
        return isinstance(model, EmbeddingModel) and model.opened is not None and shards_left > 1

    def fill(
        self,
        store: VectorStore,
        model: EmbeddingModel,
        role: Role,
        *,
        tokens: int | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        on_wait: Callable[[str], None] | None = None,
    ) -> VectorStore:
        """Have the workers encode what a store lacks; return the store.

        Args:
            model: of the texts, as `encodes` says.
            role: of the texts.
            tokens: of a batch.
            on_progress: called with (texts done, N).
            on_wait: called with the process that is waited for, where one is filling the store.

        Raises:
            EmbedsmithError: a worker has refused, or died again and again.
        """
        dimensions = model.truncate_dim or model.get_embedding_dimension()
        assert dimensions, "a model that opens has dimensions"

        def carry_out(tasks: Iterator[Task], running: Callable[[int], None]) -> Iterator[int]:
            contract = read_description(store.folder)["contract"]
            return self.encode(tasks, model, role, contract=contract, tokens=tokens, running=running)

        return fill_elsewhere(store, carry_out, dimensions=dimensions, on_progress=on_progress, on_wait=on_wait)

    def encode(
        self,
        tasks: Iterator[Task],
        model: EmbeddingModel,
        role: Role,
        *,
        contract: dict[str, Any],
        tokens: int | None = None,
        running: Callable[[int], None],
    ) -> Iterator[int]:
        """Have the workers do tasks; yield the number of each when it is done.

        Args:
            model: that `encodes` says yes to.
            role: of the texts.
            contract: what determines the vectors, as JSON gives it back.
            tokens: of a batch.
            running: called with the texts that are encoded of the tasks under way.
        """
        needs = self._pool.needs(model.device.type)
        asked = self._pool.put(self._asked_model(contract, model, role, tokens, needs))
        tally = self._pool.tally()
        work = self._pool.task(encode_shard, needs)
        calls = (work.remote(asked, task, tally) for task in tasks)
        for number in self._pool.carried_out(calls, needs, while_waiting=lambda: running(self._pool.total(tally))):
            # What is done counts from here on among the shards.
            tally.forget.remote(number)
            yield number

    def is_worth_searching(self, queries: int, store: VectorStore) -> bool:
        """Return whether a search takes long enough to be handed out."""
        return len(store.files()) > 1 and float(queries) * len(store) * store.dimensions >= _WORTH

    def top_k(
        self,
        queries: Float32[np.ndarray, "Q D"],
        store: VectorStore,
        *,
        k: int,
        memory_gib: float = 1.0,
        device: str = "cpu",
    ) -> Found:
        """Return what `topk.exact.top_k` does, bit for bit: each task searches some shards for a block of queries.

        Args:
            memory_gib: of each worker.
            device: kind of the first pass.
        """
        needs, k = self._pool.needs(kind_of(device)), min(k, len(store))
        work = self._pool.task(search_shards, needs)
        rows, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        size = max(1, _PLACES // k)
        for start in range(0, len(queries), size):
            some = slice(start, start + size)
            block = self._pool.put(queries[some])
            calls = (work.remote(block, part) for part in self._parts(store, k, memory_gib, kind_of(device), needs))
            best: Any = None
            for found in self._pool.carried_out(calls, needs):
                best = found if best is None else merged(best, found, k)
            rows[some], scores[some] = best
        return rows, scores

    def _parts(self, store: VectorStore, k: int, memory_gib: float, device: str, needs: Needs) -> Iterator[AskedSearch]:
        """Yield the parts of a search: runs of shards of about as many rows."""
        files = store.files()
        count = min(len(files), _SHARES * self._pool.capacity(needs))
        edges = np.linspace(0, len(files), count + 1).astype(np.int64).tolist()
        first, cores = 0, self._pool.cores_of(needs)
        for start, end in pairwise(edges):
            some = files[start:end]
            rows = [count for _, count in some]
            yield AskedSearch([str(path) for path, _ in some], rows, first, k, memory_gib, device, cores, versions())
            first += sum(rows)

    def _asked_model(
        self, contract: dict[str, Any], model: EmbeddingModel, role: Role, tokens: int | None, needs: Needs
    ) -> AskedModel:
        """Return how workers open a model."""
        assert model.opened is not None, "asked `encodes`"
        roles: tuple[Role, ...] = ("query", "passage")
        return AskedModel(
            how=model.opened,
            prompts={role: model.prompt_of(role) for role in roles},
            lengths={role: model.contract_length(role) for role in roles},
            contract=contract,
            role=role,
            tokens=tokens,
            cores=self._pool.cores_of(needs),
            cores_alone=torch.get_num_threads(),
            speeds=speeds() if model.device.type == "cpu" else None,
            versions=versions(),
        )

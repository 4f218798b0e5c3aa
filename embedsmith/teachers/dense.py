"""The dense teacher: an embedding model that scores a passage by its cosine with the query.

Shapes: Q queries, N passages, n passages of a shard, K candidates, P positives, S passages, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64

from embedsmith.cluster.running import running_cluster
from embedsmith.data.ties import Ties
from embedsmith.models.devices import searching_device
from embedsmith.models.settings import Role
from embedsmith.progress import Progress, silent
from embedsmith.topk.approximate import ApproximateIndex, ApproximateSettings, open_faiss
from embedsmith.topk.exact import scores_of, top_k
from embedsmith.topk.tied import drawn_top_k
from embedsmith.vectors.moments import Moments
from embedsmith.vectors.shards import gather
from embedsmith.vectors.store import VectorStore

_SHARD = 4096
"""Texts between two files: a few minutes of work to lose at most, and enough to sort by length."""

_WORTH_SPREADING = 10_000
"""Texts from which on it pays to start a process for each device, which takes half a minute."""


@runtime_checkable
class Encoder(Protocol):
    """Makes vectors of texts: an `EmbeddingModel` on this machine, or a URL."""

    def embed(
        self, texts: Sequence[str], role: Role, *, tokens: int | None, on_done: Callable[[int], None] | None
    ) -> Float32[np.ndarray, "N D"]:
        """Return one vector of length 1 for each text."""

    def embed_each(
        self,
        lists: Iterator[Sequence[str]],
        role: Role,
        *,
        tokens: int | None,
        on_done: Callable[[int], None] | None,
    ) -> Generator[Float32[np.ndarray, "_ D"], None, None]:
        """Yield what `embed` makes of each list of texts."""

    def contracts(self) -> dict[Role, dict[str, Any]]:
        """Return everything besides the texts that determines the vectors of each role."""

    def spread(self, devices: Sequence[str]) -> AbstractContextManager[None]:
        """Let `embed` use several devices at once within the block."""


class DenseTeacher:
    """Passages and queries encoded once, into stores below a folder, and searched exactly."""

    proposes = True

    def __init__(
        self,
        model: Encoder,
        passages: Sequence[str],
        *,
        name: str,
        folder: Path,
        batch_tokens: int | None = None,
        devices: Sequence[str] = (),
        search: Literal["exact", "ivf", "hnsw"] = "exact",
        memory_gib: float = 1.0,
        ties: Ties | None = None,
        lazy: bool = False,
        on_progress: Progress = silent,
    ) -> None:
        """Index passages.

        Args:
            model: gives vectors of length 1.
            name: how the teacher is called in what it mines.
            folder: where the stores lie, one for each fingerprint.
            batch_tokens: tokens that the model reads at once; by default what suits the device.
            devices: several to encode many texts on, each with a copy of the model.
            search: exact, or an index of FAISS.
            memory_gib: what exact search may fill.
            ties: the draws among passages that score alike; by default by their texts.
            lazy: encode the passages when they are first needed, not now.
            on_progress: called with the progress of encoding and search.

        Raises:
            SettingsError: FAISS is asked for, and not installed.
        """
        if search != "exact":
            open_faiss()
        self.name = name
        self.model = model
        self._passages = passages
        self._folder = folder
        self._batch_tokens = batch_tokens
        self._devices = devices
        self._search = search
        self._memory_gib = memory_gib
        self._ties = ties or Ties(passages)
        self.recalls: list[float] = []
        """Of an approximate search, as measured in each call."""
        self._on_progress = on_progress
        self.contract = model.contracts()  # every store of one teacher has the same weights: they are hashed once
        """What determines the vectors of each role, beside the texts."""
        if not lazy:
            _ = self.store

    @cached_property
    def store(self) -> VectorStore:
        """The passages' vectors."""
        return self._encode(self._passages, "passage")

    @property
    def is_encoded(self) -> bool:
        """Whether the passages' vectors are there already."""
        return self._open(self._passages, "passage").is_complete

    def search(self, queries: Sequence[str], k: int) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
        """Return the rows and the scores of the k best passages of each query, best first, ties by draw.

        An approximate index may find fewer than k; `NO_PASSAGE` and -inf fill up. Which of those that tie for the last
        place it finds is its own affair.
        """
        if self._search == "exact":
            _ = self.store  # passages before queries: they take longer, and an error comes sooner
            return self.search_vectors(self.vectors(queries), queries, k)
        index = self._index
        found = index.search(self.vectors(queries), k)
        self.recalls.append(found.recall)
        order = self._ties.order(queries, found.rows, found.scores)
        return np.take_along_axis(found.rows, order, axis=1), np.take_along_axis(found.scores, order, axis=1)

    def search_vectors(
        self, vectors: Float32[np.ndarray, "Q D"], queries: Sequence[str], k: int
    ) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
        """Return what an exact search finds for queries whose vectors are there already: see `search`."""
        shards, device = self.store.shards(), searching_device(str(getattr(self.model, "device", "cpu")))

        def search(some: Int64[np.ndarray, " q"], k: int) -> tuple[np.ndarray, np.ndarray]:
            cluster = running_cluster()
            if cluster and cluster.is_worth_searching(len(some), self.store):
                return cluster.top_k(vectors[some], self.store, k=k, memory_gib=self._memory_gib, device=device)
            return top_k(vectors[some], shards, k=k, memory_gib=self._memory_gib, device=device)

        return drawn_top_k(search, queries, k, total=len(self._passages), ties=self._ties)

    @cached_property
    def _index(self) -> ApproximateIndex:
        """The approximate index of all passages."""
        kind: Any = self._search
        return ApproximateIndex(self.store.shards(), ApproximateSettings(index=kind))

    def scores(self, queries: Sequence[str], rows: Int64[np.ndarray, "Q P"]) -> Float32[np.ndarray, "Q P"]:
        """Return the scores of given passages."""
        return scores_of(self.vectors(queries), self.store.shards(), rows)

    def moments(self, queries: Sequence[str]) -> tuple[Float32[np.ndarray, " Q"], Float32[np.ndarray, " Q"]]:
        """Return the mean and the standard deviation of each query's scores over all passages."""
        return self._moments.of_scores(self.vectors(queries))

    @cached_property
    def _moments(self) -> Moments:
        """Those of the passages' vectors."""
        return Moments.of(self.store.shards())

    def similarities(
        self, rows: Int64[np.ndarray, " S"], others: Int64[np.ndarray, "S K"]
    ) -> Float32[np.ndarray, "S K"]:
        """Return the cosine of each passage with passages of its own."""
        shards = self.store.shards()
        return scores_of(gather(shards, rows), shards, others)

    def vectors_of(self, queries: Sequence[str]) -> tuple[Float32[np.ndarray, "Q D"], list[Float32[np.ndarray, "_ D"]]]:
        """Return the vectors of queries and, as memory maps in passage order, of all passages."""
        return self.vectors(queries), self.store.shards()

    def vectors(self, queries: Sequence[str]) -> Float32[np.ndarray, "Q D"]:
        """Return the queries' vectors."""
        if not queries:
            return np.empty((0, self.store.dimensions), np.float32)
        return self._encode(queries, "query").matrix()

    def stored(self, queries: Sequence[str]) -> tuple[Path, Path]:
        """Return the folders of the vectors of queries and of all passages; what is missing is encoded."""
        return self._encode(queries, "query").folder, self.store.folder

    def _encode(self, texts: Sequence[str], role: Role) -> VectorStore:
        """Return the store of some texts, filled."""
        store = self._open(texts, role)
        if store.is_complete:
            return store
        # A cluster has a worker for each device already.
        spread = self._devices and len(texts) >= _WORTH_SPREADING and not running_cluster()
        with self.model.spread(self._devices) if spread else nullcontext():
            return fill(
                store, self.model, role, name=self.name, on_progress=self._on_progress, tokens=self._batch_tokens
            )

    def _open(self, texts: Sequence[str], role: Role) -> VectorStore:
        """Return the store of some texts as it is."""
        shard_size = _SHARD * (1 if running_cluster() else max(1, len(self._devices)))
        return VectorStore.open_or_create(
            self._folder, contract=self.contract[role], texts=texts, shard_size=shard_size
        )


def fill(
    store: VectorStore, model: Encoder, role: Role, *, name: str, on_progress: Progress = silent, **how: Any
) -> VectorStore:
    """Encode what a store lacks, here or on the cluster; return the store.

    Args:
        name: the model's, for progress.
        on_progress: called after each batch.
        how: what else the model's `embed_each` takes.
    """
    what = f"encode {'queries' if role == 'query' else 'passages'} with {name}"
    shown = -1

    def tell(done: int) -> None:
        nonlocal shown
        if shown < done <= len(store):
            shown = done
            on_progress(what, shown, len(store))

    def encode(lists: Iterator[Sequence[str]]) -> Generator[Float32[np.ndarray, "n D"], None, None]:
        before = shown
        return model.embed_each(lists, role, **{"tokens": None, **how}, on_done=lambda done: tell(before + done))

    def wait(holder: str) -> None:
        on_progress(what, 0, len(store), f"waits for {holder}, which is encoding them")

    cluster = running_cluster()
    if cluster and how.keys() <= {"tokens"} and cluster.encodes(model, len(store.missing())):
        return cluster.fill(store, model, role, **how, on_progress=lambda done, _: tell(done), on_wait=wait)
    return store.fill_each(encode, on_progress=lambda done, _: tell(done), on_wait=wait)

"""The joined teacher: the vectors of several teachers side by side, reduced by PCA, and searched as one.

Source: "ensemble hard-negative mining", https://arxiv.org/abs/2411.02404: six encoders, concatenated, PCA that keeps
95% of the variance. That the reduced vectors are brought to length 1 is our reading.
Shapes: Q queries, N passages, K candidates, S pairs, D dimensions of all teachers together, d of the reduced vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64

from embedsmith.data.files import read_array, remove_partials_of, write_array
from embedsmith.data.locks import Lock, waiting
from embedsmith.data.ties import Ties
from embedsmith.errors import SettingsError
from embedsmith.models.arithmetic import ARITHMETIC
from embedsmith.progress import Progress, silent
from embedsmith.teachers.named import Teacher
from embedsmith.topk.exact import scores_of, top_k
from embedsmith.topk.tied import drawn_top_k
from embedsmith.vectors.moments import Moments
from embedsmith.vectors.shards import gather, open_shard

_ROWS = 16384
"""Passages that are joined at once."""


class JoinedTeacher:
    """Ranks passages by the cosine of reduced, joined vectors."""

    proposes = True

    def __init__(
        self,
        teachers: Sequence[Teacher],
        *,
        name: str,
        variance: float,
        folder: Path,
        ties: Ties | None = None,
        on_progress: Progress = silent,
    ) -> None:
        """Join the teachers that have vectors.

        Args:
            variance: share of the variance of the passages' vectors that is kept, in (0, 1].
            folder: where the reduced vectors are written.
            ties: the draws among passages that score alike; without them the lower row comes first.

        Raises:
            SettingsError: no teacher has vectors.
        """
        self.name = name
        self._teachers = [teacher for teacher in teachers if teacher.vectors_of([]) is not None]
        if not self._teachers:
            raise SettingsError(
                f"ensemble: {name}: none of the teachers has vectors ({', '.join(t.name for t in teachers)})",
                hint="name at least one embedding model",
            )
        self._ties = ties
        joined = [teacher.contract for teacher in self._teachers]
        self.contract = {"variance": variance, "teachers": joined, "arithmetic": ARITHMETIC}
        """Everything besides the texts that determines the scores, as plain values."""
        self._digest = hashlib.sha256(f"{ARITHMETIC} {variance}".encode())
        self._count = 0
        self._centre, self._axes = self._reduction(variance)
        self._passages = self._reduced_passages(folder, on_progress)

    def search(self, queries: Sequence[str], k: int) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
        """Return the rows and the scores of the k best passages of each query, best first, ties by draw."""
        vectors = self._queries(queries)
        if self._ties is None:
            return top_k(vectors, [self._passages], k=k)

        def search(some: Int64[np.ndarray, " q"], k: int) -> tuple[np.ndarray, np.ndarray]:
            return top_k(vectors[some], [self._passages], k=k)

        return drawn_top_k(search, queries, k, total=self._count, ties=self._ties)

    def scores(self, queries: Sequence[str], rows: Int64[np.ndarray, "Q P"]) -> Float32[np.ndarray, "Q P"]:
        """Return the scores of given passages."""
        return scores_of(self._queries(queries), [self._passages], rows)

    def moments(self, queries: Sequence[str]) -> tuple[Float32[np.ndarray, " Q"], Float32[np.ndarray, " Q"]]:
        """Return the mean and the standard deviation of each query's scores over all passages."""
        return self._moments.of_scores(self._queries(queries))

    @cached_property
    def _moments(self) -> Moments:
        """Those of the passages' reduced vectors."""
        return Moments.of([self._passages])

    def similarities(
        self, rows: Int64[np.ndarray, " S"], others: Int64[np.ndarray, "S K"]
    ) -> Float32[np.ndarray, "S K"] | None:
        """Return the cosine of each passage with passages of its own."""
        return scores_of(np.asarray(self._passages[rows]), [self._passages], others)

    def vectors_of(
        self, queries: Sequence[str]
    ) -> tuple[Float32[np.ndarray, "Q d"], list[Float32[np.ndarray, "_ d"]]] | None:
        """Return the vectors of queries and of all passages."""
        return self._queries(queries), [self._passages]

    def _joined(self) -> Iterator[Float32[np.ndarray, "n D"]]:
        """Yield the teachers' passage vectors side by side."""
        found = [teacher.vectors_of([]) for teacher in self._teachers]
        shards = [passages for _, passages in filter(None, found)]
        count = sum(len(shard) for shard in shards[0])
        for start in range(0, count, _ROWS):
            rows = np.arange(start, min(start + _ROWS, count))
            yield np.concatenate([gather(own, rows) for own in shards], axis=1)

    def _reduction(self, variance: float) -> tuple[Float64[np.ndarray, " D"], Float64[np.ndarray, "D d"]]:
        """Return the passages' mean, and the principal axes that hold a share of their variance."""
        moments = Moments.of(self._seen())
        values, axes = np.linalg.eigh(moments.covariance)
        values, axes = np.maximum(values[::-1], 0), axes[:, ::-1]
        share = np.cumsum(values) / max(values.sum(), 1e-12)
        kept = int(np.searchsorted(share, variance - 1e-9)) + 1
        # An axis has two directions; the larger coordinates' one makes the vectors the same on every machine.
        signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
        return moments.mean, (axes * signs)[:, :kept]

    def _seen(self) -> Iterator[Float32[np.ndarray, "n D"]]:
        """Yield the joined vectors, counted and hashed as they pass."""
        for block in self._joined():
            self._digest.update(np.ascontiguousarray(block).data)
            self._count += len(block)
            yield block

    def _reduced(self, vectors: Float32[np.ndarray, "n D"]) -> Float32[np.ndarray, "n d"]:
        """Return vectors on the axes, of length 1."""
        reduced = (vectors - self._centre) @ self._axes
        return (reduced / np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-12)).astype(np.float32)

    def _reduced_passages(self, folder: Path, on_progress: Progress) -> Float32[np.ndarray, "N d"]:
        """Return the passages' reduced vectors, as a memory map of a file that is written once."""
        # Named by every joined vector in its order: another corpus, order or teacher is another file.
        path = folder / f"joined-{self._digest.hexdigest()[:16]}.npy"
        what, width = "join the teachers' vectors", self._axes.shape[1]
        if (found := open_shard(path, self._count, width)) is not None:
            return found

        def tell(holder: str) -> None:
            on_progress(what, 0, self._count, f"waits for {holder}, which is joining them")

        with waiting(Lock.beside(path), tell):
            if (found := open_shard(path, self._count, width)) is not None:
                return found
            remove_partials_of(path)
            blocks: list[np.ndarray] = []
            for block in self._joined():
                blocks.append(self._reduced(block))
                on_progress(what, sum(map(len, blocks)), self._count)
            write_array(path, np.concatenate(blocks))
        return read_array(path)

    def _queries(self, queries: Sequence[str]) -> Float32[np.ndarray, "Q d"]:
        """Return the queries' vectors."""
        found = [teacher.vectors_of(queries) for teacher in self._teachers]
        return self._reduced(np.concatenate([own for own, _ in filter(None, found)], axis=1))

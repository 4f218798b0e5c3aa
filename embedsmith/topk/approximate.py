"""Approximate top-k for very large corpora: a FAISS index, and how much of the exact result it finds.

The index only proposes: every proposal gets its exact score, so that rows come in the exact search's order and what is
missing is all that is approximate. How much that is, is measured each time.

Shapes: Q queries, N passages, D dimensions, K candidates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Int64
from pydantic import Field

from embedsmith.data.ties import NO_PASSAGE
from embedsmith.errors import SettingsError
from embedsmith.settings import Seed, Settings
from embedsmith.topk.exact import check_vectors, scores_of, top_k
from embedsmith.vectors.shards import gather

_ADDED_AT_ONCE = 65_536
_TRAINED_ON = 64
"""Passages for each list, to place the lists."""


class ApproximateSettings(Settings):
    """Which index, how thorough, and how its recall is measured."""

    index: Literal["ivf", "hnsw"] = "ivf"
    """ivf: passages in lists by nearness, few of them read for a query; quick to build. hnsw: a graph of neighbours;
    slow to build, quicker to search, more memory."""
    probes: int = Field(32, gt=0)
    """ivf: lists that are read for each query, of about 4 √N."""
    links: int = Field(32, gt=1)
    """hnsw: neighbours of each passage."""
    effort: int = Field(200, gt=0)
    """hnsw: passages that are kept in view, in building and in search."""
    sample: int = Field(200, gt=0)
    """Queries, at random, that are searched exactly as well, to measure the recall."""
    seed: Seed = 0
    """Of the sample, and of the passages that the lists are placed by."""


@dataclass(frozen=True)
class Approximation:
    """What an approximate search found, and how good it is."""

    rows: Int64[np.ndarray, "Q K"]
    """Best first; `NO_PASSAGE` where the index proposed fewer than K passages."""
    scores: Float32[np.ndarray, "Q K"]
    """Exact inner products; -inf where there is no row."""
    recall: float
    """Share of the exact K best that were found, over the sample."""


class ApproximateIndex:
    """An index of all passages, built once; passages are held in memory."""

    def __init__(
        self,
        passages: Float[np.ndarray, "_ _"] | Iterable[Float[np.ndarray, "_ _"]],
        settings: ApproximateSettings | None = None,
    ) -> None:
        """Build the index.

        Args:
            passages: vectors of length 1: lists and graph are built by inner product.

        Raises:
            InputError: there is no passage.
            SettingsError: FAISS is not installed.
        """
        self._settings = settings or ApproximateSettings()
        self._shards = [passages] if isinstance(passages, np.ndarray) else list(passages)
        self._total = sum(len(shard) for shard in self._shards)
        self._index = _index(self._shards, self._total, self._settings) if self._total else None

    def search(self, queries: Float32[np.ndarray, "Q D"], k: int) -> Approximation:
        """Return about the k best passages of each query, with the recall as measured on a sample of them.

        Raises:
            InputError: as `top_k`.
        """
        settings, shards = self._settings, self._shards
        check_vectors(queries, shards, self._total)
        assert self._index is not None, "check_vectors refuses a corpus without a passage"
        k = min(k, self._total)
        _, proposed = self._index.search(np.ascontiguousarray(queries), k)
        # FAISS says -1 for "no more", which is `NO_PASSAGE`; row 0 stands in for it, and its score is not used.
        missing = proposed == NO_PASSAGE
        scores = np.where(missing, np.float32(-np.inf), scores_of(queries, shards, np.where(missing, 0, proposed)))
        order = np.lexsort((proposed, -scores), axis=1)
        rows, scores = (np.take_along_axis(values, order, axis=1) for values in (proposed, scores))
        count = min(settings.sample, len(queries))
        some = np.sort(np.random.default_rng(settings.seed).choice(len(queries), count, replace=False))
        exact, _ = top_k(queries[some], shards, k=k)
        found = sum(len(np.intersect1d(one, other)) for one, other in zip(rows[some], exact, strict=True))
        return Approximation(rows=rows, scores=scores, recall=found / exact.size if exact.size else 1.0)


def open_faiss() -> Any:
    """Return the package faiss.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise SettingsError(
            "approximate search needs the package faiss", hint='pip install "embedsmith[faiss]"'
        ) from None
    return faiss


def _index(shards: list[np.ndarray], total: int, settings: ApproximateSettings) -> Any:
    """Return a FAISS index of all passages."""
    faiss = open_faiss()
    dimensions = shards[0].shape[1]
    if settings.index == "hnsw":
        index: Any = faiss.IndexHNSWFlat(dimensions, settings.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = index.hnsw.efSearch = settings.effort
    else:
        lists = max(1, min(round(4 * math.sqrt(total)), total // 39))  # FAISS warns of fewer than 39 passages a list
        quantizer = faiss.IndexFlatIP(dimensions)
        index = faiss.IndexIVFFlat(quantizer, dimensions, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = settings.seed
        index.nprobe = settings.probes
        count = min(total, _TRAINED_ON * lists)
        chosen = np.random.default_rng(settings.seed).choice(total, count, replace=False)
        index.train(gather(shards, np.sort(chosen)))
    for shard in shards:
        for start in range(0, len(shard), _ADDED_AT_ONCE):
            index.add(np.array(shard[start : start + _ADDED_AT_ONCE], np.float32))
    return index

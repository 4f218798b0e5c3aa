"""Several contenders as one: what their rankings have high together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from embedsmith.data.collection import Collection
from embedsmith.data.trec import Ranking
from embedsmith.evaluation.contender import Contender, readable
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.settings import fingerprint
from embedsmith.topk.fused import fused


class Hybrid(Contender):
    """Contenders whose rankings are fused by reciprocal ranks; of ties, the first contender decides."""

    def __init__(self, parts: Sequence[Contender]) -> None:
        """Take note of the contenders; nothing is opened yet."""
        super().__init__(" and ".join(part.name for part in parts), vectors=parts[0].vectors)
        self._parts = list(parts)

    @cached_property
    def encoder(self) -> None:
        """There is none: its scores are no inner products of vectors."""
        return

    @property
    def is_run_file(self) -> bool:
        """Whether the name is that of a file with a ranking."""
        return False

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen digits that depend on all that determines the scores beside the data."""
        return fingerprint([part.fingerprint for part in self._parts])

    def ranking(self, collection: Collection, scoring: ScoringSettings, *, depth: int) -> Ranking:
        """Return the passages that the contenders rank highest together, each looking as deep as is asked for.

        Where passages are read in chunks, they are by those contenders that can.
        """
        found = [part.ranking(collection, readable(part, scoring), depth=depth) for part in self._parts]
        return {
            query: fused([[passage for passage, _ in ranking.get(query, [])] for ranking in found], depth)
            for query in collection.query_ids
        }

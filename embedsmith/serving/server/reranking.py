"""A cross-encoder behind a server: query and document are read together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float32

from embedsmith.serving.server.problems import Refused
from embedsmith.teachers.cross_encoder import CrossEncoderTeacher

_BLOCK = 64
"""Pairs that are scored before another request has its turn."""


class Reranker:
    """A cross-encoder with a thread of its own."""

    def __init__(self, name: str, teacher: CrossEncoderTeacher) -> None:
        self.name, self._teacher = name, teacher
        self._thread = ThreadPoolExecutor(1, f"rerank-{name}")

    async def scores(self, query: str, documents: Sequence[str]) -> Float32[np.ndarray, " n"]:
        """Return how relevant each document is."""
        loop = asyncio.get_running_loop()
        # Pairs of about one length in a block: padding is wasted work.
        order = sorted(range(len(documents)), key=lambda place: len(documents[place]))
        found = np.empty(len(documents), np.float32)
        for start in range(0, len(order), _BLOCK):
            some = order[start : start + _BLOCK]
            pairs = [(query, documents[place]) for place in some]
            found[some] = await loop.run_in_executor(self._thread, self._teacher.scores_of_pairs, pairs)
        return found

    async def usage(self, query: str, documents: Sequence[str], service: Any) -> dict[str, int]:
        """Return the tokens of all pairs, as the model reads them.

        Raises:
            Refused: they are too many.
        """
        counts = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._teacher.tokens_of_pairs, [(query, text) for text in documents]
        )
        total, most = sum(min(count, limit) for count, limit in counts), service.settings.max_request_tokens
        if total > most:
            raise Refused(
                f"{total:,} tokens, the limit is {most:,} a request", param="documents", code="too_many_tokens"
            )
        return {
            "prompt_tokens": total,
            "total_tokens": total,
            "truncated_inputs": sum(count > limit for count, limit in counts),
        }

"""What the paths answer with: the models, the corpus, the limits; texts to tokens, tokens to vectors.

Shapes: n texts, D dimensions, q queries, p passages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float32

from embedsmith.errors import EmbedsmithError
from embedsmith.models.settings import Role
from embedsmith.serving.server.batching import Batcher, BatchFailed, OutOfMemory
from embedsmith.serving.server.metrics import Metrics
from embedsmith.serving.server.models import Models
from embedsmith.serving.server.problems import Refused, overloaded
from embedsmith.serving.server.protocol import RerankBody, SimilarityBody
from embedsmith.serving.server.searched import SearchedCorpus
from embedsmith.serving.server.served import Read, ServedModel
from embedsmith.serving.server.settings import ServeSettings, Truncation


class Service:
    """What the paths answer with: the models, the corpus, the limits.

    Args:
        settings: limits.
        metrics: are counted into.
    """

    def __init__(self, settings: ServeSettings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.models: Models | None = None
        self.corpus: SearchedCorpus | None = None
        self.began = int(time.time())
        # One thread: a fast tokenizer keeps truncation as state, and uses all cores for many texts by itself.
        self.tokenizing = ThreadPoolExecutor(1, "tokenize")
        self.searching = ThreadPoolExecutor(1, "search")

    def ready(self) -> Models:
        """Return the models.

        Raises:
            Refused: they are not opened yet.
        """
        if self.models is None:
            raise overloaded("the models are being opened: try again", code="not_ready")
        return self.models

    async def read(
        self,
        model: ServedModel,
        texts: Sequence[str],
        role: Role,
        *,
        instruction: str | None,
        truncate: Truncation | None,
        param: str = "input",
    ) -> list[Read]:
        """Return a request's texts as a model reads them.

        Raises:
            Refused: there are too many texts or tokens, or one is too long and may not be cut off.
        """
        most = self.settings.max_inputs
        if len(texts) > most:
            raise Refused(f"{len(texts):,} texts, the limit is {most:,} a request", param=param, code="too_many_inputs")
        loop = asyncio.get_running_loop()
        try:
            prompt = model.prompt(role, instruction)
            reads = await loop.run_in_executor(self.tokenizing, model.read, texts, role, prompt)
        except EmbedsmithError as error:
            raise refused(error, param) from None
        total = sum(read.tokens for read in reads)
        if total > self.settings.max_request_tokens:
            raise Refused(
                f"{total:,} tokens, the limit is {self.settings.max_request_tokens:,} a request: send fewer texts",
                param=param,
                code="too_many_tokens",
            )
        cut = [place for place, read in enumerate(reads) if read.is_cut]
        if cut and (truncate or self.settings.truncate) == "error":
            read = reads[cut[0]]
            raise Refused(
                f"{param}[{cut[0]}] has {read.all_tokens:,} tokens, {model.name} reads {read.tokens:,}: shorten it, "
                'or allow it to be cut off with "truncate": "end"',
                param=param,
                code="context_length_exceeded",
            )
        self.metrics.tokens.labels(model.name).inc(total)
        if cut:
            self.metrics.truncated.labels(model.name).inc(len(cut))
        return reads

    async def vectors(self, model: ServedModel, batcher: Batcher, reads: Sequence[Read]) -> Float32[np.ndarray, "n D"]:
        """Return the vectors of texts, computed with those of other requests; a request that is gone leaves the queue.

        Raises:
            Refused: a text is more than the memory holds.
        """
        if not reads:
            return np.empty((0, model.dimensions), np.float32)
        job = batcher.enqueue(reads)
        try:
            vectors = await job.done
            if not np.isfinite(vectors).all():
                raise Refused("a vector is not finite", status=500, kind="server_error", code="not_finite")
            return vectors
        except BatchFailed:
            message = "the model failed; the server's log says how"
            raise Refused(message, status=500, kind="server_error", code="internal") from None
        except OutOfMemory as error:
            raise overloaded(f"{error}: send shorter or fewer texts", code="out_of_memory") from None
        finally:
            job.is_gone = True
            if job.first_begun:
                self.metrics.queued.labels(model.name).observe(job.first_begun - job.came)

    async def of_two(
        self,
        models: Models,
        body: RerankBody | SimilarityBody,
        queries: Sequence[str],
        passages: Sequence[str],
        passages_are: str,
    ) -> tuple[str, Float32[np.ndarray, "q p"], dict[str, int]]:
        """Return the name of a model, the cosines of queries and passages, and the usage."""
        model, batcher, _ = models.embedder(body.model)
        asked = {"truncate": body.truncate}
        left = await self.read(model, queries, "query", instruction=body.instruction, param="query", **asked)
        right = await self.read(model, passages, "passage", instruction=None, param=passages_are, **asked)
        found = await asyncio.gather(self.vectors(model, batcher, left), self.vectors(model, batcher, right))
        return model.name, found[0] @ found[1].T, usage(left + right)


def usage(reads: Sequence[Read]) -> dict[str, int]:
    """Return what texts took: the tokens that were read, and how many of the texts were cut off."""
    tokens = sum(read.tokens for read in reads)
    return {"prompt_tokens": tokens, "total_tokens": tokens, "truncated_inputs": sum(read.is_cut for read in reads)}


def refused(error: EmbedsmithError, param: str) -> Refused:
    """Return a mistake of the request as its refusal."""
    return Refused(f"{error}: {error.hint}" if error.hint else str(error), param=param, code="invalid_value")

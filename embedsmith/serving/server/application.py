"""The server's paths: what each request is answered.

Source: OpenAI's API reference (embeddings, models), Cohere's and Jina's (rerank).
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
from jaxtyping import Float32
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from embedsmith.errors import EmbedsmithError
from embedsmith.models.settings import Role
from embedsmith.serving.server.batching import Batcher, OutOfMemory
from embedsmith.serving.server.metrics import CONTENT_TYPE, Metrics
from embedsmith.serving.server.models import Models
from embedsmith.serving.server.openapi import document
from embedsmith.serving.server.page import POLICY, page
from embedsmith.serving.server.problems import Refused, overloaded
from embedsmith.serving.server.protocol import (
    EmbeddingsBody,
    RerankBody,
    SearchBody,
    SimilarityBody,
    TokenizeBody,
    parsed,
)
from embedsmith.serving.server.searched import SearchedCorpus
from embedsmith.serving.server.served import Read, ServedModel
from embedsmith.serving.server.settings import ServeSettings, Truncation

Answer = Callable[[Request], Awaitable[Response]]

PATHS = frozenset(
    {
        "/",
        "/health",
        "/ready",
        "/metrics",
        "/openapi.json",
        "/v1/models",
        "/v1/embeddings",
        "/v1/rerank",
        "/rerank",
        "/v1/similarity",
        "/v1/tokenize",
        "/v1/search",
    }
)


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
            raise _refused(error, param) from None
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
        except OutOfMemory as error:
            raise overloaded(f"{error}: send shorter or fewer texts", code="out_of_memory") from None
        finally:
            job.is_gone = True
            if job.first_begun:
                self.metrics.queued.labels(model.name).observe(job.first_begun - job.came)

    async def of_two(
        self, body: RerankBody | SimilarityBody, queries: Sequence[str], passages: Sequence[str], passages_are: str
    ) -> tuple[str, Float32[np.ndarray, "q p"], dict[str, int]]:
        """Return the name of a model, the cosines of queries and passages, and the usage."""
        model, batcher, _ = self.ready().embedder(body.model)
        asked = {"truncate": body.truncate}
        left = await self.read(model, queries, "query", instruction=body.instruction, param="query", **asked)
        right = await self.read(model, passages, "passage", instruction=None, param=passages_are, **asked)
        found = await asyncio.gather(self.vectors(model, batcher, left), self.vectors(model, batcher, right))
        return model.name, found[0] @ found[1].T, usage(left + right)


async def embeddings(request: Request) -> Response:
    """Answer with vectors, in OpenAI's shape."""
    service, body = _service(request), parsed(EmbeddingsBody, request.state.body)
    model, batcher, role = service.ready().embedder(body.model, body.input_type)
    if body.dimensions and body.dimensions > model.dimensions:
        raise Refused(
            f"{body.dimensions:,} dimensions, {model.name} has {model.dimensions:,}",
            param="dimensions",
            code="too_many_dimensions",
        )
    texts = await _texts(service, model, body)
    reads = await service.read(model, texts, role, instruction=body.instruction, truncate=body.truncate)
    vectors = await service.vectors(model, batcher, reads)
    if body.dimensions and body.dimensions < model.dimensions:
        kept = vectors[:, : body.dimensions]
        vectors = kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-12)
    vectors = np.ascontiguousarray(vectors, "<f4")
    in_base64 = body.encoding_format == "base64"
    rows = [
        {
            "object": "embedding",
            "index": place,
            "embedding": base64.b64encode(vector.tobytes()).decode() if in_base64 else vector,
        }
        for place, vector in enumerate(vectors)
    ]
    return _json({"object": "list", "data": rows, "model": body.model or model.name, "usage": usage(reads)})


async def _texts(service: Service, model: ServedModel, body: EmbeddingsBody) -> Sequence[str]:
    """Return the texts of a request, which may be token ids."""
    given: Any = body.input
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], str):
        return list(given)
    lists = [given] if isinstance(given[0], int) else given
    if len(lists) > service.settings.max_inputs:
        raise Refused(
            f"{len(lists):,} lists of tokens, the limit is {service.settings.max_inputs:,}",
            param="input",
            code="too_many_inputs",
        )
    if sum(map(len, lists)) > service.settings.max_request_tokens:
        raise Refused(
            f"more than {service.settings.max_request_tokens:,} tokens", param="input", code="too_many_tokens"
        )
    try:
        decode = asyncio.get_running_loop().run_in_executor
        return await decode(service.tokenizing, lambda: [model.text_of(ids) for ids in lists])
    except EmbedsmithError as error:
        raise _refused(error, "input") from None


async def rerank(request: Request) -> Response:
    """Answer with documents in the order of their relevance, by a cross-encoder or by cosine."""
    service, body = _service(request), parsed(RerankBody, request.state.body)
    texts = [document if isinstance(document, str) else document.text for document in body.documents]
    if len(texts) > service.settings.max_inputs:
        raise Refused(
            f"{len(texts):,} documents, the limit is {service.settings.max_inputs:,}",
            param="documents",
            code="too_many_inputs",
        )
    reranker = service.ready().reranker(body.model)
    if reranker is not None:
        if body.instruction:
            raise Refused("a cross-encoder takes no instruction", param="instruction", code="no_instructions")
        name, used = reranker.name, await reranker.usage(body.query, texts, service)
        scores = await reranker.scores(body.query, texts)
    else:
        name, matrix, used = await service.of_two(body, [body.query], texts, "documents")
        scores = matrix[0]
    order = np.argsort(-scores, kind="stable")[: body.top_n]
    results: list[dict[str, Any]] = [{"index": int(place), "relevance_score": float(scores[place])} for place in order]
    if body.return_documents:
        results = [{**row, "document": {"text": texts[int(row["index"])]}} for row in results]
    return _json({"object": "list", "model": body.model or name, "results": results, "usage": used})


async def similarity(request: Request) -> Response:
    """Answer with the cosine of each query and each passage."""
    service, body = _service(request), parsed(SimilarityBody, request.state.body)
    name, found, used = await service.of_two(body, body.queries, body.passages, "passages")
    rows = np.ascontiguousarray(found, "<f4")
    return _json({"object": "list", "model": body.model or name, "similarities": list(rows), "usage": used})


async def tokenize(request: Request) -> Response:
    """Answer with the tokens of texts, and which of them the pooling reads."""
    service, body = _service(request), parsed(TokenizeBody, request.state.body)
    model, _, role = service.ready().embedder(body.model, body.input_type)
    texts = [body.input] if isinstance(body.input, str) else body.input
    reads = await service.read(model, texts, role, instruction=body.instruction, truncate=body.truncate)
    pieces = [model.pieces(read) for read in reads]
    return _json({"object": "list", "data": pieces, "model": body.model or model.name, "usage": usage(reads)})


async def search(request: Request) -> Response:
    """Answer with the passages of the corpus that are nearest to a query."""
    service, body = _service(request), parsed(SearchBody, request.state.body)
    models = service.ready()
    if service.corpus is None:
        raise Refused("the server has no corpus; it is started with --corpus", status=404, code="no_corpus")
    model, batcher, _ = models.embedder(body.model or service.corpus.model)
    if model.name != service.corpus.model:
        raise Refused(f"the corpus is searched by {service.corpus.model}", param="model", code="wrong_model")
    reads = await service.read(
        model, [body.query], "query", instruction=body.instruction, truncate=body.truncate, param="query"
    )
    vectors = await service.vectors(model, batcher, reads)
    find = asyncio.get_running_loop().run_in_executor
    hits = await find(service.searching, service.corpus.find, vectors, body.query, body.top_n)
    return _json({"object": "list", "model": body.model or model.name, "data": hits, "usage": usage(reads)})


async def models(request: Request) -> Response:
    """Answer with the names of the models, and how each reads texts."""
    service = _service(request)
    return _json({"object": "list", "data": service.ready().listed(service.began)})


async def health(request: Request) -> Response:
    """Answer as long as the process lives."""
    return _json({"status": "ok"})


async def ready(request: Request) -> Response:
    """Answer when the models are opened, and have computed something."""
    _service(request).ready()
    return _json({"status": "ready"})


async def metrics(request: Request) -> Response:
    """Answer with counters for Prometheus."""
    return Response(_service(request).metrics.text(), headers={"Content-Type": CONTENT_TYPE})


async def openapi(request: Request) -> Response:
    """Answer with the description of these paths."""
    return _json(document())


async def people(request: Request) -> Response:
    """Answer with a page to try queries on."""
    return HTMLResponse(page(), headers={"Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'"})


def usage(reads: Sequence[Read]) -> dict[str, int]:
    """Return what texts took: the tokens that were read, and how many of the texts were cut off."""
    tokens = sum(read.tokens for read in reads)
    return {"prompt_tokens": tokens, "total_tokens": tokens, "truncated_inputs": sum(read.is_cut for read in reads)}


def application(service: Service) -> Starlette:
    """Return the application; a `Guard` belongs before it."""
    posts: dict[str, Answer] = {
        "/v1/embeddings": embeddings,
        "/v1/rerank": rerank,
        "/rerank": rerank,
        "/v1/similarity": similarity,
        "/v1/tokenize": tokenize,
        "/v1/search": search,
    }
    gets: dict[str, Answer] = {
        "/": people,
        "/health": health,
        "/ready": ready,
        "/metrics": metrics,
        "/openapi.json": openapi,
        "/v1/models": models,
    }
    routes = [Route(path, answer, methods=["POST"]) for path, answer in posts.items()]
    routes += [Route(path, answer, methods=["GET"]) for path, answer in gets.items()]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http, Exception: _failed, Refused: _reraised})
    app.state.service = service
    return app


async def _http(request: Request, error: Any) -> Response:
    """Answer what Starlette refuses: an unknown path, another method."""
    message = {404: "there is no such path; /openapi.json lists them", 405: "the path takes another method"}
    body = {"message": message.get(error.status_code, error.detail), "type": "invalid_request_error"}
    return _json(
        {"error": {**body, "param": None, "code": f"http_{error.status_code}"}}, error.status_code, error.headers
    )


async def _reraised(request: Request, error: Any) -> Response:
    """Answer a refusal."""
    _service(request).metrics.errors.labels(error.code).inc()
    return _json(error.body, error.status, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    """Answer that something is wrong with the server; what it is stands in its log, never the texts."""
    _service(request).metrics.errors.labels("internal").inc()
    body = {"message": "the server failed; its log says how", "type": "server_error", "param": None, "code": "internal"}
    return _json({"error": body}, 500)


def _refused(error: EmbedsmithError, param: str) -> Refused:
    """Return a mistake of the request as its refusal."""
    return Refused(f"{error}: {error.hint}" if error.hint else str(error), param=param, code="invalid_value")


def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


def _json(body: Any, status: int = 200, headers: Any = None) -> Response:
    """Return an answer; arrays become lists of numbers."""
    content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, status, headers=headers, media_type="application/json")

"""The server's paths: what each request is answered.

Source: OpenAI's API reference (embeddings, models), Cohere's and Jina's (rerank).
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from embedsmith.errors import EmbedsmithError
from embedsmith.serving.server.metrics import CONTENT_TYPE
from embedsmith.serving.server.models import Models
from embedsmith.serving.server.openapi import document
from embedsmith.serving.server.page import POLICY, page
from embedsmith.serving.server.problems import Refused
from embedsmith.serving.server.protocol import (
    EmbeddingsBody,
    RerankBody,
    SearchBody,
    SimilarityBody,
    TokenizeBody,
    parsed,
)
from embedsmith.serving.server.served import ServedModel
from embedsmith.serving.server.service import Service, refused, usage

Answer = Callable[[Request], Awaitable[Response]]
AnswerByModels = Callable[[Request, Models], Awaitable[Response]]

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


async def embeddings(request: Request, models: Models) -> Response:
    """Answer with vectors, in OpenAI's shape."""
    service, body = _service(request), parsed(EmbeddingsBody, request.state.body)
    model, batcher, role = models.embedder(body.model, body.input_type)
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
        raise refused(error, "input") from None


async def rerank(request: Request, models: Models) -> Response:
    """Answer with documents in the order of their relevance, by a cross-encoder or by cosine."""
    service, body = _service(request), parsed(RerankBody, request.state.body)
    texts = [document if isinstance(document, str) else document.text for document in body.documents]
    if len(texts) > service.settings.max_inputs:
        raise Refused(
            f"{len(texts):,} documents, the limit is {service.settings.max_inputs:,}",
            param="documents",
            code="too_many_inputs",
        )
    reranker = models.reranker(body.model)
    if reranker is not None:
        if body.instruction:
            raise Refused("a cross-encoder takes no instruction", param="instruction", code="no_instructions")
        name, used = reranker.name, await reranker.usage(body.query, texts, service)
        scores = await reranker.scores(body.query, texts)
    else:
        name, matrix, used = await service.of_two(models, body, [body.query], texts, "documents")
        scores = matrix[0]
    order = np.argsort(-scores, kind="stable")[: body.top_n]
    results: list[dict[str, Any]] = [{"index": int(place), "relevance_score": float(scores[place])} for place in order]
    if body.return_documents:
        results = [{**row, "document": {"text": texts[int(row["index"])]}} for row in results]
    return _json({"object": "list", "model": body.model or name, "results": results, "usage": used})


async def similarity(request: Request, models: Models) -> Response:
    """Answer with the cosine of each query and each passage."""
    service, body = _service(request), parsed(SimilarityBody, request.state.body)
    name, found, used = await service.of_two(models, body, body.queries, body.passages, "passages")
    rows = np.ascontiguousarray(found, "<f4")
    return _json({"object": "list", "model": body.model or name, "similarities": list(rows), "usage": used})


async def tokenize(request: Request, models: Models) -> Response:
    """Answer with the tokens of texts, and which of them the pooling reads."""
    service, body = _service(request), parsed(TokenizeBody, request.state.body)
    model, _, role = models.embedder(body.model, body.input_type)
    texts = [body.input] if isinstance(body.input, str) else body.input
    reads = await service.read(model, texts, role, instruction=body.instruction, truncate=body.truncate)
    pieces = [model.pieces(read) for read in reads]
    return _json({"object": "list", "data": pieces, "model": body.model or model.name, "usage": usage(reads)})


async def search(request: Request, models: Models) -> Response:
    """Answer with the passages of the corpus that are nearest to a query."""
    service, body = _service(request), parsed(SearchBody, request.state.body)
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


async def listed(request: Request) -> Response:
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


def application(service: Service) -> Starlette:
    """Return the application; a `Guard` belongs before it."""
    posts: dict[str, AnswerByModels] = {
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
        "/v1/models": listed,
    }
    routes = [Route(path, _by_models(answer), methods=["POST"]) for path, answer in posts.items()]
    routes += [Route(path, answer, methods=["GET"]) for path, answer in gets.items()]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http, Exception: _failed, Refused: _reraised})
    app.state.service = service
    return app


def _by_models(answer: AnswerByModels) -> Answer:
    """Return an answer that holds the models until it is there: a reload closes them when nobody does."""

    async def held(request: Request) -> Response:
        models = _service(request).ready()
        models.holders += 1
        try:
            return await answer(request, models)
        finally:
            models.holders -= 1

    return held


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


def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


def _json(body: Any, status: int = 200, headers: Any = None) -> Response:
    """Return an answer; arrays become lists of numbers."""
    content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, status, headers=headers, media_type="application/json")

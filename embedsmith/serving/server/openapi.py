"""The OpenAPI document of a server, made from the bodies that it reads."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema

from embedsmith.serving.server.protocol import BODIES
from embedsmith.version import __version__

_ANSWERS = {
    "/v1/embeddings": "Vectors, in the order of the texts.",
    "/v1/rerank": "Documents by relevance, the best first.",
    "/v1/similarity": "A row for each query, a cosine for each passage.",
    "/v1/tokenize": "Tokens of each text, and which of them the pooling reads.",
    "/v1/search": "Passages of the corpus, the nearest first.",
    "/v1/models": "Names, dimensions, and how the texts of each role are read.",
    "/health": "The process lives.",
    "/ready": "The models are opened.",
}
_PROBLEMS = {
    "400": "A field is wrong, or there are too many texts or tokens.",
    "401": "No key, or another one.",
    "404": "There is no such model.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is not application/json.",
    "421": "The request is for another host.",
    "429": "Too many requests wait.",
    "503": "Not ready, out of memory, or not in time.",
}
_REF = "#/components/schemas/{model}"


@cache
def document() -> dict[str, Any]:
    """Return the document."""
    _, schemas = models_json_schema([(body, "validation") for body in BODIES.values()], ref_template=_REF)
    components = dict(schemas["$defs"])
    components["Problem"] = {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    }
    paths: dict[str, Any] = {}
    for path, says in _ANSWERS.items():
        body = BODIES.get(path)
        paths[path] = {"post" if body else "get": _operation(path, says, body.__name__ if body else None)}
    paths["/rerank"] = {"post": _operation("/rerank", _ANSWERS["/v1/rerank"], BODIES["/v1/rerank"].__name__)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "embedsmith serve", "version": __version__},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
    }


def _operation(path: str, says: str, body: str | None) -> dict[str, Any]:
    """Return what is said of one path."""
    problem = {"application/json": {"schema": {"$ref": _REF.format(model="Problem")}}}
    found: dict[str, Any] = {
        "operationId": path.strip("/").replace("/", "_"),
        "summary": says,
        "responses": {
            "200": {"description": says, "content": {"application/json": {"schema": {"type": "object"}}}},
            **{status: {"description": words, "content": problem} for status, words in _PROBLEMS.items()},
        },
    }
    if body:
        content = {"application/json": {"schema": {"$ref": _REF.format(model=body)}}}
        found["requestBody"] = {"required": True, "content": content}
    return found

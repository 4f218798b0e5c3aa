"""The bodies of requests: OpenAI's embeddings, reranking as Cohere and Jina have it, and our own of the same style.

A field that is not known is refused: a misspelled `input_type` would give another vector in silence.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from embedsmith.errors import did_you_mean
from embedsmith.models.settings import Role
from embedsmith.serving.server.problems import Refused
from embedsmith.serving.server.settings import Truncation

InputType = Literal["query", "passage", "document", "search_query", "search_document"]
"""OpenAI has none; `search_query` and `search_document` are Cohere's, `query` and `passage` NVIDIA's."""

ROLE_OF: dict[str, Role] = {
    "query": "query",
    "search_query": "query",
    "passage": "passage",
    "document": "passage",
    "search_document": "passage",
}

Text = Annotated[str, StringConstraints(strict=True)]
TokenId = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Instruction = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=4000)]


class Body(BaseModel):
    """What every request has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Text | None = Field(None, description="A name of /v1/models; by default the first one that is served.")
    user: Any = Field(None, description="Ignored.")


class ReadsTexts(Body):
    """What a request has whose texts are of one role."""

    input_type: InputType | None = Field(
        None, description="How the texts are read: with the prompt and the length of queries, or of passages."
    )
    instruction: Instruction | None = Field(
        None, description="The task, in words or as `task:NAME`, for a model that was trained with instructions."
    )
    truncate: Truncation | None = Field(None, description="Of texts that are too long; by default the server's.")


class EmbeddingsBody(ReadsTexts):
    """`POST /v1/embeddings`, OpenAI's."""

    input: (
        Text
        | Annotated[list[Text], Field(min_length=1)]
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1)]
    ) = Field(description="A text, texts, the token ids of a text, or those of several, of this model's tokenizer.")
    dimensions: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        None, description="Keep as many of the first numbers of each vector, at length 1."
    )
    encoding_format: Literal["float", "base64"] = Field("float", description="base64: float32, little-endian.")


class TokenizeBody(ReadsTexts):
    """`POST /v1/tokenize`."""

    input: Text | Annotated[list[Text], Field(min_length=1)]


class Document(BaseModel):
    """A passage with its text in a field, as some clients send it."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    text: Text


class RerankBody(Body):
    """`POST /v1/rerank`, Cohere's and Jina's."""

    query: Text
    documents: Annotated[list[Text | Document], Field(min_length=1)]
    top_n: Annotated[int, Field(ge=1, strict=True)] | None = Field(None, description="By default all.")
    return_documents: bool = False
    instruction: Instruction | None = None
    truncate: Truncation | None = None


class SimilarityBody(Body):
    """`POST /v1/similarity`: the cosine of each query with each passage."""

    queries: Annotated[list[Text], Field(min_length=1)]
    passages: Annotated[list[Text], Field(min_length=1)]
    instruction: Instruction | None = None
    truncate: Truncation | None = None


class SearchBody(Body):
    """`POST /v1/search`: the passages of the server's corpus that are nearest to a query."""

    query: Text
    top_n: Annotated[int, Field(ge=1, le=1000, strict=True)] = 10
    instruction: Instruction | None = None
    truncate: Truncation | None = None


BODIES: dict[str, type[Body]] = {
    "/v1/embeddings": EmbeddingsBody,
    "/v1/rerank": RerankBody,
    "/v1/similarity": SimilarityBody,
    "/v1/tokenize": TokenizeBody,
    "/v1/search": SearchBody,
}

Parsed = TypeVar("Parsed", bound=Body)


def parsed(kind: type[Parsed], body: bytes) -> Parsed:
    """Return a request's body as what it must be.

    Raises:
        Refused: it is no JSON, or another object; the first field that is wrong is named.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        top = str(first["loc"][0]) if first["loc"] else None
        if first["type"] == "json_invalid":
            raise Refused(f"the body is no JSON: {first['ctx']['error']}", code="invalid_json") from None
        if first["type"] == "extra_forbidden":
            raise Refused(
                f"{where}: there is no such field{did_you_mean(where, kind.model_fields)}",
                param=top,
                code="unknown_field",
            ) from None
        if top == "input":
            message = "wanted a text, a list of texts, a list of token ids or a list of such lists, none of them empty"
            raise Refused(f"input: {message}", param="input", code="invalid_input") from None
        raise Refused(f"{where or 'the body'}: {first['msg']}", param=top, code="invalid_value") from None

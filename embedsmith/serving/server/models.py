"""The models that a server has, by the names that clients use, and which role the texts of a request have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from embedsmith.errors import did_you_mean
from embedsmith.models.settings import Role
from embedsmith.serving.server.batching import Batcher
from embedsmith.serving.server.problems import Refused
from embedsmith.serving.server.protocol import ROLE_OF
from embedsmith.serving.server.served import ServedModel

ROLES: tuple[Role, ...] = ("query", "passage")


class Models:
    """What is served; a reload puts another one of these in its place."""

    def __init__(self, embedders: Mapping[str, tuple[ServedModel, Batcher]], rerankers: Mapping[str, Any]) -> None:
        self.embedders, self.rerankers = dict(embedders), dict(rerankers)
        self.holders = 0
        """Requests that are answered with them."""

    def embedder(self, name: str | None, input_type: str | None = None) -> tuple[ServedModel, Batcher, Role]:
        """Return the model of a name, its queue, and the role of the texts; `NAME:query` says both.

        Raises:
            Refused: there is no such model, it has no vectors, or two roles are named.
        """
        given = ROLE_OF[input_type] if input_type else None
        base, _, suffix = (name or "").rpartition(":")
        named = next((role for role in ROLES if role == suffix and base in self.embedders), None)
        if named and given and named != given:
            raise Refused(
                f'input_type is "{input_type}", but the model is "{name}"', param="input_type", code="two_roles"
            )
        found = self.embedders.get(base if named else name or next(iter(self.embedders), ""))
        if found is None:
            raise self._unknown(name, self.embedders, "has no vectors")
        return *found, given or named or "passage"

    def reranker(self, name: str | None) -> Any | None:
        """Return the cross-encoder of a name, None for an embedding model.

        Raises:
            Refused: there is no such model.
        """
        if name is None and self.rerankers:
            return next(iter(self.rerankers.values()))
        return self.rerankers.get(name or "")

    def _unknown(self, name: str | None, known: Iterable[str], lacks: str) -> Refused:
        if name in self.rerankers or name is None:
            return Refused(f"{name or 'the server'} {lacks}", param="model", code="wrong_model")
        hint = did_you_mean(str(name), list(known))
        return Refused(
            f"there is no model {str(name)[:100]!r}{hint}; /v1/models lists them",
            status=404,
            param="model",
            code="model_not_found",
        )

    def listed(self, created: int) -> list[dict[str, Any]]:
        """Return the models in OpenAI's shape, with how each reads its texts."""
        found: list[dict[str, Any]] = []
        for name, (served, _) in self.embedders.items():
            shown = {"object": "model", "created": created, "owned_by": "embedsmith", "dimensions": served.dimensions}
            roles = {
                role: {"prompt": served.model.prompt_of(role), "max_tokens": served.limits[role]} for role in ROLES
            }
            takes = served.template is not None
            found.append({"id": name, **shown, "default_role": "passage", "roles": roles, "takes_instructions": takes})
            found += [{"id": f"{name}:{role}", **shown, "default_role": role} for role in ROLES]
        for name in self.rerankers:
            found.append({"id": name, "object": "model", "created": created, "owned_by": "embedsmith", "reranks": True})
        return found

    def close(self) -> None:
        """End the threads, when what they have is computed."""
        for _, batcher in self.embedders.values():
            batcher.close()

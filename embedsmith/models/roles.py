"""How a model reads the texts of a role: what stands before them, and where they are cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from embedsmith.errors import SettingsError
from embedsmith.models.contract import length_of
from embedsmith.models.encoding import task_of_role
from embedsmith.models.settings import Role, StudentSettings
from embedsmith.models.tokens import tokens_of


class ReadsRoles(SentenceTransformer):
    """A SentenceTransformer with a prompt and a length for queries, and others for passages."""

    prompts: dict[str, str]
    origin: StudentSettings | None = None
    """What the model was built or opened from; what adapters over it name as their base."""

    @property
    def called(self) -> str:
        """What errors call the model."""
        return self.origin.name if self.origin else "the model"

    @property
    def backbone(self) -> Any:
        """The transformers model inside; None where there is none, as in static embeddings."""
        return getattr(self[0], "model", None)

    @property
    def has_adapters(self) -> bool:
        """Whether low-rank adapters lie beside the weights of the backbone."""
        return type(self.backbone).__module__.startswith("peft.")

    def prompt_of(self, role: Role) -> str:
        """Return what stands before every text of a role."""
        # sentence-transformers adds an empty "document", and then never looks at the "passage" of a folder.
        names = ("query",) if role == "query" else ("document", "passage", "corpus")
        given = [self.prompts[name] for name in names if name in self.prompts]
        default = self.prompts.get(self.default_prompt_name or "", "")
        return next(filter(None, given), "" if given else default)

    def set_prompt(self, role: Role, prompt: str) -> None:
        """Put another prompt, or none, before every text of a role."""
        others = {name: old for name, old in self.prompts.items() if name not in ("passage", "corpus")}
        self.prompts = {**self.prompts, "query": prompt} if role == "query" else {**others, "document": prompt}

    def set_max_tokens(self, *, query: int, passage: int) -> None:
        """Cut queries and passages at these many tokens, now and when the model is saved and opened again.

        Raises:
            SettingsError: the model's positions end before, or it has one length for both.
        """
        if isinstance(self[0], StaticEmbedding):
            if query != passage:
                raise SettingsError(
                    f"query_max_tokens is {query}, passage_max_tokens {passage}, but static embeddings have one length",
                    hint="give both the same",
                )
            self.tokenizer.enable_truncation(query)
            return
        limit = getattr(self.backbone.config, "max_position_embeddings", None)
        for role, tokens in (("query", query), ("passage", passage)):
            if limit and tokens > limit:
                raise SettingsError(
                    f"{role}_max_tokens: {tokens} tokens, but the model ends at {limit}",
                    hint=f"set it to {limit} or less",
                )
        self[0].query_length, self[0].document_length = query, passage
        self.max_seq_length = max(query, passage)

    def contract_length(self, role: Role) -> int | None:
        """Return at how many tokens the texts of a role are cut, None for never."""
        return length_of(self, role)

    def count_tokens(self, texts: Sequence[str], role: Role) -> int:
        """Return how many tokens the model reads of some texts: with the prompt, and cut where it cuts."""
        features = tokens_of(self, texts, prompt=self.prompt_of(role), task=task_of_role(role))
        # Static embeddings have all tokens in one row, and nothing is padded.
        return int(features["attention_mask"].sum() if "attention_mask" in features else features["input_ids"].numel())

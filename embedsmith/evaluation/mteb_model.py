"""Our models and baselines as mteb sees them: encoders with our prompts and kept vectors, and what only ranks.

Needs mteb (extra `mteb`). Shapes: N texts, D dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float32
from mteb.abstasks.abstask import get_abstask_prompt
from mteb.models.abs_encoder import AbsEncoder, get_prompt_name
from mteb.models.model_meta import ModelMeta
from mteb.types import PromptType

from embedsmith.data.ties import NO_PASSAGE
from embedsmith.data.trec import separated
from embedsmith.teachers.named import Teacher

_ASYMMETRIC = ("Retrieval", "Reranking")
"""Task types whose queries are what a model's own query prompt is for."""

Embed = Callable[[Sequence[str], str, bool], Float32[np.ndarray, "N D"]]
"""(texts, prompt, whether they are queries) -> vectors of length 1."""


class MtebEncoder(AbsEncoder):
    """An embedding model under mteb's encoder protocol."""

    def __init__(self, embed: Embed, *, name: str, revision: str, prompts: Mapping[str, str], template: str | None):
        """Take note of the model.

        Args:
            embed: makes the vectors.
            name: of the model, for mteb's files.
            revision: changes with all that determines the vectors, so that mteb's cache never mixes two models up.
            prompts: the model's own, by name: query, document, or a task or task type of mteb.
            template: how an instruction stands before a text, with {instruction} in it; None for no instructions.
        """
        self._embed = embed
        self._prompts = dict(prompts)
        self._template = template
        self.mteb_model_meta = meta(name, revision)

    def encode(
        self, inputs: Any, *, task_metadata: Any, prompt_type: PromptType | None = None, **_: Any
    ) -> Float32[np.ndarray, "N D"]:
        """Return the vectors of what a data loader of mteb yields."""
        texts = [text for batch in inputs for text in batch["text"]]
        prompt = prompt_for(task_metadata, prompt_type, self._prompts, self._template)
        return self._embed(texts, prompt, prompt_type == PromptType.query)


class MtebRanker:
    """A teacher that ranks or rescores, under mteb's search protocol: words, chance, cross-encoders."""

    def __init__(self, open_with: Callable[[Sequence[str]], Teacher], *, name: str, revision: str) -> None:
        """Take note of what opens the teacher with passages."""
        self._open_with = open_with
        self.mteb_model_meta = meta(name, revision)

    def index(self, corpus: Any, **_: Any) -> None:
        """Take the passages."""
        from embedsmith.data.collection import join_title

        titles = corpus["title"] if "title" in corpus.column_names else [""] * len(corpus)
        texts = [join_title(title or "", text) for title, text in zip(titles, corpus["text"], strict=True)]
        self._ids = list(corpus["id"])
        self._teacher = self._open_with(texts)

    def search(self, queries: Any, *, top_k: int, top_ranked: Any = None, **_: Any) -> dict[str, dict[str, float]]:
        """Return query id -> passage id -> score."""
        ids, texts = list(queries["id"]), list(queries["text"])
        if top_ranked is None:
            rows, scores = self._teacher.search(texts, top_k)
            found = [
                [(self._ids[row], score) for row, score in zip(*own, strict=True) if row != NO_PASSAGE]
                for own in zip(rows.tolist(), scores.tolist(), strict=True)
            ]
            # mteb would order ties by id.
            return {query: dict(separated(ranked)) for query, ranked in zip(ids, found, strict=True)}
        row_of = {passage: row for row, passage in enumerate(self._ids)}
        width = max(len(top_ranked[query]) for query in ids)
        # A query with fewer candidates has its last one several times.
        rows = np.array(
            [
                [row_of[passage] for passage in top_ranked[query]]
                + [row_of[top_ranked[query][-1]]] * (width - len(top_ranked[query]))
                for query in ids
            ],
            np.int64,
        )
        scores = self._teacher.scores(texts, rows)
        return {
            query: {self._ids[row]: float(score) for row, score in zip(rows[q], scores[q], strict=True)}
            for q, query in enumerate(ids)
        }


def meta(name: str, revision: str) -> ModelMeta:
    """Return what mteb notes of a model; its results lie under this name and revision."""
    folder = re.sub(r"[^\w.-]+", "_", name).strip("_") or "model"
    return ModelMeta.create_empty({"name": f"embedsmith/{folder}", "revision": revision})


def prompt_for(task: Any, prompt_type: PromptType | None, prompts: Mapping[str, str], template: str | None) -> str:
    """Return what stands before each text of a task.

    In this order: the model's own prompt for the task or its type, by mteb's names; with a template, the task's
    instruction, on all but documents; the model's own prompt for queries or documents.

    Retrieval without an instruction of its own keeps the model's query prompt, with which it was trained.
    """
    # Of data on this machine the name has a hash behind it, which no prompt is called by.
    path = task.dataset["path"]
    known_as = task.model_copy(update={"name": path.removeprefix("local/")}) if path.startswith("local/") else task
    name = get_prompt_name(dict(prompts), known_as, prompt_type)
    if name is not None and name not in ("query", "document"):
        return prompts[name]
    if template is not None:
        instruction = instruction_of(task, prompt_type)
        if instruction:
            return template.format(instruction=instruction)
        if prompt_type != PromptType.document and task.type not in _ASYMMETRIC:
            return template.format(instruction=get_abstask_prompt(task.name))
    return prompts.get(prompt_type.value, "") if prompt_type else ""


def instruction_of(task: Any, prompt_type: PromptType | None) -> str:
    """Return the instruction that a task itself brings along for one side of it."""
    given = task.prompt
    if isinstance(given, dict):
        return given.get(prompt_type.value if prompt_type else PromptType.query.value) or ""
    # One instruction for all is meant for queries: documents of instructed models are bare.
    return "" if prompt_type == PromptType.document else given or ""


@contextmanager
def prompted(model: Any, *, query: str | None = None, passage: str | None = None) -> Iterator[None]:
    """Let a model put other prompts before its texts within the block."""
    kept = dict(model.prompts)
    try:
        if query is not None:
            model.set_prompt("query", query)
        if passage is not None:
            model.set_prompt("passage", passage)
        yield
    finally:
        model.prompts = kept

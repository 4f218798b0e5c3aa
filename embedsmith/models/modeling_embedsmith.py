"""The modules that travel with a saved model: exact instruction masks, and latent-attention pooling.

A copy of this file lies in the root of every saved folder that uses one of them, so it imports torch and
sentence-transformers only. `SentenceTransformer(folder, trust_remote_code=True)` runs that copy;
`embedsmith.load(folder)` uses the installed one and runs nothing from the folder.

Shapes: B batch, T tokens, D dimensions, R latents, H heads, W width of a head, n pooled tokens of a batch.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from sentence_transformers.sentence_transformer.modules import Module, Transformer
from torch import Tensor, nn
from torch.nn import functional


def _leave_source_in(model_folder: str) -> None:
    """Copy this file into a model folder, so that the folder opens where embedsmith is not installed."""
    source = os.path.abspath(__file__)
    target = os.path.join(model_folder, os.path.basename(source))
    if not os.path.exists(target) or not os.path.samefile(source, target):
        shutil.copyfile(source, target)


class InstructedTransformer(Transformer):
    """A Transformer whose instruction is attended to and not pooled, exactly, for each example.

    The mask comes from character offsets in the full text (instruction + text), so it is right where the
    tokenizer merges characters across the boundary: a token that holds any character of the text is text.
    After the backbone, `attention_mask` is the mask of the tokens to pool, which every pooling module reads.

    Without an instruction all tokens are pooled. With one, tokens before the text (BOS, instruction) are left
    out and tokens after it (EOS, SEP) are kept. A text of no token leaves the last token of the sequence.

    Two attributes make it equal to NV-Embed's released code, whose weights were trained with its habits:
    `instruction_mask = "length"` leaves out as many tokens as the instruction alone has, BOS not counted, which pools
    a stray token before a query that begins with a digit or a space; `suffix` stands after every text as characters
    (there "</s>"), so a text that is cut off loses it.

    Source: NV-Embed, section 3.3, "we mask out the instruction tokens" in the pool, in training and evaluation.
    """

    # On the class: a Transformer that is made one of these has no attributes of its own for them.
    instruction_mask: str = "offsets"
    suffix: str = ""

    def __init__(self, *args: Any, instruction_mask: str = "offsets", suffix: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if instruction_mask not in ("offsets", "length"):
            raise ValueError(f'instruction_mask is {instruction_mask!r}, wanted "offsets" or "length"')
        self.instruction_mask = instruction_mask
        self.suffix = suffix

    def get_config_dict(self) -> dict[str, Any]:
        """Return the arguments that build this module again."""
        own = {"instruction_mask": self.instruction_mask, "suffix": self.suffix}
        usual = {"instruction_mask": "offsets", "suffix": ""}
        return super().get_config_dict() | {key: value for key, value in own.items() if value != usual[key]}

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        prompt_chars: Sequence[int] | None = None,
        processing_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the features of a batch, with `pooling_mask` [B, T].

        Args:
            inputs: B texts.
            prompt: one instruction, put before every text.
            prompt_chars: B lengths, in characters, of instructions that the inputs begin with already. Use this
                for a batch of several instructions.
        """
        if not inputs:
            return {}
        text_kwargs = {
            **(processing_kwargs or {}).get("text", {}),
            "return_offsets_mapping": True,
            "return_special_tokens_mask": True,
        }
        processing_kwargs = {**(processing_kwargs or {}), "text": text_kwargs}
        texts = [text + self.suffix for text in inputs] if self.suffix else inputs
        features = dict(super().preprocess(texts, prompt=prompt, processing_kwargs=processing_kwargs, **kwargs))
        ends = features.pop("offset_mapping")[..., 1]
        special = features.pop("special_tokens_mask").bool()
        attended = features["attention_mask"].bool()
        if self.instruction_mask == "length":
            own = [prompt or ""] * len(inputs) if prompt_chars is None else map(_beginning, inputs, prompt_chars)
            features["pooling_mask"] = mask_after(self._counts(own), attended)
            return features
        if prompt_chars is None:
            prompt_chars = [len(prompt or "")] * len(inputs)
        features["pooling_mask"] = pooling_mask(
            ends=ends, special=special, attended=attended, prompt_chars=torch.tensor(prompt_chars)
        )
        return features

    def _counts(self, instructions: Iterable[str]) -> Tensor:
        """Return how many tokens each instruction has when it stands alone, without those that are added [B]."""
        known: dict[str, int] = {"": 0}
        return torch.tensor(
            [
                known[text] if text in known else known.setdefault(text, len(self.tokenizer.tokenize(text)))
                for text in instructions
            ]
        )

    def forward(self, features: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return the features with `token_embeddings` [B, T, D] and the tokens to pool as `attention_mask`."""
        # A copy: the caller may run the same features again, and must then attend to the same tokens.
        inputs = dict(features)
        mask = inputs.pop("pooling_mask", None)
        outputs: dict[str, Any] = super().forward(inputs, **kwargs)
        return outputs if mask is None else {**outputs, "attention_mask": mask}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write backbone, tokenizer and configuration, and the source of this class beside them."""
        super().save(output_path, *args, **kwargs)
        _leave_source_in(output_path)


def pooling_mask(*, ends: Tensor, special: Tensor, attended: Tensor, prompt_chars: Tensor) -> Tensor:
    """Return which tokens are pooled [B, T], as 0 and 1.

    Args:
        ends: the character after each token's last one, in instruction + text [B, T].
        special: tokens that the tokenizer added [B, T].
        attended: tokens that are not padding [B, T].
        prompt_chars: the instruction's length in characters [B]; 0 pools every token.
    """
    positions = torch.arange(attended.size(1)).unsqueeze(0)
    text = attended & ~special & (ends > prompt_chars.unsqueeze(1))
    last = (attended * positions).argmax(1)
    first = torch.where(text.any(1), text.int().argmax(1), last)
    pooled = attended & (positions >= first.unsqueeze(1))
    return torch.where(prompt_chars.unsqueeze(1) > 0, pooled, attended).long()


def mask_after(counts: Tensor, attended: Tensor) -> Tensor:
    """Return the tokens after the first `counts` [B] of each text as 0 and 1 [B, T]; at least its last one.

    >>> mask_after(torch.tensor([2, 9, 0]), torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1], [1, 1, 0, 0]]).bool()).tolist()
    [[0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0]]
    """
    place = attended.cumsum(1)
    first = torch.minimum(counts.unsqueeze(1) + 1, place[:, -1:])
    return (attended & (place >= first)).long()


def _beginning(text: str, characters: int) -> str:
    """Return the first characters of a text."""
    return text[:characters]


class LatentAttentionPooling(Module):
    """Latent-attention pooling: tokens ask a trained dictionary of latents, then are averaged.

        h = attn(LN(h), LN(latents)) + h;   h = geglu(LN(h)) + h;   e = mean of h over the pooled tokens

    Queries are tokens, keys and values are latents, so padding cannot leak in and no key mask is needed.
    Parameter names and shapes are those of the released NV-Embed checkpoints; there D = 4096, R = 512, H = 8
    and W = 4096 (the full width for each head).

    Source: NV-Embed, section 3.2 and figure 2. The paper names an MLP with GELU; the released weights are GEGLU.
    """

    def __init__(self, embedding_dimension: int, latents: int = 512, heads: int = 8, head_width: int | None = None):
        super().__init__()
        self.embedding_dimension = embedding_dimension
        self.num_latents = latents
        self.heads = heads
        self.head_width = head_width or embedding_dimension
        self.latents = nn.Parameter(torch.randn(latents, embedding_dimension))
        self.cross_attend_blocks = nn.ModuleList(
            [
                _PreNorm(embedding_dimension, _CrossAttention(embedding_dimension, heads, self.head_width), True),
                _PreNorm(embedding_dimension, _GEGLU(embedding_dimension), False),
            ]
        )

    def forward(self, features: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return the features with `sentence_embedding` [B, D]: the mean over the tokens in `attention_mask`."""
        hidden = features["token_embeddings"]
        mask = features["attention_mask"].bool()
        attend, feed_forward = self.cross_attend_blocks
        # Only the tokens that are pooled pass through: neither padding nor instruction costs anything.
        tokens = hidden[mask]
        tokens = attend(tokens, self.latents) + tokens
        tokens = feed_forward(tokens) + tokens
        padded = torch.zeros(hidden.shape, dtype=tokens.dtype, device=tokens.device)
        padded[mask] = tokens
        total = padded.sum(1, dtype=torch.float32)
        mean = total / mask.sum(1, keepdim=True).clamp(min=1)
        return {**features, "sentence_embedding": mean.to(hidden.dtype)}

    def get_embedding_dimension(self) -> int:
        """Return D."""
        return self.embedding_dimension

    def get_config_dict(self) -> dict[str, Any]:
        """Return the arguments that build this module again."""
        return {
            "embedding_dimension": self.embedding_dimension,
            "latents": self.num_latents,
            "heads": self.heads,
            "head_width": self.head_width,
        }

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write configuration and weights, and the source of this class into the model's root."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)
        _leave_source_in(os.path.join(output_path.rstrip("/"), ".."))

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> LatentAttentionPooling:
        """Return the module that a folder or hub id holds."""
        hub = {key: kwargs[key] for key in ("token", "cache_folder", "revision", "local_files_only") if key in kwargs}
        module = cls(**cls.load_config(model_name_or_path, subfolder=subfolder, **hub))
        cls.load_torch_weights(model_name_or_path, subfolder=subfolder, model=module, **hub)
        return module


class _PreNorm(nn.Module):
    """LayerNorm before a block, on its context too where it has one (names as released)."""

    def __init__(self, dimension: int, block: nn.Module, has_context: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimension)
        self.norm_context = nn.LayerNorm(dimension) if has_context else None
        self.fn = block

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        if self.norm_context is None:
            return self.fn(self.norm(tokens))
        return self.fn(self.norm(tokens), self.norm_context(context))


class _CrossAttention(nn.Module):
    """Multi-head attention of n tokens [n, D] to R latents [R, D]; softmax scale W ** -0.5."""

    def __init__(self, dimension: int, heads: int, head_width: int) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.to_q = nn.Linear(dimension, inner, bias=False)
        self.to_kv = nn.Linear(dimension, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dimension, bias=False)

    def forward(self, tokens: Tensor, latents: Tensor) -> Tensor:
        key, value = self.to_kv(latents).chunk(2, dim=-1)
        # All tokens of the batch are one long sequence: the latents, and so keys and values, are the same for all.
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(0, 1) for x in (self.to_q(tokens), key, value))
        attended = functional.scaled_dot_product_attention(query[None], key[None], value[None])[0]
        return self.to_out(attended.transpose(0, 1).flatten(1))


class _GEGLU(nn.Module):
    """Feed-forward x * gelu(gate), four times as wide inside (names as released: `net.0`, `net.2`)."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.net = nn.ModuleDict({"0": nn.Linear(dimension, 8 * dimension), "2": nn.Linear(4 * dimension, dimension)})

    def forward(self, tokens: Tensor) -> Tensor:
        value, gate = self.net["0"](tokens).chunk(2, dim=-1)
        return self.net["2"](value * functional.gelu(gate))

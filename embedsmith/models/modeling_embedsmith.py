"""The modules that travel with a saved model: exact instruction masks, and poolings with weights of their own.

A copy of this file lies in the root of every saved folder that uses one of them, so it imports torch and
sentence-transformers only. `SentenceTransformer(folder, trust_remote_code=True)` runs that copy;
`embedsmith.load(folder)` uses the installed one and runs nothing from the folder.

Shapes: B batch, T tokens, D dimensions, L layers, R latents, H heads, W width of a head, n pooled tokens of a batch.
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
        texts = [text + self.suffix for text in inputs] if self.suffix else inputs
        if not prompt and not any(prompt_chars or ()):
            # All is text. Offsets would take longer than the tokens themselves.
            features = dict(super().preprocess(texts, processing_kwargs=processing_kwargs, **kwargs))
            return {**features, "pooling_mask": features["attention_mask"]}
        text_kwargs = {
            **(processing_kwargs or {}).get("text", {}),
            "return_offsets_mapping": True,
            "return_special_tokens_mask": True,
        }
        processing_kwargs = {**(processing_kwargs or {}), "text": text_kwargs}
        features = dict(super().preprocess(texts, prompt=prompt, processing_kwargs=processing_kwargs, **kwargs))
        # By this number of tokens a `Pooling(include_prompt=False)` would leave out some of the text, too.
        features.pop("prompt_length", None)
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


class _TrainedPooling(Module):
    """What poolings with weights share: two blocks, cross-attention and feed-forward, named as in NV-Embed's files."""

    arguments: tuple[str, ...] = ()
    """The attributes that build the module again."""

    def __init__(self, embedding_dimension: int, heads: int, head_width: int, latents: int = 0) -> None:
        super().__init__()
        self.embedding_dimension = embedding_dimension
        self.heads = heads
        self.head_width = head_width
        self.num_latents = latents
        if latents:
            self.latents = nn.Parameter(torch.randn(latents, embedding_dimension))
        self.cross_attend_blocks = nn.ModuleList(
            [
                _PreNorm(embedding_dimension, _CrossAttention(embedding_dimension, heads, head_width), True),
                _PreNorm(embedding_dimension, _GEGLU(embedding_dimension), False),
            ]
        )

    def _through_blocks(self, tokens: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return attn(LN(tokens), LN(context)) + tokens, and of that geglu(LN(…)) + itself."""
        attend, feed_forward = self.cross_attend_blocks
        tokens = attend(tokens, context, mask) + tokens
        return feed_forward(tokens) + tokens

    def get_embedding_dimension(self) -> int:
        """Return D."""
        return self.embedding_dimension

    def get_config_dict(self) -> dict[str, Any]:
        """Return the arguments that build this module again."""
        sizes = {name: getattr(self, name) for name in ("embedding_dimension", *self.arguments, "heads", "head_width")}
        return {**sizes, "latents": self.num_latents} if self.num_latents else sizes

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write configuration and weights, and the source of this class into the model's root."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)
        _leave_source_in(os.path.join(output_path.rstrip("/"), ".."))

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> _TrainedPooling:
        """Return the module that a folder or hub id holds."""
        hub = {key: kwargs[key] for key in ("token", "cache_folder", "revision", "local_files_only") if key in kwargs}
        module = cls(**cls.load_config(model_name_or_path, subfolder=subfolder, **hub))
        cls.load_torch_weights(model_name_or_path, subfolder=subfolder, model=module, **hub)
        return module


class LatentAttentionPooling(_TrainedPooling):
    """Latent-attention pooling: tokens ask a trained dictionary of latents, then are averaged.

        h = attn(LN(h), LN(latents)) + h;   h = geglu(LN(h)) + h;   e = mean of h over the pooled tokens

    Queries are tokens, keys and values are latents, so padding cannot leak in and no key mask is needed.
    Parameter names and shapes are those of the released NV-Embed checkpoints; there D = 4096, R = 512, H = 8
    and W = 4096 (the full width for each head).

    Source: NV-Embed, section 3.2 and figure 2. The paper names an MLP with GELU; the released weights are GEGLU.
    """

    def __init__(self, embedding_dimension: int, latents: int = 512, heads: int = 8, head_width: int | None = None):
        super().__init__(embedding_dimension, heads, head_width or embedding_dimension, latents)

    def forward(self, features: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return the features with `sentence_embedding` [B, D]: the mean over the tokens in `attention_mask`."""
        hidden = features["token_embeddings"]
        mask = features["attention_mask"].bool()
        # Only the tokens that are pooled pass through, as one long text: the others cost nothing.
        tokens = self._through_blocks(hidden[mask][None], self.latents[None])[0]
        padded = torch.zeros(hidden.shape, dtype=tokens.dtype, device=tokens.device)
        padded[mask] = tokens
        return {**features, "sentence_embedding": _mean(padded, mask).to(hidden.dtype)}


class SelfAttentionPooling(_TrainedPooling):
    """Self-attention pooling: the pooled tokens ask each other, then are averaged.

        h = attn(LN(h), LN(h)) + h;   h = geglu(LN(h)) + h;   e = mean of h over the pooled tokens

    Keys are the tokens of the text alone, neither padding nor instruction.

    Source: NV-Embed, section 5.1, the pooling that latent attention is compared with; its sizes are not stated. Here
    the heads share the width D, as in the backbone, and the MLP is latent attention's.
    """

    def __init__(self, embedding_dimension: int, heads: int = 8, head_width: int | None = None):
        super().__init__(embedding_dimension, heads, head_width or max(1, embedding_dimension // heads))

    def forward(self, features: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return the features with `sentence_embedding` [B, D]: the mean over the tokens in `attention_mask`."""
        hidden = features["token_embeddings"]
        mask = features["attention_mask"].bool()
        # Zeros, not whatever the backbone made of padding: a weight of 0 times infinity is not 0.
        tokens = hidden.masked_fill(~mask[..., None], 0.0)
        # A text of no token at all asks everything, as nothing to ask has no weights.
        keys = mask | ~mask.any(1, keepdim=True)
        tokens = self._through_blocks(tokens, tokens, keys[:, None, None, :])
        return {**features, "sentence_embedding": _mean(tokens, mask).to(hidden.dtype)}


class MultiLayerPooling(_TrainedPooling):
    """Multi-layer trainable pooling: trained latents ask one vector of every layer of the backbone.

        H_l = pool of layer l + its embedding;   z = attn(LN(latents), LN(H)) + latents;   z = geglu(LN(z)) + z
        e = mean of z over the latents

    A layer's vector is the mean of its pooled tokens, or the last of them where attention is causal. The layers are as
    transformers gives them: without the embeddings, the last one after the final norm. Needs a backbone whose
    configuration has `output_hidden_states`.

    Source: Tang and Yang, Pooling and Attention, arXiv 2409.02727, and its code; there R = 768, H = 32, W = 2048.
    """

    arguments = ("layers", "of_layer")

    def __init__(
        self,
        embedding_dimension: int,
        layers: int,
        latents: int = 768,
        heads: int = 32,
        head_width: int | None = None,
        of_layer: str = "mean",
    ):
        super().__init__(embedding_dimension, heads, head_width or embedding_dimension, latents)
        if of_layer not in ("mean", "last"):
            raise ValueError(f'of_layer is {of_layer!r}, wanted "mean" or "last"')
        self.layers = layers
        self.of_layer = of_layer
        self.layer_embeddings = nn.Parameter(torch.randn(layers, embedding_dimension))

    def forward(self, features: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return the features with `sentence_embedding` [B, D]."""
        mask = features["attention_mask"].bool()
        states = features["all_layer_embeddings"][1:]
        pool = _mean if self.of_layer == "mean" else _last
        dtype = self.latents.dtype
        layers = torch.stack([pool(state, mask).to(dtype) for state in states], 1) + self.layer_embeddings
        latents = self.latents.expand(len(layers), -1, -1)
        vectors = self._through_blocks(latents, layers).mean(1, dtype=torch.float32)
        # The states of all layers are dropped: nothing after the pool reads them.
        rest = {key: value for key, value in features.items() if key != "all_layer_embeddings"}
        return {**rest, "sentence_embedding": vectors.to(states[-1].dtype)}


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean [B, D], in float32, of the states [B, T, D] that a mask [B, T] keeps."""
    total = states.masked_fill(~mask[..., None], 0.0).sum(1, dtype=torch.float32)
    return total / mask.sum(1, keepdim=True).clamp(min=1)


def _last(states: Tensor, mask: Tensor) -> Tensor:
    """Return the last state [B, D] of each text that a mask [B, T] keeps."""
    places = torch.arange(mask.size(1), device=mask.device)
    return states[torch.arange(len(states), device=states.device), (mask * places).argmax(1)]


class _PreNorm(nn.Module):
    """LayerNorm before a block, on its context too where it has one (names as released)."""

    def __init__(self, dimension: int, block: nn.Module, has_context: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimension)
        self.norm_context = nn.LayerNorm(dimension) if has_context else None
        self.fn = block

    def forward(self, tokens: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        if self.norm_context is None:
            return self.fn(self.norm(tokens))
        return self.fn(self.norm(tokens), self.norm_context(context), mask)


class _CrossAttention(nn.Module):
    """Multi-head attention of tokens [B, T, D] to a context [B, R, D]; softmax scale W ** -0.5."""

    def __init__(self, dimension: int, heads: int, head_width: int) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.to_q = nn.Linear(dimension, inner, bias=False)
        self.to_kv = nn.Linear(dimension, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dimension, bias=False)

    def forward(self, tokens: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        key, value = self.to_kv(context).chunk(2, dim=-1)
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.to_q(tokens), key, value))
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.to_out(attended.transpose(1, 2).flatten(2))


class _GEGLU(nn.Module):
    """Feed-forward x * gelu(gate), four times as wide inside (names as released: `net.0`, `net.2`)."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.net = nn.ModuleDict({"0": nn.Linear(dimension, 8 * dimension), "2": nn.Linear(4 * dimension, dimension)})

    def forward(self, tokens: Tensor) -> Tensor:
        value, gate = self.net["0"](tokens).chunk(2, dim=-1)
        return self.net["2"](value * functional.gelu(gate))

"""Vectors as another program would compute them by one mistake or another, from our own open model.

Shapes: T tokens of a text, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32
from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm, Pooling, StaticEmbedding
from torch import Tensor

from embedsmith.errors import ModelError
from embedsmith.models.backbone import set_attention
from embedsmith.models.encoding import task_of_role
from embedsmith.models.probe import promised_attention
from embedsmith.models.settings import Role
from embedsmith.models.tokens import padding_values

Prompt = Literal["own", "none", "twice", "other", "other first", "bare end", "space"]
"""What stands before a text: its role's prompt, none, it twice, the other role's, both; it without the white space at
its end, or with a space more."""
Ends = Literal["first", "last", "both"]
"""Which tokens that a tokenizer adds are missing."""
Padding = Literal["longest", "limit"]
"""To which length texts are padded on the left: the longest of a request, or the most that the model reads."""

_HEADS = (Dense, LayerNorm)
_OF_PLACES = frozenset({"position_embeddings", "embed_positions", "wpe"})
_PLAIN = {
    "mean": "the mean of the tokens",
    "cls": "the first token",
    "lasttoken": "the last token",
    "max": "the maximum",
}


@dataclass(frozen=True)
class Reading:
    """One way to turn a text into a vector; by default the model's own."""

    prompt: Prompt = "own"
    pools_prompt: bool = False
    """Whether tokens of the prompt are pooled, by a model that leaves them out."""
    pooling: str | None = None
    attention: Literal["causal", "bidirectional"] | None = None
    without: Ends | None = None
    doubles_first: bool = False
    """Whether the token before the text stands there twice: in a chat template, and added by the tokenizer."""
    left: Padding | None = None
    """Whether texts are padded on the left, and places are counted from the padding."""
    has_head: bool = True
    """Whether the layers between pooling and normalisation are applied."""
    max_tokens: int | None = None
    is_short: bool = False
    """Whether matmuls are computed in bfloat16."""

    @property
    def changes(self) -> dict[str, Any]:
        """What is another way than the model's."""
        usual = vars(Reading())
        return {name: value for name, value in vars(self).items() if value != usual[name]}


OWN = Reading()


class Reader:
    """An open model that reads texts in other ways than its own."""

    def __init__(self, model: Any) -> None:
        """Take an open embedding model; it is put back after each text."""
        self.model = model
        self.has_backbone = model.backbone is not None and not isinstance(model[0], StaticEmbedding)
        places = [place for place, module in enumerate(model) if isinstance(module, Pooling) or _is_trained(module)]
        self._pooling = places[0] if places else None

    def readings(self, role: Role) -> Iterator[Reading]:
        """Yield the usual mistakes of a role that would change anything, the likeliest first."""
        own, other = self._prompts(role)
        masks = bool(own) and self._masks_prompts
        if own:
            yield Reading(prompt="none")
            yield Reading(prompt="twice")
        if other and other != own:
            yield Reading(prompt="other")
        if own and other and other != own:
            yield Reading(prompt="other first")
        if masks:
            yield Reading(pools_prompt=True)
        if not self.has_backbone:
            return
        for pooling in _PLAIN:
            if self._pooling is not None and pooling != self.pooling:
                yield Reading(pooling=pooling)
        if promised := promised_attention(self.model.backbone):
            yield Reading(attention="causal" if promised == "bidirectional" else "bidirectional")
        yield Reading(without="last")
        yield Reading(without="first")
        yield Reading(without="both")
        yield Reading(doubles_first=True)
        if self.pooling == "cls" or _counts_places(self.model.backbone):
            yield Reading(left="longest")
            yield Reading(left="limit")
        if any(isinstance(module, _HEADS) for module in self.model):
            yield Reading(has_head=False)
        if own.rstrip() != own:
            yield Reading(prompt="bare end")
        if own:
            yield Reading(prompt="space")
        if masks:
            yield Reading(prompt="twice", pools_prompt=True)
            yield Reading(prompt="other", pools_prompt=True)

    @property
    def pooling(self) -> str:
        """What the model calls its pooling."""
        module = self.model[self._pooling] if self._pooling is not None else None
        mode = getattr(module, "pooling_mode", None)
        return mode if isinstance(mode, str) else "+".join(mode) if mode else type(module).__name__

    def said(self, reading: Reading) -> str:
        """Return in words what is another way than the model's."""
        words = {
            "prompt": {
                "none": "no prompt before the text",
                "twice": "the prompt twice before the text",
                "other": "the prompt of the other role before the text",
                "other first": "the prompt of the other role before the right one",
                "bare end": "the prompt without the white space at its end",
                "space": "a space more between prompt and text",
            }.get(reading.prompt, ""),
            "pools_prompt": "the prompt is pooled, which the model leaves out",
            "pooling": f"pools {_PLAIN.get(reading.pooling or '', '')} (the model: {self._own_pooling()})",
            "attention": f"attention is {reading.attention}",
            "without": {
                "first": "the token before the text (BOS, CLS) is missing",
                "last": "the token after the text (EOS, SEP) is missing",
                "both": "the tokens that the tokenizer adds are missing",
            }.get(reading.without or "", ""),
            "doubles_first": "the token before the text (BOS, CLS) stands there twice",
            "left": "texts are padded on the left, and their places are counted from the padding",
            "has_head": "the layers after the pooling (Dense) are left out",
            "max_tokens": f"texts are cut at {reading.max_tokens} tokens",
            "is_short": "rounded as in bfloat16",
        }
        return " and ".join(words[name] for name in reading.changes)

    def longest(self, role: Role) -> int:
        """Return how many tokens of a text the model could read."""
        found = getattr(getattr(self.model.backbone, "config", None), "max_position_embeddings", None)
        return found if isinstance(found, int) else 2**31 - 1

    def tokens(self, text: str, role: Role) -> int:
        """Return how many tokens a text has with its prompt, uncut; of static embeddings its characters."""
        prompt = self.model.prompt_of(role)
        if not self.has_backbone:
            return len(text)
        return len(self.model.tokenizer(prompt + text, truncation=False, verbose=False)["input_ids"])

    @torch.inference_mode()
    def vector(self, text: str, role: Role, reading: Reading, *, beside: int = 0) -> Float32[np.ndarray, " D"] | None:
        """Return the vector of a text by a reading, None where there is none: no token is left, or none has a row.

        Args:
            text: without its prompt.
            role: of the text.
            reading: how it is read.
            beside: tokens of the longest text of its request.
        """
        prompt, text = self._texts(text, role, reading)
        self.model.eval()
        try:
            with self._cut(self._most(role, reading)):
                features = dict(self.model.preprocess([text], prompt=prompt or None, task=task_of_role(role)))
        except ModelError:
            return None
        special = set(self.model.tokenizer.all_special_ids) if self.has_backbone else set()
        if reading.without and not _drop(features, reading.without, special):
            return None
        if reading.doubles_first and not _double(features, special):
            return None
        if reading.left:
            width = self._width(role, reading, beside)
            if width > self.longest(role):
                return None
            _pad(features, width, padding_values(self.model.tokenizer))
        features = {key: one.to(self.model.device) if isinstance(one, Tensor) else one for key, one in features.items()}
        short = torch.autocast(self.model.device.type, dtype=torch.bfloat16) if reading.is_short else nullcontext()
        with _attending(self.model, reading.attention), short:
            if reading.pooling or reading.is_short or reading.left or not reading.has_head:
                features = self.model[0](features)
                if reading.left and (reading.pooling or self.pooling) == "cls":
                    # Its first place is padding, which is pooled as if it were a token.
                    features["attention_mask"] = torch.ones_like(features["attention_mask"])
                for module in self._after(reading, features):
                    features = module(features)
            else:
                features = self.model(features, task=task_of_role(role))
        vector = features["sentence_embedding"][0].float().cpu().numpy()
        return vector if np.isfinite(vector).all() and vector.any() else None

    def _after(self, reading: Reading, features: Mapping[str, Any]) -> Iterator[Any]:
        """Yield the modules behind the first one."""
        for place, module in enumerate(self.model):
            if place == 0 or (isinstance(module, _HEADS) and not reading.has_head):
                continue
            if place == self._pooling and reading.pooling:
                yield Pooling(features["token_embeddings"].shape[-1], pooling_mode=reading.pooling)
            else:
                yield module

    def _prompts(self, role: Role) -> tuple[str, str]:
        """Return the prompt of a role and that of the other one."""
        return self.model.prompt_of(role), self.model.prompt_of("passage" if role == "query" else "query")

    @property
    def _masks_prompts(self) -> bool:
        """Whether tokens of the prompt are left out of the pool."""
        pooling = self.model[self._pooling] if self._pooling is not None else None
        return hasattr(self.model[0], "instruction_mask") or getattr(pooling, "include_prompt", True) is False

    def _own_pooling(self) -> str:
        return _PLAIN.get(self.pooling, self.pooling)

    def _texts(self, text: str, role: Role, reading: Reading) -> tuple[str, str]:
        """Return the prompt that is left out of the pool where the model does so, and what follows it."""
        own, other = self._prompts(role)
        before, behind = {
            "own": (own, ""),
            "none": ("", ""),
            "twice": (own, own),
            "other": (other, ""),
            "other first": (other, own),
            "bare end": (own.rstrip(), ""),
            "space": (own, " "),
        }[reading.prompt]
        return ("", before + behind + text) if reading.pools_prompt else (before, behind + text)

    @contextmanager
    def _cut(self, tokens: int | None) -> Iterator[None]:
        """Cut texts at another number of tokens within the block."""
        if tokens is None:
            yield
            return
        first = self.model[0]
        kept = first.query_length, first.document_length, self.model.max_seq_length
        first.query_length = first.document_length = None
        self.model.max_seq_length = tokens
        try:
            yield
        finally:
            first.query_length, first.document_length, self.model.max_seq_length = kept

    def _most(self, role: Role, reading: Reading) -> int | None:
        """Return at how many tokens a text is cut, None for the model's own way: a doubled token takes a place."""
        most = reading.max_tokens or (self.model.contract_length(role) if reading.doubles_first else None)
        return most - 1 if most and reading.doubles_first else most

    def _width(self, role: Role, reading: Reading, beside: int) -> int:
        """Return to how many tokens a text is padded."""
        limit = reading.max_tokens or self.model.contract_length(role) or self.longest(role)
        return limit if reading.left == "limit" else min(limit, beside)


@contextmanager
def _attending(model: Any, attention: Literal["causal", "bidirectional"] | None) -> Iterator[None]:
    """Compute another attention within the block."""
    if attention is None:
        yield
        return
    config = model.backbone.config
    kept = config.is_causal, getattr(config, "sliding_window", None)
    set_attention(model[0], attention)
    try:
        yield
    finally:
        config.is_causal = kept[0]
        if hasattr(config, "sliding_window"):
            config.sliding_window = kept[1]


def _counts_places(backbone: torch.nn.Module) -> bool:
    """Whether the backbone has an embedding for each place of a text, so that a text that is moved is another."""
    named = backbone.named_modules()
    return any(name.rpartition(".")[2] in _OF_PLACES and isinstance(one, torch.nn.Embedding) for name, one in named)


def _drop(features: dict[str, Any], ends: Ends, special: Set[int]) -> bool:
    """Take tokens that the tokenizer added out of the features of one text; return whether they were there."""
    ids = features["input_ids"][0].tolist()
    first = int(ends != "last" and ids[:1] != [] and ids[0] in special)
    last = int(ends != "first" and len(ids) > first and ids[-1] in special)
    wanted = {"first": (1, 0), "last": (0, 1), "both": (1, 1)}[ends]
    if (first, last) != wanted or len(ids) - first - last < 1:
        return False
    _change(features, lambda value: value[:, first : len(ids) - last])
    return True


def _double(features: dict[str, Any], special: Set[int]) -> bool:
    """Let the token before a text stand there twice; return whether there is one."""
    ids = features["input_ids"][0].tolist()
    if not ids or ids[0] not in special:
        return False
    _change(features, lambda value: torch.cat([value[:, :1], value], dim=1))
    return True


def _pad(features: dict[str, Any], width: int, padding: Mapping[str, int]) -> None:
    """Put padding before one text, up to a width."""
    length = features["input_ids"].shape[1]
    for key, value in features.items():
        if isinstance(value, Tensor) and value.ndim == 2 and value.shape[1] == length:
            missing = max(0, width - length)
            features[key] = torch.nn.functional.pad(value, (missing, 0), value=padding.get(key, 0))


def _change(features: dict[str, Any], change: Callable[[Tensor], Tensor]) -> None:
    """Change all numbers of the tokens of one text."""
    length = features["input_ids"].shape[1]
    for key, value in features.items():
        if isinstance(value, Tensor) and value.ndim == 2 and value.shape[1] == length:
            features[key] = change(value)


def _is_trained(module: Any) -> bool:
    """Return whether a module is a pooling of ours."""
    return type(module).__name__.endswith("Pooling")


def pairs_of(readings: Sequence[Reading]) -> Iterator[Reading]:
    """Yield readings that make two mistakes at once, of different kinds."""
    for number, one in enumerate(readings):
        for two in readings[number + 1 :]:
            is_odd = two.doubles_first and one.without in ("first", "both")
            if not is_odd and not one.changes.keys() & two.changes.keys():
                yield replace(one, **two.changes)

"""Packed texts: on a GPU the tokens of a batch go through the backbone in one row, with no padding between them.

Attention is computed text by text by the flash kernel that torch brings (`_flash_attention_forward`, which xFormers
uses too): nothing is computed for padding, and no kernel depends on how long the texts are. Everything else in a
backbone works on one token at a time, by its position id. After the backbone the states are padded again, so that
poolings read what they always read.

A probe decides whether a model can be packed. Its states must equal those of padded texts.
The states of a text must not depend on its neighbours.

Shapes: n texts of a batch (and m, one more), T tokens of the longest, S tokens of all together, D numbers of a state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int32, Int64
from sentence_transformers.sentence_transformer.modules import Transformer
from torch import Tensor

from embedsmith.models import transfer
from embedsmith.models.attention import attention_function
from embedsmith.models.budget import of_tokens
from embedsmith.models.compat import attention_name, flash_attention, pools_last_states, set_attention_name
from embedsmith.models.compiled import uncompiled
from embedsmith.models.threads import Shared, turn
from embedsmith.models.transfer import sent

_NAME = "embedsmith_packed"
_SHORT_TYPES = (torch.bfloat16, torch.float16)
"""Types that the flash kernel takes."""
_TOLERANCE = 0.05
"""How far, as a share of its length, a state may be from that of padded texts: in bfloat16 kernels differ by 0.01."""
_WINDOWS = ("sliding_window", "attention_chunk_size")
"""Fields of configurations with the width of an attention window, in tokens."""
_WHOLE = 10**9
"""Tokens of a text that nothing cuts."""
_UNREAD = ("input_ids", "token_type_ids")
"""Features that lie in a packed batch's row too."""
_KNOWN = {"input_ids", "attention_mask", "token_type_ids", "pooling_mask"}
"""Features with one value a token. A backbone that reads others is not packed."""


@dataclass(frozen=True)
class Packed:
    """The tokens of n texts, one text after the other."""

    ids: Int64[Tensor, "1 S"]
    positions: Int64[Tensor, "1 S"]
    """Of each token in its text, from 0."""
    types: Int64[Tensor, "1 S"] | None
    places: Int64[Tensor, " S"]
    """Where each token lies among the n T places of the padded batch."""
    ends: Int32[Tensor, " m"]
    """Where each text ends, after a 0."""
    longest: int

    @property
    def tokens(self) -> int:
        """S."""
        return self.ids.numel()

    def to(self, device: torch.device) -> Packed:
        """Return the same on a device."""
        return self._with(lambda tensor: sent(tensor, device))

    def pinned(self) -> Packed:
        """Return the same in pinned memory."""
        return self._with(transfer.pinned)

    def _with(self, change: Callable[[Tensor], Tensor]) -> Packed:
        changed = {name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **changed)


def pack(features: Mapping[str, Any]) -> dict[str, Any]:
    """Return the features of a batch with its packed tokens as `packed`; see `is_packable`.

    >>> mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    >>> packed = pack({"input_ids": torch.tensor([[4, 5, 0], [6, 7, 8]]), "attention_mask": mask})["packed"]
    >>> packed.ids.tolist(), packed.positions.tolist(), packed.ends.tolist(), packed.places.tolist()
    ([[4, 5, 6, 7, 8]], [[0, 1, 0, 1, 2]], [0, 2, 5], [0, 1, 3, 4, 5])
    """
    attended = features["attention_mask"].bool()
    lengths = attended.sum(1)
    types = features.get("token_type_ids")
    packed = Packed(
        ids=features["input_ids"][attended][None],
        positions=(attended.cumsum(1) - 1)[attended][None],
        types=None if types is None else types[attended][None],
        places=attended.flatten().nonzero().squeeze(1),
        ends=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int(),
        longest=int(lengths.max()),
    )
    return {**features, "packed": packed}


def token_states(transformer: Transformer, features: Mapping[str, Any]) -> dict[str, Any]:
    """Return the features of a batch after the backbone, which reads its packed tokens.

    Returns:
        `token_embeddings` [n, T, D], zero where padding would be, and the tokens to pool as `attention_mask` [n, T].
    """
    packed: Packed = features["packed"]
    mask = features["attention_mask"]
    with attention_within_texts(transformer.model):
        found = transformer.model(
            input_ids=packed.ids,
            position_ids=packed.positions,
            **({} if packed.types is None else {"token_type_ids": packed.types}),
            cu_seq_lens_q=packed.ends,
            cu_seq_lens_k=packed.ends,
            max_length_q=packed.longest,
            max_length_k=packed.longest,
            return_dict=True,
        )
    states = found.last_hidden_state[0]
    padded = states.new_zeros(mask.numel(), states.shape[1]).index_copy(0, packed.places, states)
    rest = {key: value for key, value in features.items() if key not in ("packed", "pooling_mask")}
    return {
        **rest,
        "token_embeddings": padded.view(*mask.shape, -1),
        "attention_mask": features.get("pooling_mask", mask),
    }


def alone(model: Any) -> AbstractContextManager[Any]:
    """Return the block that one thread is in at a time: packing changes the configuration of the backbone within it.

    On a CPU nothing is packed, and every core has a batch of its own.
    """
    return nullcontext() if model.device.type == "cpu" else turn(model)


def packs_correctly(transformer: Any, device: torch.device) -> bool:
    """Return whether a transformer gives packed texts the states of padded ones, by a probe.

    In evaluation mode, and under autocast where training is.
    """
    backbone = transformer.model
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad(), uncompiled():
            return _same_states(transformer, device)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return False  # the kernel does not take its heads, or it does not take positions
    finally:
        backbone.train(was_training)


def allows_packing(transformer: Any, device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether hardware and settings allow packing where matmuls are computed in a type.

    Checked at each call: lengths and configurations change.
    """
    if not isinstance(transformer, Transformer) or dtype not in _SHORT_TYPES or not _has_kernel(device):
        return False
    config = transformer.model.config
    return (
        attention_name(config) == "sdpa"
        and pools_last_states(transformer)
        and not getattr(config, "output_hidden_states", False)
        # A window shorter than the text is other tokens for each attention implementation.
        and min(_windows(config), default=_WHOLE) >= _longest(transformer)
    )


def _windows(config: Any) -> list[int]:
    """Return the attention windows of a backbone, in tokens; none where layers attend to the whole text."""
    text = config.get_text_config()
    return [window for name in _WINDOWS if (window := getattr(text, name, None))]


def _longest(transformer: Transformer) -> int:
    """Return how many tokens a text may have."""
    roles = (transformer.query_length, transformer.document_length, None)
    return max(length or transformer.max_seq_length or _WHOLE for length in roles)


def _has_kernel(device: torch.device) -> bool:
    """Return whether a device has the kernel: NVIDIA's Ampere and later."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def _same_states(transformer: Transformer, device: torch.device) -> bool:
    """Return whether the states of packed texts are those of padded ones, and no text's depend on another's."""
    vocabulary = transformer.model.config.get_text_config().vocab_size
    lengths = torch.tensor([9, 5, 12])
    columns = torch.arange(int(lengths.max()))
    mask = (columns < lengths[:, None]).long()
    ids = (columns + 31 * torch.arange(3)[:, None]) * 7 % max(vocabulary // 2, 1) + vocabulary // 4
    changed = ids.clone()
    changed[1] = (changed[1] + 1) % vocabulary
    states = []
    for tokens in (ids, changed):
        batch = {"input_ids": tokens * mask, "attention_mask": mask}
        states.append(token_states(transformer, on_device(pack(batch), device))["token_embeddings"].float())
    batch = on_device({"input_ids": ids * mask, "attention_mask": mask}, device)
    padded = transformer.model(**batch).last_hidden_state.float()
    attended = batch["attention_mask"].bool()
    apart = (states[0] - padded).norm(dim=-1)[attended] / padded.norm(dim=-1)[attended]
    others = torch.equal(states[0][0], states[1][0]) and torch.equal(states[0][2], states[1][2])
    return bool((apart < _TOLERANCE).all()) and others


def on_device(features: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return the features of a batch, padded or packed, on a device.

    The ids of a packed batch stay behind: the backbone has them in a row.
    """
    moved: dict[str, Any] = {}
    for key, value in features.items():
        if "packed" in features and key in _UNREAD:
            continue
        if isinstance(value, Tensor):
            moved[key] = sent(value, device)
        else:
            moved[key] = value.to(device) if isinstance(value, Packed) else value
    return moved


def pinned(features: Mapping[str, Any]) -> dict[str, Any]:
    """Return the features of a batch in pinned memory, but those that stay behind."""
    found = dict(features)
    for key, value in features.items():
        if isinstance(value, Packed):
            found[key] = value.pinned()
        elif isinstance(value, Tensor) and not ("packed" in features and key in _UNREAD):
            found[key] = transfer.pinned(value)
    return found


def is_packable(features: Mapping[str, Any]) -> bool:
    """Return whether every text of a batch has a token, and none has features but those that packing knows."""
    return of_tokens(features) <= _KNOWN and bool(features["attention_mask"].any(1).all())


@contextmanager
def attention_within_texts(backbone: Any) -> Iterator[None]:
    """Let a backbone compute attention within the texts of a row; in training it lasts until the backward pass is done.

    (A checkpointed layer is computed again in it.)
    """
    config = backbone.config
    before = attention_name(config)
    with _known():
        set_attention_name(config, _NAME)
        try:
            yield
        finally:
            set_attention_name(config, before)


def _packed_attention(
    module: Any,
    query: Float[Tensor, "1 h S d"],
    key: Float[Tensor, "1 k S d"],
    value: Float[Tensor, "1 k S d"],
    attention_mask: None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Float[Tensor, "1 S h d"], None]:
    """Compute attention as transformers asks for it, within the texts that it hands through."""
    causal = getattr(module.config, "is_causal", None)
    if causal is None:
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if torch.is_autocast_enabled(query.device.type):
        short = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(short), key.to(short), value.to(short)
    rows = [states[0].transpose(0, 1) for states in (query, key, value)]
    ends, longest = others["cu_seq_lens_q"], others["max_length_q"]
    found = flash_attention(rows[0], rows[1], rows[2], ends, longest, causal=causal, dropout=dropout, scale=scaling)
    return found[None], None


@Shared
def _known() -> AbstractContextManager[None]:
    """Return the block in which transformers knows the name."""
    return attention_function(_NAME, _packed_attention)

"""Attention as it trains on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from embedsmith.models.attention import attention_function, steady_attention
from embedsmith.models.compat import sdpa_attention
from embedsmith.models.cpu.switch import is_fast
from embedsmith.models.threads import Shared

_TORCHS = "sdpa"
_OTHERS = ("position_bias", "softcap", "cache")
"""What transformers may hand over beside, and its own function knows how to treat."""


def training_attention(device: str) -> AbstractContextManager[Any]:
    """Return the block in which attention is computed as it trains fastest on a device, forward and backward."""
    return _plain() if device == "cpu" and is_fast() else steady_attention(device)


@Shared
@contextmanager
def _plain() -> Iterator[None]:
    """Have a CPU compute attention by plain matmuls.

    Flash attention's backward pass was a third of a bfloat16 step; plain matmuls took a quarter off it. Those of
    bfloat16 stay in it, as autocast has all others; torch would make float32 of them, at a tenth of a step.
    """
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with attention_function(_TORCHS, _matmul_attention), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)


def _matmul_attention(
    module: Any,
    query: Float[Tensor, "n h T d"],
    key: Float[Tensor, "n k S d"],
    value: Float[Tensor, "n k S e"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Float[Tensor, "n T h e"], None]:
    """Compute attention as transformers asks for it, by two matmuls and a softmax.

    Torch's own plain attention goes through all weights three times more, to make 0 of a row in which every token is
    masked, and keeps which they were. Such a row is padding, and is never read.
    """
    if attention_mask is None:
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        is_plain = not causal
    else:
        is_plain = attention_mask.dtype == torch.bool
    if not is_plain or any(others.get(name) is not None for name in _OTHERS):
        found: tuple[Tensor, None] = sdpa_attention(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **others
        )
        return found
    texts, heads, length, width = query.shape
    kind = query.device.type
    if torch.is_autocast_enabled(kind):
        short = torch.get_autocast_dtype(kind)
        query, key, value = query.to(short), key.to(short), value.to(short)
    with torch.autocast(kind, enabled=False):  # it would have the softmax in float32
        query = query * (width**-0.5 if scaling is None else scaling)
        # Heads that share keys are rows of one matmul.
        rows = query.reshape(texts, key.shape[1], -1, width)
        weights = (rows @ key.transpose(2, 3)).view(texts, heads, length, -1)
        if attention_mask is not None:
            masked = torch.zeros(attention_mask.shape, dtype=query.dtype, device=query.device)
            weights += masked.masked_fill_(~attention_mask, torch.finfo(query.dtype).min)
        weights = functional.dropout(weights.softmax(-1), dropout)
        states = weights.view(texts, key.shape[1], -1, key.shape[2]) @ value
    return states.view(texts, heads, length, -1).transpose(1, 2).contiguous(), None

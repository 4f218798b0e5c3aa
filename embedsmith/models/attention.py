"""Which of torch's kernels compute attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def steady_attention(device: str) -> AbstractContextManager[Any]:
    """Return the block in which a GPU's attention takes no kernel that is planned anew for every shape.

    cuDNN's is: on an H100 half a second went by for each new pair of a number of texts and a length, of which every
    batch of texts of natural lengths is one. The others are ready at once.
    """
    if device != "cuda":
        return nullcontext()
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


@contextmanager
def training_attention(device: str) -> Iterator[None]:
    """Let attention be computed as it trains fastest on a device, forward and back, within the block."""
    if device != "cpu":
        with steady_attention(device):
            yield
        return
    # On a CPU, flash attention's backward pass was a third of a bfloat16 step; plain products took a quarter off it.
    # Those of bfloat16 stay in it, as autocast has all others; torch would make float32 of them, at a tenth of a step.
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)

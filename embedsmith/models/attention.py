"""Which of torch's kernels compute attention."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel


def steady_attention(device: str) -> AbstractContextManager[Any]:
    """Return the block in which a GPU's attention takes no kernel that is planned anew for every shape.

    cuDNN's is: on an H100 half a second went by for each new pair of a number of texts and a length, of which every
    batch of texts of natural lengths is one. The others are ready at once.
    """
    if device != "cuda":
        return nullcontext()
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


def training_attention(device: str) -> AbstractContextManager[Any]:
    """Return the block in which attention trains fastest on a device, forward and back."""
    # On a CPU, flash attention's backward pass was a third of a bfloat16 step; plain products took a quarter off it.
    return sdpa_kernel(SDPBackend.MATH) if device == "cpu" else steady_attention(device)

"""Copies to a GPU that nobody waits for.

From ordinary memory a GPU copies when it is done with all that it was told before, and who told it waits so long. From
pinned memory it copies when the copy's turn comes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pinned(tensor: Tensor) -> Tensor:
    """Return a tensor in pinned memory. Only where there is a GPU of NVIDIA's or AMD's."""
    return tensor.pin_memory()


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; from pinned memory to such a GPU nothing is waited for."""
    return tensor.to(device, non_blocking=device.type == "cuda")

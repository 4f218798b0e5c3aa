"""Asynchronous copies to a GPU.

A copy from pageable memory is synchronous: the CPU waits until the GPU has done all the work before it. From pinned
memory, with `non_blocking`, it is not.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pinned(tensor: Tensor) -> Tensor:
    """Return a tensor in pinned memory. Only where there is a GPU of NVIDIA's or AMD's."""
    return tensor.pin_memory()


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; from pinned memory to a GPU the copy is asynchronous."""
    return tensor.to(device, non_blocking=device.type == "cuda")

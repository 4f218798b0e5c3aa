"""Float32 products on AMD's processors: by oneDNN, which uses their AVX-512, in place of MKL, which does not.

On a CPU torch multiplies float32 matrices with MKL, which keeps to half-wide kernels where the processor is not one of
Intel's: 90 against 200 billion operations a second on one core of a fifth-generation EPYC. torch brings oneDNN too, and
uses it for shorter types only. Both sum in float32; a vector moves in its last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


def fast_products(device: torch.device) -> AbstractContextManager[Any]:
    """Return a block in which linear layers are multiplied as fast as the device can; it is not for training."""
    is_narrow = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512" and _is_amd()
    return WideProducts() if is_narrow and _has_product() else nullcontext()


class WideProducts(TorchFunctionMode):
    """Within the block, linear layers in float32 on a CPU are multiplied by oneDNN, without gradients."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Return what a function of torch returns."""
        return (_linear if func is functional.linear else func)(*args, **(kwargs or {}))


def _linear(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return states times weight, transposed, plus bias."""
    if weight.dtype != torch.float32 or states.dim() < 2 or not states.numel():
        return functional.linear(states, weight, bias)
    # What torch's own compiler makes of a linear layer; under no public name.
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")


def _has_product() -> bool:
    """Return whether this torch has the product; another version may not."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _is_amd() -> bool:
    """Return whether AMD made the processor."""
    return str(torch.cpu.get_capabilities().get("cpu_name", "")).startswith("AMD")

"""Products of matrices on a CPU, as fast as it can: float32 by oneDNN on AMD's processors, some in bfloat16.

On a CPU torch multiplies float32 matrices with MKL, which keeps to half-wide kernels where the processor is not one of
Intel's: 90 against 260 billion operations a second on one core of a fifth-generation EPYC. torch brings oneDNN too, and
uses it for shorter types only. Both sum in float32; a vector moves in its last bits.

In bfloat16 a processor multiplies at least twice as fast, with 8 bits of each factor in place of 24. What that does to
a cosine differs from product to product: see `may_be_short`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, functional
from torch.overrides import TorchFunctionMode


def fast_products(device: torch.device, *, mixed: bool = False) -> AbstractContextManager[Any]:
    """Return a block in which linear layers are multiplied as fast as the device can, in the types of their weights.

    Args:
        device: of the weights.
        mixed: whether float32 states meet weights in bfloat16; their product is then float32 again.
    """
    may_be_wide = device.type == "cpu" and torch.is_inference_mode_enabled() and _is_amd() and _has_product()
    is_wide = may_be_wide and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return Products(is_wide=is_wide) if mixed or is_wide else nullcontext()


def may_be_short(layer: Linear, width: int) -> bool:
    """Return whether a linear layer may be multiplied in bfloat16 and leave the vectors nearly what they are.

    A feed-forward's second may, which leads from its wide middle back to the width of the model. In all-MiniLM-L6-v2
    these are a third of the work and a fifth of the error (variance of a cosine) of bfloat16 everywhere: of the hard
    negatives that float32 finds in nl2bash they keep 97.5%, where bfloat16 in all products keeps 94.5%.
    """
    return layer.out_features == width and layer.in_features >= 2 * width


class Products(TorchFunctionMode):
    """Within the block, linear layers read and return the type of their states, whatever that of their weights.

    Args:
        is_wide: float32 weights are multiplied by oneDNN, without gradients.
    """

    def __init__(self, *, is_wide: bool) -> None:
        super().__init__()
        self.is_wide = is_wide

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Return what a function of torch returns."""
        if func is functional.linear:
            return self._linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return states times weight, transposed, plus bias."""
        if weight.dtype == torch.bfloat16 and input.dtype == torch.float32:
            product = functional.linear(input.to(weight.dtype), weight)
            return product.float() if bias is None else product + bias
        return _wide(input, weight, bias) if self.is_wide else functional.linear(input, weight, bias)


def _wide(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return states times weight, transposed, plus bias, in float32 by oneDNN."""
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

"""A training step's products and attention on a device, forward and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import nn

from embedsmith.models.cpu.attention import training_attention
from embedsmith.models.cpu.trained_products import trained_products


@contextmanager
def fast_training(model: nn.Module, *, bfloat16: bool) -> Iterator[None]:
    """Have a model's products and attention computed within the block as they train fastest on its device.

    Args:
        model: an embedding model; its `device` is where it is.
        bfloat16: products are computed in it, by autocast.
    """
    products = nullcontext() if bfloat16 else trained_products(model, model.device)
    with training_attention(model.device.type), products:
        yield

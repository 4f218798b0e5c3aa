"""Matmuls and attention of a training step on a device, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from embedsmith.models.cpu.attention import training_attention
from embedsmith.models.cpu.trained_matmul import shared_short, trained_matmul


@contextmanager
def fast_training(model: nn.Module, *, bfloat16: bool) -> Iterator[None]:
    """Have a model's matmuls and attention computed within the block as they train fastest on its device.

    Args:
        model: an embedding model; its `device` is where it is.
        bfloat16: matmuls are computed in it, by autocast.
    """
    matmuls = (shared_short if bfloat16 else trained_matmul)(model, model.device)
    with training_attention(model.device.type), matmuls:
        yield

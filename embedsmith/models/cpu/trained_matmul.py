"""Matmuls of a training step on a CPU: in float32 by oneDNN where it is faster, in bfloat16 by shared weights.

Four fifths of a training step in float32 were matmuls: of states and weights, of gradients and weights, and of
gradients and states. torch uses MKL for them: see `cpu.matmul`.

In bfloat16, autocast keeps its copies of the weights for one thread. Here all chunks of a batch share copies that are
made once, on whichever thread they run.

Shapes: I numbers read, O numbers returned, by a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from embedsmith.models.cpu.matmul import linear
from embedsmith.models.cpu.switch import is_fast
from embedsmith.models.measured import multiplies_wide


@contextmanager
def trained_matmul(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Have a model's linear layers use the fastest matmul of a device within the block, forward and backward.

    Whether or not there are gradients: the vectors are the same, bit for bit. The `forward` of each layer is replaced,
    because a `TorchFunctionMode` is not active where the backward pass computes a checkpointed layer again.

    Args:
        model: of float32, or in part.
        device: of its weights.
    """
    layers = _plain_layers(model)
    if not (is_fast() and multiplies_wide(device)):
        layers = []
    for layer in layers:
        layer.forward = partial(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


@contextmanager
def shared_short(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Have a CPU's linear layers multiply with bfloat16 copies of their weights, made once for the block.

    The matmuls are those of autocast, which has to be on, bit for bit. A weight that changes within the block keeps its
    copy. The copies carry gradients wherever they are read; each chunk must have a backward pass of its own: gradients
    of several would be summed in bfloat16.

    Args:
        model: of float32, or in part.
        device: of its weights; elsewhere than on a CPU nothing is changed.
    """
    layers = _plain_layers(model)
    if device.type != "cpu" or not is_fast():
        layers = []
    with torch.enable_grad():
        for layer in layers:
            bias = None if layer.bias is None else layer.bias.to(torch.bfloat16)
            layer.forward = partial(_short_forward, layer.weight.to(torch.bfloat16), bias)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _plain_layers(model: nn.Module) -> list[nn.Linear]:
    """Return the linear layers whose `forward` is torch's own."""
    return [m for m in model.modules() if type(m) is nn.Linear and "forward" not in vars(m)]


def _short_forward(weight: Tensor, bias: Tensor | None, input: Tensor) -> Tensor:
    """Return what a linear layer makes of states by short copies of its weights."""
    return functional.linear(input.to(weight.dtype), weight, bias)


def _forward(layer: nn.Linear, input: Tensor) -> Tensor:
    """Return what a linear layer makes of states."""
    is_wide = input.dtype == layer.weight.dtype == torch.float32 and input.dim() >= 2 and bool(input.numel())
    found: Tensor = (_Linear.apply if is_wide else functional.linear)(input, layer.weight, layer.bias)
    return found


class _Linear(torch.autograd.Function):
    """A linear layer, and the matmuls that pass its gradient on."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the matmul [..., O] of states [..., I] and weight [O, I]; what is kept is what backward will read."""
        passes_on, is_trained = ctx.needs_input_grad[:2]
        ctx.save_for_backward(states if is_trained else None, weight if passes_on else None)
        return linear(states, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of states, weight and bias, where they are wanted."""
        states, weight = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])
        of_states = None if weight is None else linear(gradient, weight.t())
        of_weight = None if states is None else linear(rows.t(), states.reshape(-1, states.shape[-1]).t())
        return of_states, of_weight, rows.sum(0) if ctx.needs_input_grad[2] else None


def frozen_matmul(states: Tensor, weight: Callable[[torch.dtype], Tensor], bias: Tensor | None) -> Tensor:
    """Return what a linear layer makes of states, of whose weight nothing is kept: it is made for each pass.

    Args:
        states: in the type of the matmul.
        weight: returns the weight [O, I] in a type; it has no gradient, and the bias has none.
    """
    found: Tensor = _Frozen.apply(states, weight, bias)
    return found


class _Frozen(torch.autograd.Function):
    """A linear layer whose weight is made in the forward pass, and made again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Callable[[torch.dtype], Tensor], bias: Tensor | None) -> Tensor:
        """Return the matmul [..., O] of states [..., I] and weight [O, I]."""
        ctx.weight = weight
        made = weight(states.dtype)
        if _is_wide(states):
            return linear(states, made, bias)
        # Not `functional.linear`: what watches that holds the weights that it sees.
        rows = states.reshape(-1, states.shape[-1])
        found = rows @ made.t() if bias is None else torch.addmm(bias, rows, made.t())
        return found.view(*states.shape[:-1], len(made))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the states."""
        made = ctx.weight(gradient.dtype)
        return linear(gradient, made.t()) if _is_wide(gradient) else gradient @ made, None, None


def _is_wide(states: Tensor) -> bool:
    """Return whether oneDNN multiplies states, as it does those of layers that are trained."""
    has_rows = states.dim() >= 2 and bool(states.numel())
    return states.dtype == torch.float32 and has_rows and is_fast() and multiplies_wide(states.device)

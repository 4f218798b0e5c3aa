"""Matmuls in int8 on a CPU: weights are quantised once by row, hidden states by token as they are read.

A row of a weight W has one scale s: W = s N, with N in int8. A token's hidden states x have a scale t and a minimum a:
x = a + t n, with n from 0 to 255. Their product is

    W x = t (s N n) + a (s N 1)

oneDNN computes the integer matmul N n exactly. The row sums s N 1 are computed once. Each token has its own scale, so a
vector does not depend on which texts share its batch.

Source: per-token and per-channel quantisation as in Yao et al., ZeroQuant, https://arxiv.org/abs/2206.01861,
section 4.2. The paper quantises tokens symmetrically. Here they are asymmetric: a GELU returns almost only positive
values.

Shapes: n tokens, I input features and O output features of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from embedsmith.models.compat import onednn_int8_linear, onednn_int8_pack
from embedsmith.models.precision import int8_bits

_MOST = 255
"""The largest uint8."""
_SMALLEST = 1e-6
"""Of a scale, relative to the token's largest absolute value: a smaller one is lost in float32."""
_TINY = 1e-30
_GRAIN = 128
"""Tokens of a matmul are rounded up to a multiple of it: oneDNN takes a millisecond for each new number of them."""


class QuantisedWeight(NamedTuple):
    """A weight in int8."""

    packed: Tensor
    """Laid out as oneDNN reads it."""
    scales: Float[Tensor, " O"]
    sums: Float[Tensor, " O"]
    """Of each row."""


class QuantisedStates(NamedTuple):
    """Hidden states of n tokens in uint8."""

    numbers: UInt8[Tensor, "m I"]
    """Of m tokens, n rounded up; the rows behind the n-th are padding."""
    scales: Float[Tensor, "n 1"]
    least: Float[Tensor, "n 1"]
    shape: torch.Size
    """Of the states, without their last dimension."""


QuantisedWeights = Mapping[int, tuple[Tensor, QuantisedWeight]]
"""Weights in float32 with what they are in int8, by the weight's `id`."""


def quantised_weight(weight: Float[Tensor, "O I"]) -> QuantisedWeight:
    """Return a weight in int8, or in 7 bits on a CPU whose int8 matmul overflows otherwise."""
    most = 2 ** (int8_bits() - 1) - 1
    scales = (weight.detach().abs().amax(1) / most).clamp_(min=_TINY)
    numbers = (weight.detach() / scales[:, None]).round_()
    return QuantisedWeight(onednn_int8_pack(numbers.to(torch.int8)), scales, numbers.sum(1) * scales)


def quantised_states(states: Float[Tensor, "... I"]) -> QuantisedStates:
    """Return hidden states in uint8, from the minimum to the maximum of each token."""
    rows = states.reshape(-1, states.shape[-1])
    least, largest = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    smallest = torch.maximum(least.abs(), largest.abs()).mul_(_SMALLEST).clamp_(min=_TINY)
    scales = torch.maximum((largest - least) / _MOST, smallest)
    per_scale = 1 / scales
    numbers = torch.empty(-(-len(rows) // _GRAIN) * _GRAIN, rows.shape[1], dtype=torch.uint8, device=states.device)
    # Conversion cuts off what is behind the point.
    numbers[: len(rows)] = torch.addcmul(0.5 - least * per_scale, rows, per_scale)
    return QuantisedStates(numbers, scales, least, states.shape[:-1])


def quantised_linear(
    states: QuantisedStates, weight: QuantisedWeight, bias: Float[Tensor, " O"] | None
) -> Float[Tensor, "... O"]:
    """Return states times weight, transposed, plus bias. Without a gradient."""
    found = onednn_int8_linear(states.numbers, weight.packed, weight.scales)[: len(states.scales)]
    found.mul_(states.scales).addcmul_(states.least, weight.sums)
    if bias is not None:
        found += bias
    return found.view(*states.shape, -1)

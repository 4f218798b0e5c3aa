"""Matmuls in int8 on a CPU: weights are rounded once, states as they are read, each token by itself.

A linear layer's weight W has O rows of I numbers, W = s N: N are whole numbers of 8 bits, s is a step for each row. A
token's states x go from their least number up in 255 equal steps: x = a + t n. So

    W x = t (s N n) + a (s N 1)

The first sum is one of whole numbers, by oneDNN, and exact; the second is known before. A token's vector does not
depend on which texts share its batch, as it would with one step for all of them.

Source: per-token and per-channel quantisation as in Yao et al., ZeroQuant, https://arxiv.org/abs/2206.01861,
section 4.2. There tokens have symmetric steps; what a GELU returns is almost all on one side of 0.

Shapes: n tokens, I numbers read, O numbers returned, by a layer.
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
"""Steps from the least number of a token to its largest."""
_FINEST = 1e-6
"""A step as a share of the token's largest number: a finer one is lost in float32."""
_TINY = 1e-30
_GRAIN = 128
"""Tokens of a matmul are rounded up to a multiple of it: oneDNN takes a millisecond for each new number of them."""


class QuantisedWeight(NamedTuple):
    """A weight in whole numbers."""

    packed: Tensor
    """Laid out as oneDNN reads it."""
    steps: Float[Tensor, " O"]
    sums: Float[Tensor, " O"]
    """Of each row."""


class QuantisedStates(NamedTuple):
    """States of n tokens in whole numbers."""

    numbers: UInt8[Tensor, "m I"]
    """Of m tokens, n rounded up; those of the others are any."""
    steps: Float[Tensor, "n 1"]
    least: Float[Tensor, "n 1"]
    shape: torch.Size
    """Of the states, without their last dimension."""


QuantisedWeights = Mapping[int, tuple[Tensor, QuantisedWeight]]
"""Weights in float32 with what they are in int8, by the weight's `id`."""


def quantised_weight(weight: Float[Tensor, "O I"]) -> QuantisedWeight:
    """Return a weight in whole numbers, of as many bits as this CPU multiplies without an overflow."""
    most = 2 ** (int8_bits() - 1) - 1
    steps = (weight.detach().abs().amax(1) / most).clamp_(min=_TINY)
    numbers = (weight.detach() / steps[:, None]).round_()
    return QuantisedWeight(onednn_int8_pack(numbers.to(torch.int8)), steps, numbers.sum(1) * steps)


def quantised_states(states: Float[Tensor, "... I"]) -> QuantisedStates:
    """Return states in whole numbers, each token's from its least to its largest one."""
    rows = states.reshape(-1, states.shape[-1])
    least, largest = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    finest = torch.maximum(least.abs(), largest.abs()).mul_(_FINEST).clamp_(min=_TINY)
    steps = torch.maximum((largest - least) / _MOST, finest)
    per_step = 1 / steps
    numbers = torch.empty(-(-len(rows) // _GRAIN) * _GRAIN, rows.shape[1], dtype=torch.uint8, device=states.device)
    # Conversion cuts off what is behind the point.
    numbers[: len(rows)] = torch.addcmul(0.5 - least * per_step, rows, per_step)
    return QuantisedStates(numbers, steps, least, states.shape[:-1])


def quantised_linear(
    states: QuantisedStates, weight: QuantisedWeight, bias: Float[Tensor, " O"] | None
) -> Float[Tensor, "... O"]:
    """Return states times weight, transposed, plus bias. Without a gradient."""
    found = onednn_int8_linear(states.numbers, weight.packed, weight.steps)[: len(states.steps)]
    found.mul_(states.steps).addcmul_(states.least, weight.sums)
    if bias is not None:
        found += bias
    return found.view(*states.shape, -1)

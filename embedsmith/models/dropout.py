"""Dropout that compiled layers compute twice instead of keeping what it left.

Before each adapter stands a dropout, seven to a layer of a decoder. What they leave, and which numbers that is, is half
of all that a layer keeps for the way back, and the generator of a GPU's random numbers takes longer than reading and
writing them. Here a number is kept or not by a hash of its place and of one random number for all of them. That is a
few operations on whole numbers, which torch's compiler puts into the kernels on both ways, and nothing is kept.

Uncompiled it would be slower than torch's own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_STEPS = (
    (-1640531527, 16, 0xFFFF),
    (-2048144789, 13, 0x7FFFF),
    (-1028477387, 16, 0xFFFF),
)
"""Multiplier, shift, and the bits that a shift leaves: the golden ratio's, and those of MurmurHash3's last steps.

Source: Appleby, MurmurHash3, fmix32 (public domain)."""


class HashedDropout(nn.Module):
    """Dropout of a share of a tensor's numbers, by a hash of their places."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, states: Tensor) -> Tensor:
        """Return the states, a share of them 0 and the others larger, so that their mean is as before; in training."""
        if not self.training or not self.p:
            return states
        seed = torch.randint(-(2**31), 2**31 - 1, (), device=states.device, dtype=torch.int32)
        mixed = torch.arange(states.numel(), device=states.device, dtype=torch.int32).view(states.shape)
        for multiplier, shift, left in _STEPS:
            # The seed comes in more than once: no tensor's choice is another's, moved along.
            mixed = mixed * multiplier + seed
            mixed = mixed ^ ((mixed >> shift) & left)
        kept = (mixed & 0x7FFFFFFF) >= int(self.p * 2**31)
        return torch.where(kept, states * (1 / (1 - self.p)), 0.0)

    def extra_repr(self) -> str:
        """Return what torch prints of it."""
        return f"p={self.p}"


def hash_dropouts(model: nn.Module) -> None:
    """Put a hashed dropout in the place of each that stands before an adapter."""
    for module in model.modules():
        dropouts = getattr(module, "lora_dropout", None)
        if isinstance(dropouts, nn.ModuleDict):
            for name, dropout in dropouts.items():
                if isinstance(dropout, nn.Dropout):
                    dropouts[name] = HashedDropout(dropout.p)

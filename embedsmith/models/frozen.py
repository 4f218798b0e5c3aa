"""Frozen matrices in bfloat16, over which adapters are trained in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def as_if_float32(model: Any) -> Iterator[None]:
    """Let frozen matrices in bfloat16 look like float32 within the block, without memory for it.

    peft gives new adapters the type of the matrix that they lie beside, and rounds what it has drawn for them.
    """
    linear = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
    short = [(weight, weight.data) for weight in linear if weight.dtype == torch.bfloat16 and model.keeps_short]
    for weight, data in short:
        weight.data = torch.empty((), device=data.device).expand(data.shape)
    try:
        yield
    finally:
        for weight, data in short:
            weight.data = data


def lengthen(model: Any) -> None:
    """Bring matrices that stayed in bfloat16 into float32: from now on there may be more to them than it holds."""
    if model.keeps_short:
        for module in model.modules():
            if isinstance(module, torch.nn.Linear) and module.weight.dtype == torch.bfloat16:
                module.weight.data = module.weight.data.float()
        model.keeps_short = False


@contextmanager
def halved(model: Any) -> Iterator[None]:
    """Keep within the block, in bfloat16, those frozen matrices of linear layers that are the same in it.

    Most decoders are published in bfloat16, and built in float32 to be trained. Where the matmuls are computed in
    bfloat16 nothing but adapters and pooling needs more: 14 of Mistral-7B's 28 GB are saved, and rounding each matrix
    anew for every chunk of a batch. No bit of a loss, a gradient or a merged weight changes.
    """
    changed = []
    for module in model.modules():
        weight = module.weight if isinstance(module, torch.nn.Linear) else None
        if weight is None or weight.requires_grad or weight.dtype != torch.float32:
            continue
        short = weight.data.bfloat16()
        if torch.equal(short.float(), weight.data):
            weight.data = short
            changed.append(weight)
    try:
        yield
    finally:
        for weight in changed:
            weight.data = weight.data.float()

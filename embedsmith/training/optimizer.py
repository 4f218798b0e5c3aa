"""AdamW for what a stage trains, and the norm of its gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from embedsmith.training.settings import StageSettings
from embedsmith.training.weights import in_pooling


def adamw(
    weights: Mapping[str, torch.nn.Parameter], settings: StageSettings, device: torch.device
) -> torch.optim.Optimizer:
    """Return AdamW with a learning rate of its own for a trained pooling; vectors are not decayed."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, weight in weights.items():
        # Norms, biases and other vectors are not decayed.
        groups.setdefault((in_pooling(name), weight.ndim > 1), []).append(weight)
    rate = settings.pooling_learning_rate or settings.learning_rate
    return torch.optim.AdamW(
        [
            {
                "params": some,
                "lr": rate if of_pooling else settings.learning_rate,
                "weight_decay": settings.weight_decay if decayed else 0.0,
            }
            for (of_pooling, decayed), some in groups.items()
        ],
        lr=settings.learning_rate,
        # One pass over weights and optimizer state in place of a dozen. False would rule out torch's `foreach`, too.
        fused=device.type in ("cpu", "cuda") or None,
    )


def gradient_norms(weights: Mapping[str, torch.nn.Parameter], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the norm of all gradients, and that of the pooling's alone; not synchronised."""
    gradients = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
    of_pooling = [gradient for name, gradient in gradients.items() if in_pooling(name)]
    return _norm(list(gradients.values()), device), _norm(of_pooling, device)


def _norm(gradients: Sequence[Tensor], device: torch.device) -> Tensor:
    return get_total_norm(gradients).to(device)

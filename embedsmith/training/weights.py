"""Which weights a stage trains: shown before it begins, noted in its run, given to the optimizer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from embedsmith.models.embedder import EmbeddingModel
from embedsmith.settings import fingerprint


@dataclass(frozen=True)
class TrainedWeights:
    """How many numbers of each part of a model a stage trains."""

    backbone: int
    adapters: int
    pooling: int
    """Of every module after the backbone."""
    names: str
    """A fingerprint of the names of all trained weights: two stages with the same one train the same weights."""

    @property
    def count(self) -> int:
        """Numbers in all."""
        return self.backbone + self.adapters + self.pooling


def trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the weights that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def trained_weights(model: EmbeddingModel) -> TrainedWeights:
    """Return what is trained of a model as it stands."""
    counts = {"backbone": 0, "adapters": 0, "pooling": 0}
    weights = trained(model)
    for name, weight in weights.items():
        part = "pooling" if in_pooling(name) else "adapters" if ".lora_" in name else "backbone"
        counts[part] += weight.numel()
    return TrainedWeights(**counts, names=fingerprint(sorted(weights)))


def in_pooling(name: str) -> bool:
    """Return whether a weight is of a module after the backbone, which is a model's first.

    >>> in_pooling("1.latents"), in_pooling("0.model.norm.weight")
    (True, False)
    """
    return not name.startswith("0.")

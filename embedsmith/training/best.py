"""The best weights of a stage, by held-out loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from embedsmith.data.files import remove_below
from embedsmith.training import checkpoints
from embedsmith.training.batches import Batch
from embedsmith.training.conditions import Conditions
from embedsmith.training.grad_cache import GradCache
from embedsmith.training.objective import objective, targets_of
from embedsmith.training.processes import Processes
from embedsmith.training.report import check_finite


@dataclass(frozen=True)
class Best:
    """The lowest held-out loss, and the path of its weights."""

    loss: float = math.inf
    path: Path | None = None
    since: int = 0
    """Measurements since the lowest loss."""

    def after(self, loss: float, path: Path) -> Best:
        """Return what is best after another measurement.

        >>> best = Best().after(0.5, Path("a")).after(0.7, Path("b"))
        >>> best.path.name, best.since
        ('a', 1)
        """
        return Best(loss, path, 0) if loss < self.loss else replace(self, since=self.since + 1)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values, for a checkpoint."""
        return {
            "loss": self.loss if self.path else None,
            "path": self.path.name if self.path else None,
            "since": self.since,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], folder: Path) -> Best:
        """Return what a checkpoint in a folder noted."""
        if values["path"] is None:
            return cls()
        return cls(values["loss"], folder / values["path"], values["since"])


class BestWeights:
    """Keeps the weights with the lowest loss beside a stage's checkpoints: FOLDER/best-STEP.safetensors."""

    def __init__(self, folder: Path, model: torch.nn.Module, processes: Processes) -> None:
        self.best = Best()
        self._folder = folder
        self._model = model
        self._processes = processes

    def keep_if_best(self, loss: float, step: int) -> None:
        """Keep the weights of a step if its loss is the lowest so far."""
        path = self._folder / f"best-{step}.safetensors"
        before = self.best.path
        self.best = self.best.after(loss, path)
        if self._processes.leads and self.best.path == path:
            checkpoints.save_weights(path, self._model)
            if before and self._is_unneeded(before):
                remove_below(path.parent, before)
        self._processes.wait()

    def _is_unneeded(self, path: Path) -> bool:
        """Return whether no checkpoint has these weights as its best."""
        whole = checkpoints.checkpoints(self._folder)
        return all(checkpoints.read_state(checkpoint)["best"]["path"] != path.name for checkpoint in whole)

    def load(self) -> None:
        """Load the best weights, if any were measured."""
        if self.best.path:
            checkpoints.load_weights(self.best.path, self._model)


def held_out_loss(conditions: Conditions, cache: GradCache, batches: Sequence[Batch], *, place: str) -> float:
    """Return the mean held-out loss, of the model in evaluation mode.

    Args:
        place: stage and step, for messages.

    Raises:
        InputError: a loss is not a number.
    """
    device = conditions.model.device
    conditions.model.eval()
    total, queries = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            chunks = conditions.chunks(batch)
            with conditions.kernels(chunks):
                vectors = cache.vectors(chunks, device=device)
            loss = objective(vectors, targets_of(batch, conditions.settings, device), conditions.settings)
            check_finite("loss on what is held out", float(loss), batch, place=place)
            total += float(loss) * len(batch.queries)
            queries += len(batch.queries)
    conditions.model.train()
    return total / queries

"""The student of some stages, opened as they train it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from embedsmith.models.devices import default_device
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opening import build_student
from embedsmith.models.precision import resolve_dtype
from embedsmith.models.settings import StudentSettings
from embedsmith.training.settings import StageSettings


def student_of(student: StudentSettings, stages: Sequence[StageSettings], *, seed: int) -> EmbeddingModel:
    """Return a new student; where its first stage trains adapters in bfloat16, its matrices are opened in that.

    So they are where that stage quantises them, in whichever precision it computes: no number changes.

    What a stage merges into them makes them float32 again, as a stage after it may want them.

    Raises:
        ModelError, SettingsError, CausalityError: see `build_student`.
    """
    first = stages[0] if stages else None
    if first is None or not first.lora_rank:
        return build_student(student, seed=seed)
    short = resolve_dtype(first.dtype, default_device()) is torch.bfloat16
    return build_student(student, seed=seed, frozen=short or first.quantize != "none")


def opening_bytes(model: EmbeddingModel) -> float:
    """Return the most memory that opening a model takes: its weights, and a matrix that is brought into another type.

    On the way to a GPU they lie in the machine's memory once. Those in the type of their file may be mapped, and fill
    less.
    """
    weights = [*model.parameters(), *model.buffers()]
    changed = max((weight.numel() for weight in weights if weight.dtype == torch.float32), default=0)
    shorter = 2 * changed if any(weight.dtype == torch.bfloat16 for weight in weights) else 0
    return float(sum(weight.numel() * weight.element_size() for weight in weights) + shorter)

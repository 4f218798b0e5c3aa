"""Checkpoints: all that a run needs to resume bit for bit, in safetensors and JSON.

    checkpoint-50/model.safetensors       the weights that are trained: adapters and pooling only, under LoRA
    checkpoint-50/optimizer.safetensors   optimizer state, by the parameter's name
    checkpoint-50/state.json              the steps so far, and the best measurement
    checkpoint-50/trainer_state.json      the Trainer's own

A checkpoint is written under another name and renamed: it is whole or absent. No state of random numbers is kept:
batches and dropout are functions of the seed and the step. No file is a pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from embedsmith.data.files import read_json, remove_below, whole_folder, write_json, write_tensors
from embedsmith.errors import RunError
from embedsmith.training.weights import trained

_STATE = "state.json"
_MODEL = "model.safetensors"
_OPTIMIZER = "optimizer.safetensors"


def save_weights(path: Path, model: torch.nn.Module) -> None:
    """Write the trained weights of a model."""
    write_tensors(path, {name: weight.detach().cpu().contiguous() for name, weight in trained(model).items()})


def load_weights(path: Path, model: torch.nn.Module) -> None:
    """Load trained weights, every one of them.

    Raises:
        RunError: they are another model's.
    """
    stored, wanted = load_file(path), trained(model)
    if stored.keys() != wanted.keys():
        odd = sorted(stored.keys() ^ wanted.keys())
        raise RunError(
            f"{path}: holds other weights than the model has ({odd[0]} and {len(odd) - 1} more)",
            hint="choose another --out, or remove the folder",
        )
    with torch.no_grad():
        for name, weight in wanted.items():
            weight.copy_(stored[name])


def optimizer_tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer state, by "parameter|quantity"."""
    return {
        f"{name}|{key}": torch.as_tensor(value).detach().cpu().contiguous()
        for name, parameter in trained(model).items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def set_optimizer(model: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load optimizer state; a parameter that has none starts afresh."""
    parameters = trained(model)
    fused = any(group.get("fused") for group in optimizer.param_groups)
    for key, value in tensors.items():
        name, quantity = key.rsplit("|", 1)
        if name in parameters:
            parameter = parameters[name]
            # AdamW counts its steps on the CPU, unless it is fused.
            device = "cpu" if quantity == "step" and not fused else parameter.device
            optimizer.state[parameter][quantity] = value.to(device)


def save_optimizer(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write the optimizer state."""
    write_tensors(path, optimizer_tensors(model, optimizer))


def load_optimizer(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load optimizer state from a file."""
    set_optimizer(model, optimizer, load_file(path))


def write_checkpoint(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, trainer_state: Any, state: dict[str, Any]
) -> None:
    """Write a whole checkpoint."""
    with whole_folder(folder) as partial:
        save_weights(partial / _MODEL, model)
        save_optimizer(partial / _OPTIMIZER, model, optimizer)
        trainer_state.save_to_json(str(partial / "trainer_state.json"))
        write_json(partial / _STATE, state)


def read_state(folder: Path) -> dict[str, Any]:
    """Return the reports, best measurement and schedule of a checkpoint."""
    state: dict[str, Any] = read_json(folder / _STATE)
    return state


def load_checkpoint_weights(folder: Path, model: torch.nn.Module) -> None:
    """Load the weights of a checkpoint."""
    load_weights(folder / _MODEL, model)


def load_checkpoint_optimizer(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load the optimizer state of a checkpoint."""
    load_optimizer(folder / _OPTIMIZER, model, optimizer)


def checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints of a stage, oldest first."""
    whole = [path for path in folder.glob("checkpoint-*") if (path / _STATE).is_file()]
    return sorted(whole, key=step_of)


def step_of(checkpoint: Path) -> int:
    """Return the number of steps before a checkpoint."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def remove_broken(folder: Path) -> None:
    """Remove what was being written when a run was killed."""
    whole = set(checkpoints(folder))
    for path in [*folder.glob(".checkpoint-*.partial"), *folder.glob("checkpoint-*")]:
        if path not in whole:
            remove_below(folder, path)


def remove_old(folder: Path, *, keep: int) -> None:
    """Remove all checkpoints but the newest ones."""
    for path in checkpoints(folder)[:-keep]:
        remove_below(folder, path)

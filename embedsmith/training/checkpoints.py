"""Checkpoints: all that a run needs to resume bit for bit, in safetensors and JSON.

    checkpoint-50/model.safetensors       the weights that are trained: adapters and pooling only, under LoRA
    checkpoint-50/optimizer.safetensors   optimizer state, by the parameter's name
    checkpoint-50/state.json              the steps so far, and the best measurement
    checkpoint-50/trainer_state.json      the Trainer's own

A checkpoint is written under another name and renamed: it is whole or absent. No state of random numbers is kept:
batches and dropout are functions of the seed and the step. No file is a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from embedsmith.data.files import read_json, remove_below, whole_folder, write_json, write_tensors
from embedsmith.errors import EmbedsmithError, RunError
from embedsmith.settings import fingerprint
from embedsmith.training.weights import trained

_STATE = "state.json"
_TRAINER = "trainer_state.json"
_QUANTITIES = ("exp_avg", "exp_avg_sq", "step")
"""What AdamW keeps of each parameter."""
_OF_A_STAGE = "-optimizer.safetensors"
"""How the name of the optimizer state that a stage has left ends."""
_HASH = "hash"
"""Key of a checkpoint's state: what its JSON files hash to."""
_MODEL = "model.safetensors"
_OPTIMIZER = "optimizer.safetensors"


def save_weights(path: Path, model: torch.nn.Module) -> None:
    """Write the trained weights of a model."""
    write_tensors(path, {name: weight.detach().cpu().contiguous() for name, weight in trained(model).items()})


def load_weights(path: Path, model: torch.nn.Module) -> None:
    """Load trained weights, every one of them.

    Raises:
        RunError: the file is broken, or they are another model's.
    """
    stored, wanted = _tensors_in(path), trained(model)
    if stored.keys() != wanted.keys():
        odd = sorted(stored.keys() ^ wanted.keys())
        raise RunError(
            f"{path}: holds other weights than the model has ({odd[0]} and {len(odd) - 1} more)",
            hint="choose another --out, or begin anew with --overwrite",
        )
    for name, weight in wanted.items():
        _check_like(stored[name], weight, path, name)
    with torch.no_grad():
        for name, weight in wanted.items():
            weight.copy_(stored[name])


def _tensors_in(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, as they were written.

    Raises:
        RunError: it is missing or broken.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        what = "no such file"
    except (SafetensorError, ValueError, RuntimeError) as error:  # ValueError: a type that torch has not
        what = " ".join(str(error).split())
    raise RunError(f"{path}: {what}", hint=_remedy(path)) from None


def _check_like(stored: Tensor, weight: Tensor, path: Path, name: str) -> None:
    """Refuse a tensor of another shape or type than the weight that it is of."""
    if stored.shape != weight.shape or stored.dtype != weight.dtype:
        got, wanted = (f"{tuple(one.shape)} of {one.dtype}" for one in (stored, weight))
        raise RunError(f"{path}: {name} is {got}, wanted {wanted}", hint=_remedy(path))


def optimizer_tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer state, by "parameter|quantity"."""
    return {
        f"{name}|{key}": torch.as_tensor(value).detach().cpu().contiguous()
        for name, parameter in trained(model).items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def set_optimizer(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], *, path: Path
) -> None:
    """Load optimizer state; a parameter that has none starts afresh.

    Args:
        path: of the file that it is from.

    Raises:
        RunError: it is not what AdamW keeps of a parameter.
    """
    parameters = trained(model)
    _check_optimizer(parameters, tensors, path)
    fused = any(group.get("fused") for group in optimizer.param_groups)
    for key, value in tensors.items():
        name, quantity = key.rsplit("|", 1)
        if name in parameters:
            parameter = parameters[name]
            # AdamW counts its steps on the CPU, unless it is fused.
            device = "cpu" if quantity == "step" and not fused else parameter.device
            optimizer.state[parameter][quantity] = value.to(device)


def _check_optimizer(parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse optimizer state that is not AdamW's: its three quantities for each parameter that it has any of."""
    names = {key.rpartition("|")[0] for key in tensors}
    if odd := {f"{name}|{quantity}" for name in names for quantity in _QUANTITIES} ^ tensors.keys():
        raise RunError(f"{path}: not the state of AdamW: {min(odd)!r:.80}", hint=_remedy(path))
    for key, value in tensors.items():
        name, _, quantity = key.rpartition("|")
        if name in parameters:
            like = torch.zeros(()) if quantity == "step" else parameters[name]
            _check_like(value, like, path, key)


def save_optimizer(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write the optimizer state."""
    write_tensors(path, optimizer_tensors(model, optimizer))


def load_optimizer(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load optimizer state from a file."""
    set_optimizer(model, optimizer, _tensors_in(path), path=path)


def write_checkpoint(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, trainer_state: Any, state: dict[str, Any]
) -> None:
    """Write a whole checkpoint."""
    with whole_folder(folder) as partial:
        save_weights(partial / _MODEL, model)
        save_optimizer(partial / _OPTIMIZER, model, optimizer)
        trainer_state.save_to_json(str(partial / _TRAINER))
        write_json(partial / _STATE, {**state, _HASH: _hash_of(json.loads(json.dumps(state)), partial)})


def read_state(folder: Path) -> dict[str, Any]:
    """Return the reports, best measurement and schedule of a checkpoint.

    Raises:
        RunError: its JSON files are not as they were written.
    """
    with _damaged(folder):
        state = read_json(folder / _STATE)
        known = state.pop(_HASH, None) if isinstance(state, dict) else None
        if known != _hash_of(state, folder):
            raise RunError(
                f"{folder / _STATE}: it or {_TRAINER} was changed, or an older version has written them",
                hint=_remedy(folder),
            )
        if (best := state["best"]["path"]) and not (folder.parent / best).is_file():
            raise RunError(
                f"{folder / _STATE}: the best weights so far are gone: {folder.parent / best}", hint=_remedy(folder)
            )
    found: dict[str, Any] = state
    return found


def _hash_of(state: Any, folder: Path) -> str:
    """Return a hash of a checkpoint's state and of the Trainer's, which reads its own without any check."""
    path = folder / _TRAINER
    return fingerprint([state, path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None])


@contextmanager
def _damaged(folder: Path) -> Iterator[None]:
    """Raise what is wrong with a file of a checkpoint with the remedy: without it the run goes on from the one before.

    Raises:
        RunError: names the file.
    """
    try:
        yield
    except EmbedsmithError as error:
        raise RunError(str(error), hint=_remedy(folder)) from None


def _remedy(path: Path) -> str:
    """Return what to do about a checkpoint that cannot be read, or another file beside the checkpoints."""
    if path.name.endswith(_OF_A_STAGE):
        return "train again, with another --out"
    place = path.parent if path.is_file() or path.suffix else path
    again = "it goes on from the one before, or begins anew" if step_of(place) >= 0 else "the stage begins anew"
    return f"remove {place}, and give the run's command again: {again}"


def load_checkpoint_weights(folder: Path, model: torch.nn.Module) -> None:
    """Load the weights of a checkpoint."""
    load_weights(folder / _MODEL, model)


def load_checkpoint_optimizer(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load the optimizer state of a checkpoint."""
    load_optimizer(folder / _OPTIMIZER, model, optimizer)


def checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints of a stage, oldest first."""
    whole = [path for path in folder.glob("checkpoint-*") if step_of(path) >= 0 and (path / _STATE).is_file()]
    return sorted(whole, key=step_of)


def step_of(checkpoint: Path) -> int:
    """Return the number of steps before a checkpoint, -1 for a folder that is called otherwise.

    >>> step_of(Path("checkpoint-50")), step_of(Path("checkpoint-best"))
    (50, -1)
    """
    number = checkpoint.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() and len(number) < 20 else -1


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

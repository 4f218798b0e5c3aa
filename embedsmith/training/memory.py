"""Memory: how much is free, what a stage needs at least, and one clear line where it does not suffice.

Gradients and optimizer state (AdamW's two moments) must fit. Activations need not: chunks whose activations do not fit
are encoded twice. So a stage is refused beforehand only where gradients and optimizer state do not fit.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from embedsmith.errors import SettingsError
from embedsmith.models import devices
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.nf4 import places_for_nf4
from embedsmith.training.settings import StageSettings
from embedsmith.training.weights import in_pooling

BYTES_A_TRAINED_WEIGHT = 12.0
"""In float32, beside the weight itself: its gradient and AdamW's two moments."""

_SHARE_OF_FREE_MEMORY = {"cuda": 0.8}
"""For activations. Half elsewhere, where other programs need memory too. On an H200 a step of 7 billion weights with
adapters took within 3% of the estimate."""

_SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "std::bad_alloc")
"""Messages of out-of-memory errors that torch, CUDA and C++ raise without a type of their own."""

_REMEDY = "lower chunk_tokens or memory_gib, set gradient_checkpointing or lora_rank, or take a student of fewer layers"

_GROUPS = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device; on a CPU this process's share of the machine's."""
    if device.type != "cpu":
        return devices.free_bytes(device)
    import psutil

    free = min(psutil.virtual_memory().available, room_in_group())
    return int(free / int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def room_in_group(groups: Path = _GROUPS, process: Path = Path("/proc/self/cgroup")) -> float:
    """Return the bytes that the limits of control groups leave this process; infinity where there is none.

    The machine's free memory says nothing of a container's or a job's limit, beyond which a process is killed.

    Args:
        groups, process: where Linux shows the limits, and this process's groups.
    """
    room = math.inf
    for line in process.read_text(encoding="utf-8").splitlines() if process.is_file() else ():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            top, names = groups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top, names = groups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        own = top / path.lstrip("/")
        for folder in (own, *own.parents[: len(own.parts) - len(top.parts)]):
            room = min(room, _room(folder, *names))
    return room


def _room(folder: Path, limit: str, used: str, cache: str) -> float:
    """Return what the limit of one control group leaves; page cache counts as free, for it is reclaimed."""
    try:
        allowed, taken = (
            (folder / limit).read_text(encoding="utf-8").strip(),
            int((folder / used).read_text(encoding="utf-8")),
        )
        counts = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
    except OSError:
        return math.inf
    return math.inf if allowed == "max" else float(int(allowed) - taken + int(counts.get(cache, 0)))


def weights_to_train(model: EmbeddingModel, settings: StageSettings) -> int:
    """Return how many weights a stage will train, before its adapters are there."""
    if not settings.lora_rank:
        return sum(parameter.numel() for parameter in model.parameters())
    pooling = sum(parameter.numel() for name, parameter in model.named_parameters() if in_pooling(name))
    adapters = sum(
        settings.lora_rank * (module.in_features + module.out_features)
        for name, module in model.backbone.named_modules()
        if isinstance(module, torch.nn.Linear) and _is_target(name, settings.lora_targets)
    )
    return pooling + adapters


def _is_target(name: str, targets: list[str]) -> bool:
    return not targets or any(name == target or name.endswith(f".{target}") for target in targets)


def check_memory(model: EmbeddingModel, settings: StageSettings) -> None:
    """Refuse a stage whose gradients and optimizer alone are more than the free memory, or whose merge is.

    Raises:
        SettingsError: says how much is wanted, and how much is free.
    """
    if settings.quantize != "none":
        _check_merge(model, settings)
    weights = weights_to_train(model, settings)
    needed, free = BYTES_A_TRAINED_WEIGHT * weights, free_bytes(model.device)
    if needed > free:
        raise SettingsError(
            f"stage {settings.name}: not enough memory on {model.device}: gradients and AdamW of {weights:,} trained "
            f"weights take {_gib(needed)}, and {_gib(free)} are free",
            hint="set lora_rank, take a student of fewer layers, or free some memory",
        )


def _check_merge(model: EmbeddingModel, settings: StageSettings) -> None:
    """Refuse a stage whose matrices fit in four bits, but not in the float32 that its adapters are merged into."""
    places = {linear for _, _, linear in places_for_nf4(model.backbone)}
    needed = sum(4.0 * linear.weight.numel() for linear in places)
    held = sum(linear.weight.numel() * linear.weight.element_size() for linear in places)
    free = max(free_bytes(model.device) + held, free_bytes(torch.device("cpu")))
    if needed > free:
        raise SettingsError(
            f"stage {settings.name}: not enough memory to merge the adapters: the matrices under them take "
            f"{_gib(needed)} in float32, and {_gib(free)} are free",
            hint="quantize saves memory while a stage trains, not when it ends: take a student of fewer layers",
        )


def missing_bytes(model: torch.nn.Module, optimizer: Any) -> float:
    """Return the bytes of gradients and optimizer state that are not allocated yet."""
    bytes_ = 0.0
    for parameter in model.parameters():
        if parameter.requires_grad:
            bytes_ += 4.0 * parameter.numel() * (parameter.grad is None)
            bytes_ += 8.0 * parameter.numel() * (not optimizer.state.get(parameter))
    return bytes_


def activation_bytes(settings: StageSettings, device: torch.device, *, missing: float) -> float:
    """Return how many bytes of activations a stage may keep: what it says, or a share of the free memory.

    Args:
        missing: bytes of gradients and optimizer state that are not allocated yet.
    """
    if settings.memory_gib is not None:
        return settings.memory_gib * 2**30
    return max(0.0, free_bytes(device) - missing) * _SHARE_OF_FREE_MEMORY.get(device.type, 0.5)


def tightness(settings: StageSettings, device: torch.device, *, wanted: float) -> str:
    """Return a warning where a stage wants more bytes than are free, else nothing."""
    free = free_bytes(device)
    if wanted <= free:
        return ""
    return f"may run out of memory: about {_gib(wanted)} wanted, {_gib(free)} free on {device}; {_REMEDY}"


@contextmanager
def enough_memory(place: Callable[[], str], device: torch.device) -> Iterator[None]:
    """Turn every kind of out-of-memory error into one line.

    Args:
        place: returns what is being done.

    Raises:
        SettingsError: says what was being done, and the remedy.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not _is_shortage(error):
            raise
        raise SettingsError(f"{place()}: not enough memory on {device}", hint=_REMEDY) from error


def _is_shortage(error: Exception) -> bool:
    """Return whether an error is one of memory that ran out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or any(sign in str(error) for sign in _SIGNS)


def _gib(count: float | int) -> str:
    """Return a number of bytes.

    >>> _gib(3 * 2**30)
    '3.0 GiB'
    """
    return f"{count / 2**30:.1f} GiB"

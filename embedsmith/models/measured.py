"""Which library multiplies float32 matrices on this CPU: measured once, and kept in the user's cache folder.

torch multiplies with MKL, and brings oneDNN too. Which is faster, and by how much, depends on the processor, on what a
virtual machine shows of it, and on their versions: no list of processors tells. Both sum in float32. A vector differs
in its last bits, so the choice is kept: every process of this machine takes the same one.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional

from embedsmith.data.cached import cache_folder
from embedsmith.data.files import read_json, write_json
from embedsmith.data.plain_values import is_number
from embedsmith.errors import EmbedsmithError
from embedsmith.models.compat import onednn_linear
from embedsmith.models.precision import cpu_capability, cpu_name, onednn_multiplies
from embedsmith.models.threads import on_cores
from embedsmith.settings import fingerprint

FASTER = 1.05
"""oneDNN is taken where it is faster by more than this: what is nearly equal stays with torch's default."""

_ROWS, _SHAPES = 1024, ((384, 1536), (1536, 384), (384, 384))
"""Tokens of a batch, and the matmuls of a layer of MiniLM: numbers read, numbers returned."""
_TIMES = 5
_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "ATEN_CPU_CAPABILITY")
"""What may keep a library from instructions that the processor has."""


class Speeds(NamedTuple):
    """Billions of operations in float32 that one core does in a second, by library."""

    torch: float
    onednn: float

    @property
    def onednn_is_faster(self) -> bool:
        """Whether oneDNN is worth it."""
        return self.onednn > FASTER * self.torch


def multiplies_wide(device: torch.device) -> bool:
    """Return whether oneDNN multiplies float32 faster on a device than torch's default library: see `cpu.matmul`."""
    return device.type == "cpu" and onednn_multiplies(torch.float32) and (_given or speeds()).onednn_is_faster


_given: Speeds | None = None


def use_speeds(speeds: Speeds | None) -> None:
    """Have this process choose by the speeds of another machine, so that both compute the same; None: by its own."""
    global _given
    _given = speeds


@cache
def speeds() -> Speeds:
    """Return what this machine was measured at; the first time that is done, which takes half a second."""
    path = _path()
    known = _read(path)
    if known is None:
        known = _measure()
        # A folder that cannot be written costs half a second each time.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, known._asdict())
    return known


def _path() -> Path:
    """Return the file of this processor with these libraries."""
    variables = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return cache_folder() / f"float32-{fingerprint([cpu_name(), cpu_capability(), torch.__version__, variables])}.json"


def _read(path: Path) -> Speeds | None:
    """Return what a file says; None where it is missing or damaged."""
    try:
        values = read_json(path) if path.is_file() else {}
    except (OSError, EmbedsmithError):
        return None
    if not isinstance(values, dict) or not all(is_number(values.get(name)) for name in Speeds._fields):
        return None
    return Speeds(values["torch"], values["onednn"])


@torch.inference_mode()
def _measure() -> Speeds:
    """Multiply with both libraries in turns, on one core."""
    generator = torch.Generator().manual_seed(0)
    seconds: dict[str, float] = {"torch": 0.0, "onednn": 0.0}
    operations = 0
    with on_cores(1):
        for read, returned in _SHAPES:
            states, weight = (torch.randn(n, read, generator=generator) for n in (_ROWS, returned))
            bias = torch.randn(returned, generator=generator)

            def by_torch(x: torch.Tensor = states, w: torch.Tensor = weight, b: torch.Tensor = bias) -> None:
                functional.linear(x, w, b)

            def by_onednn(x: torch.Tensor = states, w: torch.Tensor = weight, b: torch.Tensor = bias) -> None:
                onednn_linear(x, w, b, "none", "")

            ways: dict[str, Callable[[], None]] = {"torch": by_torch, "onednn": by_onednn}
            taken: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(_TIMES + 1):
                for name, work in ways.items():
                    started = time.thread_time()  # what other processes take does not count
                    work()
                    taken[name].append(time.thread_time() - started)
            for name in ways:
                seconds[name] += min(taken[name][1:])  # the first time oneDNN compiles
            operations += 2 * _ROWS * read * returned
    return Speeds(*(round(operations / max(seconds[name], 1e-9) / 1e9, 1) for name in ("torch", "onednn")))

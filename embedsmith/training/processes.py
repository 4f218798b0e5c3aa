"""Data parallelism: the processes of a training run, one per device, and their collectives.

`torchrun` and `accelerate launch` start several that run the same program. All of them see the same batches. Each
encodes a share of a batch's chunks; all-reduced vectors and gradients are those of a single process.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from embedsmith.errors import SettingsError
from embedsmith.models.devices import has_cuda, kind_of
from embedsmith.training.compat import SHARDING

_PATIENCE = timedelta(days=7)
"""Timeout of a collective while the first process mines: the default of half an hour is too short."""

_BUCKET = 2**25
"""Elements of gradients in one all-reduce."""


@dataclass(frozen=True)
class Processes:
    """The rank of this process, and the number of all."""

    rank: int = 0
    count: int = 1

    @classmethod
    def running(cls) -> Processes:
        """Return this process's rank among those that a launcher started; the group is joined if it is not yet.

        Raises:
            SettingsError: the launcher asks for sharded weights or optimizer state, or for several processes on Apple's
                GPU.
        """
        refuse_spreading()
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return cls()
        if kind_of(None) == "mps":
            raise SettingsError(
                f"{count} processes on Apple's GPU, whose gradients torch does not add up",
                hint="launch one process, or say --device cpu",
            )
        if not dist.is_initialized():
            # Through accelerate: the Trainer takes the group from it later.
            from accelerate import PartialState

            PartialState(cpu=not has_cuda())
            _patient_group()  # now, while all processes are here
            atexit.register(_leave)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def share(self, costs: Sequence[int]) -> list[int]:
        """Return which pieces of work are this process's, in order: the most expensive first, to the least loaded.

        Args:
            costs: of every piece.

        >>> [Processes(rank, 2).share([5, 4, 3, 3]) for rank in (0, 1)]
        [[0, 3], [1, 2]]
        """
        load = [0] * self.count
        shares: list[list[int]] = [[] for _ in range(self.count)]
        for piece in sorted(range(len(costs)), key=lambda piece: -costs[piece]):
            least = load.index(min(load))
            load[least] += costs[piece]
            shares[least].append(piece)
        return sorted(shares[self.rank])

    def sum(self, tensor: Tensor) -> None:
        """All-reduce a tensor in place."""
        if self.count > 1:
            dist.all_reduce(tensor)

    def least(self, *values: int) -> list[int]:
        """Return the minimum over all processes of each value.

        >>> Processes().least(3, 1)
        [3, 1]
        """
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values)
        dist.all_reduce(tensor, dist.ReduceOp.MIN, group=_patient_group())
        return tensor.tolist()

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """All-reduce every gradient in place; a weight that has none in any process keeps none.

        The optimizer skips a weight without a gradient. With a gradient of 0 it would decay it.
        """
        if self.count == 1:
            return
        weights = [parameter for parameter in parameters if parameter.requires_grad]
        used = torch.tensor([parameter.grad is not None for parameter in weights], dtype=torch.uint8)
        dist.all_reduce(used, dist.ReduceOp.MAX, group=_patient_group())
        trained = [parameter for parameter, is_used in zip(weights, used.tolist(), strict=True) if is_used]
        for parameter in trained:
            if parameter.grad is None:  # a process may have had no text of a batch
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([parameter.grad for parameter in trained]):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def wait(self) -> None:
        """Wait for all processes (a barrier)."""
        if self.count > 1:
            dist.barrier(group=_patient_group())


def refuse_spreading() -> None:
    """Refuse a sharded model: GradCache and checkpoints need it whole in every process.

    Raises:
        SettingsError: names it.
    """
    for name, variable in SHARDING.items():
        if os.environ.get(variable, "false").lower() in ("true", "1", "yes", "y", "on", "t"):
            raise SettingsError(
                f"{name} is asked for ({variable}), and a model is trained whole on every device",
                hint="launch it with torchrun --nproc-per-node N; a large student fits with lora_rank",
            )


@cache
def _patient_group() -> Any:
    """Return a gloo group of all processes with a timeout of days."""
    return dist.new_group(backend="gloo", timeout=_PATIENCE)


def _leave() -> None:
    """Destroy gloo's groups: their threads sometimes abort a process that exits while they run.

    NCCL's are not destroyed: after an error that could wait for processes that are gone.
    """
    if dist.is_initialized():
        dist.destroy_process_group(None if dist.get_backend() == "gloo" else _patient_group())


def _buckets(gradients: Sequence[Any]) -> list[list[Any]]:
    """Return gradients in buckets of one dtype and of at most `_BUCKET` elements, unless one alone has more."""
    buckets: list[list[Any]] = []
    size = 0
    for gradient in gradients:
        same_type = buckets and buckets[-1][0].dtype == gradient.dtype
        if not same_type or size + gradient.numel() > _BUCKET:
            buckets.append([])
            size = 0
        buckets[-1].append(gradient)
        size += gradient.numel()
    return buckets

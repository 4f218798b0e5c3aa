"""The processes of a training run, one a device: who does what, and what they tell each other.

`torchrun` and `accelerate launch` start several that run the same program. All of them see the same batches; each
encodes a share of a batch's texts, and the sums of vectors and of gradients are those of a single process.
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
from embedsmith.training.compat import SHARDING

_PATIENCE = timedelta(days=7)
"""How long processes wait while the first one mines: a collective's usual half an hour is too short."""

_BUCKET = 2**25
"""Elements of gradients that are summed at once."""


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is."""

    rank: int = 0
    count: int = 1

    @classmethod
    def running(cls) -> Processes:
        """Return this process's place among those that a launcher started; the group is joined if it is not yet.

        Raises:
            SettingsError: the launcher wants the weights or their optimizer spread over the processes.
        """
        refuse_spreading()
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return cls()
        if not dist.is_initialized():
            # By way of accelerate, which the Trainer asks for the same group later.
            from accelerate import PartialState

            PartialState(cpu=not torch.cuda.is_available())
            _patient_group()  # now, while all processes are here
            atexit.register(_leave)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def share(self, costs: Sequence[int]) -> list[int]:
        """Return which pieces of work are this process's, in order: the dearest first to whoever has least.

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
        """Put the sum over all processes in a tensor's place."""
        if self.count > 1:
            dist.all_reduce(tensor)

    def least(self, *values: int) -> list[int]:
        """Return the smallest that any process has of each value: what all can do.

        >>> Processes().least(3, 1)
        [3, 1]
        """
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values)
        dist.all_reduce(tensor, dist.ReduceOp.MIN, group=_patient_group())
        return tensor.tolist()

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Put the sum over all processes in the place of every gradient; a weight that has none anywhere keeps none.

        An optimizer leaves such a weight alone. With a gradient of 0 it would decay it.
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
        """Return when every process has come here."""
        if self.count > 1:
            dist.barrier(group=_patient_group())


def refuse_spreading() -> None:
    """Refuse what `accelerate launch` spreads a model by: GradCache and checkpoints want it whole.

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
    """Return a group of all processes that waits for days."""
    return dist.new_group(backend="gloo", timeout=_PATIENCE)


def _leave() -> None:
    """Leave gloo's groups: threads of theirs that still run when Python ends abort the process, now and then.

    One of NCCL is left to it: after an error, leaving could wait for processes that are gone.
    """
    if dist.is_initialized():
        dist.destroy_process_group(None if dist.get_backend() == "gloo" else _patient_group())


def _buckets(gradients: Sequence[Any]) -> list[list[Any]]:
    """Return gradients in lists of one type and of at most `_BUCKET` elements, unless one alone has more."""
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

"""Random state that a training has to itself, and dropout of chunks that run at the same time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock, local
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from embedsmith.models.devices import random_states_kept

_drawing = Lock()
_here = local()
"""`dropout`: the innermost `SeededDropout` that a thread is in."""


@contextmanager
def own_draws() -> Iterator[None]:
    """Restore the random states of Python, numpy, torch and its GPUs after the block, also after an error."""
    pythons, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002 - libraries draw from it
    try:
        with random_states_kept():
            yield
    finally:
        random.setstate(pythons)
        np.random.set_state(numpys)  # noqa: NPY002


class SeededDropout(TorchFunctionMode):
    """Dropout of one thread, from a generator of its own: torch's is one for all threads.

    It drops what torch's generator would have dropped after `torch.manual_seed(seed)`.

    Args:
        seed: of the generator.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)
        self._around: list[SeededDropout | None] = []

    def __enter__(self) -> SeededDropout:
        """Be the thread's dropout."""
        self._around.append(getattr(_here, "dropout", None))
        _here.dropout = self
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Leave it to the dropout around this one."""
        super().__exit__(*error)
        _here.dropout = self._around.pop()

    def as_now(self) -> SeededDropout:
        """Return a dropout that will drop what this one drops from now on."""
        other = SeededDropout(0)
        other._generator.set_state(self._generator.get_state())
        return other

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Return what a function of torch returns."""
        if func is functional.dropout:
            return self._dropout(*args, **(kwargs or {}))
        if func is functional.scaled_dot_product_attention and _drops(*args, **(kwargs or {})):
            # Torch draws inside of it, from the generator of all threads.
            seed = int(torch.randint(2**62, (), generator=self._generator))
            with _drawing, torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """Return states of which a share is 0, and the others larger by as much."""
        if not (training and 0 < p < 1 and input.numel()):
            return functional.dropout(input, p, training, inplace)
        kept = torch.empty_like(input).bernoulli_(1 - p, generator=self._generator).div_(1 - p)
        return input.mul_(kept) if inplace else input * kept


def dropped_again() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Return the blocks in which a checkpointed layer is computed now, and once more: it drops the same then.

    As torch's `checkpoint` takes them. What it does by itself, restoring the state of torch's generator, is for one
    thread only.
    """
    dropout: SeededDropout | None = getattr(_here, "dropout", None)
    return nullcontext(), nullcontext() if dropout is None else dropout.as_now()


def _drops(query: Any, key: Any, value: Any, mask: Any = None, dropout_p: float = 0.0, *_: Any, **__: Any) -> bool:
    """Return whether attention is asked to drop weights."""
    return dropout_p > 0

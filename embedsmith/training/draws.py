"""Random state that a training has to itself, and dropout of chunks that run at the same time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from embedsmith.models.devices import random_states_kept

_drawing = Lock()


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


def _drops(query: Any, key: Any, value: Any, mask: Any = None, dropout_p: float = 0.0, *_: Any, **__: Any) -> bool:
    """Return whether attention is asked to drop weights."""
    return dropout_p > 0

"""Random state that a training has to itself."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def own_draws() -> Iterator[None]:
    """Restore the random states of Python, numpy, torch and its GPUs after the block, also after an error."""
    pythons, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002 - libraries draw from it
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=gpus):
            yield
    finally:
        random.setstate(pythons)
        np.random.set_state(numpys)  # noqa: NPY002

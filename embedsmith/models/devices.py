"""What devices there are, and what each of them needs: nothing else asks torch about GPUs.

cuda    NVIDIA's and AMD's GPUs, with a memory of their own
mps     Apple's GPU, whose memory is the machine's; it has no float64
cpu     the processor
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_chosen: str | None = None
"""The device that the user has named for this process."""


def choose_device(name: str | None) -> None:
    """Have models that are given no device run on this one; None: on the best that there is."""
    global _chosen
    _chosen = name


def default_device() -> str:
    """Return where models run that are given no device: what was chosen, else a GPU where there is one."""
    if _chosen:
        return _chosen
    from sentence_transformers.util import get_device_name  # it takes seconds to load, and search has no need of it

    return get_device_name()


def kind_of(device: str | torch.device | None) -> str:
    """Return the kind of a device, without its number; None is the default device.

    >>> kind_of("cuda:1"), kind_of(torch.device("mps"))
    ('cuda', 'mps')
    """
    return str(device or default_device()).partition(":")[0]


def has_cuda() -> bool:
    """Return whether torch finds a GPU of NVIDIA's or AMD's."""
    return torch.cuda.is_available()


def has_mps() -> bool:
    """Return whether torch finds Apple's GPU."""
    return torch.backends.mps.is_available()


def gpus() -> list[str]:
    """Return the names of all GPUs of NVIDIA's or AMD's."""
    return [f"cuda:{number}" for number in range(torch.cuda.device_count() if has_cuda() else 0)]


def called(device: str) -> str:
    """Return what the maker calls a GPU."""
    return torch.cuda.get_device_name(device) if kind_of(device) == "cuda" else "Apple's GPU"


def total_bytes(device: str | torch.device) -> int:
    """Return the memory of a GPU; of Apple's as much as the system advises one process to take."""
    if kind_of(device) == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(torch.mps.recommended_max_memory())


def free_bytes(device: str | torch.device) -> int:
    """Return the free memory of a GPU, what torch has reserved and does not use included."""
    if kind_of(device) == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    import psutil

    used = torch.mps.current_allocated_memory()
    held = torch.mps.driver_allocated_memory() - used
    # The machine's memory is shared: what other programs have taken of it is not there.
    return max(0, min(torch.mps.recommended_max_memory() - used, psutil.virtual_memory().available + held))


def synchronize(device: torch.device) -> None:
    """Return when a GPU has done all its work; at once on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def searching_device(device: str) -> str:
    """Return where vectors of a model on a device are searched.

    Not on Apple's GPU: its memory is the processor's anyway, and its `nonzero` of a large mask has been slow and wrong
    (issues 122916 and 124850 of torch).
    """
    return device if kind_of(device) == "cuda" else "cpu"


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Restore the random states of torch on all devices after the block, also after an error."""
    numbers = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=numbers):
        apples = torch.mps.get_rng_state() if has_mps() else None
        try:
            yield
        finally:
            if apples is not None:
                torch.mps.set_rng_state(apples)

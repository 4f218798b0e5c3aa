"""Which kernels compute attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel

from embedsmith.models.compat import attention_functions
from embedsmith.models.threads import Shared


def steady_attention(device: str) -> AbstractContextManager[Any]:
    """Return the block in which a GPU's attention takes no kernel that is planned anew for every shape.

    cuDNN's is: on an H100 half a second went by for each new pair of a number of texts and a length, of which every
    batch of texts of natural lengths is one. The others are ready at once.
    """
    return _steady() if device == "cuda" else nullcontext()


@contextmanager
def attention_function(name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Let transformers know a way to compute attention by a name within the block."""
    known = attention_functions()
    before = known.get(name)
    known[name] = function
    try:
        yield
    finally:
        # Not deleted where there was one: another thread may be between asking for the name and reading it.
        if before:
            known[name] = before
        else:
            del known[name]


@Shared
def _steady() -> AbstractContextManager[Any]:
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])

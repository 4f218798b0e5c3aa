"""Compiled layers: on a GPU, torch fuses the elementwise operations between two matmuls into few kernels.

A decoder's norms, rotary embeddings, gates and sums read and write every token's states about thirty times a layer, one
operation after the other. Fused they do it a few times, and fewer activations are saved for the backward pass. Layers
are compiled one by one, share their kernels, and take any number and length of texts (dynamic shapes).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch

from embedsmith.errors import ModelError
from embedsmith.models.compat import compiled_call, has_triton, layer_class, recompiling, set_compiled_call
from embedsmith.models.threads import Shared

_KINDS_OF_CALLS = 64
"""Recompile limit: with and without gradients, padding, adapters, precision. torch's own is eight; then it is eager."""


def compile_layers(model: Any, *, name: str) -> int:
    """Have every layer of a model's backbone compiled when it is first called; return how many there are.

    Without effect on a CPU, where other things are done to be fast. Weights, names and saved files stay what they are.

    Args:
        model: an embedding model.
        name: for messages.

    Raises:
        ModelError: Triton or a C compiler is missing, or there are no layers.
    """
    if model.device.type == "cpu":
        return 0
    if not has_triton() or not any(map(shutil.which, ("cc", "gcc", "clang"))):
        raise ModelError(f"{name}: compile needs Triton and a C compiler", hint="install them, or leave compile out")
    layers = [module for module in model.modules() if isinstance(module, layer_class())]
    if not layers:
        raise ModelError(f"{name}: compile: no layers found in {type(model.backbone).__name__}", hint="leave it out")
    for layer in layers:
        layer.compile(dynamic=True)
        set_compiled_call(layer, partial(_called, compiled_call(layer)))
    return len(layers)


def _called(compiled: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a compiled layer, with a recompile limit that is high enough for all kinds of calls.

    In the backward pass too, where a checkpointed layer is computed again.
    """
    with _for_many_kinds():
        return compiled(*args, **kwargs)


@Shared
def _for_many_kinds() -> AbstractContextManager[Any]:
    return recompiling(_KINDS_OF_CALLS)


def is_compiled(model: Any) -> bool:
    """Return whether `compile_layers` was here."""
    return any(compiled_call(module) for module in model.modules() if isinstance(module, layer_class()))


@Shared
def uncompiled() -> AbstractContextManager[Any]:
    """Return a block in which compiled layers run eagerly: for a few calls of odd shapes."""
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def inputs_with_gradients(model: Any) -> Iterator[None]:
    """Let a frozen model's first layer have gradients of what it reads, as all others do: else it is compiled anew."""
    backbone = model.backbone
    if not is_compiled(model):
        yield
        return
    backbone.enable_input_require_grads()
    try:
        yield
    finally:
        backbone.disable_input_require_grads()

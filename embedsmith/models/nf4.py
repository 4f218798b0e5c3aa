"""Frozen matrices in NF4, four bits a number, while adapters over them are trained (QLoRA).

A matrix is cut into blocks of 64 numbers. A number is one of 16 levels, times the largest magnitude of its block: half
a byte, and a float32 for each block, 0.5625 bytes in all. Each forward and backward pass dequantises the matrix anew,
in the type of the matmul, and keeps it for that matmul only.

bitsandbytes has the kernels. Its own layer `Linear4bit` is not used: on a CPU with AVX512_BF16 it repacks its weights
in evaluation mode for a coarser matmul, which has no gradients afterwards.

Source: Dettmers et al., QLoRA, https://arxiv.org/abs/2305.14314, section 3; without double quantisation.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedsmith.errors import SettingsError
from embedsmith.models.compiled import is_compiled
from embedsmith.models.cpu.trained_matmul import frozen_matmul
from embedsmith.models.devices import free_bytes
from embedsmith.models.library_errors import CANNOT_BE_READ, reason

_BLOCK = 64
"""Numbers that share a scale."""
_ROOM = 1.1
"""How many times the float32 matrices must be free on a GPU for adapters to be merged there."""


class NF4Linear(torch.nn.Module):
    """A frozen linear layer whose matrix is held in NF4."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        """Quantise the matrix of a linear layer, which stays as it is."""
        from bitsandbytes.functional import quantize_4bit

        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        packed, state = quantize_4bit(
            linear.weight.detach().float().contiguous(), blocksize=_BLOCK, compress_statistics=False, quant_type="nf4"
        )
        self.register_buffer("packed", packed)
        self.register_buffer("scales", state.absmax)
        self.bias = linear.bias

    def dequantised(self, dtype: torch.dtype) -> Float[Tensor, "O I"]:
        """Return the matrix: level times scale, rounded to a type."""
        from bitsandbytes.functional import QuantState, dequantize_4bit

        # As one row: of rows of 32, 48 or 96 numbers the CPU's kernel mixes up the scales (bitsandbytes 0.50.2).
        row = torch.Size((1, self.in_features * self.out_features))
        state = QuantState(absmax=self.scales, shape=row, dtype=dtype, blocksize=_BLOCK, quant_type="nf4")
        found: Tensor = dequantize_4bit(self.packed, state).reshape(self.out_features, self.in_features)
        return found

    @property
    def weight(self) -> Float[Tensor, "O I"]:
        """The matrix in float32, for models that look at it; each access dequantises it."""
        return self.dequantised(torch.float32)

    def forward(self, input: Float[Tensor, "*n I"]) -> Float[Tensor, "*n O"]:
        """Return what a linear layer with the dequantised matrix returns, under autocast too."""
        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else input.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return frozen_matmul(input.to(dtype), self.dequantised, bias)

    def extra_repr(self) -> str:
        """Say what a linear layer says, and that it is quantised."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, nf4"


def check_quantises(model: Any) -> None:
    """Refuse NF4 where it cannot be had.

    Args:
        model: an embedding model, on the device that trains it.

    Raises:
        SettingsError: bitsandbytes is missing or broken, or device or model are of a kind that it is not made for.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise SettingsError("quantize needs the package bitsandbytes", hint='pip install "embedsmith[quantize]"')
    try:
        import bitsandbytes.functional  # noqa: F401
    except CANNOT_BE_READ as error:
        raise SettingsError(
            f"quantize: bitsandbytes cannot be imported: {reason(error)}", hint="reinstall it, or leave quantize out"
        ) from error
    if model.device.type not in ("cpu", "cuda"):
        raise SettingsError(
            f"quantize: nf4 is for a CPU or a GPU of NVIDIA or AMD, not for {model.device.type}",
            hint="leave quantize out, or name another device",
        )
    if is_compiled(model):
        raise SettingsError("quantize: nf4 with compile, which has not been tried", hint="leave one of them out")
    if not places_for_nf4(model.backbone):
        raise SettingsError(
            f"quantize: {type(model.backbone).__name__} has no linear layer that could be quantised",
            hint="leave quantize out",
        )


@contextmanager
def in_nf4(model: Any) -> Iterator[None]:
    """Hold the matrices of a backbone's frozen linear layers in NF4 within the block.

    One matrix after the other is quantised and freed, on the device where it is. After the block each is the
    dequantised one, in float32: what the adapters were trained over is what they are merged into. The matrices as they
    were before are lost, also after an error. Where float32 does not fit on a GPU, the model is on the CPU afterwards.

    Args:
        model: an embedding model, changed in place; its backbone is frozen.

    Raises:
        SettingsError: bitsandbytes fails on this device.
    """
    places = [(parent, name, linear) for parent, name, linear in places_for_nf4(model.backbone) if _is_frozen(linear)]
    quantised: dict[int, NF4Linear] = {}
    try:
        for parent, name, linear in places:
            if id(linear) not in quantised:
                quantised[id(linear)] = _quantised(linear)
                linear.weight.data = linear.weight.data.new_empty(0)
            setattr(parent, name, quantised[id(linear)])
        yield
    finally:
        _dequantise(model, places, quantised)


def holds_nf4(model: Any) -> bool:
    """Return whether some matrices of a model are in NF4."""
    return any(isinstance(module, NF4Linear) for module in model.modules())


def check_holds_no_nf4(model: Any, what: str) -> None:
    """Refuse what is done with whole matrices alone.

    Args:
        what: is done with the model, such as "merged".

    Raises:
        SettingsError: some matrices are in NF4.
    """
    if holds_nf4(model):
        raise SettingsError(
            f"{model.called}: holds matrices in nf4 while a stage trains, and is not {what} meanwhile",
            hint="wait for the end of the stage",
        )


def _quantised(linear: torch.nn.Linear) -> NF4Linear:
    """Return a linear layer in NF4.

    Raises:
        SettingsError: bitsandbytes fails: it has no library for this GPU, for example.
    """
    try:
        return NF4Linear(linear)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise SettingsError(
            f"quantize: bitsandbytes fails on {linear.weight.device}: {reason(error)}",
            hint="install a bitsandbytes for this device, or leave quantize out",
        ) from error


def _dequantise(
    model: Any, places: list[tuple[torch.nn.Module, str, torch.nn.Linear]], quantised: dict[int, NF4Linear]
) -> None:
    """Put the linear layers back, with dequantised matrices."""
    needed = 4 * sum(layer.in_features * layer.out_features for layer in quantised.values())
    if model.device.type == "cuda" and free_bytes(model.device) < _ROOM * needed:
        model.to("cpu")
    for parent, name, linear in places:
        if layer := quantised.pop(id(linear), None):
            linear.weight.data = layer.weight
        setattr(parent, name, linear)


def places_for_nf4(backbone: torch.nn.Module) -> list[tuple[torch.nn.Module, str, torch.nn.Linear]]:
    """Return the linear layers that can be quantised, each with every module that has it and its name there.

    Not those of adapters, nor those whose matrix another module has too, nor matrices of an odd number of numbers,
    which bitsandbytes dequantises by code that it compiles first.
    """
    uses = Counter(id(weight) for module in backbone.modules() for weight in module.parameters(recurse=False))
    found = []
    for path, child in backbone.named_modules(remove_duplicate=False):
        is_plain = type(child) is torch.nn.Linear and ".lora_" not in path
        if is_plain and uses[id(child.weight)] == 1 and not child.weight.numel() % 2:
            parent, _, name = path.rpartition(".")
            found.append((backbone.get_submodule(parent), name, child))
    return found


def _is_frozen(linear: torch.nn.Linear) -> bool:
    """Return whether the matrix of a linear layer is not trained."""
    return not linear.weight.requires_grad

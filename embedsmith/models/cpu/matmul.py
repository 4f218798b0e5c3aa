"""Matmuls on a CPU, as fast as it can: float32 by the faster of two libraries, some in bfloat16 or in int8.

On a CPU torch multiplies float32 matrices with MKL, which keeps to half-wide kernels where the processor is not one of
Intel's: 90 against 260 billion operations a second on one core of a fifth-generation EPYC. torch brings oneDNN too, and
uses it for shorter types only; `models.measured` finds which is faster here. Both sum in float32; a vector moves in its
last bits.

In bfloat16 a processor multiplies at least twice as fast, with 8 bits of each factor in place of 24. What that moves a
vector by is much the same for a short text and a long one, and the time it saves is not: see `precision.SHORT_TEXT`.

Where an activation follows a matmul, oneDNN fuses the two: that saves a pass over memory, and in bfloat16 a rounding.
Which activations can be fused is found by tracing one forward pass: see `activations_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from embedsmith.models.compat import onednn_linear, tree_leaves
from embedsmith.models.cpu.quantised import QuantisedWeights, quantised_linear, quantised_states
from embedsmith.models.cpu.switch import is_fast
from embedsmith.models.measured import multiplies_wide
from embedsmith.models.precision import limit_onednn_cache, onednn_multiplies


class Activation(NamedTuple):
    """An elementwise function fused into a matmul, by oneDNN's name."""

    name: str
    algorithm: str = ""


Activations = Mapping[int, tuple[Tensor, Activation]]
"""What follows the matmul with a weight, by the weight's `id`; the weight is held, so that no other gets its `id`."""

Copies = Mapping[int, tuple[Tensor, Tensor]]
"""Weights in float32 with their copies in bfloat16, by the weight's `id`."""

_AS_IT_IS = Activation("none")

_NAMES = {functional.gelu: "gelu", functional.silu: "swish", functional.relu: "relu"}


def fast_matmul(
    device: torch.device,
    *,
    mixed: bool = False,
    activations: Activations | None = None,
    copies: Copies | None = None,
    quantised: QuantisedWeights | None = None,
) -> AbstractContextManager[Any]:
    """Return a block in which linear layers are multiplied as fast as the device can, in the types of their weights.

    Args:
        device: of the weights.
        mixed: whether float32 states meet weights in bfloat16; their matmul is then float32 again.
        activations: what follows which matmul: is applied with it where oneDNN multiplies.
        copies: take the place of weights in the matmuls, without gradients.
        quantised: take the place of weights too; their matmuls are in int8.
    """
    limit_onednn_cache()  # here too: a copy of the model in another process was not made there
    is_inference = torch.is_inference_mode_enabled()
    may_fuse = is_inference and device.type == "cpu" and is_fast()
    is_wide = is_inference and is_fast() and multiplies_wide(device)
    if not mixed and not is_wide and not quantised:
        return nullcontext()
    fused = activations if may_fuse else None
    return MatmulMode(is_wide=is_wide, activations=fused, copies=copies, quantised=quantised)


def activations_of(forward: Callable[[], Any]) -> Activations:
    """Return which weights' matmuls go into an activation, every time, and nowhere else.

    Args:
        forward: runs the model on some text.
    """
    with _Watch() as watch:
        forward()
    found = {}
    for key, matmuls in watch.of_weight.items():
        uses = {tuple(matmul.uses) for matmul in matmuls}
        if len(uses) == 1 and len(use := uses.pop()) == 1 and use[0]:
            found[key] = (matmuls[0].weight, use[0])
    return found


class MatmulMode(TorchFunctionMode):
    """Within the block, linear layers read and return the type of their states, whatever that of their weights.

    Args:
        is_wide: float32 weights are multiplied by oneDNN, without gradients.
        activations: what is applied with which matmul, without gradients.
        copies: take the place of weights.
        quantised: take the place of weights, too.
    """

    def __init__(
        self,
        *,
        is_wide: bool,
        activations: Activations | None = None,
        copies: Copies | None = None,
        quantised: QuantisedWeights | None = None,
    ) -> None:
        super().__init__()
        self.is_wide = is_wide
        self.activations = activations or {}
        self.copies = copies or {}
        self.quantised = quantised or {}
        self._is_short_fused = bool(activations) and onednn_multiplies(torch.bfloat16)
        self._rounded: tuple[Tensor, Any] | None = None
        """States that were read last, and what was made of them, in bfloat16 or in int8: queries, keys and values are
        made of the same."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Return what a function of torch returns."""
        if func is functional.linear:
            return self._linear(*args, **(kwargs or {}))
        if func in _NAMES and args and _is_activated(args[0]):
            return args[0]
        if self._rounded and any(argument is self._rounded[0] for argument in (*args, *(kwargs or {}).values())):
            self._rounded = None  # it may be changed in place
        return func(*args, **(kwargs or {}))

    def _short(self, states: Tensor, dtype: torch.dtype) -> Tensor:
        """Return states in a shorter type, once for all matmuls that read them one after the other."""
        if torch.is_grad_enabled():
            return states.to(dtype)  # their gradients are added up in float32
        found: Tensor = self._once(states, lambda: states.to(dtype))
        return found

    def _once(self, states: Tensor, make: Callable[[], Any]) -> Any:
        """Return what is made of states, once for all matmuls that read them one after the other."""
        if self._rounded is None or self._rounded[0] is not states:
            self._rounded = states, make()
        return self._rounded[1]

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return states times weight, transposed, plus bias, and what follows it where it is applied with it.

        An activated matmul of bfloat16 stays in it: the next matmul would round it to that.
        """
        if (small := _of(weight, self.quantised)) is not None and input.numel():
            return quantised_linear(self._once(input, lambda: quantised_states(input)), small, bias)
        activation = _of(weight, self.activations)
        weight = weight if (copy := _of(weight, self.copies)) is None else copy
        is_short = weight.dtype == torch.bfloat16 and (input.dtype == torch.float32 or _is_activated(input))
        if is_short or _is_activated(input):
            input = self._short(input, weight.dtype)
        has_rows = input.dim() >= 2 and bool(input.numel())
        if activation and has_rows and (self._is_short_fused if is_short else self._is_wide(weight)):
            found = linear(input, weight, bias, activation)
            found.is_activated = True
            return found
        if is_short:
            bare = functional.linear(input, weight)
            return bare.float() if bias is None else bare + bias
        if has_rows and self._is_wide(weight):
            return linear(input, weight, bias)
        return functional.linear(input, weight, bias)

    def _is_wide(self, weight: Tensor) -> bool:
        """Return whether oneDNN multiplies with a weight as it is."""
        return self.is_wide and weight.dtype == torch.float32


class _Matmul(NamedTuple):
    """A matmul that was made, and what read it."""

    weight: Tensor
    matmul: Tensor
    uses: list[Activation | None]
    """In order; None for what is no activation."""


class _Watch(TorchFunctionMode):
    """Notes what becomes of the matmuls of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.of_weight: dict[int, list[_Matmul]] = {}
        """By the weight's `id`."""
        self._matmuls: dict[int, _Matmul] = {}
        """By the matmul's `id`; it is held, so that no other tensor gets it."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Return what a function of torch returns."""
        kwargs = kwargs or {}
        for argument in tree_leaves((args, kwargs)):
            if id(argument) in self._matmuls:
                self._matmuls[id(argument)].uses.append(_activation(func, **kwargs))
        found = func(*args, **kwargs)
        if func is functional.linear:
            weight = kwargs.get("weight", args[1] if len(args) > 1 else None)
            made = _Matmul(weight, found, [])
            self._matmuls[id(found)] = made
            self.of_weight.setdefault(id(weight), []).append(made)
        return found


def _activation(func: Callable[..., Any], approximate: str = "none", **_: Any) -> Activation | None:
    """Return what a function of torch is to oneDNN; None for one that is no activation."""
    name = _NAMES.get(func)
    return Activation(name, approximate if name == "gelu" else "") if name else None


def _of(weight: Tensor, table: Mapping[int, tuple[Tensor, Any]]) -> Any:
    """Return what a table has of a weight, None for nothing."""
    held, value = table.get(id(weight), (None, None))
    return value if held is weight else None


def _is_activated(states: Any) -> bool:
    """Return whether the activation that follows a matmul has been applied with it."""
    return getattr(states, "is_activated", False)


def linear(states: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = _AS_IT_IS) -> Tensor:
    """Return states times weight, transposed, plus bias, activated, by oneDNN; in the type of states and weight.

    Without a gradient.
    """
    return onednn_linear(states, weight, bias, activation.name, activation.algorithm)

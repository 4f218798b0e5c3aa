"""What was found out about a model by trying it, for as long as its modules and weights are the same.

Whether it reads packed texts right, which of its matmuls can be fused with an activation, and copies of its weights in
shorter types.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from embedsmith.models.compat import hooks, version
from embedsmith.models.cpu.matmul import Activations, Copies, activations_of, fast_matmul
from embedsmith.models.cpu.quantised import QuantisedWeights, quantised_weight
from embedsmith.models.packed import allows_packing, alone, packs_correctly
from embedsmith.models.precision import quantised_weights
from embedsmith.models.threads import turn
from embedsmith.models.tokens import tokens_of

_LOOKED_AT = 32
"""Numbers of a weight that are looked at to see whether it is the same."""

_finding = Lock()


class Remembered:
    """A cache of what was found by running one model; an entry is computed again when the model has changed.

    An entry holds what it depends on: modules, or the state of weights.
    """

    packed: tuple[list[Any], dict[Any, bool]] | None = None
    """Whether these modules read packed texts right, by precision, device, autocast and configuration."""
    activations: tuple[list[Any], Activations] | None = None
    """Activations of these modules that can be fused."""
    copies: tuple[list[tuple[Any, ...]], Copies] | None = None
    """Copies in bfloat16 of weights in this state."""
    small: tuple[list[tuple[Any, ...]], QuantisedWeights] | None = None
    """What weights in this state are in int8."""

    def __reduce__(self) -> Any:
        """Be copied and sent to other processes without what was found: it is found again there."""
        return type(self), ()

    def packs(self, model: Any, dtype: torch.dtype) -> bool:
        """Return whether a model reads the texts of a batch in one row, where matmuls are computed in a type."""
        device = model.device
        if not allows_packing(model[0], device, dtype):
            return False
        with alone(model):
            parts, cached = self.packed or ([], {})
            if not _are_same(parts, found := _parts(model.backbone)):
                parts, cached = self.packed = found, {}
            autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
            key = dtype, model.dtype, device, autocast, repr(vars(model.backbone.config))
            if key not in cached:
                cached[key] = packs_correctly(model[0], device)
            return cached[key]

    def fused(self, model: Any, forward: Callable[[Any], Any]) -> Activations | None:
        """Return which matmuls of a model go straight into an activation.

        Args:
            model: an embedding model.
            forward: computes its vectors without fused activations.
        """
        if model.device.type != "cpu" or model.backbone is None or not torch.is_inference_mode_enabled():
            return None
        parts = _parts(model)
        with _finding:
            cached = self.activations
            if cached is None or not _are_same(cached[0], parts):
                features = tokens_of(model, ["what follows what"])
                with fast_matmul(model.device, mixed=model.is_mixed):
                    cached = parts, activations_of(lambda: forward(features))
                self.activations = cached
            return cached[1]

    def short_copies(self, model: Any) -> Copies | None:
        """Return copies in bfloat16 of the weights in float32 that make matmuls, where they are wanted."""
        if not model.shortens:
            return None
        weights = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
        with turn(model):
            state = [_state(weight) for weight in weights]
            if self.copies is None or self.copies[0] != state:
                exact = [weight for weight in weights if weight.dtype == torch.float32]
                self.copies = state, {id(weight): (weight, weight.detach().to(torch.bfloat16)) for weight in exact}
            return self.copies[1]

    def quantised(self, model: Any) -> QuantisedWeights | None:
        """Return the weights that make matmuls in int8, where they are wanted."""
        if not model.is_quantised:
            return None
        weights = quantised_weights(model)
        with turn(model):
            state = [_state(weight) for weight in weights]
            if self.small is None or self.small[0] != state:
                self.small = state, {id(weight): (weight, quantised_weight(weight)) for weight in weights}
            return self.small[1]


def _parts(model: torch.nn.Module) -> list[Any]:
    """Return all modules of a model, and the hooks that read what they return."""
    return [part for module in model.modules() for part in (module, *hooks(module))]


def _are_same(cached: list[Any], found: list[Any]) -> bool:
    """Return whether two lists are of the same objects."""
    return len(cached) == len(found) and all(map(is_, cached, found))


def _state(weight: Tensor) -> tuple[Any, ...]:
    """Return what is another when a weight has other numbers: it, its memory, its version, and some of its numbers.

    Writes through `weight.data` do not change a tensor's version, and freed memory may be allocated again.
    Weights made in inference mode have no version.
    """
    numbers = weight.detach().reshape(-1)
    some = numbers[:: max(1, len(numbers) // _LOOKED_AT)][:_LOOKED_AT].tolist()
    return id(weight), weight.data_ptr(), version(weight), some

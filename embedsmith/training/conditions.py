"""A model as a stage trains it: text lengths, dropout, adapters, gradient checkpointing, precision and kernels.

`as_trained` puts all of it on a model, and takes it off again. Training, the estimate of its cost and that of its
memory run a model under the same conditions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from embedsmith.errors import SettingsError
from embedsmith.models.adapters import add_adapters, inputs_as_they_are, remove_adapters
from embedsmith.models.compiled import inputs_with_gradients
from embedsmith.models.cpu.switch import is_fast
from embedsmith.models.cpu.training import fast_training
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.frozen import halved, lengthen
from embedsmith.models.nf4 import check_quantises, in_nf4
from embedsmith.models.packed import attention_within_texts
from embedsmith.models.precision import resolve_dtype
from embedsmith.training.batches import Batch
from embedsmith.training.chunks import (
    Chunk,
    are_rounded,
    chunk_tokens,
    chunks_of,
    copied_bytes,
    encode,
)
from embedsmith.training.draws import dropped_again
from embedsmith.training.grad_cache import ActivationMemory
from embedsmith.training.memory import activation_bytes
from embedsmith.training.processes import Processes
from embedsmith.training.settings import StageSettings
from embedsmith.training.weights import trained


@dataclass(frozen=True)
class Conditions:
    """A model as a stage trains it; made by `as_trained`."""

    model: EmbeddingModel
    settings: StageSettings
    weights: dict[str, torch.nn.Parameter]
    """The trained ones, by name."""
    bfloat16: bool
    """Whether matmuls are computed in it."""
    budget: int
    """Tokens of a chunk, at most."""
    packed: bool
    """Whether the texts of a chunk are packed into one row, without padding."""
    rounded: bool
    """Whether chunks have round numbers of tokens."""
    at_once: int = 1
    """Chunks that run at the same time, each on its share of a CPU's cores; 1: one after the other, on all of them."""

    def chunks(self, batch: Batch) -> list[Chunk]:
        """Return the texts of a batch, tokenised; in pinned memory where a GPU reads them."""
        chunks = chunks_of(self.model, batch, self.budget, packed=self.packed, rounded=self.rounded)
        return [chunk.pinned() for chunk in chunks] if self.model.device.type == "cuda" else chunks

    @contextmanager
    def kernels(self, chunks: Sequence[Chunk]) -> Iterator[None]:
        """Run forward and backward passes with the fastest matmul and attention kernels; packed texts stay apart."""
        with (
            fast_training(self.model, bfloat16=self.bfloat16),
            attention_within_texts(self.model.backbone) if chunks[0].is_packed else nullcontext(),
        ):
            yield

    def encode(self, chunk: Chunk) -> Float[Tensor, "n D"]:
        """Return the vectors of a chunk, not yet of length 1."""
        return encode(self.model, chunk, device=self.model.device, bfloat16=self.bfloat16)

    def encode_measured(self, chunk: Chunk, memory: ActivationMemory) -> Float[Tensor, "n D"]:
        """Return the same, and note what the chunk's activations take."""
        with memory.measured(chunk, {weight.untyped_storage().data_ptr() for weight in self.model.parameters()}):
            return self.encode(chunk)

    def memory(self, *, missing: float) -> ActivationMemory:
        """Return how many activations may be kept.

        Args:
            missing: bytes of gradients and optimizer state that are not allocated yet.
        """
        checkpointed = self.settings.gradient_checkpointing
        shared = copied_bytes(self.model, self.model.device, bfloat16=self.bfloat16)
        return ActivationMemory(
            activation_bytes(self.settings, self.model.device, missing=missing + shared),
            unseen_bytes_a_token=_checkpointed_bytes(self.model, bfloat16=self.bfloat16) if checkpointed else 0.0,
            shared_bytes=0.0 if checkpointed else shared,  # checkpointed layers save no weights for backward
            at_once=self.at_once,
        )


@contextmanager
def as_trained(
    model: EmbeddingModel, settings: StageSettings, processes: Processes | None = None
) -> Iterator[Conditions]:
    """Put a stage's conditions on a model, and take them off again.

    Adapters stay on the model, to be merged or kept. An error takes them off, too. Matrices that were quantised stay
    rounded, see `in_nf4`.

    Args:
        model: on the device that trains it.
        processes: those that train it together: all cut their chunks alike.

    Raises:
        SettingsError: every weight of the model is frozen, or they cannot be quantised.
    """
    bfloat16 = resolve_dtype(settings.dtype, model.device.type) is torch.bfloat16
    with _lengths(model, settings), _dropout(model, settings.dropout), ExitStack() as stage:
        stage.callback(model.eval)
        if not settings.lora_rank:
            lengthen(model)
        if settings.quantize != "none":
            check_quantises(model)
        if settings.lora_rank:  # after dropout: adapters have their own
            add_adapters(model, **settings.adapters)
            stage.push(partial(_without_adapters_after_an_error, model))
            if settings.quantize != "none":
                stage.enter_context(in_nf4(model))
                if not bfloat16:
                    lengthen(model)  # what is not quantised
            if not settings.gradient_checkpointing:  # which does the same
                stage.enter_context(inputs_with_gradients(model))
        weights = trained(model)
        if not weights:
            raise SettingsError(
                f"stage {settings.name}: nothing to train: every weight of the model is frozen",
                hint="set requires_grad of those that shall be trained, or lora_rank",
            )
        at_once = _chunks_at_once(model, settings)
        stage.enter_context(_checkpointing(model, settings, at_once))
        if settings.lora_rank and bfloat16:
            stage.enter_context(inputs_as_they_are(model))
            stage.enter_context(halved(model))
        stage.enter_context(_fast_zero_grad(model, list(weights.values())))
        # Chunks are shared out by their number: they must be the same in every process, whatever GPU it has.
        packed, rounded = _reads_packed(model, bfloat16=bfloat16), are_rounded(model.device, bfloat16=bfloat16)
        budget, packs, rounds = (processes or Processes()).least(
            chunk_tokens(settings, model), int(packed), int(rounded)
        )
        yield Conditions(
            model,
            settings,
            weights,
            bfloat16,
            budget=budget,
            packed=bool(packs),
            rounded=bool(rounds),
            at_once=at_once,
        )


_MOST_AT_ONCE = 16
"""Chunks at the same time on a CPU: Python holds its lock for about a thirtieth of a chunk's time."""
_GRADIENT_BYTES = 4 * 2**30
"""Memory for gradients of chunks that are not added up yet: about two copies for each chunk that runs."""
_FRUGAL = 4
"""With gradient checkpointing, which is there to save memory, it is a fourth of that."""


def _chunks_at_once(model: EmbeddingModel, settings: StageSettings) -> int:
    """Return how many chunks run at the same time.

    On a CPU as many as it has cores. OpenMP would split every operation over all cores, and wait for the
    slowest after each: where another process has one of them, a step takes many times as long.
    """
    if not (model.device.type == "cpu" and is_fast()):
        return 1
    copy = sum(weight.numel() * weight.element_size() for weight in trained(model).values())
    room = _GRADIENT_BYTES // (_FRUGAL if settings.gradient_checkpointing else 1)
    return max(1, min(torch.get_num_threads(), _MOST_AT_ONCE, room // (2 * copy)))


def _without_adapters_after_an_error(model: EmbeddingModel, kind: Any, error: Any, traceback: Any) -> None:
    """Take the adapters of a stage that did not end off its model."""
    if error is not None:
        remove_adapters(model)


def _reads_packed(model: EmbeddingModel, *, bfloat16: bool) -> bool:
    """Return whether a model is trained on packed texts.

    On a CPU, padding costs as much as attention in a packed row does: chunks hold texts of about one length.
    """
    if model.device.type == "cpu":
        return False
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
        return bfloat16 and model.packs(torch.bfloat16)


def _checkpointed_bytes(model: EmbeddingModel, *, bfloat16: bool) -> float:
    """Return what gradient checkpointing keeps of a token: the input of every layer."""
    config = model.backbone.config
    return float(config.num_hidden_layers * config.hidden_size * (2 if bfloat16 else 4))


@contextmanager
def _lengths(model: EmbeddingModel, settings: StageSettings) -> Iterator[None]:
    """Truncate texts as the stage says, and as before when it ends."""
    first = model[0]
    before = first.query_length, first.document_length, model.max_seq_length
    query, passage = settings.query_max_tokens, settings.passage_max_tokens
    if query or passage:
        model.set_max_tokens(query=query or before[0] or before[2], passage=passage or before[1] or before[2])
    try:
        yield
    finally:
        first.query_length, first.document_length = before[:2]
        model.max_seq_length = before[2]


@contextmanager
def _dropout(model: EmbeddingModel, share: float | None) -> Iterator[None]:
    """Set every dropout of a model, and restore its own: encoders have modules for it, decoders an attribute."""
    places = [(module, "p") for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    name = "attention_dropout"
    places += [(module, name) for module in model.modules() if isinstance(getattr(module, name, None), float)]
    before = [getattr(module, name) for module, name in places]
    if share is not None:
        for module, name in places:
            setattr(module, name, share)
    try:
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)


@contextmanager
def _checkpointing(model: EmbeddingModel, settings: StageSettings, at_once: int) -> Iterator[None]:
    """Switch gradient checkpointing on where a stage asks for it, and off when it ends.

    Args:
        at_once: chunks that run at the same time: each of several has a dropout of its own, which is restored.
    """
    if not settings.gradient_checkpointing:
        yield
        return
    # The model itself, once: through peft's wrapping each of its layers would hook the embeddings once more.
    backbone = next(module for module in model.backbone.modules() if isinstance(module, PreTrainedModel))
    own = {"preserve_rng_state": False, "context_fn": dropped_again} if at_once > 1 else {}
    backbone.gradient_checkpointing_enable({"use_reentrant": False, **own})
    try:
        yield
    finally:
        backbone.gradient_checkpointing_disable()
        backbone.disable_input_require_grads()


@contextmanager
def _fast_zero_grad(model: EmbeddingModel, weights: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    """Tell `zero_grad` which weights are trained: torch's own walks through every module after every step."""

    def zero_grad(set_to_none: bool = True) -> None:
        for weight in weights:
            weight.grad = None

    model.__dict__["zero_grad"] = zero_grad
    try:
        yield
    finally:
        del model.__dict__["zero_grad"]

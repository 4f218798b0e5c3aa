"""What a batch of a stage takes, by one chunk that is run forward and backward under the stage's conditions."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from statistics import median

import torch

from embedsmith.models.adapters import remove_adapters
from embedsmith.models.budget import side_by_side
from embedsmith.models.cpu.trained_embeddings import gradients_of_rows
from embedsmith.models.devices import synchronize
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.training.batches import Batch, BatchPlan
from embedsmith.training.chunks import Chunk
from embedsmith.training.conditions import Conditions, as_trained
from embedsmith.training.draws import own_draws
from embedsmith.training.grad_cache import ActivationMemory
from embedsmith.training.memory import BYTES_A_TRAINED_WEIGHT, tightness
from embedsmith.training.settings import StageSettings
from embedsmith.training.weights import TrainedWeights, trained_weights

_ROUNDS = 3
"""Of which the median counts: another program may have wanted a core during one of them."""
_SAMPLED_BATCHES = 8
"""Batches whose tokens are counted for an estimate."""


@dataclass(frozen=True)
class Cost:
    """What a batch of a stage takes on one device."""

    tokens_a_batch: int
    seconds_a_batch: float
    trained: TrainedWeights
    bytes: float
    """Weights, gradients, optimizer state and activations."""


@own_draws()
def cost_of(model: EmbeddingModel, plan: BatchPlan, settings: StageSettings) -> Cost:
    """Return what a batch takes: the tokens of the first ones, times the seconds of a token in one chunk."""
    with as_trained(model, settings) as conditions:
        cost = _cost_under(conditions, plan)
    if settings.lora_rank:
        remove_adapters(model)
    return cost


def memory_warning(conditions: Conditions, batch: Batch) -> str:
    """Return a warning where a batch may run out of memory, measured on its widest chunk; else an empty text."""
    missing = _missing_bytes(conditions)
    memory = conditions.memory(missing=missing)
    chunks = conditions.chunks(batch)
    conditions.model.train()
    with conditions.kernels(chunks):
        conditions.encode_measured(chunks[0], memory)
    wanted = missing + memory.most([chunk.tokens for chunk in chunks])
    return tightness(conditions.settings, conditions.model.device, wanted=wanted)


def _cost_under(conditions: Conditions, plan: BatchPlan) -> Cost:
    """Return what a batch takes of a model that is as the stage trains it."""
    batches = [conditions.chunks(plan[number]) for number in range(min(len(plan), _SAMPLED_BATCHES))]
    tokens = [[chunk.tokens for chunk in chunks] for chunks in batches]
    missing = _missing_bytes(conditions)
    memory = conditions.memory(missing=missing)
    chunk = max(batches[0], key=lambda chunk: chunk.tokens)
    seconds = _seconds_of(conditions, chunk, memory)
    kept = memory.kept(tokens[0])
    twice = sum(count for count, is_kept in zip(tokens[0], kept, strict=True) if not is_kept) / sum(tokens[0])
    model = conditions.model
    weights = sum(weight.numel() * weight.element_size() for weight in (*model.parameters(), *model.buffers()))
    return Cost(
        tokens_a_batch=round(
            sum(int(c.features["attention_mask"].sum()) for chunks in batches for c in chunks) / len(batches)
        ),
        # A forward pass is a third of a step.
        seconds_a_batch=seconds / chunk.tokens * (sum(map(sum, tokens)) / len(tokens)) * (1 + twice / 3),
        trained=trained_weights(conditions.model),
        bytes=weights + missing + max(memory.most(counts) for counts in tokens),
    )


def _seconds_of(conditions: Conditions, chunk: Chunk, memory: ActivationMemory) -> float:
    """Return the seconds of a chunk's forward and backward pass as a step runs it; note what its activations take.

    Where chunks run at the same time, as many are timed together, and each counts its part.
    """
    model, at_once = conditions.model, conditions.at_once
    weights = list(conditions.weights.values())
    model.train()

    def work(_: int) -> None:
        torch.autograd.grad(conditions.encode(chunk).float().square().sum(), weights, allow_unused=True)

    with conditions.kernels([chunk]), gradients_of_rows(model, model.device):
        conditions.encode_measured(chunk, memory).float().square().sum().backward()  # the first time is slow
        model.zero_grad()
        taken = []
        for _ in range(_ROUNDS):
            started = time.monotonic()
            deque(side_by_side(work, iter(range(at_once)), at_once), maxlen=0)
            synchronize(model.device)
            taken.append((time.monotonic() - started) / at_once)
    return median(taken)


def _missing_bytes(conditions: Conditions) -> float:
    """Return the bytes of gradients and optimizer state, of which none is there before the first step."""
    return BYTES_A_TRAINED_WEIGHT * trained_weights(conditions.model).count

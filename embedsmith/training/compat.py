"""Names of transformers, accelerate and torch that may change without notice, each with what training uses it for.

Nothing else in `training/` touches a private name of theirs. What a new version takes away is an error at import.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
import transformers

from embedsmith.errors import ModelError

OVERRIDDEN = {
    "_load_from_checkpoint": "trained weights, reports and the best measurement come from our checkpoint",
    "_load_optimizer_and_scheduler": "the state of AdamW comes from safetensors, the schedule's from JSON",
    "_load_rng_state": "nothing to load: random draws are a function of seed, batch and chunk",
    "_save_checkpoint": "safetensors and JSON, written under another name and renamed",
    "create_optimizer": "AdamW with a learning rate of its own for a trained pooling",
    "get_batch_samples": "the next step's batches are prepared while a GPU computes",
    "get_train_dataloader": "the plan's batches in order, the same in every process",
    "training_step": "GradCache in place of one forward and backward pass",
}
"""Methods of `transformers.Trainer` that ours overrides, and what each does here."""

OPTIONAL = {"_clip_grad_norm": "reuse the gradient norm that the report has already"}
"""The same, of which older versions have none (before 5.3): the Trainer then clips to the same norm itself."""

TENSORBOARD_FOLDER = "TENSORBOARD_LOGGING_DIR"
"""The environment variable from which the Trainer's TensorBoard callback takes its folder."""

SHARDING = {
    "FSDP": "ACCELERATE_USE_FSDP",
    "DeepSpeed": "ACCELERATE_USE_DEEPSPEED",
    "Megatron-LM": "ACCELERATE_USE_MEGATRON_LM",
    "a parallelism of tensors or contexts": "ACCELERATE_USE_PARALLELISM_CONFIG",
}
"""The environment variables by which `accelerate launch` asks for a sharded model."""

_PRINTERS = ("PrinterCallback", "ProgressCallback")
"""Callbacks of the Trainer that print; one of them is always added."""

_WRAPPED = ("forward", "_is_accelerate_prepared")
"""What accelerate leaves on a model that it has unwrapped: a copy of its class's method, and a mark."""


def check_trainer(upstream: type) -> None:
    """Refuse a Trainer without one of the methods that ours overrides: it would never call ours.

    Raises:
        ModelError: names the method.
    """
    for name in OVERRIDDEN:
        if not hasattr(upstream, name):
            raise _lacking(name)


def _lacking(name: str) -> ModelError:
    return ModelError(
        f"transformers {transformers.__version__} has no Trainer.{name}, which training relies on",
        hint="install a version of transformers that embedsmith was tested with: see constraints.txt",
    )


def trackers_known() -> tuple[Collection[str], Collection[str]]:
    """Return the trackers that the Trainer can report to, and those whose packages are installed."""
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    return INTEGRATION_TO_CALLBACK, get_available_reporting_integrations()


def take_loss_as_it_is(trainer: Any) -> None:
    """Have the Trainer leave the loss alone: it is a mean already, not to be divided by a number of tokens.

    Raises:
        ModelError: the Trainer asks for it by another name.
    """
    name = "model_accepts_loss_kwargs"
    if not hasattr(trainer, name):
        raise _lacking(name)
    setattr(trainer, name, False)


def remove_printers(trainer: Any) -> None:
    """Take away the callbacks with which the Trainer prints."""
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ in _PRINTERS:
            trainer.remove_callback(callback)


def batches_of_this_step(trainer: Any) -> int:
    """Return how many batches the Trainer accumulates in the step that it is at."""
    return int(trainer.current_gradient_accumulation_steps)


def ends_step(trainer: Any) -> bool:
    """Return whether the batch that the Trainer is at is the last one of its step."""
    return bool(trainer.accelerator.sync_gradients)


def plain_optimizer(trainer: Any) -> torch.optim.Optimizer:
    """Return a Trainer's optimizer without accelerate's wrapper, which hides its state."""
    optimizer: torch.optim.Optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    return optimizer


def plain_schedule(trainer: Any) -> Any:
    """Return a Trainer's learning rate schedule without accelerate's wrapper, if it has one."""
    return getattr(trainer.lr_scheduler, "scheduler", trainer.lr_scheduler)


def last_learning_rates(schedule_state: dict[str, Any]) -> list[float]:
    """Return the learning rates that a schedule's stored state ends with, one for each parameter group."""
    rates: list[float] = schedule_state["_last_lr"]
    return rates


def unwrap(trainer: Any, model: torch.nn.Module) -> None:
    """Take all that accelerate has put on a Trainer's model off it."""
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    for name in _WRAPPED:
        model.__dict__.pop(name, None)

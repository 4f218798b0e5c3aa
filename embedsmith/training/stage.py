"""One stage: a model, its data and its settings in; the same model, trained, and a report of each step out."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import TrainingArguments, set_seed

from embedsmith.models.adapters import merge_adapters
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.precision import resolve_dtype
from embedsmith.training import checkpoints
from embedsmith.training.batches import Source
from embedsmith.training.conditions import as_trained
from embedsmith.training.cost import memory_warning
from embedsmith.training.draws import own_draws
from embedsmith.training.held_out import held_out_batches
from embedsmith.training.memory import enough_memory
from embedsmith.training.objective import check_objective
from embedsmith.training.plan import plan_of
from embedsmith.training.processes import Processes
from embedsmith.training.report import StepReport
from embedsmith.training.settings import StageSettings
from embedsmith.training.trackers import trackers
from embedsmith.training.trainer import ContrastiveTrainer
from embedsmith.training.weights import TrainedWeights, trained_weights


@own_draws()
def train_stage(
    model: EmbeddingModel,
    sources: Sequence[Source],
    settings: StageSettings,
    *,
    folder: Path,
    seed: int,
    optimizer_from: Path | None = None,
    optimizer_to: Path | None = None,
    log_folder: Path | None = None,
    on_weights: Callable[[TrainedWeights], None] | None = None,
    on_start: Callable[[int, int, str], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
) -> list[StepReport]:
    """Train a model in place for one stage, from the folder's last whole checkpoint if there is one.

    All that the stage puts on the model is taken off when it ends, also after an error; except adapters that it keeps.
    Adapters that an earlier stage has kept are merged first.

    Args:
        model: changed in place.
        sources: the stage's data.
        settings: the stage.
        folder: where checkpoints go; the caller removes it when the run is finished.
        seed: of the batches and of dropout.
        optimizer_from: optimizer state to begin with, as the stage before has left it.
        optimizer_to: where the optimizer state goes when the stage ends.
        log_folder: where TensorBoard's files go.
        on_weights: called with the names of the weights that the stage trains.
        on_start: called before the first step with the steps done and the steps in all, and a warning where memory may
            not suffice.
        on_step: called after each step. All three are called in the process that leads.

    Returns:
        The reports of all steps, those before an interruption included.

    Raises:
        InputError: a step's loss is not a number; names the stage, the step and the queries.
        SettingsError: the memory does not suffice, or the objective does not fit model or data.
    """
    processes = Processes.running()
    plan = plan_of(sources, settings, seed)
    steps = len(plan) // settings.accumulation
    texts = [source.examples[0].query for source in sources[:8]]
    if model.has_adapters:  # a stage before has kept them
        merge_adapters(model, texts)
    set_seed(seed)
    if processes.leads:
        checkpoints.remove_broken(folder)
    processes.wait()
    arguments = _arguments(settings, folder, device=model.device.type, steps=steps, seed=seed)
    with enough_memory(lambda: f"stage {settings.name}: its weights", arguments.device):
        model.to(arguments.device)
    with as_trained(model, settings, processes) as conditions:
        check_objective(sources, settings, model.get_embedding_dimension() or 0)
        if on_weights and processes.leads:
            on_weights(trained_weights(model))
        reports = _run(
            ContrastiveTrainer(
                conditions,
                plan,
                arguments,
                measured_on=held_out_batches(sources, settings, seed),
                processes=processes,
                earlier_optimizer=optimizer_from,
                log_folder=log_folder,
                on_step=on_step,
            ),
            optimizer_to=optimizer_to,
            on_start=on_start,
        )
    # Trainer and callbacks refer to each other: without this the optimizer state would stay until the next collection.
    gc.collect()
    if settings.lora_rank and settings.lora_merge:
        merge_adapters(model, texts)
    return reports


def _run(
    trainer: ContrastiveTrainer, *, optimizer_to: Path | None, on_start: Callable[[int, int, str], None] | None
) -> list[StepReport]:
    """Run a Trainer from the last whole checkpoint to the stage's end, and return the reports of all steps."""
    whole = checkpoints.checkpoints(Path(trainer.args.output_dir))
    trainer.done = checkpoints.step_of(whole[-1]) if whole else 0
    try:
        with enough_memory(trainer.doing, trainer.args.device):
            if on_start and trainer.processes.leads:
                on_start(trainer.done, trainer.args.max_steps, memory_warning(trainer.conditions, trainer.plan[0]))
            trainer.train(resume_from_checkpoint=str(whole[-1]) if whole else None)
            trainer.finish(optimizer_to)
    finally:
        trainer.unwrap()
    return trainer.reports


def _arguments(settings: StageSettings, folder: Path, *, device: str, steps: int, seed: int) -> TrainingArguments:
    """Return what the Trainer is asked for."""
    warmup = settings.warmup_steps
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        warmup_steps=math.ceil(settings.warmup * steps) if warmup is None else warmup,
        lr_scheduler_type=settings.schedule,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        # Elsewhere autocast is ours alone: on a CPU accelerate's would keep copies of weights that other threads read.
        bf16=device == "cuda" and resolve_dtype(settings.dtype, device) is torch.bfloat16,
        use_cpu=device == "cpu",
        seed=seed,
        save_steps=settings.save_steps,
        logging_strategy="no",
        logging_nan_inf_filter=False,  # looks at every loss; ours are checked
        report_to=trackers(settings.report_to),
        remove_unused_columns=False,
        label_names=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )

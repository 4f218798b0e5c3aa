"""The training loop: `transformers.Trainer` with our batches, GradCache and our objective.

Mixed precision, schedules and trackers are the Trainer's. Its step, its optimizer and its checkpoints are ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_
from transformers import Trainer, TrainerCallback, TrainingArguments

from embedsmith.models.cpu.trained_embeddings import gradients_of_rows
from embedsmith.training import checkpoints, compat
from embedsmith.training.batches import Batch, BatchPlan
from embedsmith.training.best import Best, BestWeights, held_out_loss
from embedsmith.training.chunks import Chunk
from embedsmith.training.conditions import Conditions
from embedsmith.training.grad_cache import GradCache
from embedsmith.training.memory import missing_bytes
from embedsmith.training.objective import accuracy, objective, targets_of
from embedsmith.training.optimizer import adamw, gradient_norms
from embedsmith.training.prefetch import Prefetch
from embedsmith.training.processes import Processes
from embedsmith.training.report import StepFigures, StepReport
from embedsmith.training.trackers import tensorboard_in

compat.check_trainer(Trainer)


class ContrastiveTrainer(Trainer):
    """A Trainer whose batches are made by a plan, and whose step is GradCache's."""

    def __init__(
        self,
        conditions: Conditions,
        plan: BatchPlan,
        arguments: TrainingArguments,
        *,
        measured_on: Sequence[Batch],
        processes: Processes,
        earlier_optimizer: Path | None,
        log_folder: Path | None,
        on_step: Callable[[StepReport], None] | None,
    ) -> None:
        """Prepare to train; no step is run.

        Args:
            conditions: the model as the stage trains it.
            plan: the stage's batches.
            arguments: what the Trainer does itself.
            measured_on: batches of what is held out.
            processes: those that train the model together.
            earlier_optimizer: optimizer state to begin with.
            log_folder: where TensorBoard's files go.
            on_step: called after each step, in the process that leads.
        """
        self.conditions = conditions
        self.stage = conditions.settings
        self.embedder = conditions.model
        self.plan = plan
        self.measured_on = measured_on
        self.processes = processes
        self.earlier_optimizer = earlier_optimizer
        self.on_step = on_step
        self.done = 0
        """Steps before an interruption."""
        self.reports: list[StepReport] = []
        self.figures = StepFigures(learning_rate=0.0)
        self.kept = BestWeights(Path(arguments.output_dir), self.embedder, processes)
        self.prefetch = Prefetch()
        with tensorboard_in(log_folder):
            super().__init__(model=self.embedder, args=arguments, train_dataset=plan, data_collator=self._prepared)
        compat.take_loss_as_it_is(self)
        compat.remove_printers(self)
        self.add_callback(_Watch(self))

    @cached_property
    def cache(self) -> GradCache:
        """What runs the batches; made when model and optimizer are prepared."""
        return GradCache(
            self.model,
            # Not the wrapped model: DistributedDataParallel would sum gradients after every chunk, we do once a step.
            self.conditions.encode,
            seed=self.args.seed,
            memory=self.conditions.memory(missing=missing_bytes(self.embedder, self.optimizer)),
            processes=self.processes,
            dimensions=self.embedder.get_embedding_dimension() or 0,
        )

    @property
    def makes_ahead(self) -> bool:
        """Whether batches are prepared during the step; on a CPU the two would only compete for its cores."""
        return bool(self.args.device.type != "cpu")

    def get_train_dataloader(self) -> Any:
        """Return the plan's batches in order, the same in every process."""
        return torch.utils.data.DataLoader(self.plan, batch_size=1, shuffle=False, collate_fn=self.data_collator)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *arguments: Any, **others: Any) -> Any:
        """Return the batches of a step; on a GPU they were prepared during the step before."""
        draw = partial(super().get_batch_samples, epoch_iterator, *arguments, **others)
        return self.prefetch.take(draw) if self.makes_ahead else draw()

    def create_optimizer(self, model: Any = None) -> Any:
        """Return AdamW, with the state that an earlier stage has left."""
        self.optimizer = adamw(self.conditions.weights, self.stage, self.args.device)
        if self.earlier_optimizer:
            checkpoints.load_optimizer(self.earlier_optimizer, self.model, self.optimizer)
        return self.optimizer

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Run the forward and backward pass of one batch.

        No GPU result is read before the last backward pass of the step: reading synchronises.
        """
        batch: Batch = inputs["batch"]
        chunks: list[Chunk] = inputs["chunks"]
        device = self.args.device
        # With several processes `model` is a wrapper, which does not see that `embed` has ended training mode.
        if not (model.training and self.embedder.training):
            model.train()  # walks through every module
        cache = self.cache
        targets = targets_of(batch, self.stage, device)

        def loss_of(vectors: Tensor) -> Tensor:
            loss = objective(vectors, targets, self.stage)
            self.figures.note(batch, loss, accuracy(vectors, targets))
            self.prefetch.start()
            return loss / compat.batches_of_this_step(self)

        with self.conditions.kernels(chunks), gradients_of_rows(self.embedder, device):
            loss = cache.run(chunks, loss_of, batch=batch.number, device=device)
        self.figures.count(batch, chunks)
        if compat.ends_step(self):
            weights = self.conditions.weights
            self.processes.sum_gradients(weights.values())
            self.figures.read(gradient_norms(weights, device), place=self.place())
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        """Clip gradients by the norm that is known already; the Trainer would compute it once more."""
        assert self.figures.norm is not None
        clip_grads_with_norm_(self.conditions.weights.values(), self.args.max_grad_norm, self.figures.norm)
        return self.figures.norm

    def measure(self) -> float:
        """Return the mean loss on what was held out."""
        self.prefetch.wait()
        return held_out_loss(self.conditions, self.cache, self.measured_on, place=self.place())

    def place(self) -> str:
        """Return the stage and the step that it is at, for messages."""
        return f"stage {self.stage.name}, step {self.state.global_step + 1}"

    def doing(self) -> str:
        """Return the same, with what matters where memory runs out."""
        return f"{self.place()}, chunks of {self.conditions.budget} tokens"

    def finish(self, optimizer_to: Path | None) -> None:
        """Leave the model as the stage's: with the best weights if some were measured."""
        self.kept.load()
        if optimizer_to and self.processes.leads:
            checkpoints.save_optimizer(optimizer_to, self.embedder, compat.plain_optimizer(self))

    def unwrap(self) -> None:
        """Take the Trainer's wrapping and the last gradients off the model."""
        compat.unwrap(self, self.embedder)
        self.embedder.zero_grad()

    def _prepared(self, batches: list[Batch]) -> dict[str, Any]:
        """Return a tokenised batch: the plan makes whole batches, the loader takes them one at a time."""
        return {"batch": batches[0], "chunks": self.conditions.chunks(batches[0])}

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint, in the process that leads."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        state = {
            "reports": [vars(report) for report in self.reports],
            "best": self.kept.best.as_json(),
            "schedule": compat.plain_schedule(self).state_dict(),
        }
        if self.processes.leads:
            checkpoints.write_checkpoint(
                folder, self.embedder, compat.plain_optimizer(self), trainer_state=self.state, state=state
            )
            # Two: the older one is kept until the newer one is whole.
            checkpoints.remove_old(folder.parent, keep=2)
        self.processes.wait()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the trained weights, every one of them, and the reports of the steps before."""
        folder = Path(resume_from_checkpoint)
        checkpoints.load_checkpoint_weights(folder, self.embedder)
        state = checkpoints.read_state(folder)
        self.reports = [StepReport(**row) for row in state["reports"]]
        self.kept.best = Best.from_json(state["best"], folder.parent)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load the states of the optimizer and of the schedule."""
        if checkpoint is None:
            return
        checkpoints.load_checkpoint_optimizer(Path(checkpoint), self.embedder, compat.plain_optimizer(self))
        schedule = checkpoints.read_state(Path(checkpoint))["schedule"]
        compat.plain_schedule(self).load_state_dict(schedule)
        for group, rate in zip(self.optimizer.param_groups, compat.last_learning_rates(schedule), strict=True):
            group["lr"] = rate

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Do nothing: random draws are a function of seed, batch and chunk."""


class _Watch(TrainerCallback):
    """Turns the Trainer's events into step reports and measurements."""

    def __init__(self, trainer: ContrastiveTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        counts = state.global_step, len(trainer.reports), compat.plain_schedule(trainer).last_epoch
        assert counts == (trainer.done,) * 3, f"steps of Trainer, reports and schedule: {counts}, wanted {trainer.done}"
        trainer.embedder.train()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.figures = StepFigures(learning_rate=self.trainer.optimizer.param_groups[0]["lr"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        seconds = time.monotonic() - trainer.figures.started
        held_out = None
        is_last = state.global_step >= state.max_steps
        if trainer.measured_on and (is_last or state.global_step % trainer.stage.eval_steps == 0):
            held_out = trainer.measure()
            trainer.kept.keep_if_best(held_out, state.global_step)
        report = trainer.figures.report(trainer.stage.name, state, seconds=seconds, held_out_loss=held_out)
        trainer.reports.append(report)
        trainer.log({key: value for key, value in vars(report).items() if isinstance(value, float)})
        # The reports say the same: the Trainer's own list of them would only lengthen every checkpoint.
        state.log_history.clear()
        if trainer.stage.patience and trainer.kept.best.since >= trainer.stage.patience:
            control.should_training_stop = True
        if trainer.on_step and trainer.processes.leads:
            trainer.on_step(report)

"""The training loop: `transformers.Trainer`, with batches of ours, GradCache and our objective.

Precision, clipping, schedules and reports are the Trainer's; the step and the checkpoints are ours.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed

from embedsmith.data.files import remove_below
from embedsmith.errors import InputError, ModelError, SettingsError
from embedsmith.models.adapters import add_adapters, halved, inputs_as_they_are, merge_adapters, remove_adapters
from embedsmith.models.attention import training_attention
from embedsmith.models.compiled import inputs_with_gradients
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.packed import attention_within_texts
from embedsmith.models.precision import resolve_dtype
from embedsmith.models.trained_embeddings import gradients_of_rows
from embedsmith.models.trained_products import trained_products
from embedsmith.training import checkpoints
from embedsmith.training.batches import Batch, BatchPlan, Source
from embedsmith.training.chunks import (
    Chunk,
    are_rounded,
    chunk_tokens,
    chunks_of,
    copied_bytes,
    encode,
    shared_copies,
)
from embedsmith.training.draws import own_draws
from embedsmith.training.grad_cache import ActivationMemory, GradCache
from embedsmith.training.held_out import Best, held_out_batches
from embedsmith.training.memory import (
    BYTES_A_TRAINED_WEIGHT,
    activation_bytes,
    enough_memory,
    missing_bytes,
    tightness,
)
from embedsmith.training.objective import accuracy, check_objective, objective, targets_of
from embedsmith.training.plan import plan_of
from embedsmith.training.processes import Processes
from embedsmith.training.report import StepReport
from embedsmith.training.settings import StageSettings
from embedsmith.training.trackers import tensorboard_in, trackers
from embedsmith.training.weights import TrainedWeights, in_pooling, trained, trained_weights

_SAMPLED_BATCHES = 8
"""Batches whose tokens are counted for an estimate."""

OVERRIDDEN = (
    *("_load_from_checkpoint", "_load_optimizer_and_scheduler", "_load_rng_state", "_save_checkpoint"),
    *("create_optimizer", "get_batch_samples", "get_train_dataloader", "training_step"),
)
"""Methods of the Trainer that ours takes the place of. (Of `_clip_grad_norm` there is none before transformers 5.3:
the Trainer then clips to the same length.)"""


def check_trainer(upstream: type) -> None:
    """Refuse a Trainer that does not have a method under the name that ours has: nobody would call ours.

    Raises:
        ModelError: names the method.
    """
    for name in OVERRIDDEN:
        if not hasattr(upstream, name):
            raise ModelError(
                f"transformers {transformers.__version__} has no Trainer.{name}, which training relies on",
                hint="install a version of transformers that embedsmith was tested with: see constraints.txt",
            )


check_trainer(Trainer)


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

    All that the stage puts on the model is off when it ends, by an error too; but for adapters that it is to keep.
    Those that an earlier stage has kept are merged before it begins.

    Args:
        model: changed in place.
        sources: the stage's data.
        settings: the stage.
        folder: where checkpoints go; the caller removes it when the run is finished.
        seed: of the batches and of dropout.
        optimizer_from: AdamW's means to begin with, as a stage before has left them.
        optimizer_to: where they go when the stage ends.
        log_folder: where TensorBoard's files go.
        on_weights: told which weights the stage trains.
        on_start: called before the first step with the steps done and the steps in all, and a warning where memory may
            not suffice.
        on_step: called after each step; all three in the process that leads.

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
    with _as_trained(model, settings, bfloat16=bool(arguments.bf16)):
        check_objective(sources, settings, model.get_embedding_dimension() or 0)
        if on_weights and processes.leads:
            on_weights(trained_weights(model))
        reports = _run(
            _ContrastiveTrainer(
                model,
                plan,
                settings,
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
    # Trainer and callbacks know each other, so the optimizer would stay until Python happens to look for cycles.
    gc.collect()
    if settings.lora_rank and settings.lora_merge:
        merge_adapters(model, texts)
    return reports


def _run(
    trainer: _ContrastiveTrainer, *, optimizer_to: Path | None, on_start: Callable[[int, int, str], None] | None
) -> list[StepReport]:
    """Run a Trainer from the last whole checkpoint to the stage's end, and return the reports of all steps."""
    whole = checkpoints.checkpoints(Path(trainer.args.output_dir))
    trainer.done = checkpoints.step_of(whole[-1]) if whole else 0
    try:
        with enough_memory(trainer.place, trainer.args.device), _gradients_forgotten(trainer.embedder):
            if on_start and trainer.processes.leads:
                on_start(trainer.done, trainer.args.max_steps, trainer.tightness())
            trainer.train(resume_from_checkpoint=str(whole[-1]) if whole else None)
            trainer.finish(optimizer_to)
    finally:
        trainer.unwrap()
    return trainer.reports


@dataclass(frozen=True)
class Cost:
    """What a batch of a stage takes on one device."""

    tokens_a_batch: int
    seconds_a_batch: float
    trained: TrainedWeights
    bytes: float
    """Weights, gradients, optimizer and activations."""


@own_draws()
def cost_of(model: EmbeddingModel, plan: BatchPlan, settings: StageSettings) -> Cost:
    """Return what a batch takes, by the tokens of the first ones and by one chunk that is run forward and back."""
    bfloat16 = resolve_dtype(settings.dtype, model.device.type) is torch.bfloat16
    with _as_trained(model, settings, bfloat16=bfloat16):
        cost = _cost_as_it_is(model, plan, settings)
    if settings.lora_rank:
        remove_adapters(model)
    return cost


def _cost_as_it_is(model: EmbeddingModel, plan: BatchPlan, settings: StageSettings) -> Cost:
    """Return what a batch takes of a model that has all that the stage puts on it."""
    budget = chunk_tokens(settings, model)
    device, bfloat16 = model.device, resolve_dtype(settings.dtype, model.device.type) is torch.bfloat16
    packed = _reads_packed(model, bfloat16=bfloat16)
    rounded = are_rounded(device, bfloat16=bfloat16)
    sampled = (plan[number] for number in range(min(len(plan), _SAMPLED_BATCHES)))
    batches = [chunks_of(model, batch, budget, packed=packed, rounded=rounded) for batch in sampled]
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    to_train = trained_weights(model)
    standing = BYTES_A_TRAINED_WEIGHT * to_train.count
    memory = _activation_memory(model, settings, missing=standing, bfloat16=bfloat16)
    chunk = max(batches[0], key=lambda chunk: chunk.tokens)
    model.train()
    for _ in range(2):  # the first time is slow
        started = time.monotonic()
        with _kernels(model, packed=chunk.is_packed, bfloat16=bfloat16), gradients_of_rows(model, device):
            with memory.measured(chunk, {p.untyped_storage().data_ptr() for p in model.parameters()}):
                vectors = encode(model, chunk, device=device, bfloat16=bfloat16)
            vectors.float().square().sum().backward()
        model.zero_grad()
        seconds = time.monotonic() - started
    padded = [sum(chunk.tokens for chunk in chunks) for chunks in batches]
    kept = memory.kept([chunk.tokens for chunk in batches[0]])
    twice = sum(c.tokens for c, is_kept in zip(batches[0], kept, strict=True) if not is_kept) / padded[0]
    return Cost(
        tokens_a_batch=round(
            sum(int(c.features["attention_mask"].sum()) for chunks in batches for c in chunks) / len(batches)
        ),
        # A forward pass is a third of a step.
        seconds_a_batch=seconds / chunk.tokens * (sum(padded) / len(padded)) * (1 + twice / 3),
        trained=to_train,
        bytes=weights + standing + max(memory.most([chunk.tokens for chunk in chunks]) for chunks in batches),
    )


def _activation_memory(
    model: EmbeddingModel, settings: StageSettings, *, missing: float, bfloat16: bool
) -> ActivationMemory:
    """Return how many activations are kept beside so many bytes that are still to come."""
    # What is checkpointed keeps no copies.
    shared = 0.0 if settings.gradient_checkpointing else copied_bytes(model, model.device, bfloat16=bfloat16)
    return ActivationMemory(
        activation_bytes(settings, model.device, missing=missing + shared),
        unseen_bytes_a_token=_checkpointed_bytes(model, settings, bfloat16=bfloat16),
        shared_bytes=shared,
    )


def _checkpointed_bytes(model: EmbeddingModel, settings: StageSettings, *, bfloat16: bool) -> float:
    """Return what gradient checkpointing keeps of a token: the input of every layer."""
    if not settings.gradient_checkpointing:
        return 0.0
    config = model.backbone.config
    return float(config.num_hidden_layers * config.hidden_size * (2 if bfloat16 else 4))


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
        bf16=resolve_dtype(settings.dtype, device) is torch.bfloat16,
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


class _ContrastiveTrainer(Trainer):
    """A Trainer whose batches are made by a plan, and whose step is GradCache's."""

    def __init__(
        self,
        model: EmbeddingModel,
        plan: BatchPlan,
        settings: StageSettings,
        arguments: TrainingArguments,
        *,
        measured_on: Sequence[Batch],
        processes: Processes,
        earlier_optimizer: Path | None,
        log_folder: Path | None,
        on_step: Callable[[StepReport], None] | None,
    ) -> None:
        self.plan = plan
        self.stage = settings
        self.embedder = model
        self.measured_on = measured_on
        self.processes = processes
        self.earlier_optimizer = earlier_optimizer
        self.on_step = on_step
        self.reports: list[StepReport] = []
        self.best = Best()
        self.seen: list[dict[str, int]] = []
        self.unseen: list[tuple[Batch, Tensor]] = []
        """Loss and accuracy of a step's batches, which a GPU may still be computing."""
        self.trained: dict[str, torch.nn.Parameter] | None = None
        self.cache: GradCache | None = None
        self.tokeniser = ThreadPoolExecutor(max_workers=1)
        self.coming: Future[Any] | None = None
        """The next step's batches, on a GPU."""
        self.to_draw: Callable[[], Any] | None = None
        self.done = 0
        """Steps before an interruption."""
        with tensorboard_in(log_folder):
            super().__init__(model=model, args=arguments, train_dataset=plan, data_collator=self._prepared)
        packed = _reads_packed(model, bfloat16=bool(self.args.bf16))
        # Chunks are shared out by their number, so they are the same in every process, whatever GPU it has.
        rounded = are_rounded(model.device, bfloat16=bool(self.args.bf16))
        self.budget, packs, rounds = processes.least(chunk_tokens(settings, model), int(packed), int(rounded))
        self.packed, self.rounded = bool(packs), bool(rounds)
        # The loss is a mean already; the Trainer must not divide it by a number of tokens.
        self.model_accepts_loss_kwargs = False
        for callback in list(self.callback_handler.callbacks):
            if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
                self.remove_callback(callback)
        self.add_callback(_Watch(self))

    def get_train_dataloader(self) -> Any:
        """Return the plan's batches in order, the same in every process."""
        return torch.utils.data.DataLoader(self.plan, batch_size=1, shuffle=False, collate_fn=self.data_collator)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *arguments: Any, **others: Any) -> Any:
        """Return the batches of a step; while a GPU computes, those of the next are tokenised.

        Python does one thing at a time, so that begins when the GPU has been told the first batch; at once only where
        it took longer than a step.
        """
        draw = partial(super().get_batch_samples, epoch_iterator, *arguments, **others)
        if not self.makes_ahead:
            return draw()
        coming, self.coming = self.coming, None
        in_time = coming is not None and coming.done()
        found = coming.result() if coming else draw()
        self.to_draw = draw
        if not in_time:
            self.make_ahead()
        return found

    def make_ahead(self) -> None:
        """Begin with the next step's batches, unless that was begun already."""
        if self.to_draw:
            draw, self.to_draw = self.to_draw, None
            self.coming = self.tokeniser.submit(draw)

    @property
    def makes_ahead(self) -> bool:
        """Whether batches are made beside the step; on a CPU the two would only take turns."""
        return bool(self.args.device.type != "cpu")

    def create_optimizer(self, model: Any = None) -> Any:
        """Return AdamW with a learning rate of its own for a trained pooling."""
        groups: dict[tuple[bool, bool], list[Tensor]] = {}
        for name, parameter in trained(self.model).items():
            # Norms, biases and other vectors are not decayed.
            groups.setdefault((in_pooling(name), parameter.ndim > 1), []).append(parameter)
        rate = self.stage.pooling_learning_rate or self.stage.learning_rate
        self.optimizer = torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "lr": rate if of_pooling else self.stage.learning_rate,
                    "weight_decay": self.stage.weight_decay if decayed else 0.0,
                }
                for (of_pooling, decayed), parameters in groups.items()
            ],
            lr=self.stage.learning_rate,
            # One pass over weights and means in place of a dozen. (False would forbid torch the next best, too.)
            fused=self.args.device.type in ("cpu", "cuda") or None,
        )
        if self.earlier_optimizer:
            checkpoints.load_optimizer(self.earlier_optimizer, self.model, self.optimizer)
        return self.optimizer

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Run one batch forward and back, and note the gradient's length before it is clipped.

        Nothing that a GPU has computed is looked at before a step's last batch has run back: who looks waits, and does
        not tell it what comes next.
        """
        batch: Batch = inputs["batch"]
        chunks: list[Chunk] = inputs["chunks"]
        # Of several processes the model that is handed in is a wrapper, which does not see that `embed` ended training.
        if self.cache is None or not (model.training and self.embedder.training):
            model.train()  # looks at every module
        if self.cache is None:
            self.cache = self._grad_cache()
        targets = targets_of(batch, self.stage, self.args.device)

        def loss_of(vectors: Tensor) -> Tensor:
            loss = objective(vectors, targets, self.stage)
            self.unseen.append((batch, torch.stack([loss.detach(), accuracy(vectors, targets)])))
            self.make_ahead()
            return loss / self.current_gradient_accumulation_steps

        with self._kernels(chunks), gradients_of_rows(self.embedder, self.args.device):
            loss = self.cache.run(chunks, loss_of, batch=batch.number, device=self.args.device)
        self.seen.append(
            {
                "queries": len(batch.queries),
                "tokens": sum(int(chunk.features["attention_mask"].sum()) for chunk in chunks),
                "guided": int(batch.guided.sum()),
                "contrasted": int((batch.allowed & ~batch.own).sum()),
            }
        )
        if self.accelerator.sync_gradients:
            weights = self._trained()
            self.processes.sum_gradients(weights.values())
            gradients = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
            self.length = _length(list(gradients.values()), self.args.device)
            of_pooling = [gradient for name, gradient in gradients.items() if in_pooling(name)]
            self._look(torch.stack([self.length, _length(of_pooling, self.args.device)]), batch)
        return loss

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        """Return the weights that are trained; looked for once."""
        if self.trained is None:
            self.trained = trained(self.model)
        return self.trained

    def _look(self, lengths: Tensor, batch: Batch) -> None:
        """Fetch what a step's batches showed, and refuse what is no number."""
        unseen, self.unseen = self.unseen, []
        *shown, of_all, of_pooling = torch.cat([*(row for _, row in unseen), lengths]).tolist()
        for (seen, _), loss in zip(unseen, shown[::2], strict=True):
            self._check("loss", loss, seen)
        self.lengths = {"gradient_norm": of_all, "pooling_gradient_norm": of_pooling}
        self._check("gradient", of_all, batch)
        self.loss, self.accuracy = (sum(shown[n::2]) / len(unseen) for n in (0, 1))

    def _clip_grad_norm(self, model: Any) -> Any:
        """Clip gradients by the length that is known already; the Trainer would measure it once more."""
        clip_grads_with_norm_(self._trained().values(), self.args.max_grad_norm, self.length)
        return self.length

    def finish(self, optimizer_to: Path | None) -> None:
        """Leave the model as the stage's: the best one if some were measured."""
        if self.best.path:
            checkpoints.load_weights(self.best.path, self.embedder)
        if optimizer_to and self.processes.leads:
            checkpoints.save_optimizer(optimizer_to, self.embedder, self.optimizer.optimizer)

    def unwrap(self) -> None:
        """Take the Trainer's wrapping and the last gradients off the model."""
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        # What is unwrapped hides the method of its class behind a copy, and has a mark.
        for name in ("forward", "_is_accelerate_prepared"):
            self.embedder.__dict__.pop(name, None)
        self.embedder.zero_grad()

    def measure(self) -> float:
        """Return the mean loss on what was held out, as the model is outside training."""
        assert self.cache
        if self.coming:
            wait([self.coming])  # one tokenizer, one thread at a time
        self.embedder.eval()
        total, queries = 0.0, 0
        with torch.no_grad():
            for batch in self.measured_on:
                chunks = self._chunks(batch)
                with self._kernels(chunks):
                    vectors = self.cache.vectors(chunks, device=self.args.device)
                loss = objective(vectors, targets_of(batch, self.stage, self.args.device), self.stage)
                self._check("loss on what is held out", float(loss), batch)
                total += float(loss) * len(batch.queries)
                queries += len(batch.queries)
        self.embedder.train()
        return total / queries

    def keep_if_best(self, loss: float) -> None:
        """Keep the weights if the loss on what was held out is the lowest so far."""
        step = self.state.global_step
        path = Path(self.args.output_dir) / f"best-{step}.safetensors"
        before = self.best.path
        self.best = self.best.after(loss, path)
        if self.processes.leads and self.best.path == path:
            checkpoints.save_weights(path, self.embedder)
            if before and self._is_unneeded(before):
                remove_below(path.parent, before)
        self.processes.wait()

    def _is_unneeded(self, path: Path) -> bool:
        """Return whether no checkpoint would go on with these weights as its best."""
        whole = checkpoints.checkpoints(Path(self.args.output_dir))
        return all(checkpoints.read_state(checkpoint)["best"]["path"] != path.name for checkpoint in whole)

    def _grad_cache(self) -> GradCache:
        """Return what runs the batches; made once the model is wrapped."""
        return GradCache(
            self.model,
            # Not what is wrapped: gradients are summed by us, once a step. DistributedDataParallel would do it after
            # every chunk.
            partial(encode, self.embedder, device=self.args.device, bfloat16=bool(self.args.bf16)),
            seed=self.args.seed,
            memory=self._memory(missing_bytes(self.embedder, self.optimizer)),
            processes=self.processes,
            dimensions=self.embedder.get_embedding_dimension() or 0,
        )

    def _memory(self, missing: float) -> ActivationMemory:
        """Return how many activations are kept beside gradients and means that are still to come."""
        return _activation_memory(self.embedder, self.stage, missing=missing, bfloat16=bool(self.args.bf16))

    def tightness(self) -> str:
        """Return a warning where memory may not suffice, by one chunk of the first batch; nothing where it will."""
        missing = BYTES_A_TRAINED_WEIGHT * trained_weights(self.embedder).count
        memory = self._memory(missing)
        chunks = self._chunks(self.plan[0])
        self.embedder.train()
        weights = {p.untyped_storage().data_ptr() for p in self.embedder.parameters()}
        with self._kernels(chunks), memory.measured(chunks[0], weights):
            encode(self.embedder, chunks[0], device=self.args.device, bfloat16=bool(self.args.bf16))
        wanted = missing + memory.most([chunk.tokens for chunk in chunks])
        return tightness(self.stage, self.args.device, wanted=wanted)

    def place(self) -> str:
        """Return what it is doing, for messages."""
        return f"stage {self.stage.name}, step {self.state.global_step + 1}, chunks of {self.budget} tokens"

    def _prepared(self, batches: list[Batch]) -> dict[str, Any]:
        """Return a batch, tokenised: the plan makes whole batches, the loader one of them at a time."""
        return {"batch": batches[0], "chunks": self._chunks(batches[0])}

    def _kernels(self, chunks: Sequence[Chunk]) -> AbstractContextManager[None]:
        return _kernels(self.embedder, packed=chunks[0].is_packed, bfloat16=bool(self.args.bf16))

    def _chunks(self, batch: Batch) -> list[Chunk]:
        chunks = chunks_of(self.embedder, batch, self.budget, packed=self.packed, rounded=self.rounded)
        return [chunk.pinned() for chunk in chunks] if self.args.device.type == "cuda" else chunks

    def _check(self, what: str, value: float, batch: Batch) -> None:
        """Refuse a loss or a gradient that is no number: no weight shall be moved by it, and none be kept."""
        if math.isfinite(value):
            return
        shown = ", ".join(batch.query_ids[:5]) + (" …" if len(batch.query_ids) > 5 else "")
        raise InputError(
            f"stage {self.stage.name}, step {self.state.global_step + 1}: the {what} is {value} (queries {shown})",
            hint="lower learning_rate, or train in float32; the last checkpoint is kept",
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint, in the process that leads."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        state = {
            "reports": [vars(report) for report in self.reports],
            "best": self.best.as_json(),
            "schedule": self._schedule.state_dict(),
        }
        if self.processes.leads:
            checkpoints.write_checkpoint(
                folder, self.embedder, self.optimizer.optimizer, trainer_state=self.state, state=state
            )
            # Two: the older one outlives the moment in which the newer one is not whole yet.
            checkpoints.remove_old(folder.parent, keep=2)
        self.processes.wait()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the weights, every one of them, and the reports of the steps before."""
        folder = Path(resume_from_checkpoint)
        checkpoints.load_checkpoint_weights(folder, self.embedder)
        state = checkpoints.read_state(folder)
        self.reports = [StepReport(**row) for row in state["reports"]]
        self.best = Best.from_json(state["best"], folder.parent)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Put the states of the optimizer and of the schedule back."""
        if checkpoint is None:
            return
        checkpoints.load_checkpoint_optimizer(Path(checkpoint), self.embedder, self.optimizer.optimizer)
        schedule = checkpoints.read_state(Path(checkpoint))["schedule"]
        self._schedule.load_state_dict(schedule)
        for group, rate in zip(self.optimizer.param_groups, schedule["_last_lr"], strict=True):
            group["lr"] = rate

    @property
    def _schedule(self) -> Any:
        """The learning rate's schedule, without the wrapping that a prepared one has."""
        return getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Do nothing: what is drawn at random is a function of seed, batch and chunk."""


class _Watch(TrainerCallback):
    """Turns the Trainer's events into step reports and measurements."""

    def __init__(self, trainer: _ContrastiveTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        counts = state.global_step, len(trainer.reports), trainer._schedule.last_epoch
        assert counts == (trainer.done,) * 3, f"steps of Trainer, reports and schedule: {counts}, wanted {trainer.done}"

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started = time.monotonic()
        self.trainer.seen.clear()
        self.learning_rate = self.trainer.optimizer.param_groups[0]["lr"]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        held_out_loss = None
        seconds = time.monotonic() - self.started
        if trainer.measured_on and (state.global_step % trainer.stage.eval_steps == 0 or _is_last(state)):
            held_out_loss = trainer.measure()
            trainer.keep_if_best(held_out_loss)
        report = StepReport(
            stage=trainer.stage.name,
            step=state.global_step,
            steps=state.max_steps,
            loss=trainer.loss,
            accuracy=trainer.accuracy,
            learning_rate=self.learning_rate,
            queries=sum(row["queries"] for row in trainer.seen),
            tokens=sum(row["tokens"] for row in trainer.seen),
            seconds=seconds,
            held_out_loss=held_out_loss,
            guide_masked=_share(trainer.seen, "guided", "contrasted"),
            **trainer.lengths,
        )
        trainer.reports.append(report)
        trainer.log({key: value for key, value in vars(report).items() if isinstance(value, float)})
        # The reports say the same: the Trainer's own list of them would only lengthen every checkpoint.
        state.log_history.clear()
        if trainer.stage.patience and trainer.best.since >= trainer.stage.patience:
            control.should_training_stop = True
        if trainer.on_step and trainer.processes.leads:
            trainer.on_step(report)


@contextmanager
def _as_trained(model: EmbeddingModel, settings: StageSettings, *, bfloat16: bool) -> Iterator[None]:
    """Put all on a model that a stage says, and take it off again.

    Adapters stay on the model that is left as it should be, to be merged or kept; an error takes them off, too.
    """
    with _lengths(model, settings), _dropout(model, settings.dropout), ExitStack() as stage:
        stage.callback(model.eval)
        if settings.lora_rank:  # after dropout: adapters have their own
            add_adapters(model, **settings.adapters)
            stage.push(partial(_without_adapters_after_an_error, model))
            if not settings.gradient_checkpointing:  # which does the same
                stage.enter_context(inputs_with_gradients(model))
        if not trained(model):
            raise SettingsError(
                f"stage {settings.name}: nothing to train: every weight of the model is frozen",
                hint="set requires_grad of those that shall be trained, or lora_rank",
            )
        stage.enter_context(_checkpointing(model, settings))
        if settings.lora_rank and bfloat16:
            stage.enter_context(inputs_as_they_are(model))
            stage.enter_context(halved(model))
        yield


def _without_adapters_after_an_error(model: EmbeddingModel, kind: Any, error: Any, traceback: Any) -> None:
    """Take the adapters of a stage that did not end off its model."""
    if error is not None:
        remove_adapters(model)


@contextmanager
def _gradients_forgotten(model: EmbeddingModel) -> Iterator[None]:
    """Let `zero_grad` know which weights are trained: else it looks through every module after every step."""
    weights = list(trained(model).values())

    def zero_grad(set_to_none: bool = True) -> None:
        for weight in weights:
            weight.grad = None

    model.__dict__["zero_grad"] = zero_grad
    try:
        yield
    finally:
        del model.__dict__["zero_grad"]


def _share(rows: Sequence[dict[str, int]], name: str, others: str) -> float:
    """Return the part that one count has of itself and another.

    >>> _share([{"guided": 1, "contrasted": 5}, {"guided": 0, "contrasted": 4}], "guided", "contrasted")
    0.1
    """
    count = sum(row[name] for row in rows)
    return count / max(1, count + sum(row[others] for row in rows))


def _is_last(state: Any) -> bool:
    return bool(state.global_step >= state.max_steps)


@contextmanager
def _lengths(model: EmbeddingModel, settings: StageSettings) -> Iterator[None]:
    """Cut texts as the stage says, and as before when it ends."""
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
    """Set every dropout of a model, and put its own back: encoders have modules for it, decoders an attribute."""
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


def _reads_packed(model: EmbeddingModel, *, bfloat16: bool) -> bool:
    """Return whether a model is trained on packed texts."""
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
        return bfloat16 and model.packs(torch.bfloat16)


@contextmanager
def _kernels(model: EmbeddingModel, *, packed: bool, bfloat16: bool) -> Iterator[None]:
    """Compute products and attention as they train fastest, forward and back; within texts that lie in a row."""
    with (
        shared_copies(model.device) if bfloat16 else nullcontext(),
        training_attention(model.device.type),
        attention_within_texts(model.backbone) if packed else nullcontext(),
        nullcontext() if bfloat16 else trained_products(model, model.device),
    ):
        yield


@contextmanager
def _checkpointing(model: EmbeddingModel, settings: StageSettings) -> Iterator[None]:
    """Compute activations twice where a stage says so, and no longer than it lasts."""
    if not settings.gradient_checkpointing:
        yield
        return
    # The model itself, once: through peft's wrapping each of its layers would hook the embeddings once more.
    backbone = next(module for module in model.backbone.modules() if isinstance(module, PreTrainedModel))
    backbone.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        yield
    finally:
        backbone.gradient_checkpointing_disable()
        backbone.disable_input_require_grads()


def _length(gradients: list[Tensor], device: torch.device) -> Tensor:
    """Return the length of gradients, on a device."""
    return get_total_norm(gradients).to(device)

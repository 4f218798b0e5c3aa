"""The training loop: `transformers.Trainer`, with batches of ours and a contrastive loss.

Checkpoints, resuming, precision, clipping and schedules are the Trainer's. Ours is the step: texts are sorted by
length and run in chunks of few padding tokens, all of them in one graph, so the gradient is the whole batch's.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from embedsmith.data.files import write_json
from embedsmith.errors import InputError
from embedsmith.models.embedder import EmbeddingModel, resolve_dtype
from embedsmith.models.lora import add_adapters, merge_adapters
from embedsmith.training.batches import Batch, BatchPlan, Source
from embedsmith.training.losses import in_batch_accuracy, info_nce
from embedsmith.training.settings import StageSettings

_COMPLETE = "complete.json"


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step showed."""

    stage: str
    step: int
    steps: int
    loss: float
    accuracy: float
    """Share of the batch's queries whose positive beat every negative."""
    gradient_norm: float
    pooling_gradient_norm: float
    """Length of the trained pooling's gradient before clipping; 0 where the pooling has no weights."""
    seconds: float


def train_stage(
    model: EmbeddingModel,
    sources: Sequence[Source],
    settings: StageSettings,
    *,
    folder: Path,
    seed: int,
    on_step: Callable[[StepReport], None] | None = None,
) -> list[StepReport]:
    """Train a model in place for one stage, from the folder's last whole checkpoint if there is one.

    Args:
        model: changed in place.
        sources: the stage's data.
        settings: the stage.
        folder: where checkpoints go; the caller removes it when the run is finished.
        seed: of the batches and of dropout.
        on_step: called after each step.

    Returns:
        The reports of all steps, those before an interruption included.

    Raises:
        InputError: a step's loss is not a number; names the stage and the step.
    """
    count = sum(len(source.examples) for source in sources)
    batch_size = min(settings.batch_size, count)
    steps = settings.steps or math.ceil(count / batch_size)
    plan = BatchPlan(
        sources,
        steps=steps,
        batch_size=batch_size,
        hard_negatives=settings.hard_negatives,
        in_batch=settings.in_batch,
        seed=seed,
    )
    device = model.device.type
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=settings.learning_rate,
        warmup_steps=math.ceil(settings.warmup * steps),
        lr_scheduler_type=settings.schedule,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=resolve_dtype(settings.dtype, device) is torch.bfloat16,
        use_cpu=device == "cpu",
        seed=seed,
        save_steps=settings.save_steps,
        # Two: the older one must outlive the moment in which the newer one is not whole yet.
        save_total_limit=2,
        logging_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        label_names=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    set_seed(seed)
    if settings.dropout is not None:
        _set_dropout(model, settings.dropout)
    if settings.lora_rank:
        add_adapters(
            model,
            rank=settings.lora_rank,
            alpha=settings.lora_alpha,
            dropout=settings.lora_dropout,
            targets=settings.lora_targets,
        )
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    trainer = _ContrastiveTrainer(model, plan, settings, arguments, on_step)
    trainer.train(resume_from_checkpoint=_last_whole_checkpoint(folder))
    if settings.lora_rank and settings.lora_merge:
        merge_adapters(model, [example.query for example in sources[0].examples[:8]])
    model.eval()
    return trainer.reports


class _ContrastiveTrainer(Trainer):
    """A Trainer whose batches are made by a plan and whose loss is InfoNCE."""

    def __init__(
        self,
        model: EmbeddingModel,
        plan: BatchPlan,
        settings: StageSettings,
        arguments: TrainingArguments,
        on_step: Callable[[StepReport], None] | None,
    ) -> None:
        self.plan = plan
        self.stage = settings
        self.on_step = on_step
        self.reports: list[StepReport] = []
        self.last: dict[str, float] = {}
        super().__init__(model=model, args=arguments, train_dataset=plan, data_collator=_as_inputs)
        # The loss is a mean already; the Trainer must not divide it by a number of tokens.
        self.model_accepts_loss_kwargs = False
        for callback in list(self.callback_handler.callbacks):
            if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
                self.remove_callback(callback)
        self.add_callback(_Watch(self))

    def get_train_dataloader(self) -> Any:
        """Return the plan's batches in order, one for each step."""
        loader = torch.utils.data.DataLoader(self.plan, batch_size=1, shuffle=False, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)

    def create_optimizer(self, model: Any = None) -> Any:
        """Return AdamW with a learning rate of its own for a trained pooling."""
        groups: dict[tuple[bool, bool], list[Tensor]] = {}
        for name, parameter in self.model.named_parameters():
            in_pooling = not name.startswith("0.")
            if not parameter.requires_grad:
                continue
            # Norms, biases and other vectors are not decayed.
            groups.setdefault((in_pooling, parameter.ndim > 1), []).append(parameter)
        rate = self.stage.pooling_learning_rate or self.stage.learning_rate
        self.optimizer = torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "lr": rate if in_pooling else self.stage.learning_rate,
                    "weight_decay": self.stage.weight_decay if decayed else 0.0,
                }
                for (in_pooling, decayed), parameters in groups.items()
            ],
            lr=self.stage.learning_rate,
        )
        return self.optimizer

    def compute_loss(self, model: Any, inputs: dict[str, Batch], **kwargs: Any) -> Tensor:
        """Return InfoNCE of one batch."""
        batch = inputs["batch"]
        embedder = self.accelerator.unwrap_model(model)
        queries = self._embed(model, embedder, batch.queries, "query", batch.prompt_chars)
        passages = self._embed(model, embedder, batch.passages, "document", None)
        contrast = {
            "positive": torch.from_numpy(batch.positive).to(queries.device),
            "allowed": torch.from_numpy(batch.allowed).to(queries.device),
        }
        loss = info_nce(queries, passages, temperature=self.stage.temperature, **contrast)
        if not torch.isfinite(loss):
            raise InputError(
                f"stage {self.stage.name}, step {self.state.global_step + 1}: the loss is {loss.item()}",
                hint="lower learning_rate, or train in float32; the last checkpoint is kept",
            )
        self.last = {
            "loss": loss.item(),
            "accuracy": in_batch_accuracy(queries.detach(), passages.detach(), **contrast),
        }
        return loss

    def training_step(self, model: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Run one step forward and back, and note the gradient's length before it is clipped."""
        with _fast_attention(self.args.device.type):
            loss = super().training_step(model, *args, **kwargs)
        gradients = [(name, p.grad) for name, p in self.model.named_parameters() if p.grad is not None]
        self.last["gradient_norm"] = _length([gradient for _, gradient in gradients])
        self.last["pooling_gradient_norm"] = _length([g for name, g in gradients if not name.startswith("0.")])
        return loss

    def _embed(
        self, model: Any, embedder: EmbeddingModel, texts: list[str], task: str, prompt_chars: list[int] | None
    ) -> Tensor:
        """Return vectors of length 1 [len(texts), D], in the order of the texts."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors = []
        for rows in _chunks(order, texts, self.stage.chunk_tokens, embedder, task):
            chars = {} if prompt_chars is None else {"prompt_chars": [prompt_chars[i] for i in rows]}
            if not any(chars.get("prompt_chars", [])):
                chars = {}
            features = embedder.preprocess([texts[i] for i in rows], task=task, **chars)
            features = {k: v.to(embedder.device) if isinstance(v, Tensor) else v for k, v in features.items()}
            vectors.append(model(features)["sentence_embedding"])
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return torch.nn.functional.normalize(torch.cat(vectors)[back.to(vectors[0].device)].float(), dim=-1)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        # Written last: a checkpoint without it was cut short and is not resumed from.
        write_json(folder / _COMPLETE, {"reports": [vars(report) for report in self.reports]})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the weights, every one of them, and the reports of the steps before."""
        from safetensors.torch import load_file

        from embedsmith.data.files import read_json

        self.model.load_state_dict(load_file(f"{resume_from_checkpoint}/model.safetensors"), strict=True)
        self.reports = [StepReport(**row) for row in read_json(Path(resume_from_checkpoint) / _COMPLETE)["reports"]]


class _Watch(TrainerCallback):
    """Turns the Trainer's events into step reports."""

    def __init__(self, trainer: _ContrastiveTrainer) -> None:
        self.trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        report = StepReport(
            stage=self.trainer.stage.name,
            step=state.global_step,
            steps=state.max_steps,
            seconds=time.monotonic() - self.started,
            **self.trainer.last,
        )
        self.trainer.reports.append(report)
        if self.trainer.on_step:
            self.trainer.on_step(report)


def _set_dropout(model: EmbeddingModel, share: float) -> None:
    """Set every dropout of a model: encoders have modules for it, decoders an attribute of each attention layer."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = share


def _as_inputs(batches: list[Batch]) -> dict[str, Batch]:
    """Return a step's inputs: the plan makes whole batches, the loader one of them at a time."""
    return {"batch": batches[0]}


def _fast_attention(device: str) -> AbstractContextManager[Any]:
    """Return the context in which attention trains fastest on a device."""
    # On a CPU, flash attention's backward pass was a third of a bfloat16 step; plain products took a quarter off it.
    return sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()


def _length(gradients: list[Tensor]) -> float:
    return float(torch.stack([g.norm() for g in gradients]).norm()) if gradients else 0.0


def _chunks(
    order: list[int], texts: Sequence[str], budget: int, embedder: EmbeddingModel, task: str
) -> list[list[int]]:
    """Return rows, shortest text first, in chunks whose padded size stays under a budget of tokens."""
    limit = (embedder[0].query_length if task == "query" else embedder[0].document_length) or embedder.max_seq_length
    chunks: list[list[int]] = [[]]
    for row in order:
        # A token has about 3 characters in code and 4 in prose; the longest text of a chunk is its last.
        width = min(limit, len(texts[row]) // 3 + 2)
        if chunks[-1] and width * (len(chunks[-1]) + 1) > budget:
            chunks.append([])
        chunks[-1].append(row)
    return chunks


def _last_whole_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint that was written to its end, and remove those that were not."""
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rsplit("-", 1)[1]))
    for checkpoint in checkpoints:
        if not (checkpoint / _COMPLETE).is_file():
            shutil.rmtree(checkpoint)
    whole = [checkpoint for checkpoint in checkpoints if checkpoint.exists()]
    return str(whole[-1]) if whole else None

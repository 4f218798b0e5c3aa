"""Settings of training; importing them loads no model library."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from embedsmith.settings import FOLDER_NAME, Settings


class WorkSettings(Settings):
    """Which data a stage trains on, how long, and in which batches."""

    name: str = Field("train", pattern=FOLDER_NAME)
    """Name of the stage, in the run folder and in reports."""
    data: list[str] = []
    """Names of the data sets that it trains on; all of the recipe's when empty."""
    remine: bool = False
    """Begin by mining again, with the model as it stands as the only teacher; recipes only."""
    steps: int | None = Field(None, gt=0)
    """Optimizer steps; by default as many as `epochs` need."""
    epochs: float | None = Field(None, gt=0)
    """Passes over the data; 1 by default. Give this or `steps`."""
    least_steps: int | None = Field(None, gt=0)
    """Optimizer steps where `epochs` need fewer."""
    batch_size: int = Field(32, gt=1)
    """Queries that are contrasted with each other, over all devices."""
    accumulation: int = Field(1, gt=0)
    """Batches to an optimizer step. Their gradients are averaged; a query sees its own batch only."""
    batches: Literal["blended", "homogeneous"] = "blended"
    """`blended`: every batch mixes all data sets (NV-Embed, section 2.2); `homogeneous`: it is of one of them."""
    query_max_tokens: int | None = Field(None, gt=0)
    """Tokens of a query while the stage trains; the student's by default, which the saved model always has."""
    passage_max_tokens: int | None = Field(None, gt=0)
    """Tokens of a passage while the stage trains."""


class LossSettings(Settings):
    """What a stage minimises."""

    hard_negatives: int = Field(1, ge=0)
    """Mined negatives for each query, at most; each one is a passage more to encode."""
    in_batch: bool = True
    """Whether the other queries' passages are negatives too (NV-Embed: stage one yes, stage two no)."""
    guide: bool = True
    """Mask another query's passage where the teacher's stored vectors put it above the positive (GISTEmbed). Without
    stored vectors nothing is masked."""
    guide_margin: float = Field(0.0, ge=0)
    """Distance of that ceiling below the positive's score."""
    guide_relative: bool = False
    """The distance is a share of the positive's score: 0.05 is NV-Retriever's 95%."""
    temperature: float = Field(0.05, gt=0)
    """Temperature of the loss; neither paper states one."""
    contrastive: float = Field(1.0, ge=0)
    """Weight of InfoNCE; 0 to learn from the teacher alone."""
    matryoshka: list[Annotated[int, Field(gt=0)]] = []
    """Widths to which the vectors can be truncated; InfoNCE is the mean over them. The full width when empty."""
    distill_vectors: float = Field(0.0, ge=0)
    """Weight of the squared distance from the teacher's stored vectors, which must be as wide as the student's."""
    distill_scores: float = Field(0.0, ge=0)
    """Weight of the divergence from the teacher's scores of each query's positive and mined negatives."""
    distill_margins: float = Field(0.0, ge=0)
    """Weight of the squared error of the margins between them (margin-MSE); for teachers whose scores are cosines."""
    distill_temperature: float | None = Field(None, gt=0)
    """Temperature of the teacher's scores; that of the loss by default."""


class OptimizerSettings(Settings):
    """How fast a stage learns, and which weights."""

    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate of the backbone."""
    pooling_learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of a trained pooling; the backbone's when not given."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly from 0."""
    warmup_steps: int | None = Field(None, ge=0)
    """The same as a number of steps; it wins."""
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """Learning rate schedule after the warm-up."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    restart_optimizer: bool = True
    """Reset the optimizer state that the stage before has left (not confirmed by the papers)."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout inside the model while it trains; the model's own by default. 0 is faster: attention is then fused."""
    lora_rank: int | None = Field(None, gt=0)
    """Train low-rank adapters of the backbone's linear layers, and the pooling in full."""
    lora_alpha: int = Field(32, gt=0)
    """Scale of the adapters, over their rank (NV-Embed: 32)."""
    lora_dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout before the adapters (NV-Embed: 0.1)."""
    lora_targets: list[str] = []
    """Names of the layers that get adapters, q_proj for example; every linear layer of the backbone when empty."""
    lora_merge: bool = True
    """Merge the adapters when the stage ends; else they are saved alone, over the name of their base. A stage after it
    begins with them merged, whatever it trains."""
    quantize: Literal["none", "nf4"] = "none"
    """`nf4` holds the frozen matrices under the adapters in four bits (QLoRA). They stay rounded to that: the adapters
    are merged into what they were trained over. Needs the extra `quantize`."""

    @property
    def adapters(self) -> dict[str, Any]:
        """Arguments of `add_adapters`."""
        names = ("rank", "alpha", "dropout", "targets")
        return {name: getattr(self, f"lora_{name}") for name in names}


class MemorySettings(Settings):
    """Memory and precision of a stage."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matmuls; weights and optimizer state stay in float32. `auto`: bfloat16 where the hardware has it.
    A CPU that has none computes in float32 whichever is asked for."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    chunk_tokens: int | None = Field(None, gt=0)
    """Tokens of one forward pass, padding included; by default 2048 on a CPU. On a GPU as many as a third of its memory
    holds, with at most 33 million elements of hidden states."""
    memory_gib: float | None = Field(None, ge=0)
    """Memory for activations; by default half of what gradients and optimizer state leave free, 0.8 of a GPU's. Chunks
    that do not fit are encoded again in the backward pass (GradCache): the same gradients, a third more time for them.
    0: all of them."""


class WatchSettings(Settings):
    """Validation, checkpoints and trackers of a stage."""

    save_steps: int = Field(50, gt=0)
    """Steps between two checkpoints; a run that is cut short goes on from the last one."""
    held_out: int = Field(0, ge=0)
    """Examples that are held out to measure the loss on; the weights with the lowest loss are the stage's."""
    eval_steps: int = Field(50, gt=0)
    """Steps between two measurements of the held-out loss."""
    patience: int | None = Field(None, gt=0)
    """Early stopping: after so many measurements without a new lowest loss."""
    report_to: str = "auto"
    """Where the figures go beside the run's own: `auto` is TensorBoard where it is installed; `none`; or names that
    transformers knows, with commas between."""


class StageSettings(WatchSettings, MemorySettings, OptimizerSettings, LossSettings, WorkSettings):
    """One stage of training: which data, which negatives, how long and how fast."""

    def model_post_init(self, context: Any) -> None:
        """Refuse settings that contradict each other."""
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"steps is {self.steps} and epochs {self.epochs}: give one of them")
        if self.steps is not None and self.least_steps is not None:
            raise ValueError(f"steps is {self.steps} and least_steps {self.least_steps}: give one of them")
        if self.patience is not None and not self.held_out:
            raise ValueError("patience needs held_out: nothing is measured without held-out examples")
        if not self.hard_negatives and (self.distill_scores or self.distill_margins):
            raise ValueError("hard_negatives is 0, and scores of a positive alone teach nothing: no distill_scores")
        if self.contrastive and not (self.hard_negatives or self.in_batch):
            raise ValueError("hard_negatives is 0 and in_batch false: a query would be contrasted with nothing")
        if len(set(self.matryoshka)) < len(self.matryoshka):
            raise ValueError(f"matryoshka names a width twice: {self.matryoshka}")
        if self.guide_relative and self.guide_margin >= 1:
            raise ValueError(f"guide_margin is {self.guide_margin:g} with guide_relative: a share is less than 1")
        if not self.restart_optimizer and self.lora_rank:
            raise ValueError("restart_optimizer: false with lora_rank: adapters end with their stage")
        if self.quantize != "none" and not self.lora_rank:
            raise ValueError(f"quantize is {self.quantize} without lora_rank: only frozen matrices can be quantised")
        if self.quantize != "none" and not self.lora_merge:
            raise ValueError(
                f"lora_merge: false with quantize: {self.quantize}: adapters over rounded matrices would be opened "
                "over the base as it was"
            )
        if not (self.contrastive or self.distill_vectors or self.distill_scores or self.distill_margins):
            raise ValueError("contrastive is 0 and nothing is distilled: there is no loss")

"""Settings of training; importing them loads no model library."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from embedsmith.settings import Settings


class StageSettings(Settings):
    """One stage of training: which data, which negatives, how long and how fast."""

    name: str = "train"
    """Name of the stage, in the run folder and in reports."""
    data: list[str] = []
    """Names of the data sets that it trains on; all of the recipe's when empty."""
    steps: int | None = Field(None, gt=0)
    """Optimizer steps; by default as many as one pass over the data takes."""
    batch_size: int = Field(32, gt=1)
    """Queries in a step."""
    hard_negatives: int = Field(1, ge=0)
    """Mined negatives for each query, at most; each one is a passage more to encode."""
    in_batch: bool = True
    """Whether the other queries' passages are negatives too (NV-Embed: stage one yes, stage two no)."""
    temperature: float = Field(0.05, gt=0)
    """Temperature of the loss; neither paper states one."""
    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate of the backbone."""
    pooling_learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of a trained pooling; the backbone's when not given."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """How the learning rate goes after the warm-up."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """The gradient is scaled down to this length where it is longer."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout inside the model while it trains; the model's own by default. 0 is faster: attention is then fused."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the products; weights and optimizer stay in float32. `auto`: bfloat16 where the hardware has it."""
    lora_rank: int | None = Field(None, gt=0)
    """Train low-rank adapters of the backbone's linear layers, and the pooling in full."""
    lora_alpha: int = Field(32, gt=0)
    """Scale of the adapters, over their rank (NV-Embed: 32)."""
    lora_dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout before the adapters (NV-Embed: 0.1)."""
    lora_targets: list[str] = []
    """Names of the layers that get adapters, q_proj for example; every linear layer of the backbone when empty."""
    lora_merge: bool = True
    """Merge the adapters when the stage ends; else the last stage's are saved alone, over the name of their base."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, about a third more time."""
    chunk_tokens: int = Field(4096, gt=0)
    """Tokens, padding included, that go through the model at a time."""
    save_steps: int = Field(50, gt=0)
    """Steps between two checkpoints; a run that is cut short goes on from the last one."""

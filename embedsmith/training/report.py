"""What each optimizer step of a stage showed: as a report, and as a line of progress."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embedsmith.data.files import read_jsonl
from embedsmith.data.plain_values import is_number
from embedsmith.errors import InputError, RunError
from embedsmith.training.batches import Batch
from embedsmith.training.chunks import Chunk

_LAST_STEPS = 10


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
    """Norm of the trained pooling's gradient before clipping; 0 where the pooling has no weights."""
    learning_rate: float
    """The backbone's, in this step."""
    queries: int
    tokens: int
    """Of queries and passages, without padding, over all devices."""
    seconds: float
    held_out_loss: float | None = None
    """Held-out loss after this step, where it was measured."""
    guide_masked: float = 0.0
    """Share of the in-batch negatives that the guide masked."""


def read_steps(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a log of steps, one for each `StepReport`; none where there is no log yet.

    Raises:
        RunError: a row is no report.
    """
    rows = []
    for number, row in read_jsonl(path) if path.is_file() else ():
        if wrong := wrong_in_report(row):
            raise RunError(
                f"{path}:{number}: no report of a step: nothing fits under {wrong}",
                hint="remove the line, and give the run's command again; or train again",
            )
        rows.append(row)
    return rows


def wrong_in_report(row: Any) -> str | None:
    """Return under which name a report has something else than a `StepReport`, None where it is one."""
    if not isinstance(row, dict):
        return "stage"
    wanted = {field.name: field for field in fields(StepReport)}
    for name, kept in wanted.items():
        value = row.get(name, None if kept.default is MISSING else kept.default)
        if name == "held_out_loss" and value is None:
            continue
        if not (isinstance(value, str) if name == "stage" else is_number(value)):
            return name
    return next((f"{name!r:.40}" for name in row if name not in wanted), None)


@dataclass
class StepFigures:
    """What the batches of one optimizer step show, until it is reported."""

    learning_rate: float
    started: float = field(default_factory=time.monotonic)
    counts: Counter[str] = field(default_factory=Counter)
    pending: list[tuple[Batch, Tensor]] = field(default_factory=list)
    """Batches with their loss and accuracy, which a GPU may still be computing."""
    values: dict[str, float] = field(default_factory=dict)
    """Loss, accuracy and gradient norms, once they are read."""
    norm: Tensor | None = None
    """Of all gradients, on their device; clipping reuses it."""

    def count(self, batch: Batch, chunks: Sequence[Chunk]) -> None:
        """Count the texts of a batch."""
        self.counts.update(
            queries=len(batch.queries),
            tokens=sum(int(chunk.features["attention_mask"].sum()) for chunk in chunks),
            guided=int(batch.guided.sum()),
            contrasted=int((batch.allowed & ~batch.own).sum()),
        )

    def note(self, batch: Batch, loss: Tensor, accuracy: Tensor) -> None:
        """Note a batch's loss and accuracy, without reading them."""
        self.pending.append((batch, torch.stack([loss.detach(), accuracy])))

    def read(self, norms: tuple[Tensor, Tensor], *, place: str) -> None:
        """Read what the step's batches showed: the one synchronisation of a step.

        Args:
            norms: of all gradients, and of the pooling's.
            place: stage and step, for messages.

        Raises:
            InputError: a loss or the gradient is not a number.
        """
        self.norm = norms[0]
        rows = [row for _, row in self.pending]
        *shown, of_all, of_pooling = torch.cat([*rows, torch.stack(norms)]).tolist()
        for (batch, _), loss in zip(self.pending, shown[::2], strict=True):
            check_finite("loss", loss, batch, place=place)
        check_finite("gradient", of_all, self.pending[-1][0], place=place)
        loss, accuracy = (sum(shown[n::2]) / len(rows) for n in (0, 1))
        norms_read = {"gradient_norm": of_all, "pooling_gradient_norm": of_pooling}
        self.values = {"loss": loss, "accuracy": accuracy, **norms_read}

    def report(self, stage: str, state: Any, *, seconds: float, held_out_loss: float | None) -> StepReport:
        """Return the report of the step that the Trainer's state is at."""
        return StepReport(
            stage=stage,
            step=state.global_step,
            steps=state.max_steps,
            learning_rate=self.learning_rate,
            queries=self.counts["queries"],
            tokens=self.counts["tokens"],
            seconds=seconds,
            held_out_loss=held_out_loss,
            guide_masked=_share(self.counts["guided"], self.counts["contrasted"]),
            **self.values,
        )


def check_finite(what: str, value: float, batch: Batch, *, place: str) -> None:
    """Refuse a loss or a gradient that is not a number, before it moves a weight or is kept.

    Args:
        place: stage and step.

    Raises:
        InputError: says what is not a number, where, and of which queries.
    """
    if math.isfinite(value):
        return
    shown = ", ".join(batch.query_ids[:5]) + (" …" if len(batch.query_ids) > 5 else "")
    raise InputError(
        f"{place}: the {what} is {value} (queries {shown})",
        hint="lower learning_rate, or train in float32; the last checkpoint is kept",
    )


def _share(count: int, others: int) -> float:
    """Return the part that a count has of itself and another.

    >>> _share(1, 9), _share(0, 0)
    (0.1, 0.0)
    """
    return count / max(1, count + others)


class LastSteps:
    """A step's line of progress: loss, accuracy, and the speed of the last steps."""

    def __init__(self) -> None:
        self._last: deque[StepReport] = deque(maxlen=_LAST_STEPS)

    def note(self, report: StepReport) -> str:
        """Return loss, accuracy and speed; the time left is shown with the number of steps."""
        self._last.append(report)
        seconds = max(sum(one.seconds for one in self._last), 1e-9)
        examples, tokens = (sum(getattr(one, kind) for one in self._last) / seconds for kind in ("queries", "tokens"))
        held_out = "" if report.held_out_loss is None else f" (held out {report.held_out_loss:.3f})"
        return (
            f"loss {report.loss:.3f}{held_out}, in-batch accuracy {report.accuracy:.0%}, "
            f"{examples:,.1f} examples/s, {tokens:,.0f} tokens/s"
        )

"""What each optimizer step of a stage showed, and one line of it for who waits."""

from __future__ import annotations

from dataclasses import dataclass


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
    learning_rate: float
    """The backbone's, in this step."""
    queries: int
    tokens: int
    """Of queries and passages, padding aside, over all devices."""
    seconds: float
    held_out_loss: float | None = None
    """Loss on what was held out, after this step, where it was measured."""
    guide_masked: float = 0.0
    """Share of the other queries' passages that the guide took out of the loss."""


class Pace:
    """What is said of a step: loss and accuracy, and the speed of the steps since this process began."""

    def __init__(self) -> None:
        self._steps, self._queries, self._tokens, self._seconds = 0, 0, 0, 0.0

    def note(self, report: StepReport) -> str:
        """Return loss, accuracy, speed and the time that is left."""
        self._steps += 1
        self._queries += report.queries
        self._tokens += report.tokens
        self._seconds += report.seconds
        seconds = max(self._seconds, 1e-9)
        left = (report.steps - report.step) * seconds / self._steps
        held_out = "" if report.held_out_loss is None else f" (held out {report.held_out_loss:.3f})"
        return (
            f"loss {report.loss:.3f}{held_out}, in-batch accuracy {report.accuracy:.0%}, "
            f"{self._queries / seconds:,.1f} examples/s, {self._tokens / seconds:,.0f} tokens/s, {_minutes(left)} left"
        )


def _minutes(seconds: float) -> str:
    """Return a time in minutes and seconds, or hours.

    >>> _minutes(75), _minutes(9000)
    ('1:15', '2.5 h')
    """
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

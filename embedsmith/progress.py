"""Progress of long work: a callback, and what those who draw it say of rate and time."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import NamedTuple, Protocol

_LAST_S = 30.0
"""The rate is that of the last seconds, or of the last steps where those took longer."""
_LAST_STEPS = 10
_BETWEEN_S = 0.25
"""Notes that follow each other faster count as one."""


class Progress(Protocol):
    """Called again and again while a piece of work goes on."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Take note that `done` of `total` of the work called `what` is done."""


def silent(what: str, done: int, total: int, note: str = "") -> None:
    """Take no note."""


class Pieces:
    """Tells pieces of work of one name apart: of another data set, say."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, int]] = {}

    def begins(self, what: str, done: int, total: int) -> bool:
        """Return whether this call is the first of a piece of work.

        >>> begins = Pieces().begins
        >>> begins("encode", 0, 9), begins("encode", 9, 9), begins("encode", 0, 9), begins("encode", 5, 20)
        (True, False, True, True)
        """
        before, of = self._last.get(what, (0, -1))
        self._last[what] = done, total
        return total != of or done < before


class Moment(NamedTuple):
    """What there is to say of a piece of work at one moment."""

    begins: bool
    """Whether this is its first moment."""
    elapsed_s: float
    pace: str
    """Rate and time left, or the time taken; empty while nothing was done yet."""


class Paces:
    """The rate of each piece of work, and the time that is left by it.

    Both follow the last steps: the first ones of a stage are slower, and a machine may have more to do at night. What
    was done when a piece of work began, by a run that was cut short, counts for neither.
    """

    def __init__(self) -> None:
        self._pieces = Pieces()
        self._moments: dict[str, deque[tuple[float, int]]] = {}
        self._began: dict[str, tuple[float, int]] = {}

    def update(self, what: str, done: int, total: int) -> Moment:
        """Take note of a moment and return what there is to say."""
        now = time.monotonic()
        begins = self._pieces.begins(what, done, total)
        if begins:
            self._moments[what] = deque()
            self._began[what] = now, done
        began, before = self._began[what]
        pace = ""
        if done > before and now > began:
            pace = self._pace(what, now, done, total)
        elif begins:
            self._moments[what].append((now, done))
        return Moment(begins, now - began, pace)

    def _pace(self, what: str, now: float, done: int, total: int) -> str:
        """Return rate and time left, or the time taken at the end."""
        began, before = self._began[what]
        if done >= total:
            return f"{rate((done - before) / (now - began))}, took {duration(now - began)}"
        moments = self._moments[what]
        if len(moments) > 1 and moments[-1][0] - moments[-2][0] < _BETWEEN_S:
            moments.pop()
        moments.append((now, done))
        while len(moments) > _LAST_STEPS + 1 and now - moments[1][0] >= _LAST_S:
            moments.popleft()
        then, first = moments[0]
        if now <= then or done <= first:
            return ""
        speed = (done - first) / (now - then)
        return f"{rate(speed)}, {duration((total - done) / speed)} left"


def duration(seconds: float) -> str:
    """Return a time in its two largest units.

    >>> duration(8.2), duration(725), duration(6428), duration(200_000)
    ('8.2s', '12m 05s', '1h 47m', '2d 07h')
    >>> duration(59.96), duration(3599.7), duration(0.004), duration(math.inf)
    ('1m 00s', '1h 00m', '0.0s', 'for ever')
    """
    if math.isinf(seconds):
        return "for ever"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours < 48 else f"{hours // 24}d {hours % 24:02d}h"


def rate(speed: float) -> str:
    """Return how many are done in a second, or how long each takes where that is longer than a second.

    >>> rate(1234.5), rate(5.24), rate(1 / 15.3), rate(0.004)
    ('1,234/s', '5.2/s', '15.3s each', '4m 10s each')
    """
    if speed < 1:
        return f"{duration(1 / speed)} each"
    return f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s"

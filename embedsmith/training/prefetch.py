"""The next step's batches, prepared in a thread while a GPU computes this one's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any


class Prefetch:
    """Prepares a step's batches one step ahead.

    Python runs one thread at a time. Preparing the next batches before the first kernels are enqueued would leave the
    GPU idle, so `start` is called after that. Batches that took longer than a step are begun at once.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._next: Future[Any] | None = None
        self._draw: Callable[[], Any] | None = None

    def take(self, draw: Callable[[], Any]) -> Any:
        """Return a step's batches.

        Args:
            draw: prepares the batches of a step, this one's or the next one's.
        """
        coming, self._next = self._next, None
        in_time = coming is not None and coming.done()
        found = coming.result() if coming else draw()
        self._draw = draw
        if not in_time:
            self.start()
        return found

    def start(self) -> None:
        """Begin with the next step's batches, unless that was begun already."""
        if self._draw:
            draw, self._draw = self._draw, None
            self._next = self._thread.submit(draw)

    def wait(self) -> None:
        """Return when the thread is idle: a tokenizer serves one thread at a time."""
        if self._next:
            wait([self._next])

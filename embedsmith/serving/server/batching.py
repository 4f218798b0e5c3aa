"""Dynamic batching: texts of all requests wait in one queue, and each batch has texts of about the same length.

The order is by a virtual time: when a request came, and for each of its texts the time that the request's texts up to
it take. So a short request passes the rest of a long one that came before it, and nothing waits for ever.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float32

from embedsmith.models.threads import set_cores

_log = logging.getLogger("embedsmith")

GRAIN = 8
"""Tokens of a padded text on a CPU are a multiple of this. oneDNN compiles a kernel for each number of rows."""
_SPREAD = 2.0
"""The longest text of a batch has at most so many times the tokens of its first one, and the other way round."""
_OVERHEAD = 48
"""Tokens in whose time a CPU begins a batch (MiniLM, one core): padding that costs less is cheaper than one more."""
_LOOKED_AT = 1024
"""Waiting texts that are looked at for a batch."""
_SECONDS_A_TOKEN = 1e-4
"""Before anything was measured."""
_WEIGHT = 0.1
"""Of the newest batch in the mean time of a token."""


class Text(Protocol):
    """What is batched."""

    @property
    def tokens(self) -> int:
        """Tokens that the model reads."""

    @property
    def kind(self) -> Any:
        """Texts of different kinds share no batch."""


Compute = Callable[[Sequence[Any]], Float32[np.ndarray, "n D"]]


class OutOfMemory(Exception):
    """One text alone is more than the memory holds."""


class BatchFailed(Exception):
    """A batch raised something, which is in the log; it has no message, as that may quote a text."""


@dataclass
class Job:
    """The texts of a request, and their vectors as far as they are there."""

    texts: Sequence[Text]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Float32[np.ndarray, "n D"]]
    came: float
    vectors: list[Any] = field(default_factory=list)
    left: int = 0
    is_gone: bool = False
    """Whether nobody reads the answer any more."""
    first_begun: float = 0.0
    """When its first text left the queue."""

    def __post_init__(self) -> None:
        self.left = len(self.texts)
        self.vectors = [None] * self.left

    def finish(self, error: BaseException | None = None) -> None:
        """Hand the vectors, or what went wrong, to the request; called from a thread."""
        self.is_gone = True
        try:
            self.loop.call_soon_threadsafe(self._settle, error)
        except RuntimeError:  # the loop is closed: nobody waits
            return

    def _settle(self, error: BaseException | None) -> None:
        if self.done.done():
            return
        if error:
            self.done.set_exception(error)
        else:
            self.done.set_result(np.stack(self.vectors))


Waiting = tuple[float, int, int, Job]
"""(when it is due, a number that no other has, place of the text in its request, the request)."""


class Batcher:
    """Threads that compute batches of waiting texts: one on a GPU, one for each core of a CPU.

    Only the first thread ever uses several cores, for a batch that is alone. Each thread that does so has OpenMP
    workers of its own. libgomp counts all of them: where they are more than the cores, its workers sleep between two
    matmuls and no longer spin, and a forward pass takes a third longer.

    Args:
        compute: returns the vectors of texts of one kind.
        batch_tokens: tokens of a batch.
        packs: whether padding costs nothing.
        is_on_cpu: whether several batches are computed at once.
        on_batch: called after each batch with its texts, its tokens, its seconds and the budget.
    """

    def __init__(
        self,
        compute: Compute,
        *,
        batch_tokens: int,
        packs: bool,
        is_on_cpu: bool,
        on_batch: Callable[[int, int, float], None] = lambda texts, tokens, seconds: None,
    ) -> None:
        self._compute, self._budget, self._packs, self._on_batch = compute, batch_tokens, packs, on_batch
        self._waiting: list[Waiting] = []
        self._numbers = itertools.count()
        self._change = threading.Lock()
        self._first, self._others = threading.Condition(self._change), threading.Condition(self._change)
        self._closes = self._first_is_busy = False
        self._busy = 0
        self._seconds_a_token = _SECONDS_A_TOKEN
        self._is_on_cpu = is_on_cpu
        self._cores = torch.get_num_threads()
        count = max(1, self._cores) if is_on_cpu else 1
        self._threads = [
            threading.Thread(target=self._work, args=(number, count), daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Texts in the queue."""
        return len(self._waiting)

    def enqueue(self, texts: Sequence[Text]) -> Job:
        """Return the job of some texts, which is in the queue; called in an event loop."""
        loop = asyncio.get_running_loop()
        job = Job(texts, loop, loop.create_future(), time.monotonic())
        if not texts:
            job.finish(ValueError("no texts"))
            return job
        with self._change:
            tokens = 0
            for place, text in enumerate(texts):
                tokens += text.tokens
                due = job.came + tokens * self._seconds_a_token
                heapq.heappush(self._waiting, (due, next(self._numbers), place, job))
            (self._others if self._first_is_busy else self._first).notify()
        return job

    def close(self) -> None:
        """Compute what is in the queue, and end."""
        with self._change:
            self._closes = True
            self._first.notify_all()
            self._others.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, number: int, workers: int) -> None:
        """Compute batches until the end; what a thread works with belongs to it."""
        is_first = number == 0
        change = self._first if is_first else self._others
        while True:
            with self._change:
                while not self._closes and not (self._waiting and (is_first or self._first_is_busy)):
                    change.wait()
                if not self._waiting:
                    return
                batch = self._batch()
                if not batch:
                    continue
                is_alone = is_first and not self._busy and not self._waiting
                self._busy += 1
                if is_first:
                    self._first_is_busy = True
                if self._waiting:
                    self._others.notify()
            if workers > 1:
                set_cores(self._cores if is_alone else max(1, self._cores // workers))
            try:
                self._compute_batch(batch)
            finally:
                with self._change:
                    self._busy -= 1
                    if is_first:
                        self._first_is_busy = False

    def _batch(self) -> list[tuple[int, Job]]:
        """Take the text that is due, and others like it that fit into its batch.

        Those that need the least padding come first. On a CPU, texts of another width come too where padding costs
        less than a batch of their own.
        """
        like, passed = self._like_the_first()
        if not like:
            return []
        most = _OVERHEAD if self._is_on_cpu and not self._packs else None
        width = self._width(like[0])
        groups: dict[int, list[Waiting]] = {}
        for item in like:
            groups.setdefault(self._width(item), []).append(item)
        taken: list[Waiting] = []
        total = 0
        for own, group in sorted(groups.items(), key=lambda pair: abs(pair[0] - self._width(like[0]))):
            wider = max(width, own)
            padding = len(taken) * (wider - width) + len(group) * (wider - own)
            if taken and most is not None and padding > most:
                passed += group
                continue
            room = (self._budget - total) // own if self._packs else self._budget // wider - len(taken)
            count = min(len(group), max(room, 0 if taken else 1))
            passed += group[count:]
            if count:
                taken, total, width = taken + group[:count], total + own * count, wider
        for item in passed:
            heapq.heappush(self._waiting, item)
        return [(place, job) for _, _, place, job in taken]

    def _like_the_first(self) -> tuple[list[Waiting], list[Waiting]]:
        """Take waiting texts until a batch is full; return those that may share the first one's, and the others."""
        like: list[Waiting] = []
        passed: list[Waiting] = []
        first: Text | None = None
        same = 0
        for _ in range(min(_LOOKED_AT, len(self._waiting))):
            item = heapq.heappop(self._waiting)
            _, _, place, job = item
            if job.is_gone:
                continue
            text = job.texts[place]
            first = first or text
            if text.kind != first.kind or not 1 / _SPREAD <= max(1, text.tokens) / max(1, first.tokens) <= _SPREAD:
                passed.append(item)
                continue
            like.append(item)
            same += self._width(item) if self._packs or self._width(item) == self._width(like[0]) else 0
            if same >= self._budget:
                break
        return like, passed

    def _width(self, item: Waiting) -> int:
        """Return the tokens of a waiting text, as it is padded alone."""
        tokens = max(1, item[3].texts[item[2]].tokens)
        return -(-tokens // GRAIN) * GRAIN if self._is_on_cpu and not self._packs else tokens

    def _compute_batch(self, batch: list[tuple[int, Job]]) -> None:
        """Compute a batch, and tell the requests whose last text it had."""
        began = time.monotonic()
        texts = [job.texts[place] for place, job in batch]
        for _, job in batch:
            job.first_begun = job.first_begun or began
        try:
            vectors = self._compute(texts)
        except Exception as error:
            self._failed(batch, error)
            return
        seconds, tokens = time.monotonic() - began, sum(text.tokens for text in texts)
        with self._change:
            for (place, job), vector in zip(batch, vectors, strict=True):
                job.vectors[place] = vector
                job.left -= 1
            finished = {id(job): job for _, job in batch if not job.left and not job.is_gone}
            self._seconds_a_token += _WEIGHT * (seconds / max(1, tokens) - self._seconds_a_token)
        for job in finished.values():
            job.finish()
        self._on_batch(len(texts), tokens, seconds)

    def _failed(self, batch: list[tuple[int, Job]], error: Exception) -> None:
        """Compute the texts of a batch one by one where memory was short; else fail the requests that it is of."""
        if _is_of_memory(error) and len(batch) > 1:
            for one in batch:
                if not one[1].is_gone:
                    self._compute_batch([one])
            return
        raised = OutOfMemory("a text needs more memory than there is") if _is_of_memory(error) else BatchFailed()
        if isinstance(raised, BatchFailed):
            # Where it failed, and as what: the message of an error may quote a text, and texts are in no log.
            frames = "".join(traceback.format_tb(error.__traceback__))
            _log.error("a batch of %d texts failed with %s:\n%s", len(batch), type(error).__name__, frames)
        for _, job in batch:
            if not job.is_gone:
                job.finish(raised)


def _is_of_memory(error: Exception) -> bool:
    """Return whether memory was short; a CPU's allocator says so in words only."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)

"""Several threads at once: turns at what has room for one, and a number of cores that is a thread's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from threading import Event, Lock, RLock, Thread
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import torch

from embedsmith.models.compat import show_bars

Given = ParamSpec("Given")
Made = TypeVar("Made")

_turns: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_noting, _setting, _opening = Lock(), Lock(), RLock()


def turn(shared: Any) -> Any:
    """Return the lock of what only one thread may use at a time; a thread that has the turn may take it again.

    It is not kept in the object, which may be copied or sent to another process: a lock cannot be.
    """
    with _noting:
        return _turns.setdefault(shared, RLock())


def one_at_a_time(opener: Callable[Given, Made]) -> Callable[Given, Made]:
    """Have threads take turns at opening models: transformers changes defaults of the whole process meanwhile.

    Its progress bars are not drawn. What torch draws next is the same afterwards: modules begin with random weights,
    before they get their own.
    """

    @wraps(opener)
    def opened(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        with _opening, without_bars(), torch.random.fork_rng(devices=[]):
            return opener(*args, **kwargs)

    return opened


class Shared:
    """A block that changes the whole process, and that several threads may be in: the last one to leave ends it.

    Else the first would put back what the second still needs, and the second what it found, which was the first's.
    """

    def __init__(self, block: Callable[[], AbstractContextManager[Any]]) -> None:
        self._block = block
        self._lock = Lock()
        self._within = 0
        self._entered = ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Be within the block."""
        with self._lock:
            if not self._within:
                self._entered.enter_context(self._block())
            self._within += 1
        try:
            yield
        finally:
            with self._lock:
                self._within -= 1
                if not self._within:
                    self._entered.close()


def set_cores(count: int) -> None:
    """Set the number of OpenMP threads that operations of this thread use; that of all other threads stays.

    In torch a new thread begins with the number that was set last, in any thread. One that begins between the setting
    here and its restoration gets this thread's number.
    """
    if torch.get_num_threads() == count:
        return
    known, is_set = Event(), Event()

    def keep() -> None:
        # A new thread: it has the number that others would begin with.
        others = torch.get_num_threads()
        known.set()
        is_set.wait()
        torch.set_num_threads(others)

    with _setting:
        keeper = Thread(target=keep)
        keeper.start()
        known.wait()
        torch.set_num_threads(count)
        is_set.set()
        keeper.join()


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Let operations of this thread use so many cores within the block."""
    before = torch.get_num_threads()
    set_cores(count)
    try:
        yield
    finally:
        set_cores(before)


@Shared
@contextmanager
def without_bars() -> Iterator[None]:
    """Have transformers draw no progress bars within the block: a command shows its own, and Python may want none."""
    before = show_bars(False)
    try:
        yield
    finally:
        show_bars(before)

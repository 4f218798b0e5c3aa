"""Several processes on one socket: one that dies is replaced, a reload replaces each when the next one is ready."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

_log = logging.getLogger("embedsmith")

STARTUP_FAILED = 2
"""Exit code of a process that could not open its models: another one could not either."""
_LOOK_S = 0.2

Work = Callable[[socket.socket, Any, int], None]
"""(a listening socket, an event to set when requests are answered, the process's place): serves until SIGTERM."""


class Processes:
    """The processes that do a work, until a signal ends them.

    Args:
        work: what each does; it can be pickled.
        listening: the socket that they share.
        count: how many.
        on_end: called with the number of each process that has ended.
    """

    def __init__(
        self, work: Work, listening: socket.socket, count: int, *, on_end: Callable[[int], None] = lambda number: None
    ) -> None:
        self._work, self._listening, self._count, self._on_end = work, listening, count, on_end
        self._spawning = multiprocessing.get_context("spawn")
        self._signals: list[int] = []

    def run(self) -> int:
        """Return the exit code when all have ended."""
        names = ("SIGTERM", "SIGINT", "SIGHUP")
        before = {
            number: signal.signal(number, lambda number, _: self._signals.append(number))
            for number in (getattr(signal, name) for name in names if hasattr(signal, name))
        }
        running = [self._start(place) for place in range(self._count)]
        try:
            return self._watch(running)
        finally:
            for process, _ in running:
                process.terminate()
            for process, _ in running:
                process.join()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _watch(self, running: list[Any]) -> int:
        """Replace processes until a signal comes, or none can be started."""
        while True:
            wait([process.sentinel for process, _ in running], timeout=_LOOK_S)
            while self._signals:
                number = self._signals.pop(0)
                if number in (signal.SIGTERM, signal.SIGINT):
                    return 130 if number == signal.SIGINT else 0
                self._replace_all(running)
            for place, (process, _) in enumerate(running):
                if process.is_alive():
                    continue
                self._on_end(process.pid)
                if process.exitcode == STARTUP_FAILED:
                    return STARTUP_FAILED
                _log.error("process %s ended with code %s, and is replaced", process.pid, process.exitcode)
                running[place] = self._start(place)

    def _replace_all(self, running: list[Any]) -> None:
        """Replace each process when its successor answers; the old ones go on where it cannot."""
        for place, (old, _) in enumerate(running):
            new, is_ready = self._start(place)
            while not is_ready.wait(_LOOK_S):
                stops = {signal.SIGTERM, signal.SIGINT} & set(self._signals)
                if stops or not new.is_alive():
                    new.terminate()
                    new.join()
                    self._on_end(new.pid)
                    if not stops:
                        _log.error("not opened again, the old models go on")
                    return
            old.terminate()
            old.join()
            self._on_end(old.pid)
            running[place] = new, is_ready

    def _start(self, place: int) -> Any:
        """Return a process that begins, and its event."""
        is_ready = self._spawning.Event()
        process = self._spawning.Process(target=_begin, args=(self._work, self._listening, is_ready, place))
        process.start()
        return process, is_ready


def _begin(work: Work, listening: socket.socket, is_ready: Any, place: int) -> None:
    """Do the work; a Ctrl-C of the terminal is for the parent, which ends its processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work(listening, is_ready, place)
    sys.exit(0)

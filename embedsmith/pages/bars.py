"""A bar for each piece of work, for callers in Python: in a notebook or a terminal, and nowhere else."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from embedsmith.data.shown import one_line
from embedsmith.progress import Pieces, Progress, silent

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def bars(on_progress: Progress | None, *, show: bool) -> Iterator[Progress]:
    """Yield the callback for progress within a block.

    Args:
        on_progress: the caller's own callback, in place of bars.
        show: draw bars where there is somebody to look at them.
    """
    if on_progress is not None or not (show and is_watched()):
        yield on_progress or silent
        return
    drawn = _Bars()
    try:
        yield drawn
    finally:
        drawn.close()


def draws_bars(function: Callable[P, T]) -> Callable[P, T]:
    """Have a public function draw bars where its caller gives no `on_progress`, unless `progress=False`.

    The function has both as keyword arguments. It is called with an `on_progress` in any case.
    """

    @functools.wraps(function)
    def drawing(*args: P.args, **kwargs: P.kwargs) -> T:
        on_progress: Any = kwargs.get("on_progress")
        with bars(on_progress, show=bool(kwargs.get("progress", True))) as tell:
            kwargs["on_progress"] = tell
            return function(*args, **kwargs)

    return drawing


def is_watched() -> bool:
    """Return whether what is drawn is seen: standard error is a terminal, or the program a notebook."""
    return in_notebook() or bool(sys.stderr and sys.stderr.isatty())


def in_notebook() -> bool:
    """Return whether the program runs in a notebook's kernel, whose output is no terminal."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ in ("ZMQInteractiveShell", "Shell")


class _Bars:
    """Bars of tqdm, one for each piece of work."""

    def __init__(self) -> None:
        self._pieces = Pieces()
        self._open: dict[str, Any] = {}

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        from tqdm.auto import tqdm

        if self._pieces.begins(what, done, total):
            self._close(what)
            # Where work goes on, the rate is that of what is done now.
            self._open[what] = tqdm(total=total, initial=done, desc=one_line(what), unit="", disable=False)
        bar = self._open.get(what)
        if bar is None:
            return
        if note:
            bar.set_postfix_str(one_line(note), refresh=False)
        bar.update(done - bar.n)
        if done >= total:
            self._close(what)

    def close(self) -> None:
        """Leave the bars as they stand."""
        for what in list(self._open):
            self._close(what)

    def _close(self, what: str) -> None:
        if bar := self._open.pop(what, None):
            bar.close()

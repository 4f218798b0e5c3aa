"""A bar for each piece of work, for callers in Python: in a notebook or a terminal, and nowhere else."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from embedsmith.data.shown import one_line
from embedsmith.progress import Paces, Progress, silent

P = ParamSpec("P")
T = TypeVar("T")

_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt}{postfix}"
"""A bar without tqdm's own rate and times: they would stand beside ours, and differ."""


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
        self._paces = Paces()
        self._open: dict[str, Any] = {}

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        moment = self._paces.update(what, done, total)
        if moment.begins:
            self._close(what)
            self._open[what] = _tqdm()(
                total=total, initial=done, desc=one_line(what), bar_format=_FORMAT, disable=False
            )
        bar = self._open.get(what)
        if bar is None:
            return
        bar.set_postfix_str(one_line("; ".join(filter(None, [moment.pace, note]))), refresh=False)
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


def _tqdm() -> Any:
    """Return tqdm as it draws here: with widgets in a notebook that has them, else as text, and without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

    return tqdm

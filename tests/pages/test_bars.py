"""Bars of Python: drawn where somebody looks, off by an argument, and one for every piece of work."""

from __future__ import annotations

import contextlib
import inspect
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import embedsmith
from embedsmith import progress
from embedsmith.pages.bars import bars, draws_bars, in_notebook
from embedsmith.progress import Progress, silent

ROOT = Path(__file__).parent.parent.parent


class Terminal(io.StringIO):
    """A text that says that it is a terminal."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


@contextlib.contextmanager
def shown_on(stream: io.StringIO) -> Iterator[io.StringIO]:
    """Have standard error be a stream within the block; pytest puts its own there between a fixture and its test."""
    with contextlib.redirect_stderr(stream):
        yield stream


def work(tell) -> None:
    for done in range(4):
        tell("encode \x1b[2J", done, 3, "half")
    tell("search", 0, 2)
    tell("search", 2, 2)


def test_a_terminal_shows_a_bar_for_each_piece_of_work():
    with shown_on(Terminal()) as terminal:
        with bars(None, show=True) as tell:
            work(tell)
        assert "encode \\x1b[2J: 100%" in terminal.getvalue()
        assert "search: 100%" in terminal.getvalue()
        assert "\x1b[2J" not in terminal.getvalue()


def test_an_argument_turns_them_off():
    with shown_on(Terminal()) as terminal:
        with bars(None, show=False) as tell:
            work(tell)
            assert tell is silent
        assert terminal.getvalue() == ""


def test_nothing_is_drawn_where_nobody_looks():
    with shown_on(io.StringIO()) as found, bars(None, show=True) as tell:
        work(tell)
    assert found.getvalue() == ""


def test_a_caller_who_wants_to_be_told_sees_no_bars():
    with shown_on(Terminal()) as terminal:
        notes = []
        with bars(lambda *said: notes.append(said), show=True) as tell:
            work(tell)
        assert len(notes) == 6
        assert terminal.getvalue() == ""


def test_work_of_one_name_that_begins_again_has_a_bar_of_its_own():
    with shown_on(Terminal()) as terminal:
        with bars(None, show=True) as tell:
            for total in (2, 5):
                tell("encode", 0, total)
                tell("encode", total, total)
        assert "2/2" in terminal.getvalue()
        assert "5/5" in terminal.getvalue()


def test_a_kernel_of_a_notebook_is_known_by_its_shell(monkeypatch: pytest.MonkeyPatch):
    assert not in_notebook()
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert in_notebook()


@draws_bars
def worked(*, on_progress: Progress = silent, progress: bool = True) -> str:
    work(on_progress)
    return "done"


def test_a_function_draws_where_its_caller_takes_no_progress():
    with shown_on(Terminal()) as terminal:
        assert worked() == "done"
        assert "search: 100%" in terminal.getvalue()
    with shown_on(Terminal()) as terminal:
        worked(progress=False)
        worked(on_progress=silent)
        assert terminal.getvalue() == ""


def test_every_public_function_that_tells_of_its_work_draws_bars():
    quiet = []
    for name in embedsmith.__all__:
        public = getattr(embedsmith, name)
        if not inspect.isfunction(public) or "on_progress" not in inspect.signature(public).parameters:
            continue
        if inspect.signature(public).parameters.get("progress") is None or not draws(public):
            quiet.append(name)
    assert not quiet


def draws(function: Callable[..., object]) -> bool:
    """Return whether a function draws: by the decorator, or by a block of bars of its own."""
    inner = inspect.unwrap(function)
    return (inner is not function and "draws_bars" in inspect.getsource(inner)) or "bars(" in inspect.getsource(inner)


def test_a_bar_says_what_each_step_takes_and_what_is_left(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with shown_on(Terminal()) as terminal, bars(None, show=True) as tell:
        for done in range(8):
            now[0] = 15.3 * done
            tell("stage train", done, 120, "loss 0.5")
    shown = terminal.getvalue().split("\r")[-1]
    assert "7/120, 15.3s each, 28m 49s left; loss 0.5" in shown
    assert "it" not in shown.replace("left", "")


def test_a_notebook_without_widgets_gets_bars_as_text_and_no_warning():
    # In a process of its own: tqdm decides at its first import.
    program = f"""
import sys, types, warnings
warnings.simplefilter("error")
for name in ("ipywidgets", "IPython.html.widgets"):
    sys.modules[name] = None
shell = type("ZMQInteractiveShell", (), {{"config": {{"IPKernelApp": {{}}}}}})()
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: shell, version_info=(8, 0))
sys.path.insert(0, {str(ROOT)!r})
from embedsmith.pages.bars import bars
with bars(None, show=True) as tell:
    tell("encode", 0, 2)
    tell("encode", 2, 2)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "encode: 100%" in done.stderr
    assert "arning" not in done.stderr

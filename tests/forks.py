"""Programs in processes of their own that need not import the libraries: forks of one process that has done it.

The tests' own process cannot be forked: one that has multiplied matrices on several threads leaves its fork to wait for
ever for threads that it does not have.
"""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from multiprocessing import forkserver, get_context
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.preloaded"])


class Fork:
    """A program that runs."""

    def __init__(self, program: str, *words: object, **environment: str) -> None:
        """Start the text of a program, with words on its command line and variables beside those of the tests."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
            forkserver.ensure_running()
        self._said = tempfile.TemporaryDirectory()
        given = {**os.environ, **environment}
        asked = (program, [*map(str, words)], given, os.getcwd(), self._said.name)
        self.process: Any = _CONTEXT.Process(target=_run, args=asked)
        self.process.start()

    def ended(self, *, timeout: float = 600) -> CompletedProcess[str]:
        """Return how it ended; a signal is a negative code."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"not ended after {timeout:g} s"
        with self._said as folder:
            out, err = (Path(folder, name).read_text() if Path(folder, name).exists() else "" for name in _STREAMS)
        return CompletedProcess([], self.process.exitcode, out, err)


_STREAMS = ("out", "err")


def run(program: str, *words: object, **environment: str) -> CompletedProcess[str]:
    """Return how a program ended."""
    return Fork(program, *words, **environment).ended()


def run_module(name: str, *words: object) -> CompletedProcess[str]:
    """Return how a module that is a program ended."""
    return run(f"import runpy; runpy.run_module({name!r}, run_name='__main__')", *words)


def _run(program: str, words: list[str], environment: dict[str, str], folder: str, said: str) -> None:
    """Be a program."""
    assert "tests.preloaded" in sys.modules, "what is forked has not imported the libraries"
    for number, name in enumerate(_STREAMS, start=1):
        os.dup2(os.open(f"{said}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["-c", *words]
    try:
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
    finally:
        atexit._run_exitfuncs()  # a fork ends without them

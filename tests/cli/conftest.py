"""The command, called in this process."""

import gc
import json
import os
import re
import sys
from dataclasses import dataclass

import pytest

from embedsmith.cli.main import main


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        """The one object on stdout."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The message on stderr, which has one line and one with the remedy."""
        assert self.out == ""
        assert "Traceback" not in self.err
        *before, error, hint = self.err.splitlines()
        assert error.startswith("error: "), self.err
        assert re.match("hint: .", hint), self.err
        assert not [line for line in before if line.startswith(("error", "hint"))]
        return error.removeprefix("error: ")


@pytest.fixture
def embedsmith_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A function that runs a command line in this process."""
    monkeypatch.setattr(os, "environ", os.environ.copy())

    def call(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["embedsmith", *map(str, words)])
        capsys.readouterr()
        gc.collect()  # what a command freezes is not collected any more
        try:
            main()
        except SystemExit as exit:
            printed = capsys.readouterr()
            return Done(int(exit.code or 0), printed.out, printed.err)
        raise AssertionError("the command did not exit")

    return call

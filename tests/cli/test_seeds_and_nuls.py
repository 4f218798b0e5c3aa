"""Numbers that are no seed, and bytes that no file may hold, in every command: one line, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import embedsmith_command as embedsmith_command
from tests.cli.test_every_option import CLICKED, COMMANDS, OPTIONS

SEEDS = [(name, parameter.opts[0]) for name, parameter in OPTIONS if parameter.opts[0].endswith("-seed")]


def test_the_commands_that_draw_have_a_seed():
    assert {name for name, _ in SEEDS} >= {"quickstart", "mine", "select", "audit", "judge", "train", "compare"}


@pytest.mark.parametrize("seed", [-1, -(2**31), 2**31, 2**32, 2**32 + 1, 10**30])
@pytest.mark.parametrize(("name", "flag"), SEEDS)
def test_what_is_no_seed_is_refused_before_anything_else(
    embedsmith_command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, flag: str, seed: int
):
    monkeypatch.chdir(tmp_path)
    done = embedsmith_command(*name.split(), *COMMANDS[name].words.split(), flag, seed)
    assert done.code == 2, done.err
    # `select` changes settings of a run, which it reads first.
    assert flag in done.error or name == "select"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("odd", ["a\0b", "a\udcff"], ids=["a NUL byte", "not UTF-8"])
@pytest.mark.parametrize("name", CLICKED)
def test_a_byte_that_no_file_of_ours_may_hold_is_refused_wherever_it_stands(
    embedsmith_command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, odd: str
):
    monkeypatch.chdir(tmp_path)
    words = COMMANDS[name].words.split()
    options = [parameter.opts[0] for own, parameter in OPTIONS if own == name and not parameter.is_flag]
    lines = [[*words[:place], odd, *words[place + 1 :]] for place in range(len(words))]
    for line in lines + [[*words, flag, odd] for flag in options]:
        done = embedsmith_command(*name.split(), *line)
        assert done.code == 2, (line, done.err)
        assert done.error
    assert not list(tmp_path.iterdir())

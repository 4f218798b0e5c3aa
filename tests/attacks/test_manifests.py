"""Manifests that are none, in every command that reads one: one line, and exit code 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import embedsmith_command as embedsmith_command

ODD: list[Any] = [{}, [], None, 7, "x", {"status": 1}, {"command": "mine", "status": "finished", "settings": []}]
COMMANDS = [
    ["report", "RUN"],
    ["audit", "RUN"],
    ["select", "RUN", "--out", "OUT"],
    ["write", "RUN", "--out", "OUT"],
    ["judge", "RUN", "--url", "http://localhost/v1#m"],
    ["compare", "RUN", "RUN"],
    ["train", "RUN", "--out", "OUT"],
    ["export", "RUN", "--out", "OUT"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize("manifest", ODD, ids=repr)
def test_a_folder_whose_manifest_is_none_is_one_line(embedsmith_command, tmp_path: Path, words, manifest):
    run = tmp_path / "run"
    run.mkdir()
    (run / "manifest.json").write_text(json.dumps(manifest))
    places = {"RUN": run, "OUT": tmp_path / "out"}
    done = embedsmith_command(*(places.get(word, word) for word in words))
    assert done.code == 2, done.err
    assert "manifest" in done.error
    assert not (tmp_path / "out").exists()

"""`--cluster` where there is none: one line, before anything is done."""

import importlib.util
import socket
from contextlib import nullcontext

import pytest

from embedsmith.errors import InputError, SettingsError
from embedsmith.recipes import run
from embedsmith.recipes.recipe import recipe_of
from tests.cli.test_every_option import CLICKED, COMMANDS


def test_without_ray_one_line_says_what_to_install(embedsmith_command, monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else find(name, *rest))
    done = embedsmith_command("mine", tmp_path / "none.jsonl", "--out", tmp_path / "run", "--cluster", "local:2")
    assert done.code == 2
    assert done.error == "cluster local:2: Ray is not installed"
    assert 'hint: pip install "embedsmith[ray]"' in done.err


def test_an_address_where_nobody_listens_is_one_line_and_no_wait(embedsmith_command, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: name)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{held.getsockname()[1]}"
        done = embedsmith_command("encode", "m", tmp_path / "t.txt", "--out", tmp_path / "o.npy", "--cluster", address)
    assert done.code == 2
    assert done.error == f"cluster {address}: nobody answers at {address} (connection refused)"
    assert "ray status" in done.err


HAVE = [name for name, command in CLICKED.items() if any("--cluster" in one.opts for one in command.params)]


def test_every_command_that_searches_with_models_has_it():
    assert set(HAVE) == {"ablate", "build", "convert", "encode", "evaluate", "mine", "run", "synthesize queries"}


@pytest.mark.parametrize("name", HAVE)
def test_a_name_of_no_cluster_is_one_line_before_anything_is_read(embedsmith_command, name):
    done = embedsmith_command(*name.split(), *COMMANDS[name].words.split(), "--cluster", "nowhere")
    assert done.code == 2
    assert done.error == 'cluster: no cluster "nowhere"'


def test_a_recipe_names_a_cluster_and_is_the_same_run_without_it(monkeypatch, tmp_path):
    values = {"data": {"toy": {"path": str(tmp_path / "none.jsonl")}}}
    alone, shared = (recipe_of({**values, **more}, where="r") for more in ({}, {"cluster": "local:2"}))
    assert shared.fingerprint() == alone.fingerprint()
    asked = []
    monkeypatch.setattr(run, "on_cluster", lambda name: asked.append(name) or nullcontext())
    for recipe in (alone, shared):
        with pytest.raises(InputError, match=r"none\.jsonl"):
            run.run_recipe(recipe, out=tmp_path / "run", progress=False)
    assert asked == [None, "local:2"]
    with pytest.raises(SettingsError, match='no cluster "nowhere"'):
        recipe_of({**values, "cluster": "nowhere"}, where="r")

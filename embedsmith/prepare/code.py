"""Code search: (what a function does, its source) pairs from a tree of Python files, split by module.

A query is the first sentence of a docstring, its passage the function's source without any docstring, under a line
that says where it is at home: a method that does not name its class is half a passage. Whole modules go to the test
side, and nothing that stands there, query or function, is seen in training.
"""

from __future__ import annotations

import hashlib
import os
import random
import sysconfig
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from pydantic import Field

from embedsmith.data.collection import Collection
from embedsmith.data.normalised import normalised
from embedsmith.errors import InputError
from embedsmith.prepare.functions import Function, Skipped, printable, read_functions
from embedsmith.settings import Seed, Settings

MIN_PAIRS = 20
MIN_UNITS = 5
"""Fewer units than this are too coarse to come near a share, so the split looks one folder deeper."""

FOREIGN_FOLDERS = {"__pycache__", "site-packages", "dist-packages", "node_modules"}
_BUILD_FOLDERS = {"build", "dist"}
# A folder `testing` is kept: it is mostly a library for others' tests, with docstrings that say what it does.
_TEST_FOLDERS = {"test", "tests", "idle_test"}
_TEST_FILES = ("test_*.py", "*_test.py", "tests.py", "conftest.py")


class CodeSettings(Settings):
    """Which Python files, and how much of them is held out."""

    source: str = Field("stdlib", min_length=1)
    """A folder of Python files; `stdlib` is the standard library of the running Python."""

    split_seed: Seed = 0
    """Seed of the order in which modules are drawn for the test side."""

    test_share: float = Field(0.2, gt=0, lt=1)
    """Share of the pairs aimed at for the test side, which takes whole modules."""

    max_functions: int | None = Field(None, gt=0)
    """Functions to keep, at most, in whole files drawn at random; all by default. More are kept where those of the
    first files are more than that."""


@dataclass(frozen=True)
class Harvest:
    """The functions in the order of file and line, and what could not be read."""

    functions: list[Function]
    skipped: list[Skipped]


@dataclass(frozen=True)
class CodeSearch:
    """Two collections that share no module, and no query and function text in training that the test modules hold."""

    train: Collection
    test: Collection
    """Queries of the test modules; its passages are the functions of all modules."""
    test_modules: list[str]
    """Sorted; path prefixes (`src/pkg/part`) where the tree has too few top-level modules to split."""


def check_sources(settings: CodeSettings) -> None:
    """Refuse a source without Python files; none of them is read.

    Raises:
        InputError: it is not a folder, or holds no Python file.
    """
    _sources(settings, [])


def harvest(settings: CodeSettings, *, on_file: Callable[[int, int], None] | None = None) -> Harvest:
    """Return every function that has both a docstring and a body.

    Functions that only `pass`, `...` or `raise NotImplementedError` are left out, and so are those whose first sentence
    has fewer than three words. A pointer such as "See the base class." stays: shared by many functions, it becomes
    one query with many positives, and it costs nothing else.

    Args:
        on_file: called with (files done, files in all) after each file.

    Raises:
        InputError: the source is not a folder, or holds no Python file or no function with a docstring.
    """
    skipped: list[Skipped] = []
    root, paths = _sources(settings, skipped)
    functions: list[Function] = []
    for done, path in enumerate(paths, start=1):
        found = read_functions(root, path)
        if isinstance(found, Skipped):
            skipped.append(found)
        else:
            functions += found
        if on_file is not None:
            on_file(done, len(paths))
    if not functions:
        raise InputError(
            f"{root}: no function with both a docstring and a body in {len(paths):,} Python files"
            f"{_first_skipped(skipped)}",
            hint="a source tree without docstrings has no queries: choose another one",
        )
    return Harvest(functions=_some(functions, settings), skipped=skipped)


def _some(functions: list[Function], settings: CodeSettings) -> list[Function]:
    """Return the functions of as many files as do not hold too many."""
    if settings.max_functions is None or len(functions) <= settings.max_functions:
        return functions
    sizes = Counter(function.file for function in functions)
    order = sorted(sizes)
    random.Random(settings.split_seed).shuffle(order)
    kept: set[str] = set()
    count = 0
    for file in order:
        if count + sizes[file] <= settings.max_functions or len(kept) < MIN_UNITS:
            kept.add(file)
            count += sizes[file]
    return [function for function in functions if function.file in kept]


def _first_skipped(skipped: list[Skipped]) -> str:
    if not skipped:
        return ""
    first = skipped[0]
    place = first.path if first.line is None else f"{first.path}:{first.line}"
    return f" ({len(skipped):,} could not be read, first {place}: {first.reason})"


def sources_hash(settings: CodeSettings) -> str:
    """Return a hash of every file that a harvest reads."""
    root = _root_of(settings)
    digest = hashlib.sha256()
    for path in _python_files(root, []):
        content = (root / path).read_bytes() if (root / path).is_file() and os.access(root / path, os.R_OK) else b""
        digest.update(f"{path}\n{hashlib.sha256(content).hexdigest()}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def _sources(settings: CodeSettings, skipped: list[Skipped]) -> tuple[Path, list[str]]:
    """Return the folder of a source and its Python files."""
    root = _root_of(settings)
    if not root.is_dir():
        what = "is a file, wanted a folder" if root.exists() else "no such folder"
        raise InputError(f"{root}: {what}", hint='set `source` to a folder of Python files, or to "stdlib"')
    paths = _python_files(root, skipped)
    if not paths:
        raise InputError(
            f"{root}: no Python file (*.py) outside tests, hidden folders and virtual environments",
            hint="set `source` to the folder that holds the packages",
        )
    return root, paths


def _root_of(settings: CodeSettings) -> Path:
    """Return the folder that a source names."""
    return Path(sysconfig.get_path("stdlib") if settings.source == "stdlib" else settings.source)


def _python_files(root: Path, skipped: list[Skipped]) -> list[str]:
    """Return the files to read, relative to the root and sorted by the parts of their paths."""

    def unreadable(error: OSError) -> None:
        folder = Path(error.filename).relative_to(root).as_posix()
        skipped.append(Skipped(printable(folder), None, f"cannot be listed: {error.strerror}"))

    found: list[PurePosixPath] = []
    # Links to folders are not followed: what they show is elsewhere in the tree, foreign, or a loop.
    for folder, folders, files in os.walk(root, onerror=unreadable):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if _is_own_code(here / name))
        for name in files:
            is_test = any(fnmatch(name, pattern) for pattern in _TEST_FILES)
            if name.endswith(".py") and not name.startswith(".") and not is_test:
                found.append(PurePosixPath((here / name).relative_to(root).as_posix()))
    return [str(path) for path in sorted(found, key=lambda path: path.parts)]


def _is_own_code(folder: Path) -> bool:
    """Tell whether a folder holds code of the project that is neither a test, nor generated, nor others' code."""
    name = folder.name
    if name.startswith(".") or name in FOREIGN_FOLDERS or name in _TEST_FOLDERS:
        return False
    if name in _BUILD_FOLDERS:  # a package may be called so, the output of a build has no __init__.py
        return os.path.exists(folder / "__init__.py")
    return not os.path.exists(folder / "pyvenv.cfg")


@dataclass(frozen=True)
class _Merged:
    """Functions with equal texts as one passage, equal queries as one query; keys are normalised texts."""

    passage_ids: dict[str, str]
    passages: dict[str, Function]
    query_ids: dict[str, str]
    queries: dict[str, str]
    positives: dict[str, dict[str, None]]
    """query key -> its passage keys in order."""


def split(harvest: Harvest, settings: CodeSettings) -> CodeSearch:
    """Return collections whose test queries come from modules that training never saw.

    Test queries search among all functions, of both sides. A query or a function that also stands in a test module is
    taken out of training; a test query that a training module carries too keeps that function as a positive.

    A passage is compared by its text: the line above it would make every copy another function. Copies in several
    places are one passage, under the name of the first.

    Ids are the same on both sides: `zipfile.py:ZipFile.namelist`, with `@line` where a file has the name twice.

    Raises:
        InputError: there are too few pairs, all in one file, or none is left to train on.
    """
    merged = _merge(harvest.functions)
    pairs = sum(len(keys) for keys in merged.positives.values())
    if pairs < MIN_PAIRS:
        raise InputError(
            f"{settings.source}: got {pairs} pairs of docstring and function, wanted at least {MIN_PAIRS}",
            hint="choose a larger source tree, or one with more docstrings",
        )
    units = _units(harvest.functions)
    sizes = Counter(units[function.file] for function in harvest.functions)
    test_units = drawn(sizes, share=settings.test_share, seed=settings.split_seed)
    if not test_units:
        raise InputError(
            f"{settings.source}: all {pairs:,} pairs are in one file, {harvest.functions[0].file}; "
            "a split needs at least 2 files",
            hint="choose a source tree with several modules",
        )
    tested = [function for function in harvest.functions if units[function.file] in test_units]
    test_queries = {normalised(function.query) for function in tested}
    test_texts = {normalised(function.text) for function in tested}
    train = _collection(
        "code-search-train", merged, merged.queries.keys() - test_queries, merged.passages.keys() - test_texts
    )
    if not train.queries:
        raise InputError(
            f"{settings.source}: no pair is left to train on: all that is outside the test modules "
            f"({', '.join(sorted(test_units)[:3])}, ...) is repeated in them",
            hint="set another `split_seed` or a smaller `test_share`",
        )
    test = _collection("code-search-test", merged, test_queries, set(merged.passages))
    return CodeSearch(train=train, test=test, test_modules=sorted(test_units))


def _merge(functions: list[Function]) -> _Merged:
    """Return passages and queries in the order of their first occurrence."""
    merged = _Merged(passage_ids={}, passages={}, query_ids={}, queries={}, positives={})
    names = Counter((function.file, function.name) for function in functions)
    for function in functions:
        query, text = normalised(function.query), normalised(function.text)
        if text not in merged.passages:
            line = f"@{function.line}" if names[function.file, function.name] > 1 else ""
            merged.passage_ids[text] = f"{function.file}:{function.name}{line}"
            merged.passages[text] = function
        if query not in merged.queries:
            merged.query_ids[query] = f"q{len(merged.queries) + 1}"
            merged.queries[query] = function.query
            merged.positives[query] = {}
        merged.positives[query][text] = None
    return merged


def _units(functions: list[Function]) -> dict[str, str]:
    """Return file -> the unit that goes to one side as a whole.

    Units are the path prefixes of the shallowest depth that has at least five of them, else the files: in a tree
    whose only top-level folder is `src/`, top-level modules would leave nothing to split.
    """
    files = {function.file: PurePosixPath(function.file.removesuffix(".py")).parts for function in functions}
    units: dict[str, str] = {}
    for depth in range(1, max(map(len, files.values()), default=0) + 1):
        units = {file: "/".join(parts[:depth]) for file, parts in files.items()}
        if len(set(units.values())) >= MIN_UNITS:
            break
    return units


def drawn(sizes: Counter[str], *, share: float, seed: int) -> set[str]:
    """Return the units of the test side: in random order those that fit, at last one more if it comes nearer.

    At least one unit is on each side; of a single unit nothing is drawn.

    >>> drawn(Counter(a=50, b=20, c=15, d=15), share=0.2, seed=0)
    {'c'}
    >>> drawn(Counter(a=50, b=50), share=0.01, seed=0)
    {'a'}
    """
    if len(sizes) < 2:
        return set()
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    wanted, count = share * sizes.total(), 0
    taken: set[str] = set()
    for unit in order:
        if count + sizes[unit] <= wanted:
            taken.add(unit)
            count += sizes[unit]
    rest = [unit for unit in order if unit not in taken]
    nearest = min(rest, key=lambda unit: abs(count + sizes[unit] - wanted))
    is_nearer = abs(count + sizes[nearest] - wanted) < wanted - count
    if not taken or (is_nearer and len(rest) > 1):
        taken.add(nearest)
    return taken


def _collection(name: str, merged: _Merged, queries: set[str], passages: set[str]) -> Collection:
    """Return the collection of some passages and of those queries that have a positive among them."""
    kept = {key: function for key, function in merged.passages.items() if key in passages}
    qrels = {
        merged.query_ids[query]: {merged.passage_ids[text]: 1 for text in texts if text in kept}
        for query, texts in merged.positives.items()
        if query in queries and any(text in kept for text in texts)
    }
    asked = [query for query, query_id in merged.query_ids.items() if query_id in qrels]
    return Collection.of(
        name=name,
        passage_ids=[merged.passage_ids[key] for key in kept],
        passages=[function.passage for function in kept.values()],
        query_ids=[merged.query_ids[query] for query in asked],
        queries=[merged.queries[query] for query in asked],
        qrels=qrels,
        metadata=[
            {"file": function.file, "line": function.line, "name": function.name, "module": function.module}
            for function in kept.values()
        ],
    )

"""What makes a reading fast: nothing is done again that the changed file cannot change.

The fuzzer alone asks for this; the seeds in the suite are read as a user's command reads them.

- Metadata of packages, tables of tensors' names, and parsed YAML are kept.
- A model none of whose files was changed since it was opened is copied, not opened.
- Of several readings of the same folder, which have much in common, the first that opens the changed file is done, and
  one other that does. Now and then it is any other.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import importlib.metadata
import os
import pickle
import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHANGED = 10**8
"""Seconds since 1970, before which the changed files of a reading seem to be written."""
_KEPT_MODELS = 6
_ANY = 1 / 8
"""How often any reading is the other one: what a library opens in native code is not seen."""


class Touched:
    """Which files of a folder each reading opens, learned once on a folder that is read well."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.fspath(folder) + "/"
        self._files: list[set[str]] = []
        self._number = 0
        self._learns = False
        self._chosen: set[int] | None = None
        self._rng = random.Random(0)
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._learns and event == "open" and self._files:
            path = arguments[0]
            if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self._folder):
                self._files[-1].add(os.fspath(path)[len(self._folder) :])

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Within the block note what is opened."""
        self._files, self._learns = [], True
        try:
            yield
        finally:
            self._learns = False

    def begin(self, changed: Iterable[str]) -> None:
        """Begin a reading of a folder of which some files were changed."""
        self._number, self._chosen = 0, None
        fit = [number for number, files in enumerate(self._files) if files.intersection(changed)]
        if fit and set(changed) <= set().union(*self._files):
            others = range(len(self._files)) if self._rng.random() < _ANY else fit
            self._chosen = {fit[0], self._rng.choice(others)}

    def is_worth(self) -> bool:
        """Return whether the next reading is to be done."""
        if self._learns:
            self._files.append(set())
            return True
        self._number += 1
        return self._chosen is None or self._number - 1 in self._chosen


def keep() -> None:
    """Have this process keep what is the same in every reading, of what the first one has imported."""
    _keep_metadata()
    if "embedsmith.recipes.recipe" in sys.modules:
        _keep_yaml()
    if "embedsmith.models.opening" in sys.modules:
        _keep_tables()
        _keep_models()


def _keep_metadata() -> None:
    found = importlib.metadata.Distribution.from_name
    importlib.metadata.Distribution.from_name = functools.cache(found)  # type: ignore[method-assign]
    parsed = functools.cache(importlib.metadata.Distribution.metadata.fget)  # type: ignore[attr-defined]
    importlib.metadata.Distribution.metadata = property(parsed)  # type: ignore[assignment, method-assign]
    listed = functools.cache(lambda **given: tuple(importlib.metadata.Distribution.discover(**given)))
    importlib.metadata.distributions = lambda **given: listed(**given)  # type: ignore[assignment, return-value]


def _keep_yaml() -> None:
    import yaml

    from embedsmith.recipes import recipe

    recipe.plain_yaml = _by_value(recipe.plain_yaml)
    yaml.safe_dump = _by_value(yaml.safe_dump)


def _keep_tables() -> None:
    import gguf

    from embedsmith.models import sizes

    gguf.get_tensor_name_map = functools.lru_cache(64)(gguf.get_tensor_name_map)
    gguf.GGUFReader = _by_file(gguf.GGUFReader)  # type: ignore[assignment, misc]
    made = sizes._model_of
    by_bytes: dict[bytes, Any] = {}

    def model_of(folder: Path, **more: str) -> Any:
        if more:
            return made(folder, **more)
        key = (folder / "config.json").read_bytes()
        if key not in by_bytes:
            by_bytes.clear()
            by_bytes[key] = made(folder)
        return by_bytes[key]

    sizes._model_of = model_of


def _by_value(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that gives a fresh copy of what it gave, or raised, for the same values."""
    known: OrderedDict[str, tuple[Any, Exception | None]] = OrderedDict()

    @functools.wraps(function)
    def given_or_kept(*values: Any, **more: Any) -> Any:
        try:
            key = repr((values, more))
        except RecursionError:
            return function(*values, **more)
        if key not in known:
            try:
                found, error = pickle.dumps(function(*values, **more)), None
            except Exception as raised:
                found, error = None, raised
            known[key] = found, error
            if len(known) > 8:
                known.popitem(last=False)
        found, error = known[key]
        if error is not None:
            raise error.with_traceback(None)
        return pickle.loads(found)

    return given_or_kept


def _by_file(opened: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that gives what it gave, or raised, for the same file."""
    known: dict[Any, Any] = {}

    def given_or_kept(path: Any, *more: Any) -> Any:
        stat = os.stat(path)
        key = str(path), stat.st_size, stat.st_mtime_ns, more
        if key not in known:
            known.clear()
            known[key] = opened(path, *more)
        return known[key]

    return given_or_kept


def _keep_models() -> None:
    """Have models be copied whose files are those of one that was opened."""
    from embedsmith.models import opening

    for name in ("load", "build_student"):
        given = getattr(opening, name)
        replacement = _kept(given)
        for module in list(sys.modules.values()):
            if getattr(module, name, None) is given:
                setattr(module, name, replacement)


def _kept(opened: Callable[..., Any]) -> Callable[..., Any]:
    known: OrderedDict[Any, Any] = OrderedDict()

    @functools.wraps(opened)
    def open_or_copy(source: Any, **more: Any) -> Any:
        path = Path(getattr(source, "name", source))
        files = sorted(file for file in path.rglob("*") if file.is_file())
        if not files or any(file.stat().st_mtime < CHANGED for file in files):
            return opened(source, **more)  # what was changed is not opened a second time
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode("utf-8", "surrogatepass"))
            digest.update(file.read_bytes())
        key = repr(source), repr(more), digest.digest()
        if key not in known:
            known[key] = opened(source, **more)
            if len(known) > _KEPT_MODELS:
                known.popitem(last=False)
        known.move_to_end(key)
        return copy.deepcopy(known[key])

    return open_or_copy

"""No kernels from a hub: bitsandbytes fetches some when it is imported, where the package `kernels` is installed.

transformers imports peft, and peft imports bitsandbytes, wherever they are installed. On a CPU with AVX512_BF16 that
import downloads compiled code and loads it. Here it finds no package `kernels`, and bitsandbytes uses its own kernels.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import logging
import sys
from collections.abc import Sequence
from types import ModuleType

_LIBRARY = "bitsandbytes"
_WARNS = "bitsandbytes.backends.cpu.ops"
"""Logger that advises to install `kernels`."""


def never_fetched() -> None:
    """Have bitsandbytes imported without the package `kernels` in this process; for all others it stays there.

    Without effect where bitsandbytes was imported before.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds bitsandbytes where it is, and has it loaded by `_Loader`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of bitsandbytes; None for every other module."""
        if name != _LIBRARY:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Loads a module that finds no package `kernels` meanwhile."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Return the module as its own loader creates it."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module; `import kernels` raises ImportError in it."""
        kernels, logger = sys.modules.get("kernels"), logging.getLogger(_WARNS)
        was_disabled, logger.disabled = logger.disabled, True
        sys.modules["kernels"] = None  # type: ignore[assignment]  # so an import is refused
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        try:
            self._loader.exec_module(module)
        finally:
            logger.disabled = was_disabled
            if kernels is None:
                del sys.modules["kernels"]
            else:
                sys.modules["kernels"] = kernels

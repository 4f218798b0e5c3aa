"""The version of the package, and those of others."""

from __future__ import annotations

import functools
from collections.abc import Iterable

__version__ = "0.1.0"


@functools.cache
def installed_version(package: str) -> str | None:
    """Return the version of an installed package, None where there is none.

    It is read once: with each version importlib parses the whole description of a package.

    >>> installed_version("numpy") == __import__("numpy").__version__
    True
    >>> installed_version("a-package-of-nobody")
    """
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed.

    >>> list(installed_versions(["a-package-of-nobody", "numpy"]))
    ['numpy']
    """
    return {package: found for package in packages if (found := installed_version(package))}

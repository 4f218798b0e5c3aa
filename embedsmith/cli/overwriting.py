"""`--overwrite`: what --out holds is removed, after the user was asked, unless the command reads it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from embedsmith.cli import console
from embedsmith.errors import EmbedsmithError, SettingsError

Kind = Literal["run", "vectors", "model"]
"""What a command writes: a run folder, a file of vectors or the folder of a model."""


def make_room(out: Path | None, others: Mapping[str, Any], *, kind: Kind = "run") -> None:
    """Remove what a command has written before; without effect where there is nothing.

    Args:
        out: the folder, or the file.
        others: what else was given on the command line: nothing of it may lie in the folder.
        kind: what the command writes; nothing else is removed.

    Raises:
        SettingsError: the command reads what is in the folder, or nobody can be asked, or the answer is no.
        RunError: the folder is no run, or holds what is no part of one; or the file is no file of vectors.
    """
    # Of several processes the first one writes, and makes room.
    if out is None or os.environ.get("RANK", "0") != "0" or not out.exists():
        return
    if out.is_dir() and not any(out.iterdir()):
        return
    what_is_in, clear, removed = _of_kind(kind, out)
    what = what_is_in(out)
    for path in _read_by(others):
        if any(path.resolve().is_relative_to(place.resolve()) for place in removed):
            raise SettingsError(f"--overwrite would remove {path}, which is read", hint="choose another --out")
    if not console.confirmed(f"{out}: remove this {what}?"):
        raise SettingsError(f"{out}: not removed", hint="choose another --out, or say yes")
    clear(out)


def _of_kind(kind: Kind, out: Path) -> tuple[Callable[[Path], str], Callable[[Path], None], list[Path]]:
    """Return who says what there is, who removes it, and what would be removed."""
    if kind == "run":
        from embedsmith.runs.clearing import clear, what_is_in

        return what_is_in, clear, [out]
    from embedsmith.serving import clearing

    if kind == "vectors":
        return clearing.what_is_in_vectors, clearing.clear_vectors, [out, clearing.ids_beside(out)]
    return clearing.what_is_in_export, clearing.clear_export, [out]


def _read_by(values: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the paths that values of a command line name, and those that the runs and recipes there name."""
    from embedsmith.runs.lineage import lineage
    from embedsmith.runs.part import is_run

    for text in _texts(list(values.values())):
        path = _path(text)
        if path is None:
            continue
        yield path
        if path.suffix in (".yaml", ".yml") and path.is_file():
            yield from filter(None, map(_path, _texts(_recipe(path))))
        elif is_run(path):
            for folder, manifest in lineage(path):
                yield folder
                # The settings name models: that which adapters lie over is read with them.
                yield from filter(None, map(_path, _texts([manifest["inputs"], manifest["settings"]])))


def _recipe(path: Path) -> Any:
    """Return the values of a recipe; nothing of a file that is none, which the command itself refuses."""
    from embedsmith.recipes.recipe import read_yaml

    try:
        return read_yaml(path)
    except EmbedsmithError:
        return {}


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in nested values."""
    if isinstance(value, str | Path):
        yield str(value)
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _path(text: str) -> Path | None:
    """Return the path that a text names, itself or after `=` or `:`, as in `student.name=runs/a`; None if none is."""
    text = os.path.expandvars(text)
    for form in (text, text.partition("=")[2], text.partition(":")[2]):
        # A text too long for a path, or with a NUL, names none.
        if form and len(form) < 1000 and "\0" not in form and os.path.exists(form := os.path.expanduser(form)):
            return Path(form)
    return None

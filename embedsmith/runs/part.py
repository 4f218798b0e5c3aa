"""What a recipe has mined of one data set, RUN/mined/NAME, as the run of `mine` that it is.

The folder has no manifest of its own: what stands in one follows from the recipe's.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from embedsmith.runs.named import named_data
from embedsmith.variables import fill

_SOURCE = ("split", "corpus", "exclude_qrels", "exclude_ids", "skip_bad", "columns")
"""What settings of data say of how they are read; as in `embedsmith.data.source`."""


def is_run(folder: str | Path) -> bool:
    """Return whether a folder is a run, or what a recipe's run has mined of one data set."""
    return (Path(folder) / "manifest.json").is_file() or recipe_around(folder) is not None


def recipe_around(folder: str | Path) -> Path | None:
    """Return the run of a recipe that has mined a data set into a folder, None for any other folder."""
    place = Path(os.path.abspath(folder))
    run = place.parent.parent
    is_part = place.parent.name == "mined" and (place / "candidates").is_dir() and (run / "manifest.json").is_file()
    return run if is_part else None


def manifest_of_part(folder: str | Path, run: Path, manifest: dict[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of what a recipe's run has mined of one data set, None where the recipe has no such data.

    Args:
        folder: RUN/mined/NAME.
        run: RUN.
        manifest: of that.

    Raises:
        RunError: the manifest holds something else than a recipe's.
        SettingsError: a variable that the path of the data names is not set.
    """
    name = Path(os.path.abspath(folder)).name
    data = named_data(run, manifest).get(name)
    if data is None:
        return None
    counts = {kind: manifest["counts"].get(said) for kind, said in _counts(name).items()}
    return {
        **manifest,
        "command": "mine",
        "status": "finished" if (Path(folder) / "negatives.jsonl").is_file() else "running",
        "settings": manifest["settings"].get("mining", {}),
        "inputs": {**_read(run, name, data), "name": name},
        "content": {key: own for key, own in manifest["content"].items() if key == name or key.endswith(f" of {name}")},
        "counts": {kind: own for kind, own in counts.items() if own is not None},
        "seconds": {},
    }


def _counts(name: str) -> dict[str, str]:
    """Return what a run of `mine` calls its counts, and what a recipe's run calls those of a data set."""
    return {"mining": f"mining {name}", "recall": f"recall mined/{name}"}


def _read(run: Path, name: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return where the mined data lie, and how they are read, as a run of `mine` notes it."""
    inside = run / "data" / name
    if data.get("format") == "code":
        return {"data": str(inside / "train"), "source": {"split": "train"}}
    source = {key: _filled(data[key]) for key in _SOURCE if data.get(key) is not None}
    path = fill(data["path"])
    if data.get("against"):
        if (Path(path) / "qrels").is_dir():
            # What was chosen is one split there, and what joins the corpus has joined it.
            source = {key: own for key, own in source.items() if key not in ("split", "corpus")}
            return {"data": str(inside / "clean"), "source": source}
        suffix = Path(path).suffix if Path(path).is_file() else ".jsonl"
        return {"data": str(inside / f"clean{suffix}"), "source": source}
    return {"data": path, "source": source}


def _filled(value: Any) -> Any:
    """Return a value of settings with the variables of its paths filled."""
    if isinstance(value, list):
        return [_filled(one) for one in value]
    return fill(value) if isinstance(value, str) else value

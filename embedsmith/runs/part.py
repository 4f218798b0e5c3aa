"""What a recipe has mined of one data set, RUN/mined/NAME, as the run of `mine` that it is.

RUN/mined/NAME              mined by the recipe's teachers
RUN/remined/STAGE/NAME      mined again before a stage, by the student as it was then

The folder has no manifest of its own: what stands in one follows from the recipe's.
"""

from __future__ import annotations

import os
import re
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
    if not (place / "candidates").is_dir():
        return None
    stage = _stage_of(place)
    run = place.parents[2] if stage else place.parents[1]
    is_part = bool(stage) or place.parent.name == "mined"
    return run if is_part and (run / "manifest.json").is_file() else None


def _stage_of(folder: str | Path) -> str | None:
    """Return the stage before which a part was mined again, None where the recipe's teachers have mined it."""
    place = Path(os.path.abspath(folder))
    # A run, too, may be called `remined`: then what lies in its `mined` is no stage's.
    is_again = place.parent.parent.name == "remined" and not (place.parent.parent / "manifest.json").is_file()
    return place.parent.name if is_again else None


def manifest_of_part(folder: str | Path, run: Path, manifest: dict[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of what a recipe's run has mined of one data set, None where the recipe has no such data.

    Args:
        folder: RUN/mined/NAME or RUN/remined/STAGE/NAME.
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
    stage = _stage_of(folder)
    counts = {kind: manifest["counts"].get(said) for kind, said in _counts(name, stage).items()}
    return {
        **manifest,
        "command": "mine",
        "status": "finished" if (Path(folder) / "negatives.jsonl").is_file() else "running",
        "settings": _mining(run, manifest["settings"].get("mining", {}), stage),
        "inputs": {**_read(run, name, data), "name": name},
        "content": {key: own for key, own in manifest["content"].items() if _is_of(key, name, stage)},
        "counts": {kind: own for kind, own in counts.items() if own is not None},
        "seconds": {},
    }


def _counts(name: str, stage: str | None) -> dict[str, str]:
    """Return what a run of `mine` calls its counts, and what a recipe's run calls those of a part."""
    if stage:
        return {"mining": f"mining {name} for {stage}", "recall": f"recall remined/{stage}/{name}"}
    return {"mining": f"mining {name}", "recall": f"recall mined/{name}"}


def _mining(run: Path, mining: Any, stage: str | None) -> Any:
    """Return the settings that a part was mined with; as in `embedsmith.recipes.recipe`, `remined`."""
    if not stage or not isinstance(mining, dict):
        return mining
    return {**mining, "teachers": [str(run / "remined" / stage / "model")], "ensemble": "first", "weights": []}


def _is_of(key: str, name: str, stage: str | None) -> bool:
    """Return whether a content of a recipe's run is that of a part: of its data, or of a teacher that mined it."""
    of_student = re.fullmatch(rf"teacher .*[/\\]?remined[/\\]([^/\\]+)[/\\]model of {re.escape(name)}", key)
    if key.startswith("teacher ") and (of_student[1] if of_student else None) != stage:
        return False
    return key == name or key.endswith(f" of {name}")


def _read(run: Path, name: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return where the mined data lie, and how they are read, as a run of `mine` notes it."""
    inside = run / "data" / name
    if data.get("format") in ("code", "documents"):
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

"""Older layouts of scores.json, read as the current one.

Version 1 had three layouts, without a number: an evaluation's ({"model", "data", "scores": {NAME: {METRIC: value}}}),
a recipe's ({NAME: {LABEL: {METRIC: value}}}), and two evaluations' in the folders `before` and `after`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from embedsmith.data.files import read_json
from embedsmith.data.plain_values import are_numbers
from embedsmith.errors import RunError
from embedsmith.runs.named import named_data
from embedsmith.runs.run import read_manifest

_TASKS = {"pairs": "pair-classification"}
"""Task of `convert` -> what its test split was scored as, where the two have different names."""


_KEPT = ("task", "split", "queries", "passages", "rows", "left_out", "labels")
"""What an evaluation said of its data under the names of today."""
_AGAIN = "score it again: embedsmith evaluate MODEL DATA --out RUN"


def upgraded(folder: Path, found: Any) -> dict[str, Any]:
    """Return the scores of an older layout in the current one, as plain values.

    Args:
        folder: of the run or the evaluation.
        found: what its scores.json holds, `{}` where there is none.

    Raises:
        RunError: it holds something else.
    """
    if found == {}:
        sides = [side for side in ("before", "after") if (folder / side / "scores.json").is_file()]
        return _joined({side: _evaluation(folder, read_json(folder / side / "scores.json"), side) for side in sides})
    if isinstance(found, dict) and isinstance(found.get("model"), dict) and "fingerprint" in found["model"]:
        return _evaluation(folder, found, "")
    return _recipe(folder, found)


def _joined(sides: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the scores of several models on the same data as one."""
    joined: dict[str, Any] = {}
    for side in sides.values():
        scores = {name: {**joined.get("scores", {}).get(name, {}), **own} for name, own in side["scores"].items()}
        joined = {**side, "data": {**joined.get("data", {}), **side["data"]}, "scores": scores}
    return {"version": 2, **joined}


def _evaluation(folder: Path, found: Any, side: str) -> dict[str, Any]:
    """Return the scores of an evaluation of one model.

    Args:
        side: the folder and label of the model, where there are two.
    """
    place = folder / side / "scores.json"
    if not isinstance(found, dict):
        raise RunError(f"{place}: no scores of an evaluation", hint=_AGAIN)
    scores, data, model = (found.get(name, {}) for name in ("scores", "data", "model"))
    if not (are_numbers(scores, depth=2) and isinstance(model, dict) and isinstance(data, dict)):
        raise RunError(f"{place}: no scores of an evaluation", hint=_AGAIN)
    if unknown := [name for name in scores if not isinstance(data.get(name), dict)]:
        raise RunError(f"{place}: nothing is said of {unknown[0]} under data", hint=_AGAIN)
    label = side or "model"
    asked = read_manifest(folder)["settings"].get("scoring", {}) if (folder / "manifest.json").is_file() else {}
    boards: dict[str, Any] = {"data": {}, "scores": {}}
    for name in scores:
        said = data[name]
        files = said.get("files")
        about = {key: said[key] for key in _KEPT if key in said} | {"content_hash": said.get("fingerprint")}
        if files is not None:
            about |= {"path": name, **_reading(asked, said.get("task") == "retrieval")}
        inner = "/".join(part for part in (side, files or "", "per_query.jsonl") if part)
        boards["data"][name] = about
        boards["scores"][name] = {
            label: {
                "model": model.get("name"),
                "model_hash": model.get("fingerprint"),
                "per_query": inner if files is not None and (folder / inner).is_file() else None,
                "not_in_run": said.get("not_in_run"),
                "metrics": scores[name],
            }
        }
    kept = {name: found[name] for name in ("command", "versions", "python", "machine") if name in found}
    means = {"means": {label: found["means"]}} if found.get("means") else {}
    return {"version": 2, **kept, **boards, **means}


def _reading(asked: Any, is_retrieval: bool) -> dict[str, Any]:
    """Return how an evaluation read its data, as its manifest says."""
    if not isinstance(asked, dict):
        return {}
    named = asked.get("pair_columns" if is_retrieval else "columns") or {}
    columns = {role: column for role, column in named.items() if column is not None} if isinstance(named, dict) else {}
    return {"columns": columns, "corpus": asked.get("corpus"), "skip_bad": asked.get("skip_bad") or False}


def _recipe(folder: Path, found: Any) -> dict[str, Any]:
    """Return the scores of a recipe's run."""
    if not are_numbers(found, depth=3):
        raise RunError(f"{folder / 'scores.json'}: no scores by data set, model and metric", hint=_AGAIN)
    manifest = read_manifest(folder) if (folder / "manifest.json").is_file() else {"settings": {}, "content": {}}
    named = named_data(folder, manifest)
    teachers = (manifest["settings"].get("mining") or {}).get("teachers") or [None]
    models = {"teacher": teachers[0], "before": (manifest["settings"].get("student") or {}).get("name")}
    scores = {
        name: {
            label: {
                "model": models.get(label) or _folder_of(label),
                "per_query": _per_query(folder, name, label),
                "metrics": metrics,
            }
            for label, metrics in labels.items()
        }
        for name, labels in found.items()
    }
    content = manifest["content"]
    data = {name: _data(named.get(name), name) | {"content_hash": content.get(f"{name} (test)")} for name in found}
    return {"version": 2, "versions": manifest.get("versions", {}), "data": data, "scores": scores}


def _folder_of(label: str) -> str:
    """Return the folder of a trained model by its label, or the label: the name of a baseline.

    >>> _folder_of("after"), _folder_of("after warm"), _folder_of("bm25")
    ('model', 'stages/warm', 'bm25')
    """
    if label == "after":
        return "model"
    return f"stages/{label.removeprefix('after ')}" if label.startswith("after ") else label


def _per_query(folder: Path, data: str, label: str) -> str | None:
    """Return the file of the scores of each query, where there is one."""
    inner = f"scores/{data}/{quote(label, safe='')}.jsonl"
    return inner if (folder / inner).is_file() else None


def _data(settings: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """Return what a recipe says of a data set."""
    if settings is None:
        return {"task": "retrieval"}
    if settings.get("format") == "code":
        return {"path": f"data/{name}/test", "in_run": True, "split": "test", "task": "retrieval"}
    converted = settings.get("convert")
    task = converted.get("task", "") if isinstance(converted, dict) else "retrieval"
    columns = settings.get("labelled_columns" if converted else "columns") or {}
    return {
        "path": settings["path"],
        "split": settings["test_split"],
        "task": _TASKS.get(task, task),
        "columns": {role: column for role, column in columns.items() if column is not None},
        "corpus": settings.get("corpus"),
        "skip_bad": settings.get("skip_bad") or False,
    }

"""Benchmarks and tasks of mteb by name. Needs mteb (extra `mteb`)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mteb
from huggingface_hub.errors import HfHubHTTPError
from mteb import ResultCache

from embedsmith.data.reachable import offline_where_the_hub_is_silent
from embedsmith.errors import InputError
from embedsmith.evaluation.local_tasks import undefined
from embedsmith.progress import Progress, silent


@dataclass(frozen=True)
class TaskScore:
    """The main score of one task."""

    type: str
    """Task type, as mteb calls it."""
    metric: str
    """Name of the main score."""
    value: float
    """Mean over the task's splits and languages."""
    revision: str
    """Of the task's data."""


def tasks_named(name: str) -> list[Any]:
    """Return the tasks of a benchmark, or the one task, of a name.

    Raises:
        InputError: mteb knows no such name; gives the nearest.
    """
    nearest = ""
    for find in (mteb.get_benchmark, mteb.get_task):
        try:
            found: Any = find(name)
        except KeyError as error:
            # Asking for all names would build a thousand tasks; mteb's own error has the nearest.
            if match := re.search(r"Did you mean: '?(.+?)'?\?", str(error)):
                nearest = f' (did you mean "{match[1]}"?)'
        else:
            return list(found.tasks) if hasattr(found, "tasks") else [found]
    raise InputError(
        f'mteb has no benchmark or task "{name}"{nearest}', hint='name one such as "MTEB(eng, v2)" or SciFact'
    )


def score_tasks(
    model: Any, tasks: Sequence[Any], *, cache: Path | None = None, on_progress: Progress = silent
) -> dict[str, TaskScore]:
    """Return the main score of each task by its name; what mteb's cache holds of this model is not computed again.

    Args:
        model: an encoder or a ranker for mteb.
        tasks: of mteb.
        cache: folder of the results; by default mteb's own, `~/.cache/mteb` or what MTEB_CACHE names.
        on_progress: called with the progress of the tasks.

    Raises:
        OSError: the data of a task is not on this machine, and the hub cannot be reached.
        ModelError: a score is undefined.
    """
    results = ResultCache(cache) if cache else ResultCache()
    scores: dict[str, TaskScore] = {}
    with offline_where_the_hub_is_silent():
        for done, task in enumerate(tasks):
            name = task.metadata.name
            on_progress("tasks of mteb", done, len(tasks), name)
            found = _result(model, task, results)
            value = float(found.get_score())
            if not math.isfinite(value):
                raise undefined(name, task.metadata.main_score)
            scores[name] = TaskScore(task.metadata.type, task.metadata.main_score, value, found.dataset_revision)
    on_progress("tasks of mteb", len(tasks), len(tasks))
    return scores


def means(scores: dict[str, TaskScore]) -> dict[str, float]:
    """Return the mean over tasks, the mean of each type, and the mean over types, as mteb's leaderboard has them.

    >>> sts, retrieval = ("STS", "cosine_spearman"), ("Retrieval", "ndcg_at_10")
    >>> scores = {"a": TaskScore(*sts, 0.5, "1"), "b": TaskScore(*retrieval, 0.2, "1"), "c": TaskScore(*sts, 0.9, "1")}
    >>> {name: round(value, 3) for name, value in means(scores).items()}
    {'tasks': 0.533, 'types': 0.45, 'STS': 0.7, 'Retrieval': 0.2}
    """
    by_type: dict[str, list[float]] = {}
    for score in scores.values():
        by_type.setdefault(score.type, []).append(score.value)
    of_type = {type_: sum(values) / len(values) for type_, values in by_type.items()}
    everything = [score.value for score in scores.values()]
    return {"tasks": sum(everything) / len(everything), "types": sum(of_type.values()) / len(of_type), **of_type}


def _result(model: Any, task: Any, results: ResultCache) -> Any:
    """Return mteb's result of one task."""
    kept = results.load_task_result(task.metadata.name, model.mteb_model_meta)
    # mteb takes what it has of a task's name, whichever data it was made of.
    is_other = kept is not None and kept.dataset_revision != task.metadata.revision
    try:
        found = mteb.evaluate(
            model,
            task,
            cache=results,
            overwrite_strategy="always" if is_other else "only-missing",
            encode_kwargs={"batch_size": 256},
            co2_tracker=False,
            show_progress_bar=False,
        )
    except (OSError, HfHubHTTPError) as error:
        raise ConnectionError(
            f"{task.metadata.name}: its data is not here, and the hub gives none: {_line(error)}"
        ) from error
    if not found.task_results:
        reason = found.exceptions[0].exception if found.exceptions else "mteb gave no result"
        raise OSError(f"{task.metadata.name}: not scored: {_line(reason)}")
    return found.task_results[0]


def _line(error: Any) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

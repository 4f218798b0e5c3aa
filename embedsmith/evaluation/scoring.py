"""One contender scored on one data set, whatever the data ask: retrieval by trec_eval, labelled data by mteb."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsmith.data.bad_rows import Tally, refuse
from embedsmith.data.beir import unanswered
from embedsmith.data.labelled import Labelled, TaskType, read_labelled, task_of
from embedsmith.data.load import known_splits, load_collection, usual_split
from embedsmith.data.qrels import read_judgements
from embedsmith.data.trec import Ranking
from embedsmith.errors import InputError, SettingsError
from embedsmith.evaluation.contender import Contender
from embedsmith.evaluation.metrics import DEFAULT_METRICS, Scores, score_run
from embedsmith.evaluation.retrieval import depth_for
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.settings import fingerprint

OnSkip = Callable[[str], None]
"""Told in one line what was left out."""


@dataclass(frozen=True)
class Scored:
    """What a model scored on one data set."""

    scores: Scores
    about: dict[str, Any]
    """Task, split, sizes and fingerprint of the data."""
    ranking: Ranking | None = None
    """What was ranked, of retrieval."""
    qrels: dict[str, dict[str, int]] | None = None
    """What it was judged by."""


def score(
    contender: Contender,
    data: str | Path,
    scoring: ScoringSettings,
    *,
    on_skip: OnSkip | None = None,
) -> Scored:
    """Score a contender on one data set.

    Args:
        contender: what is scored.
        data: a path.
        scoring: how.
        on_skip: told what was left out.

    Raises:
        InputError, ModelError, SettingsError: see `embedsmith.errors`.
    """
    if contender.is_run_file and _holds_judgements(data):
        return _score_file(contender, data, scoring, on_skip)
    task = scoring.task or task_of(data, scoring.labelled_columns)
    if task == "retrieval":
        return _score_retrieval(contender, data, scoring, on_skip)
    return _score_labelled(contender, data, task, scoring, on_skip)


def _score_file(contender: Contender, data: str | Path, scoring: ScoringSettings, on_skip: OnSkip | None) -> Scored:
    """Score a run file by a file of judgements."""
    qrels = _judgements(Path(data), scoring, on_skip)
    left_out = sum(not any(grade > 0 for grade in grades.values()) for grades in qrels.values())
    about: dict[str, Any] = {"task": "retrieval", "split": None, "fingerprint": fingerprint(qrels)}
    ranking = contender.ranking_of_file(scoring)
    about |= _unmatched(contender.name, data, ranking, qrels, None, on_skip)
    return _judged(data, about, ranking, qrels, scoring, left_out, on_skip)


def _unmatched(
    run: str,
    data: str | Path,
    ranking: Ranking,
    qrels: dict[str, dict[str, int]],
    corpus: Container[str] | None,
    on_skip: OnSkip | None,
) -> dict[str, int]:
    """Return how many judged queries a run file does not rank, and tell of ids that only one side has.

    Args:
        corpus: the ids of all passages, where they are known; else those that are judged are.

    Raises:
        InputError: the two have no query, or no passage, in common.
    """
    judged = [query for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())]
    ranked = [query for query in judged if query in ranking]
    hint = "score a run of the same data: ids must be equal to the character"
    if judged and not ranked:
        raise InputError(
            f'{run}: none of its {len(ranking):,} queries is judged in {data}: it ranks for "{next(iter(ranking))}", '
            f'judged is "{judged[0]}"',
            hint=hint,
        )
    found = list(dict.fromkeys(passage for query in ranked for passage, _ in ranking[query]))
    known = {passage for grades in qrels.values() for passage in grades} if corpus is None else corpus
    unknown = sum(passage not in known for passage in found)
    if found and unknown == len(found):
        wanted = next(iter(qrels[ranked[0]]))
        raise InputError(
            f'{run}: none of the {len(found):,} passages that it ranks is in {data}: it ranks "{found[0]}", '
            f'judged is "{wanted}"',
            hint=hint,
        )
    missing, extra = len(judged) - len(ranked), sum(query not in qrels for query in ranking)
    if missing and on_skip:
        on_skip(f"{run}: {missing:,} of {len(judged):,} judged queries are not in the run, and score 0")
    if extra and on_skip:
        on_skip(f"{run}: {extra:,} of its {len(ranking):,} queries are not judged in {data}, and are left out")
    if unknown and corpus is not None and on_skip:
        on_skip(f"{run}: {unknown:,} of the {len(found):,} passages that it ranks are not in {data}")
    return {"not_in_run": missing}


def _score_retrieval(
    contender: Contender, data: str | Path, scoring: ScoringSettings, on_skip: OnSkip | None
) -> Scored:
    """Score what a contender ranks for the queries of a collection."""
    depth = depth_for(_metrics(scoring))  # an unknown metric is an error before the work, not after it
    split = scoring.split or usual_split(data, "test")
    collection = load_collection(
        data,
        split=split,
        columns=scoring.pair_columns,
        corpus=scoring.corpus,
        skip_bad=scoring.skip_bad,
        on_skip=on_skip,
    )
    about = {
        "task": "retrieval",
        "split": split,
        "fingerprint": collection.content_hash(),
        "passages": len(collection.passages),
    }
    ranking = contender.ranking(collection, scoring, depth=depth)
    if contender.is_run_file:
        about |= _unmatched(contender.name, data, ranking, collection.qrels, collection.passage_index, on_skip)
    return _judged(data, about, ranking, collection.qrels, scoring, _unanswered(data, split), on_skip)


def _judged(
    data: str | Path,
    about: dict[str, Any],
    ranking: Ranking,
    qrels: dict[str, dict[str, int]],
    scoring: ScoringSettings,
    left_out: int,
    on_skip: OnSkip | None,
) -> Scored:
    """Return the scores of a ranking; tell how many judged queries say nothing about it."""
    scores = score_run(ranking, qrels, _metrics(scoring))
    if left_out and on_skip:
        queries, verb = ("query", "is") if left_out == 1 else ("queries", "are")
        on_skip(f"{data}: {left_out:,} judged {queries} without a relevant passage {verb} left out")
    return Scored(scores, {**about, "queries": len(scores.per_query), "left_out": left_out}, ranking, qrels)


def _score_labelled(
    contender: Contender, data: str | Path, task: TaskType, scoring: ScoringSettings, on_skip: OnSkip | None
) -> Scored:
    """Score a contender on labelled texts or pairs, by the evaluators of mteb."""
    need_mteb(f"{data}: {task}")
    from embedsmith.evaluation.local_tasks import scores_of, task_of_labelled

    found = read_scored(data, task, scoring, on_skip)
    if contender.is_run_file or (task != "reranking" and contender.encoder is None):
        raise SettingsError(
            f"{data}: {task} needs an embedding model, {contender.name} has no vectors",
            hint="name another model, or the kind of the data with --task",
        )
    model = contender.mteb_model(scoring.template)
    scores = scores_of(task_of_labelled(found), model, found.split, found.task)
    about: dict[str, Any] = {"task": found.task, "split": found.split, "fingerprint": found.content_hash()}
    about |= {"rows": len(found), "left_out": found.left_out}
    if found.meanings:
        about["labels"] = found.meanings.plain()
    return Scored(Scores(mean=scores, per_query={}), about)


def read_scored(data: str | Path, task: TaskType, scoring: ScoringSettings, on_skip: OnSkip | None = None) -> Labelled:
    """Return the labelled data that is scored.

    Args:
        data: a path.
        task: what it asks of a model; not retrieval.
        scoring: how.
        on_skip: told what was left out, and what labels are taken for.

    Raises:
        InputError: as `read_labelled`.
    """
    tally = Tally()
    found = read_labelled(
        data,
        task,
        split=scoring.split,
        columns=scoring.labelled_columns,
        labels=scoring.labels,
        positive_labels=scoring.positive_labels,
        on_bad=tally if scoring.skip_bad else refuse,
    )
    if on_skip:
        for line in [*tally.lines(), *found.notes]:
            on_skip(line)
    return found


def check_labelled(data: Sequence[str], scoring: ScoringSettings) -> None:
    """Read the labelled ones of several data sets, so that what is wrong with the last is known before the first.

    Raises:
        InputError: as `read_labelled`.
    """
    for path in data if len(data) > 1 else ():
        if _holds_judgements(path):
            continue
        task = scoring.task or task_of(path, scoring.labelled_columns)
        if task != "retrieval":
            need_mteb(f"{path}: {task}")
            read_scored(path, task, scoring)


def need_mteb(what: str) -> None:
    """Raise SettingsError where mteb is not installed."""
    if importlib.util.find_spec("mteb") is None:
        raise SettingsError(f"{what} is scored by the package mteb", hint='pip install "embedsmith[mteb]"')


def _metrics(scoring: ScoringSettings) -> list[str]:
    """Return the metrics of retrieval."""
    return scoring.metrics or list(DEFAULT_METRICS)


def _holds_judgements(data: str | Path) -> bool:
    """Return whether a path is that of a file of judgements, not of pairs."""
    return Path(data).is_file() and Path(data).suffix not in (".jsonl", ".csv", ".parquet")


def _judgements(path: Path, scoring: ScoringSettings, on_skip: OnSkip | None) -> dict[str, dict[str, int]]:
    """Return the judgements of a file: query id -> passage id -> grade."""
    tally = Tally()
    found = read_judgements(path, tally if scoring.skip_bad else refuse, trec=True)
    qrels: dict[str, dict[str, int]] = {}
    for query, passage, grade in zip(found.query_ids, found.passage_ids, found.grades.tolist(), strict=True):
        qrels.setdefault(query, {})[passage] = grade
    if on_skip:
        for line in tally.lines():
            on_skip(line)
    return qrels


def _unanswered(data: str | Path, split: str | None) -> int:
    """Return how many judged queries of a BEIR folder have no relevant passage."""
    path = Path(data)
    if not (path / "qrels").is_dir():
        return 0
    known = known_splits(path)
    chosen = known if split in (None, "all") or not split else [part.strip() for part in split.split(",")]
    return unanswered(path, chosen)

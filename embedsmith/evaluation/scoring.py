"""One contender scored on one data set: retrieval by trec_eval, labelled data by mteb."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedsmith.data.bad_rows import Tally, refuse
from embedsmith.data.beir import unanswered
from embedsmith.data.collection import Collection
from embedsmith.data.in_memory import NAME, Rows, is_in_memory
from embedsmith.data.labelled import Labelled, TaskType, read_labelled, task_of
from embedsmith.data.load import known_splits, load_collection, usual_split
from embedsmith.data.qrels import read_judgements
from embedsmith.data.trec import Ranking
from embedsmith.errors import InputError, SettingsError
from embedsmith.evaluation.contender import Contender
from embedsmith.evaluation.metrics import DEFAULT_METRICS, Scores, score_run
from embedsmith.evaluation.retrieval import depth_for
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.evaluation.training_data import note_of_training_data
from embedsmith.runs.scores import ScoredData, plain_columns
from embedsmith.settings import fingerprint
from embedsmith.variables import Place

OnSkip = Callable[[str], None]
"""Called with one line for what was left out."""


@dataclass(frozen=True)
class Scored:
    """What a model scored on one data set."""

    scores: Scores
    about: ScoredData
    """Path, task, split, sizes and content hash of the data."""
    ranking: Ranking | None = None
    """What was ranked, of retrieval."""
    qrels: dict[str, dict[str, int]] | None = None
    """What it was judged by."""
    not_in_run: int | None = None
    """Judged queries that a run file does not rank."""


def score(
    contender: Contender,
    data: str | Path | Rows,
    scoring: ScoringSettings,
    *,
    on_skip: OnSkip | None = None,
) -> Scored:
    """Score a contender on one data set.

    Args:
        contender: what is scored.
        data: a path, or rows in memory.
        scoring: how.
        on_skip: called with one line for what was left out.

    Raises:
        InputError, ModelError, SettingsError: see `embedsmith.errors`.
    """
    if contender.is_run_file and _holds_judgements(data):
        return _score_file(contender, data, scoring, on_skip)
    task = scoring.task or task_of(data, scoring.labelled_columns)
    if task == "retrieval":
        return _score_retrieval(contender, data, scoring, on_skip)
    return _score_labelled(contender, data, task, scoring, on_skip)


def score_collection(
    contender: Contender,
    collection: Collection,
    scoring: ScoringSettings,
    about: ScoredData,
    *,
    on_skip: OnSkip | None = None,
) -> Scored:
    """Score what a contender ranks for the queries of a collection.

    Args:
        contender: what is scored.
        collection: queries, passages and judgements.
        scoring: metrics, and how passages are ranked.
        about: what the collection is, without its sizes and content hash: see `described`.
        on_skip: receives one line for each kind of row that was left out.

    Raises:
        InputError, ModelError, SettingsError: see `embedsmith.errors`.
    """
    ranking = contender.ranking(collection, scoring, depth=depth_for(_metrics(scoring)))
    missing = None
    if contender.is_run_file:
        of = (contender.name, about.path or NAME, ranking, collection.qrels)
        missing = _unmatched(*of, collection.passage_index, on_skip)
    sizes = {"content_hash": collection.content_hash(), "passages": len(collection.passages)}
    return _judged(about.model_copy(update=sizes), ranking, collection.qrels, scoring, missing, on_skip)


def described(
    data: str | Path | Rows, task: str, split: str | None, scoring: ScoringSettings, *, in_run: bool = False
) -> ScoredData:
    """Return what a data set is, as the settings say that it is read.

    Args:
        data: its path; rows in memory have none.
        task: what it asks of a model.
        split: the split that is scored.
        scoring: how it is read.
        in_run: whether the path is below the folder of the run.
    """
    named = scoring.pair_columns if task == "retrieval" else scoring.labelled_columns
    return ScoredData(
        path=None if is_in_memory(data) else Place(data),
        in_run=in_run,
        task=task,
        split=split,
        columns=plain_columns(named.model_dump()),
        corpus=Place(scoring.corpus) if scoring.corpus else None,
        skip_bad=scoring.skip_bad,
    )


def _score_file(contender: Contender, data: str | Path, scoring: ScoringSettings, on_skip: OnSkip | None) -> Scored:
    """Score a run file by a file of judgements."""
    qrels = _judgements(Path(data), scoring, on_skip)
    left_out = sum(not any(grade > 0 for grade in grades.values()) for grades in qrels.values())
    about = described(data, "retrieval", None, scoring)
    about = about.model_copy(update={"content_hash": fingerprint(qrels), "left_out": left_out})
    ranking = contender.ranking_of_file(scoring)
    missing = _unmatched(contender.name, data, ranking, qrels, None, on_skip)
    return _judged(about, ranking, qrels, scoring, missing, on_skip)


def _unmatched(
    run: str,
    data: str | Path,
    ranking: Ranking,
    qrels: dict[str, dict[str, int]],
    corpus: Container[str] | None,
    on_skip: OnSkip | None,
) -> int:
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
    return missing


def _score_retrieval(
    contender: Contender, data: str | Path | Rows, scoring: ScoringSettings, on_skip: OnSkip | None
) -> Scored:
    """Score what a contender ranks for the queries of a data set."""
    depth_for(_metrics(scoring))  # an unknown metric is an error before the work, not after it
    split = scoring.split or usual_split(data, "test")
    collection = load_collection(
        data,
        split=split,
        columns=scoring.pair_columns,
        corpus=scoring.corpus,
        skip_bad=scoring.skip_bad,
        on_skip=on_skip,
    )
    about = described(data, "retrieval", split, scoring)
    about = about.model_copy(update={"left_out": _unanswered(data, split)})
    if on_skip and about.path and (note := note_of_training_data(contender.name, about.path, about.split)):
        on_skip(note)
    return score_collection(contender, collection, scoring, about, on_skip=on_skip)


def _judged(
    about: ScoredData,
    ranking: Ranking,
    qrels: dict[str, dict[str, int]],
    scoring: ScoringSettings,
    missing: int | None,
    on_skip: OnSkip | None,
) -> Scored:
    """Return the scores of a ranking; report how many judged queries say nothing about it."""
    scores = score_run(ranking, qrels, _metrics(scoring))
    if about.left_out and on_skip:
        queries, verb = ("query", "is") if about.left_out == 1 else ("queries", "are")
        on_skip(f"{about.path or NAME}: {about.left_out:,} judged {queries} without a relevant passage {verb} left out")
    about = about.model_copy(update={"queries": len(scores.per_query)})
    return Scored(scores, about, ranking, qrels, missing)


def _score_labelled(
    contender: Contender, data: str | Path | Rows, task: TaskType, scoring: ScoringSettings, on_skip: OnSkip | None
) -> Scored:
    """Score a contender on labelled texts or pairs, by the evaluators of mteb."""
    place = NAME if is_in_memory(data) else data
    need_mteb(f"{place}: {task}")
    from embedsmith.evaluation.local_tasks import scores_of, task_of_labelled

    found = read_scored(data, task, scoring, on_skip)
    if contender.is_run_file or (task != "reranking" and contender.encoder is None):
        raise SettingsError(
            f"{place}: {task} needs an embedding model, {contender.name} has no vectors",
            hint="name another model, or the kind of the data with --task",
        )
    model = contender.mteb_model(scoring.template)
    scores = scores_of(task_of_labelled(found), model, found.split, found.task)
    sizes = {
        "content_hash": found.content_hash(),
        "rows": len(found),
        "left_out": found.left_out,
        "labels": found.meanings.plain() if found.meanings else None,
    }
    about = described(data, found.task, found.split, scoring).model_copy(update=sizes)
    return Scored(Scores(mean=scores, per_query={}), about)


def read_scored(
    data: str | Path | Rows, task: TaskType, scoring: ScoringSettings, on_skip: OnSkip | None = None
) -> Labelled:
    """Return the labelled data that is scored.

    Args:
        data: a path, or rows in memory.
        task: what it asks of a model; not retrieval.
        scoring: how.
        on_skip: called with one line for what was left out, and one for what labels are taken for.

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


def _holds_judgements(data: str | Path | Rows) -> bool:
    """Return whether data are the path of a file of judgements, not of pairs."""
    return not is_in_memory(data) and Path(data).is_file() and Path(data).suffix not in (".jsonl", ".csv", ".parquet")


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


def _unanswered(data: str | Path | Rows, split: str | None) -> int:
    """Return how many judged queries of a BEIR folder have no relevant passage."""
    if is_in_memory(data) or not (Path(data) / "qrels").is_dir():
        return 0
    path = Path(data)
    known = known_splits(path)
    chosen = known if split in (None, "all") or not split else [part.strip() for part in split.split(",")]
    return unanswered(path, chosen)

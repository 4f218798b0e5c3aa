"""Evaluating models and baselines, into a folder that carries all that the scores depend on.

OUT/scores.json          data set -> metric -> score; the model's and the data's fingerprints, versions, the command
OUT/per_query.jsonl      the metrics of each query: {"query_id", "ndcg@10", …}
OUT/ranking.trec         what was ranked, as a run file of TREC
OUT/judgements.qrels     what it was judged by, as TREC writes it
OUT/NAME/…               those three files, where several data sets were scored
OUT/mteb/results/…       results of a benchmark's tasks, in mteb's own form
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsmith.data.bad_rows import Tally, refuse
from embedsmith.data.beir import unanswered
from embedsmith.data.files import read_json, write_json, write_jsonl
from embedsmith.data.labelled import Labelled, TaskType, read_labelled, task_of
from embedsmith.data.load import known_splits, load_collection, usual_split
from embedsmith.data.qrels import read_judgements
from embedsmith.data.tables import HUB
from embedsmith.data.trec import Ranking, separated, write_judgements, write_ranking
from embedsmith.errors import InputError, SettingsError
from embedsmith.evaluation.contender import Contender
from embedsmith.evaluation.metrics import DEFAULT_METRICS, Scores, score_run
from embedsmith.evaluation.retrieval import depth_for
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.models.settings import Dtype
from embedsmith.progress import Progress, silent
from embedsmith.runs.run import Run
from embedsmith.settings import Settings, fingerprint, folder_name
from embedsmith.teachers.settings import TeacherSettings

_PACKAGES = ("bm25s", "ir-measures", "pytrec-eval-terrier", "scikit-learn", "mteb")
"""What computes the metrics; a run knows the model libraries' versions already."""


OnSkip = Callable[[str], None]
"""Told in one line what was left out."""


class EvaluationRunSettings(Settings):
    """What `evaluate` was asked for."""

    model: str
    data: list[str]
    benchmark: str | None = None
    scoring: ScoringSettings = ScoringSettings()
    reading: TeacherSettings = TeacherSettings()


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


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    split: str | None = None,
    dtype: Dtype = "auto",
    vectors: str | Path | None = None,
    scoring: ScoringSettings | None = None,
    on_progress: Progress = silent,
) -> Scores:
    """Return the scores of a model on a data set.

    Args:
        model: a run folder, any other name of a model or a baseline, or a run file of TREC.
        data: a BEIR folder, pairs, or whatever else `load_collection` and `read_labelled` read; with a run file,
            judgements as well.
        split: the split of the data; `test` where there is one.
        dtype: precision. `auto`: bfloat16 where the hardware has it (on a CPU for products of longer texts).
        vectors: folder to keep vectors in, so that a second evaluation costs seconds; by default a run keeps its own,
            and the rest lies in the user's cache.
        scoring: metrics and more.
        on_progress: told of the work.

    Raises:
        InputError, ModelError, SettingsError: see `embedsmith.errors`.
    """
    contender = Contender(
        str(model),
        reading=TeacherSettings(dtype=dtype),
        vectors=Path(vectors) if vectors else None,
        on_progress=on_progress,
    )
    settings = scoring or ScoringSettings()
    return score(contender, data, settings.model_copy(update={"split": split or settings.split})).scores


def evaluate_all(
    contender: Contender,
    data: Sequence[str],
    scoring: ScoringSettings,
    *,
    benchmark: str | None = None,
    own: Mapping[str, ScoringSettings] | None = None,
    on_skip: OnSkip | None = None,
) -> dict[str, Any]:
    """Score a contender on data sets, and on a benchmark of mteb behind them; write nothing.

    Args:
        contender: what is scored.
        data: paths, each once.
        scoring: how.
        benchmark: name of a benchmark or a task of mteb.
        own: how some of the paths are scored, in the place of `scoring`.
        on_skip: told what was left out.

    Returns:
        scores: data set or task -> metric -> value; data: what each asks and its fingerprint; with a benchmark means.
    """
    check_names(data, benchmark)
    check_labelled(data, scoring)
    found: dict[str, Any] = {"scores": {}, "data": {}}
    for name in data:
        scored = score(contender, name, (own or {}).get(name, scoring), on_skip=on_skip)
        found["scores"][name], found["data"][name] = scored.scores.mean, scored.about
    if benchmark:
        rest = score_benchmark(contender, benchmark, template=scoring.template)
        found = {"scores": found["scores"] | rest["scores"], "data": found["data"] | rest["data"]} | {
            "means": rest["means"]
        }
    return found


def evaluate_into(
    out: str | Path,
    contender: Contender,
    data: Sequence[str],
    scoring: ScoringSettings,
    *,
    benchmark: str | None = None,
    command: str = "",
    on_skip: OnSkip | None = None,
) -> Run:
    """Score a contender into a folder; one that was cut short goes on with the next data set.

    Args:
        out: the folder.
        contender: what is scored.
        data: paths.
        scoring: how.
        benchmark: name of a benchmark or a task of mteb, scored behind the data sets; mteb's results lie in OUT/mteb.
        command: what was typed, for the record.
        on_skip: told what was left out.

    Raises:
        InputError, ModelError, RunError, SettingsError: see `embedsmith.errors`.
    """
    settings = EvaluationRunSettings(
        model=contender.name, data=list(data), benchmark=benchmark, scoring=scoring, reading=contender.reading
    )
    check_names(data, benchmark)
    with Run.open(out, command="evaluate", settings=settings, inputs={}) as run:
        score_into(run, run.folder, contender, data, scoring, command=command, on_skip=on_skip)
        if benchmark and "means" not in read_scores(run.folder):
            with run.timed("benchmark"):
                found = score_benchmark(contender, benchmark, template=scoring.template, cache=run.folder / "mteb")
            note = Note(run, run.folder, contender, command)
            note.add(found["data"], found["scores"], means=found["means"])
        run.finish()
    return run


def score_into(
    run: Run,
    folder: Path,
    contender: Contender,
    data: Sequence[str],
    scoring: ScoringSettings,
    *,
    own: Mapping[str, ScoringSettings] | None = None,
    command: str = "",
    on_skip: OnSkip | None = None,
) -> None:
    """Score a contender on the data sets that a folder of a run does not have yet.

    Raises:
        InputError: a data set is given twice.
    """
    check_names(data)
    check_labelled(data, scoring)
    for name, place in places_of(data).items():
        if name in read_scores(folder).get("scores", {}):
            continue
        with run.timed("evaluate"):
            scored = score(contender, name, (own or {}).get(name, scoring), on_skip=on_skip)
        if on_skip and place not in ("", _stem(name)):
            on_skip(f"{name}: its files lie in {folder / place}")
        _write(folder / place, scored, tag=contender.name)
        Note(run, folder, contender, command).add({name: {**scored.about, "files": place}}, {name: scored.scores.mean})


def check_names(data: Sequence[str], benchmark: str | None = None) -> None:
    """Refuse data whose scores would stand under one name.

    Raises:
        InputError: a data set is given twice, or is called as a task of the benchmark is.
    """
    known: dict[str, str] = {}
    for name in data:
        if (place := _place(name)) in known:
            other = "" if known[place] == name else f", as {known[place]} too"
            raise InputError(f"{name}: given twice{other}", hint="name each data set once")
        known[place] = name
    if benchmark and data:
        need_mteb(benchmark)
        from embedsmith.evaluation.benchmarks import tasks_named

        tasks = {task.metadata.name for task in tasks_named(benchmark)}
        for name in data:
            if name in tasks:
                raise InputError(
                    f"{name}: a data set, and a task of {benchmark}", hint=f"write ./{name} for the folder"
                )


def _place(data: str) -> str:
    """Return what two names of one data set have in common."""
    return data if data.startswith(HUB) else str(Path(data).resolve())


def read_scores(folder: Path) -> dict[str, Any]:
    """Return what is scored so far."""
    path = folder / "scores.json"
    return read_json(path) if path.is_file() else {}


@dataclass(frozen=True)
class Note:
    """Scores with all that they depend on, in a folder's scores.json. What is in it is done."""

    run: Run
    folder: Path
    contender: Contender
    command: str

    def add(self, about: dict[str, Any], scores: dict[str, dict[str, float]], **more: Any) -> None:
        """Write them beside those that are there."""
        self.run.same_content(f"model {self.contender.name}", self.contender.fingerprint)
        known = read_scores(self.folder)
        found = {
            "command": self.command,
            "model": {"name": self.contender.name, "fingerprint": self.contender.fingerprint},
            "versions": {**self.run.manifest["versions"], **_versions()},
            "python": self.run.manifest["python"],
            "machine": self.run.manifest["machine"],
            "data": {**known.get("data", {}), **about},
            "scores": {**known.get("scores", {}), **scores},
        }
        write_json(self.folder / "scores.json", {**found, **more})


def mteb_task(data: str | Path, *, split: str | None = None, labels: str | None = None) -> Any:
    """Return a data set as a task of mteb, to be handed to `mteb.evaluate` beside its own.

    Args:
        data: as in `evaluate`.
        split: as in `evaluate`.
        labels: what the labels of pairs mean, as `ScoringSettings.labels`.

    Raises:
        InputError, SettingsError: see `embedsmith.errors`.
    """
    need_mteb(f"{data}: a task of mteb")
    from embedsmith.evaluation.local_tasks import task_of_collection, task_of_labelled

    kind = task_of(data)
    if kind != "retrieval":
        return task_of_labelled(read_labelled(data, kind, split=split, labels=labels))
    split = split or usual_split(data, "test")
    return task_of_collection(load_collection(data, split=split), split or "test")


def score_benchmark(
    contender: Contender,
    name: str,
    *,
    template: str | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Score a contender on a benchmark or a task of mteb, with its own prompts and mteb's instructions.

    Args:
        contender: what is scored.
        name: of the benchmark, or of one task.
        template: how an instruction stands before a text; see `ScoringSettings`.
        cache: folder of mteb's results, which resume; by default mteb's own.

    Returns:
        benchmark: the name; scores: task -> metric -> value; means: over all tasks, over types, and of each type.

    Raises:
        InputError: mteb has no such benchmark.
        SettingsError: mteb is not installed, or the contender is a file.
        OSError: the hub cannot be reached, and a task's data is not here.
    """
    need_mteb(name)
    if contender.is_run_file:
        raise SettingsError(f"{contender.name}: a run file holds no model for {name}", hint="name a model")
    from embedsmith.evaluation.benchmarks import means, score_tasks, tasks_named

    tasks = tasks_named(name)
    scores = score_tasks(contender.mteb_model(template), tasks, cache=cache, on_progress=contender.on_progress)
    return {
        "benchmark": name,
        "scores": {task: {found.metric.replace("_at_", "@"): found.value} for task, found in scores.items()},
        "data": {task: {"task": found.type, "fingerprint": found.revision} for task, found in scores.items()},
        "means": means(scores),
    }


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


_RESERVED = ("mteb", "scores")
"""Folders of a run that hold something else."""


def places_of(data: Sequence[str]) -> dict[str, str]:
    """Return the folder within an evaluation's that each data set's files go to: "", itself, where there is only one.

    No two are the same, on a disk that takes `NQ` for `nq` either.

    >>> places_of(["a/toy"])
    {'a/toy': ''}
    >>> places_of(["a/nq-dev", "b/NQ-dev/", "nq-dev-2.jsonl", "mteb"])
    {'a/nq-dev': 'nq-dev', 'b/NQ-dev/': 'NQ-dev-2', 'nq-dev-2.jsonl': 'nq-dev-2-2', 'mteb': 'mteb-2'}
    """
    if len(data) == 1:
        return {data[0]: ""}
    places: dict[str, str] = {}
    taken = {*_RESERVED}
    for name in data:
        stem = place = _stem(name)
        number = 1
        while place.casefold() in taken:
            number += 1
            place = f"{stem}-{number}"
        taken.add(place.casefold())
        places[name] = place
    return places


def _stem(data: str) -> str:
    """Return the last part of a path, without what a file's name ends with.

    >>> _stem("data/nq.jsonl"), _stem("hf:owner/nq"), _stem("hf:owner/.."), _stem("z/nq/k/..")
    ('nq', 'nq', 'data', 'nq')
    """
    path = Path(_place(data))
    return folder_name(path.name.removesuffix(path.suffix))


def _write(folder: Path, scored: Scored, *, tag: str) -> None:
    """Write what was ranked, what it was judged by, and what each query scored; nothing of other tasks."""
    if scored.ranking is None or scored.qrels is None:
        return
    # In the order that was scored, whoever reads it.
    ranking = {query: list(separated(ranked)) for query, ranked in scored.ranking.items()}
    write_ranking(folder / "ranking.trec", ranking, tag=tag)
    write_judgements(folder / "judgements.qrels", scored.qrels)
    rows = ({"query_id": query, **metrics} for query, metrics in scored.scores.per_query.items())
    write_jsonl(folder / "per_query.jsonl", rows)


def _versions() -> dict[str, str]:
    """Return the versions of the packages that compute scores, of those that are installed."""
    return {name: found.version for name in _PACKAGES for found in importlib.metadata.distributions(name=name)}

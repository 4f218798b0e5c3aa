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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsmith.data.files import read_json, write_json, write_jsonl
from embedsmith.data.labelled import read_labelled, task_of
from embedsmith.data.load import load_collection, usual_split
from embedsmith.data.plain_values import are_numbers
from embedsmith.data.tables import HUB
from embedsmith.data.trec import separated, write_judgements, write_ranking
from embedsmith.errors import InputError, SettingsError
from embedsmith.evaluation.contender import Contender
from embedsmith.evaluation.metrics import Scores
from embedsmith.evaluation.scoring import OnSkip, Scored, check_labelled, need_mteb, score
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.models.settings import Dtype
from embedsmith.progress import Progress, silent
from embedsmith.runs.run import Run
from embedsmith.settings import Settings, folder_name
from embedsmith.teachers.settings import TeacherSettings

_PACKAGES = ("bm25s", "ir-measures", "pytrec-eval-terrier", "scikit-learn", "mteb")
"""What computes the metrics; a run knows the model libraries' versions already."""


class EvaluationRunSettings(Settings):
    """What `evaluate` was asked for."""

    model: str
    data: list[str]
    benchmark: str | None = None
    scoring: ScoringSettings = ScoringSettings()
    reading: TeacherSettings = TeacherSettings()


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
    """Return what is scored so far, with all that the scores depend on; nothing where nothing is.

    Raises:
        InputError: the file is not JSON, or holds something else.
    """
    path = folder / "scores.json"
    found = read_json(path) if path.is_file() else {}
    if wrong := _wrong_in_scores(found):
        raise InputError(
            f"{path}: not what `evaluate` writes: nothing fits under {wrong}",
            hint=f"remove {folder}, and evaluate again",
        )
    scores: dict[str, Any] = found
    return scores


def _wrong_in_scores(found: Any) -> str | None:
    """Return under which name of an evaluation's scores.json something else stands, None where all is as it should."""
    if not isinstance(found, dict):
        return "scores"
    scores, data, means = (found.get(name, {}) for name in ("scores", "data", "means"))
    if scores != {} and not are_numbers(scores, depth=2):
        return "scores"
    if not isinstance(data, dict) or not data.keys() >= scores.keys():
        return "data"
    texts = ("task", "split", "fingerprint", "files")
    for name, about in data.items():
        if not isinstance(about, dict) or not isinstance(about.get("task"), str):
            return f"data.{name}"
        if odd := [key for key in texts if not isinstance(about.get(key), str | None)]:
            return f"data.{name}.{odd[0]}"
    return None if means == {} or are_numbers(means) else "means"


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

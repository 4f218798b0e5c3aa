"""Evaluating models and baselines, into a folder that carries all that the scores depend on.

OUT/scores.json          what was scored, on what, by which versions: see `embedsmith.runs.scores`
OUT/per_query.jsonl      the metrics of each query: {"query_id", "ndcg@10", …}
OUT/ranking.trec         what was ranked, as a run file of TREC
OUT/judgements.qrels     what it was judged by, as TREC writes it
OUT/NAME/…               those three files, where several data sets were scored
OUT/mteb/results/…       results of a benchmark's tasks, in mteb's own form
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedsmith.cluster.running import on_cluster
from embedsmith.data.files import write_jsonl
from embedsmith.data.in_memory import Rows
from embedsmith.data.labelled import read_labelled, task_of
from embedsmith.data.load import load_collection, usual_split
from embedsmith.data.trec import separated, write_judgements, write_ranking
from embedsmith.errors import SettingsError
from embedsmith.evaluation.contender import Contender
from embedsmith.evaluation.metrics import Scores
from embedsmith.evaluation.places import check_names, places_of, stem_of
from embedsmith.evaluation.scoring import OnSkip, Scored, check_labelled, need_mteb, score
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.models.settings import Dtype
from embedsmith.pages.bars import bars
from embedsmith.progress import Progress
from embedsmith.runs.run import Run
from embedsmith.runs.scores import MODEL, Score, Scoreboard, ScoredData, read_scores, write_scores
from embedsmith.settings import Settings
from embedsmith.teachers.settings import TeacherSettings
from embedsmith.version import installed_versions

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger("embedsmith")

_PACKAGES = ("bm25s", "ir-measures", "pytrec-eval-terrier", "scikit-learn", "mteb")
"""What computes the metrics, where it is installed; a run knows the model libraries' versions already."""


class EvaluationRunSettings(Settings):
    """What `evaluate` was asked for."""

    model: str
    data: list[str]
    benchmark: str | None = None
    scoring: ScoringSettings = ScoringSettings()
    reading: TeacherSettings = TeacherSettings()


def evaluate(
    model: str | Path | SentenceTransformer,
    data: str | Path | Rows,
    *,
    split: str | None = None,
    dtype: Dtype = "auto",
    vectors: str | Path | None = None,
    scoring: ScoringSettings | None = None,
    cluster: str | None = None,
    on_skip: OnSkip | None = None,
    on_progress: Progress | None = None,
    progress: bool = True,
) -> Scores:
    """Return the scores of a model on a data set.

    Args:
        model: a run folder, any other name of a model or a baseline, a run file of TREC, or an open
            `SentenceTransformer`. An open one is used as it stands: its precision, prompts and lengths are its own.
        data: a BEIR folder, pairs, or whatever else `load_collection` and `read_labelled` read; with a run file,
            judgements as well; or rows in memory: a `Dataset` or `DatasetDict` of `datasets`, or a list of dicts.
        split: the split of the data; `test` where there is one.
        dtype: precision of a model that is opened by its name. `auto`: bfloat16 where the hardware has it.
        vectors: folder to keep vectors in, so that a second evaluation costs seconds; by default a run keeps its own,
            and the rest lies in the user's cache.
        scoring: metrics and more.
        cluster: `local`, `local:N`, `auto` or HOST:PORT: have the workers of a Ray cluster encode and search; the same
            scores.
        on_skip: receives one line for each kind of row that was left out; by default the logger `embedsmith`.
        on_progress: called with the progress of the work, in place of bars.
        progress: draw bars, where there is a terminal or a notebook.

    Raises:
        InputError, ModelError, SettingsError: see `embedsmith.errors`.
        TypeError: model or data is of another type.
    """
    settings = scoring or ScoringSettings()
    settings = settings.model_copy(update={"split": split or settings.split})
    reading = TeacherSettings(dtype=dtype)
    place = Path(vectors) if vectors else None
    with on_cluster(cluster), _opened(model, dtype) as (name, encoder), bars(on_progress, show=progress) as tell:
        contender = Contender(name, reading=reading, vectors=place, encoder=encoder, on_progress=tell)
        return score(contender, data, settings, on_skip=on_skip or _log.info).scores


@contextmanager
def _opened(model: str | Path | SentenceTransformer, dtype: Dtype) -> Iterator[tuple[str, Any]]:
    """Give the name of a model within the block, with the model itself where the caller has it open."""
    if isinstance(model, str | os.PathLike):
        yield os.fspath(model), None
        return
    if dtype != "auto":
        raise SettingsError(f"dtype: {dtype}, and an open model is used as it stands", hint="leave it out")
    from embedsmith.models.opened import borrowed, name_of_open

    with borrowed(model) as ours:
        yield name_of_open(ours), ours


def evaluate_all(
    contender: Contender,
    data: Sequence[str],
    scoring: ScoringSettings,
    *,
    benchmark: str | None = None,
    on_skip: OnSkip | None = None,
) -> Scoreboard:
    """Score a contender on data sets, and on a benchmark of mteb after them; write nothing.

    Args:
        contender: what is scored.
        data: paths, each once.
        scoring: how.
        benchmark: name of a benchmark or a task of mteb.
        on_skip: receives one line for each kind of row that was left out.
    """
    check_names(data, benchmark)
    check_labelled(data, scoring)
    board = Scoreboard()
    for name in data:
        scored = score(contender, name, scoring, on_skip=on_skip)
        board = board.with_score(name, MODEL, scored.about, score_of(contender, scored))
    if benchmark:
        board = _with_benchmark(board, contender, score_benchmark(contender, benchmark, template=scoring.template))
    return board


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
        benchmark: name of a benchmark or a task of mteb, scored after the data sets; mteb's results lie in OUT/mteb.
        command: what was typed, for the record.
        on_skip: receives one line for each kind of row that was left out.

    Raises:
        InputError, ModelError, RunError, SettingsError: see `embedsmith.errors`.
    """
    settings = EvaluationRunSettings(
        model=contender.name, data=list(data), benchmark=benchmark, scoring=scoring, reading=contender.reading
    )
    check_names(data, benchmark)
    with Run.open(out, command="evaluate", settings=settings, inputs={}) as run:
        score_into(run, contender, data, scoring, command=command, on_skip=on_skip)
        if benchmark and MODEL not in read_scores(run.folder).means:
            with run.timed("benchmark"):
                found = score_benchmark(contender, benchmark, template=scoring.template, cache=run.folder / "mteb")
            note_scores(run, _with_benchmark(read_scores(run.folder), contender, found), contender, command)
        run.finish()
    return run


def score_into(
    run: Run,
    contender: Contender,
    data: Sequence[str],
    scoring: ScoringSettings,
    *,
    label: str = MODEL,
    own: Mapping[str, ScoringSettings] | None = None,
    command: str = "",
    on_skip: OnSkip | None = None,
) -> None:
    """Score a contender on the data sets that a run does not have its scores on yet.

    Args:
        label: tells the models of the run apart; the files of one that has a label lie in a folder of that name.
        own: how some of the paths are scored, in place of `scoring`.

    Raises:
        InputError: a data set is given twice.
    """
    check_names(data)
    check_labelled(data, scoring)
    side = "" if label == MODEL else label
    for name, place in places_of(data).items():
        if read_scores(run.folder).has(name, label):
            continue
        with run.timed("evaluate"):
            scored = score(contender, name, (own or {}).get(name, scoring), on_skip=on_skip)
        if on_skip and place not in ("", stem_of(name)):
            on_skip(f"{name}: its files lie in {run.folder / side / place}")
        _write(run.folder / side / place, scored, tag=contender.name)
        per_query = "/".join(filter(None, (side, place, "per_query.jsonl"))) if scored.scores.per_query else None
        board = read_scores(run.folder)
        board = board.with_score(name, label, scored.about, score_of(contender, scored, per_query))
        note_scores(run, board, contender, command)


def score_of(contender: Contender, scored: Scored, per_query: str | None = None) -> Score:
    """Return what a contender scored, as a scoreboard has it.

    Args:
        per_query: the file with the scores of each query, within the run's folder.
    """
    return Score(
        model=contender.name,
        model_hash=contender.fingerprint,
        per_query=per_query,
        not_in_run=scored.not_in_run,
        metrics=scored.scores.mean,
    )


def note_scores(run: Run, board: Scoreboard, contender: Contender, command: str = "") -> None:
    """Write the scores of a run with the versions that they depend on; what is in the file is done.

    Raises:
        RunError: the contender is another model than when the run began.
    """
    run.same_content(f"model {contender.name}", contender.fingerprint)
    write_scores(run.folder, board.model_copy(update={"command": command, **environment_of(run)}))


def environment_of(run: Run) -> dict[str, Any]:
    """Return the versions, the Python and the machine that the scores of a run depend on, as a scoreboard has them."""
    return {
        "versions": {**run.manifest["versions"], **installed_versions(_PACKAGES)},
        "python": run.manifest["python"],
        "machine": run.manifest["machine"],
    }


def _with_benchmark(board: Scoreboard, contender: Contender, found: dict[str, Any]) -> Scoreboard:
    """Return a scoreboard with the scores of a benchmark's tasks and their means."""
    for task, metrics in found["scores"].items():
        score = Score(model=contender.name, model_hash=contender.fingerprint, metrics=metrics)
        about = ScoredData(task=found["data"][task]["task"], content_hash=found["data"][task]["fingerprint"])
        board = board.with_score(task, MODEL, about, score)
    return board.model_copy(update={"means": {**board.means, MODEL: found["means"]}})


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


def _write(folder: Path, scored: Scored, *, tag: str) -> None:
    """Write what was ranked, what it was judged by, and what each query scored; nothing of other tasks."""
    if scored.ranking is None or scored.qrels is None:
        return
    # In the order that was scored.
    ranking = {query: list(separated(ranked)) for query, ranked in scored.ranking.items()}
    write_ranking(folder / "ranking.trec", ranking, tag=tag)
    write_judgements(folder / "judgements.qrels", scored.qrels)
    rows = ({"query_id": query, **metrics} for query, metrics in scored.scores.per_query.items())
    write_jsonl(folder / "per_query.jsonl", rows)

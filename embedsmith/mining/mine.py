"""Mining a collection: candidates once, then negatives from them, into a run folder; selecting again costs seconds.

RUN/candidates/        what the teachers found, with every score that selection needs
RUN/negatives.jsonl    training examples
RUN/vectors/           the teachers' vectors
RUN/guide.json         which of them training may look up
RUN/dataset.jsonl      data that the caller held in memory
RUN/judge/             what a judge has said of negatives, where one was asked
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from jaxtyping import Bool

from embedsmith.cluster.running import on_cluster
from embedsmith.collector import spared
from embedsmith.data.collection import Collection
from embedsmith.data.examples import Example, Passage, write_examples
from embedsmith.data.files import remove_below
from embedsmith.data.in_memory import NAME, Rows, is_in_memory, table_in_memory, write_table
from embedsmith.data.load import load_collection, usual_split
from embedsmith.data.qrels import read_exclusions, read_passage_ids
from embedsmith.data.source import SourceSettings
from embedsmith.data.tables import HUB, Table
from embedsmith.mining.asked import Teachers, named_teachers, settings_asked
from embedsmith.mining.candidates import Candidates, mine_candidates, read_candidates, write_candidates
from embedsmith.mining.ensembles import PCA
from embedsmith.mining.exclusions import Listed
from embedsmith.mining.near_duplicates import near_duplicates
from embedsmith.mining.plan import Plan, plan_of
from embedsmith.mining.results import MiningRun
from embedsmith.mining.rows import examples
from embedsmith.mining.selection import Selection, select
from embedsmith.mining.settings import MiningSettings, SelectionSettings
from embedsmith.pages.bars import bars
from embedsmith.progress import Progress, silent
from embedsmith.runs.run import Run
from embedsmith.runs.temporary import folder_or_temporary
from embedsmith.settings import fingerprint
from embedsmith.teachers.dense import DenseTeacher
from embedsmith.teachers.joined import JoinedTeacher
from embedsmith.teachers.named import Teacher, open_teacher
from embedsmith.vectors.guide import write_guide

_log = logging.getLogger("embedsmith")


@spared()
def mine(
    data: str | Path | Rows,
    *,
    teacher: Teachers = None,
    negatives: int | None = None,
    out: str | Path | None = None,
    split: str | None = None,
    settings: MiningSettings | None = None,
    source: SourceSettings | None = None,
    cluster: str | None = None,
    on_skip: Callable[[str], None] | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: Progress | None = None,
    progress: bool = True,
) -> MiningRun:
    """Mine hard negatives for a user's data into a run folder.

    Args:
        data: a BEIR folder, pairs, or whatever else `load_collection` reads; or pairs in memory: a `Dataset` of
            `datasets`, or a list of dicts, whose columns are called as in a file: `query` or `anchor`, `positive`,
            `negative`, `negative_1`...
        teacher: short for `MiningSettings(teachers=[...])`: a name, an open `SentenceTransformer`, or a list of some.
            An open one is used as it stands: its precision, prompts and lengths are its own.
        negatives: short for `MiningSettings(negatives=...)`.
        out: the run folder; a run that was cut short goes on, also with data in memory if it is the same. By default a
            folder that is removed when Python ends.
        split: short for `SourceSettings(split=...)`.
        settings: teachers, method and number of negatives.
        source: which part of the data, and how it is read.
        cluster: `local`, `local:N`, `auto` or HOST:PORT: have the workers of a Ray cluster encode and search; the same
            bytes.
        on_skip: called with the number of rows left out for each reason, where `source` says that they may be; by
            default they are logged by `embedsmith` at the level INFO.
        on_plan: called with what will be done, before anything is encoded.
        on_progress: called with the progress of the work, in place of bars.
        progress: draw bars, where there is a terminal or a notebook.

    Returns:
        The run: `negatives` has the examples, `dataset("triplet")` a data set of `datasets`.

    Raises:
        InputError, ModelError, RunError, SettingsError: see `embedsmith.errors`.
        TypeError: data or teacher is of a type that is neither.
    """
    source = source or SourceSettings()
    if split is not None:
        source = source.model_copy(update={"split": split})
    with on_cluster(cluster), named_teachers(teacher) as teachers, bars(on_progress, show=progress) as report:
        settings = settings_asked(settings, teachers=teachers, negatives=negatives)
        table = table_in_memory(data, source.split) if is_in_memory(data) else None
        place = _place(data) if table is None else ""
        collection, listed = read_source(place if table is None else table, source, on_skip or _log.info)
        folder = folder_or_temporary(out, "mine")
        inputs = {"data": place, "source": source.model_dump(mode="json")}
        if table is not None:
            inputs |= {"data": str((folder / f"{NAME}.jsonl").resolve()), "content": collection.content_hash()}
        with MiningRun.open(folder, command="mine", settings=settings, inputs=inputs) as run:
            selection = mine_into(
                run,
                folder,
                collection,
                settings,
                listed=listed,
                encoders=teachers,
                on_plan=on_plan,
                on_progress=report,
            )
            if table is not None:
                # Whoever selects again reads it there. Last: a mistake of the caller's leaves no folder behind.
                write_table(folder / f"{NAME}.jsonl", table, source.columns)
            run.count("mining", selection.counts)
            run.finish()
    return run


def _place(data: str | Path) -> str:
    """Return where data is, in whichever folder one works."""
    return str(data) if str(data).startswith(HUB) else str(Path(data).resolve())


def mine_into(
    run: Run,
    folder: Path,
    collection: Collection,
    settings: MiningSettings,
    *,
    listed: Listed | None = None,
    encoders: Mapping[str, Any] | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: Progress = silent,
) -> Selection:
    """Write candidates and negatives of one collection into a folder of a run; candidates that are there are used.

    Args:
        run: the run.
        folder: its own, or one within it.
        collection: what is mined.
        settings: how.
        listed: what is excluded beside the known positives.
        encoders: name of a teacher -> its embedding model, where that is open already.
        on_plan: called with what will be done.
        on_progress: called with the progress of the work.
    """
    name = collection.name if folder == run.folder else folder.name
    run.same_content(name, collection.content_hash())
    run.same_content(exclusions_of(name), hash_of_listed(listed))
    path = folder / "candidates"
    if not path.is_dir():
        with run.timed("mine"):
            teachers = _teachers(run, collection, settings, encoders or {}, on_progress)
            for teacher in teachers:
                # Blocks of candidates that an earlier attempt left are another teacher's if its files have changed.
                # Each data set may have an instruction of its own, and with it another contract.
                run.same_content(f"teacher {teacher.name} of {name}", fingerprint(teacher.contract))
            if on_plan:
                search_bytes = int(settings.teacher_settings.memory_gib * 2**30)
                on_plan(plan_of(teachers, collection, depth=settings.depth, search_bytes=search_bytes))
            teachers += _joined(run, teachers, collection, settings, on_progress)
            parts = folder / "candidates-parts"
            found = mine_candidates(
                teachers,
                collection,
                depth=settings.depth,
                listed=with_given(listed, collection, settings).pairs,
                parts=parts,
                on_progress=on_progress,
            )
            _note_guide(folder, teachers, collection)
            write_candidates(path, found)
            recalls = {teacher.name: round(mean(own), 4) for teacher in teachers if (own := _recalls_of(teacher))}
            if recalls:
                # Of a recipe each data set has its own, and each stage that mines again.
                within = folder.relative_to(run.folder).as_posix()
                run.count("recall" if within == "." else f"recall {within}", recalls)
    remove_below(folder, folder / "candidates-parts")
    with run.timed("select"):
        candidates = read_candidates(path)
        near = near_of(candidates, collection, settings, on_progress)
        selection = select(candidates, settings, listed=with_given(listed, collection, settings), near=near)
        write_selection(folder, selection, candidates, collection, settings)
    return selection


def exclusions_of(name: str) -> str:
    """Return what a run calls the content of what a data set's settings exclude."""
    return f"exclusions of {name}"


def hash_of_listed(listed: Listed | None) -> str:
    """Return a hash of what is excluded."""
    return fingerprint([array.tolist() for array in vars(listed or Listed.nothing()).values()])


def _note_guide(folder: Path, teachers: Sequence[Teacher], collection: Collection) -> None:
    """Note where the vectors of the first teacher that has some lie: training masks by them."""
    for teacher in teachers:
        if isinstance(teacher, DenseTeacher):
            queries, passages = teacher.stored(list(collection.queries))
            write_guide(folder, teacher=teacher.name, queries=queries, passages=passages)
            return


def _recalls_of(teacher: Teacher) -> list[float]:
    """Return the recalls that an approximate search has measured, none of an exact one."""
    return teacher.recalls if isinstance(teacher, DenseTeacher) else []


def near_of(
    candidates: Candidates, collection: Collection, settings: SelectionSettings, on_progress: Progress = silent
) -> Bool[np.ndarray, "S K"] | None:
    """Return which candidates are near-duplicates of each pair's positive, None where the settings do not ask."""
    if settings.near_duplicates is None:
        return None
    return near_duplicates(
        candidates, collection.passages, settings.near_duplicates, seed=settings.mining_seed, on_progress=on_progress
    )


def read_source(
    data: str | Table, source: SourceSettings, on_skip: Callable[[str], None] | None
) -> tuple[Collection, Listed]:
    """Return the collection, and what is excluded beside its known positives."""
    collection = load_collection(
        data,
        split=source.split or (None if isinstance(data, Table) else usual_split(data, "train")),
        columns=source.columns,
        corpus=source.corpus,
        skip_bad=source.skip_bad,
        on_skip=on_skip,
    )
    queries, passages = read_exclusions(source.exclude_qrels, collection, on_skip=on_skip)
    everywhere = np.zeros(0, np.int64)
    if source.exclude_ids:
        everywhere = read_passage_ids(source.exclude_ids, collection, on_skip=on_skip)
    return collection, Listed(queries, passages, everywhere)


def _teachers(
    run: Run,
    collection: Collection,
    settings: MiningSettings,
    encoders: Mapping[str, Any],
    on_progress: Progress,
) -> list[Teacher]:
    """Return the teachers of the settings."""
    return [
        open_teacher(
            name,
            collection.passages,
            vectors=run.vectors,
            settings=settings.teacher_settings,
            ties=collection.ties,
            lazy=True,
            encoder=encoders.get(name),
            on_progress=on_progress,
        )
        for name in settings.teachers
    ]


def _joined(
    run: Run, teachers: list[Teacher], collection: Collection, settings: MiningSettings, on_progress: Progress
) -> list[Teacher]:
    """Return the teacher that joins the vectors of the others where the ensemble wants it, or none."""
    if settings.ensemble != PCA:
        return []
    return [
        JoinedTeacher(
            teachers,
            name=PCA,
            variance=settings.pca_variance,
            folder=run.vectors,
            ties=collection.ties,
            on_progress=on_progress,
        )
    ]


def write_selection(
    folder: Path, selection: Selection, candidates: Candidates, collection: Collection, settings: SelectionSettings
) -> None:
    """Write the examples of a selection."""
    rows = examples(selection, candidates, collection)
    if settings.keep_negatives:
        rows = _given_first(rows, collection)
    write_examples(folder / "negatives.jsonl", rows)


def with_given(listed: Listed | None, collection: Collection, settings: SelectionSettings) -> Listed:
    """Return what is excluded, with the negatives that each row has already: they must not come twice."""
    listed = listed or Listed.nothing()
    if not settings.keep_negatives:
        return listed
    queries, passages = collection.existing_negatives()
    return replace(
        listed,
        queries=np.concatenate([listed.queries, queries]),
        passages=np.concatenate([listed.passages, passages]),
    )


def _given_first(rows: Iterator[Example], collection: Collection) -> Iterator[Example]:
    """Yield examples whose mined negatives stand behind those that the data brought along."""
    queries, passages = collection.existing_negatives()
    for row in rows:
        query = collection.query_index[row.query_id]
        given = passages[slice(*np.searchsorted(queries, [query, query + 1]))]
        ids, texts = collection.passage_ids.take(given), collection.passages.take(given)
        own = [Passage(id=i, text=text, teacher="given") for i, text in zip(ids, texts, strict=True)]
        yield Example(row.query_id, row.query, row.positives, own + row.negatives, row.outcome)

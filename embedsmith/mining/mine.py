"""Mining a collection: candidates once, then negatives from them, into a run folder; selecting again costs seconds.

RUN/candidates/        what the teachers found, with every score that selection needs
RUN/negatives.jsonl    training examples
RUN/vectors/           the teachers' vectors
RUN/guide.json         which of them training may look up
RUN/judge/             what a judge has said of negatives, where one was asked
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from jaxtyping import Bool

from embedsmith.collector import spared
from embedsmith.data.collection import Collection
from embedsmith.data.examples import Example, Passage, write_examples
from embedsmith.data.files import remove_below
from embedsmith.data.load import load_collection, usual_split
from embedsmith.data.qrels import read_exclusions, read_passage_ids
from embedsmith.data.source import SourceSettings
from embedsmith.data.tables import HUB
from embedsmith.errors import InputError, RunError, SettingsError
from embedsmith.mining.audit import calibrate
from embedsmith.mining.candidates import Candidates, mine_candidates, read_candidates, write_candidates
from embedsmith.mining.ensembles import PCA
from embedsmith.mining.exclusions import Listed
from embedsmith.mining.near_duplicates import near_duplicates
from embedsmith.mining.plan import Plan, plan_of
from embedsmith.mining.rows import examples
from embedsmith.mining.selection import Selection, select
from embedsmith.mining.settings import MiningSettings, SelectionSettings
from embedsmith.mining.verdicts import excluded_by, false_negatives, write_false_negatives
from embedsmith.progress import Progress, silent
from embedsmith.runs.lineage import selected_from
from embedsmith.runs.mined import read_false_negatives
from embedsmith.runs.origin import CANDIDATES, check_origin, content_of
from embedsmith.runs.run import Run, finished, read_manifest
from embedsmith.settings import fingerprint
from embedsmith.teachers.dense import DenseTeacher
from embedsmith.teachers.joined import JoinedTeacher
from embedsmith.teachers.named import Teacher, open_teacher
from embedsmith.vectors.guide import write_guide


@dataclass(frozen=True)
class Mined:
    """A finished run of `mine` or `select`, read again."""

    folder: Path
    settings: SelectionSettings
    collection: Collection
    candidates: Candidates
    listed: Listed
    """What the source's settings exclude."""

    def excluded(self, settings: SelectionSettings) -> Listed:
        """Return all that some settings exclude beside the known positives."""
        return _with_given(self.listed, self.collection, settings)


@spared()
def mine(
    data: str | Path,
    *,
    out: str | Path,
    split: str | None = None,
    settings: MiningSettings | None = None,
    source: SourceSettings | None = None,
    on_skip: Callable[[str], None] | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: Progress = silent,
) -> Run:
    """Mine hard negatives for a user's data into a run folder.

    Args:
        data: a BEIR folder, pairs, or whatever else `load_collection` reads.
        out: the run folder; a run that was cut short goes on.
        split: short for `SourceSettings(split=...)`.
        settings: teachers, method and number of negatives.
        source: which part of the data, and how it is read.
        on_skip: told how many rows were left out for each reason, where `source` says that they may be.
        on_plan: told what is going to be done, before anything is encoded.
        on_progress: told of the work.

    Raises:
        InputError, ModelError, RunError, SettingsError: see `embedsmith.errors`.
    """
    settings, source = settings or MiningSettings(), source or SourceSettings()
    if split is not None:
        source = source.model_copy(update={"split": split})
    place = str(data) if str(data).startswith(HUB) else str(Path(data).resolve())
    collection, listed = read_source(place, source, on_skip)
    inputs = {"data": place, "source": source.model_dump(mode="json")}
    with Run.open(out, command="mine", settings=settings, inputs=inputs) as run:
        selection = mine_into(
            run, run.folder, collection, settings, listed=listed, on_plan=on_plan, on_progress=on_progress
        )
        run.count("mining", selection.counts)
        run.finish()
    return run


def mine_into(
    run: Run,
    folder: Path,
    collection: Collection,
    settings: MiningSettings,
    *,
    listed: Listed | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: Progress = silent,
) -> Selection:
    """Write candidates and negatives of one collection into a folder of a run; candidates that are there are used."""
    name = collection.name if folder == run.folder else folder.name
    run.same_content(name, collection.content_hash())
    run.same_content(_exclusions_of(name), _hash_of(listed))
    path = folder / "candidates"
    if not path.is_dir():
        with run.timed("mine"):
            teachers = _teachers(run, collection, settings, on_progress)
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
                listed=_with_given(listed, collection, settings).pairs,
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
        selection = select(candidates, settings, listed=_with_given(listed, collection, settings), near=near)
        _write(folder, selection, candidates, collection, settings)
    return selection


def select_again(
    source: str | Path,
    *,
    out: str | Path,
    changes: dict[str, Any] | None = None,
    target_false_negatives: float | None = None,
    on_progress: Progress = silent,
) -> Run:
    """Select negatives from the candidates of a run with other settings, into another run folder.

    Args:
        source: a finished run of `mine` or `select`.
        changes: the settings that differ from the source's.
        target_false_negatives: choose the ceiling by the audit, the highest with at most this rate.
        on_progress: told of the audits that this takes.

    Raises:
        InputError, RunError, SettingsError: see `embedsmith.errors`.
    """
    if target_false_negatives is not None and not 0 <= target_false_negatives <= 1:
        raise SettingsError(
            f"target_false_negatives: {target_false_negatives:g}, wanted a rate", hint="give a number from 0 to 1"
        )
    mined, content = read_mined(source), content_of(source)
    judged = false_negatives(source)
    mined = replace(mined, listed=excluded_by(judged, mined.listed, mined.collection))
    kept = mined.settings.model_dump(include=set(SelectionSettings.model_fields))
    settings = SelectionSettings.parse({**kept, **(changes or {})}, where="options")
    listed = mined.excluded(settings)
    inputs = {"run": str(Path(source).resolve()), "target_false_negatives": target_false_negatives}
    if judged:
        inputs["judged"] = fingerprint(judged)
    with Run.open(out, command="select", settings=settings, inputs=inputs) as run, run.timed("select"):
        run.same_content(CANDIDATES, content)
        near = near_of(mined.candidates, mined.collection, settings, on_progress)
        if target_false_negatives is not None:
            settings, measured = calibrate(
                mined.candidates, settings, target_false_negatives, listed=listed, near=near, on_progress=on_progress
            )
            run.choose(settings)
            run.count("calibration", vars(measured))
        selection = select(mined.candidates, settings, listed=listed, near=near)
        # A later verdict must not change what is reported of this run.
        write_false_negatives(run.folder, judged)
        _write(run.folder, selection, mined.candidates, mined.collection, settings)
        run.count("mining", selection.counts)
        run.finish()
    return run


def read_mined(folder: str | Path) -> Mined:
    """Return what a run of `mine` or `select` was made of.

    Raises:
        RunError: the run is missing, unfinished, or of another command; or its data has changed.
        InputError: its data or candidates are gone.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest["command"] not in ("mine", "select"):
        raise RunError(
            f"{folder}: made by `{manifest['command']}`, wanted a run of `mine` or `select`",
            hint="mine first: embedsmith mine DATA --out RUN",
        )
    finished(folder)
    if manifest["command"] == "select":
        selected_from(folder)  # a run that is gone, or made from itself, is an error
        check_origin(folder)
        origin = read_mined(manifest["inputs"]["run"])
        settings: SelectionSettings = SelectionSettings.parse(manifest["settings"], where=str(folder))
        listed = excluded_by(read_false_negatives(folder), origin.listed, origin.collection)
        return Mined(folder, settings, origin.collection, origin.candidates, listed)
    settings = MiningSettings.parse(manifest["settings"], where=str(folder))
    data = manifest["inputs"].get("data")
    if not isinstance(data, str):
        raise RunError(f"{folder}: its manifest names no data", hint="mine again into another folder")
    if not data.startswith(HUB) and not Path(data).exists():
        raise InputError(f"{folder}: the data it was mined from is gone: {data}", hint="put it back, or mine again")
    source = SourceSettings.parse(manifest["inputs"].get("source"), where=str(folder))
    collection, listed = read_source(data, source, None)
    if manifest["content"].get(collection.name) != collection.content_hash():
        raise RunError(f"{folder}: {data} has changed since it was mined", hint="mine it again into another folder")
    if manifest["content"].get(_exclusions_of(collection.name), _hash_of(listed)) != _hash_of(listed):
        raise RunError(
            f"{folder}: what {source.exclude_qrels or source.exclude_ids} excludes has changed since it was mined",
            hint="mine it again into another folder",
        )
    candidates = read_candidates(folder / "candidates")
    if (len(candidates.rows), len(candidates.passage_text)) != (len(collection.queries), len(collection.passages)):
        raise RunError(f"{folder}: its candidates are those of other data", hint="mine it again into another folder")
    return Mined(folder, settings, collection, candidates, listed)


def _exclusions_of(name: str) -> str:
    """Return what a run calls the content of what a data set's settings exclude."""
    return f"exclusions of {name}"


def _hash_of(listed: Listed | None) -> str:
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


def read_source(data: str, source: SourceSettings, on_skip: Callable[[str], None] | None) -> tuple[Collection, Listed]:
    """Return the collection, and what is excluded beside its known positives."""
    collection = load_collection(
        data,
        split=source.split or usual_split(data, "train"),
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


def _teachers(run: Run, collection: Collection, settings: MiningSettings, on_progress: Progress) -> list[Teacher]:
    """Return the teachers of the settings."""
    return [
        open_teacher(
            name,
            collection.passages,
            vectors=run.vectors,
            settings=settings.teacher_settings,
            ties=collection.ties,
            lazy=True,
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


def _write(
    folder: Path, selection: Selection, candidates: Candidates, collection: Collection, settings: SelectionSettings
) -> None:
    """Write the examples of a selection."""
    rows = examples(selection, candidates, collection)
    if settings.keep_negatives:
        rows = _given_first(rows, collection)
    write_examples(folder / "negatives.jsonl", rows)


def _with_given(listed: Listed | None, collection: Collection, settings: SelectionSettings) -> Listed:
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

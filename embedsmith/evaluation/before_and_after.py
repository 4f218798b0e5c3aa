"""Did fine-tuning cost anything? A trained model and the model it was made of, on the same data.

OUT/scores.json              the scores of both, with the labels `before` and `after`
OUT/before/…, OUT/after/…    the files of each, as `evaluate` writes them
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedsmith.data.columns import ColumnSettings
from embedsmith.data.files import visible
from embedsmith.data.load import known_splits
from embedsmith.errors import InputError, RunError
from embedsmith.evaluation.contender import Contender
from embedsmith.evaluation.evaluate import score_into, score_of
from embedsmith.evaluation.places import check_names
from embedsmith.evaluation.scoring import OnSkip, check_labelled, score
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.evaluation.training_data import note_of_training_data
from embedsmith.models.settings import StudentSettings
from embedsmith.progress import Progress, silent
from embedsmith.runs.lineage import lineage
from embedsmith.runs.named import named_data, seed_of, source_of_run
from embedsmith.runs.origin import has_changed
from embedsmith.runs.run import Run, finished, read_manifest
from embedsmith.runs.scores import Scoreboard, read_scores
from embedsmith.settings import Settings
from embedsmith.teachers.settings import TeacherSettings

PANEL = ("stsb", "banking77", "stackoverflow_titles", "scifact")
"""A small general panel, of a folder of data sets that has these: STS, classification, clustering, retrieval."""


class BeforeAndAfterSettings(Settings):
    """What `evaluate --before-and-after` was asked for."""

    run: str
    data: list[str]
    scoring: ScoringSettings = ScoringSettings()
    reading: TeacherSettings = TeacherSettings()


def before_and_after(
    run: str | Path,
    data: Sequence[str] = (),
    panel: Sequence[str] = (),
    *,
    scoring: ScoringSettings | None = None,
    reading: TeacherSettings | None = None,
    vectors: Path | None = None,
    out: str | Path | None = None,
    command: str = "",
    on_skip: OnSkip | None = None,
    on_progress: Progress = silent,
) -> dict[str, dict[str, Any]]:
    """Return what a run's model and its start score.

    Args:
        run: a finished run of `train` or of a recipe.
        data: what it was trained for; by default the test sides of the run's own data.
        panel: other data, which the training may have cost something.
        scoring: how.
        reading: how the models read texts.
        vectors: folder of the vectors; by default the run's.
        out: folder to write to; one that was cut short goes on.
        command: what was typed, for the record.
        on_skip: called with one line for what was left out.
        on_progress: called with the progress of the work.

    Returns:
        data set -> task, metric (the main one), before, after, and all scores of both.

    Raises:
        RunError: the run is missing, not finished or without a model.
        InputError, ModelError, SettingsError: see `embedsmith.errors`.
    """
    from embedsmith.models.opened import in_run
    from embedsmith.models.opening import build_student

    scoring, reading = scoring or ScoringSettings(), reading or TeacherSettings()
    manifest = _trained(run)
    own = {} if data else own_scorings(run, scoring)
    targets = list(data) or list(own)
    known = {Path(path).resolve() for path in targets}
    names = targets + [path for path in panel if Path(path).resolve() not in known]
    check_names(names)
    student = StudentSettings.parse(manifest["settings"]["student"], where=f"{run}/manifest.json: student")
    start = build_student(in_run(student, Path(run)), seed=seed_of(Path(run), manifest))
    start.use_dtype(reading.dtype)
    vectors = vectors or Path(run) / "vectors"
    # The start reads texts as the trained model does: same prompts, same lengths.
    contenders = {
        "before": Contender(student.name, reading=reading, vectors=vectors, encoder=start, on_progress=on_progress),
        "after": Contender(str(run), reading=reading, vectors=vectors, on_progress=on_progress),
    }
    if out is None:
        check_labelled(names, scoring)
        board = Scoreboard()
        for label, contender in contenders.items():
            said = on_skip if label == "before" else None
            for name in names:
                scored = score(contender, name, own.get(name, scoring), on_skip=said)
                board = board.with_score(name, label, scored.about, score_of(contender, scored))
    else:
        settings = BeforeAndAfterSettings(run=str(run), data=names, scoring=scoring, reading=reading)
        with Run.open(out, command="evaluate --before-and-after", settings=settings, inputs={}) as opened:
            for label, contender in contenders.items():
                said = on_skip if label == "before" else None
                score_into(opened, contender, names, scoring, label=label, own=own, command=command, on_skip=said)
            board = read_scores(opened.folder)
            opened.finish()
    for name in names:
        if on_skip and (note := note_of_training_data(str(run), name, board.data[name].split)):
            on_skip(note)
    return {name: _row(board, name) for name in names}


def own_data(run: str | Path) -> list[str]:
    """Return the test sides of the data that a run was made of.

    Raises:
        RunError: there is none.
    """
    return list(own_scorings(run, ScoringSettings()))


def own_scorings(run: str | Path, scoring: ScoringSettings) -> dict[str, ScoringSettings]:
    """Return the test sides of the data that a run was made of, each with how it is scored: read as it was for mining.

    Args:
        scoring: how, beside that.

    Raises:
        RunError: there is none.
    """
    found: dict[str, ScoringSettings] = {}
    read = []
    for folder, manifest in lineage(run):
        if "mined" in manifest["inputs"] and has_changed(manifest):
            mined = manifest["inputs"]["mined"]
            raise RunError(f"{run}: {mined} was mined again after the training", hint="name data to score it on")
        found |= {str(path): scoring for path in visible(folder, "data/*/test")}
        sets, inputs = named_data(folder, manifest).values(), manifest["inputs"]
        read += [(each["path"], each, each["test_split"]) for each in sets if each["test_split"]]
        if "source" in inputs and "data" in inputs:
            read.append((inputs["data"], source_of_run(folder, manifest), "test"))
    for path, source, split in read:
        if not has_split(path, split):
            continue
        update = {
            "split": scoring.split or split,
            "corpus": scoring.corpus or source.get("corpus"),
            "skip_bad": scoring.skip_bad or source.get("skip_bad", False),
        }
        if source.get("columns"):
            update["pair_columns"] = ColumnSettings.parse(source["columns"], where=f"{run}/manifest.json: columns")
        # One path of several data sets is scored once.
        known = {Path(name).resolve() for name in found}
        if Path(path).resolve() not in known:
            found[path] = scoring.model_copy(update=update)
    if not found:
        raise RunError(f"{run}: its data has no test side that is still there", hint="name data to score it on")
    return found


def has_split(path: str, split: str) -> bool:
    """Return whether a data set has a split, or each of several with commas between."""
    known = _splits(path)
    return bool(known) and (split in ("all", *known) or all(part.strip() in known for part in split.split(",")))


def _splits(path: str) -> list[str]:
    """Return the splits of a data set, none where it is gone or has nothing to choose."""
    try:
        return known_splits(path)
    except InputError:
        return []


def _trained(run: str | Path) -> dict[str, Any]:
    """Return the manifest of a run that trained a model."""
    manifest = read_manifest(run)
    if "student" not in manifest["settings"]:
        raise RunError(
            f"{run}: made by `{manifest['command']}`, which trains no model", hint="name a run of `embedsmith train`"
        )
    return finished(run)


def _row(board: Scoreboard, name: str) -> dict[str, Any]:
    """Return one data set's line: the main score before and after, and all of both."""
    scores = board.metrics_of(name)
    metric = next(iter(scores["before"]))
    return {
        "task": board.data[name].task,
        "metric": metric,
        "before": scores["before"][metric],
        "after": scores["after"][metric],
        "scores": {label: scores[label] for label in ("before", "after")},
    }

"""Training a student on mined examples, stage by stage, into a run folder.

RUN/model/          the trained model, a sentence-transformers folder
RUN/stages/NAME/    the model after each stage but the last
RUN/steps.jsonl     loss, accuracy and gradient lengths of every step
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedsmith.data.examples import read_examples
from embedsmith.data.files import read_jsonl, write_jsonl
from embedsmith.errors import InputError, RunError, SettingsError, did_you_mean
from embedsmith.models.embedder import EmbeddingModel, load
from embedsmith.models.settings import StudentSettings
from embedsmith.models.student import build_student, describe
from embedsmith.pipeline.card import write_card
from embedsmith.pipeline.runs import Run, read_manifest
from embedsmith.progress import Progress, silent
from embedsmith.settings import Settings
from embedsmith.training.batches import Source
from embedsmith.training.settings import StageSettings
from embedsmith.training.trainer import StepReport, train_stage


class TrainingSettings(Settings):
    """What `train` was asked for."""

    student: StudentSettings = StudentSettings()
    stage: StageSettings = StageSettings()
    seed: int = 0


def train(
    mined: str | Path,
    *,
    out: str | Path,
    student: StudentSettings | None = None,
    stage: StageSettings | None = None,
    seed: int = 0,
    on_progress: Progress = silent,
) -> Run:
    """Train a student on the negatives of a mining run.

    Args:
        mined: the run folder of `mine`, or a JSONL file of examples.
        out: the run folder; a run that was cut short goes on from its last checkpoint.
        student: which model, and what is made of it.
        stage: data order, loss and optimizer.
        seed: of new weights, batches and dropout.
        on_progress: told of the work.

    Raises:
        InputError, ModelError, RunError: see `embedsmith.errors`.
    """
    settings = TrainingSettings(student=student or StudentSettings(), stage=stage or StageSettings(), seed=seed)
    paths = _example_files(Path(mined))
    sources = [Source(path.parent.name, read_examples(path), prompt=settings.student.prompt) for path in paths]
    run = Run.open(out, command="train", settings=settings, inputs={"mined": str(Path(mined).resolve())})
    with run:
        for path in paths:
            run.same_content(str(path), hashlib.sha256(path.read_bytes()).hexdigest()[:16])
        train_into(run, sources, settings.student, [settings.stage], seed=seed, on_progress=on_progress)
        run.finish()
    return run


def train_into(
    run: Run,
    sources: Sequence[Source],
    student: StudentSettings,
    stages: Sequence[StageSettings],
    *,
    seed: int,
    on_progress: Progress = silent,
) -> None:
    """Train a student through all stages and save it; stages that are done are not done again."""
    if not (run.folder / "model").is_dir():
        with run.timed("train"):
            model = _before_the_first_open_stage(run, student, stages, seed=seed)
            for number, stage in enumerate(stages):
                saved = run.folder / "stages" / stage.name
                if saved.is_dir():
                    continue
                _train_one(run, model, sources, stage, seed=seed + number, on_progress=on_progress)
                if number + 1 < len(stages):
                    model.save(str(saved), create_model_card=False)
            run.count("model", describe(model))
            model.save(str(run.folder / "model"), create_model_card=False)
    write_card(run, student, stages, sources)
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)


def _train_one(
    run: Run,
    model: EmbeddingModel,
    sources: Sequence[Source],
    stage: StageSettings,
    *,
    seed: int,
    on_progress: Progress,
) -> None:
    """Train a model in place for one stage and log its steps."""

    def tell(report: StepReport) -> None:
        note = f"loss {report.loss:.3f}, in-batch accuracy {report.accuracy:.0%}"
        on_progress(f"stage {report.stage}", report.step, report.steps, note)

    checkpoints = run.folder / "checkpoints" / stage.name
    reports = train_stage(model, sources_of(stage, sources), stage, folder=checkpoints, seed=seed, on_step=tell)
    _add_steps(run.folder / "steps.jsonl", reports)


def sources_of(stage: StageSettings, sources: Sequence[Source]) -> list[Source]:
    """Return the data sets that a stage names, or all of them.

    Raises:
        SettingsError: a name is unknown; gives the nearest.
    """
    by_name = {source.name: source for source in sources}
    for name in stage.data:
        if name not in by_name:
            raise SettingsError(
                f'stage {stage.name}: unknown data set "{name}"{did_you_mean(name, by_name)}',
                hint=f"known: {', '.join(by_name)}",
            )
    return [by_name[name] for name in stage.data] or list(sources)


def _before_the_first_open_stage(
    run: Run, student: StudentSettings, stages: Sequence[StageSettings], *, seed: int
) -> EmbeddingModel:
    """Return the model as the last finished stage left it, or a new student."""
    finished = [path for stage in stages if (path := run.folder / "stages" / stage.name).is_dir()]
    return load(str(finished[-1])) if finished else build_student(student, seed=seed)


def _example_files(mined: Path) -> list[Path]:
    """Return the files of examples that a run folder holds, or the file itself.

    Raises:
        RunError, InputError: the run has none, or there is no such folder or file.
    """
    if mined.is_file():
        return [mined]
    if not mined.exists():
        raise InputError(f"{mined}: no such run folder or file", hint="mine first: embedsmith mine DATA --out RUN")
    if read_manifest(mined)["status"] != "finished":
        raise RunError(f"{mined}: a run that was cut short", hint="give its command again; it goes on where it stopped")
    files = sorted(mined.glob("negatives.jsonl")) or sorted(mined.glob("mined/*/negatives.jsonl"))
    if not files:
        raise RunError(f"{mined}: a run without negatives.jsonl", hint="mine first: embedsmith mine DATA --out RUN")
    return files


def _add_steps(path: Path, reports: Sequence[StepReport]) -> None:
    """Add a stage's steps to the run's log, in place of what an earlier attempt wrote of it."""
    stages = {report.stage for report in reports}
    earlier: list[dict[str, Any]] = [row for _, row in read_jsonl(path)] if path.is_file() else []
    write_jsonl(path, [row for row in earlier if row["stage"] not in stages] + [vars(report) for report in reports])

"""Training a student on mined examples, stage by stage, into a run folder.

RUN/model/          the trained model, a sentence-transformers folder
RUN/stages/NAME/    the model after each stage but the last
RUN/student/        a student that was open in Python, as it was before
RUN/examples.jsonl  data that was in memory
RUN/steps.jsonl     loss, accuracy and gradient lengths of every step
RUN/tensorboard/    the same as curves, where TensorBoard is installed

Under `torchrun` every process runs this; only the first one writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from embedsmith.data.examples import read_examples, write_examples
from embedsmith.data.files import remove_below, visible, write_jsonl
from embedsmith.errors import InputError, RunError, SettingsError, did_you_mean
from embedsmith.models.adapters import merge_adapters
from embedsmith.models.devices import default_device
from embedsmith.models.embedder import EmbeddingModel, describe
from embedsmith.models.nf4 import check_quantises
from embedsmith.models.opened import in_run
from embedsmith.models.opening import load
from embedsmith.models.settings import StudentSettings
from embedsmith.pages.bars import bars
from embedsmith.progress import Progress, silent
from embedsmith.runs.lineage import lineage
from embedsmith.runs.origin import check_origin, hash_of_examples
from embedsmith.runs.run import Run, finished
from embedsmith.runs.temporary import folder_or_temporary
from embedsmith.settings import Seed, Settings
from embedsmith.training.asked import Mined, Student, examples_in_memory, named_student, place_of
from embedsmith.training.batches import Source
from embedsmith.training.card import write_card
from embedsmith.training.memory import check_memory, enough_memory
from embedsmith.training.objective import check_objective, check_widths
from embedsmith.training.plan import portions
from embedsmith.training.processes import Processes
from embedsmith.training.report import LastSteps, StepReport, read_steps
from embedsmith.training.results import TrainedRun
from embedsmith.training.settings import StageSettings
from embedsmith.training.stage import train_stage
from embedsmith.training.student import student_of
from embedsmith.training.trackers import trackers
from embedsmith.training.weights import TrainedWeights
from embedsmith.vectors.guide import read_guides

Remine = Callable[[StageSettings, EmbeddingModel], list[Source]]
"""Mines a stage's data again with the current model, and returns it."""


class TrainingSettings(Settings):
    """What `train` was asked for."""

    student: StudentSettings = StudentSettings()
    stage: StageSettings = StageSettings()
    seed: Seed = 0


def train(
    mined: Mined,
    *,
    out: str | Path | None = None,
    student: Student = None,
    stage: StageSettings | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
    progress: bool = True,
) -> TrainedRun:
    """Train a student on mined negatives.

    Args:
        mined: the run of `mine` or its folder; a JSON lines or Parquet file of examples; or pairs with their negatives
            in memory: a `Dataset` of `datasets` or a list of dicts, with columns as `query` or `anchor`, `positive`,
            `negative`, `negative_1`...
        out: the run folder; a run that was cut short goes on from its last checkpoint. By default a folder that is
            removed when Python ends.
        student: settings of a model and of what is made of it; a name; or an open `SentenceTransformer`, which stays
            as it is: the run trains a copy.
        stage: data order, loss and optimizer.
        seed: of new weights, batches and dropout.
        on_progress: called with the progress of the work, in place of bars.
        progress: draw bars, where there is a terminal or a notebook.

    Returns:
        The run; `model` is the trained model.

    Raises:
        InputError, ModelError, RunError, SettingsError: see `embedsmith.errors`.
        TypeError: mined or student is of another type.
    """
    processes = Processes.running()
    place = place_of(mined)
    examples, content = examples_in_memory(mined) if place is None else ([], "")
    if out is None and processes.count > 1:
        raise SettingsError("out: several processes train, and need one folder", hint='give out="RUN"')
    with named_student(student) as named, bars(on_progress, show=progress) as tell:
        settings = TrainingSettings(student=named.settings, stage=stage or StageSettings(), seed=seed)
        if settings.stage.remine:
            raise SettingsError(
                f"stage {settings.stage.name}: remine needs a recipe, which knows the data to mine",
                hint="write a recipe with this stage: embedsmith run RECIPE.yaml --out RUN",
            )
        folder = folder_or_temporary(out, "train")
        # What cannot be read is refused before the folder is made.
        sources = [] if place is None else mined_sources(place, settings.student)
        there = (place or folder / "examples.jsonl").resolve()
        inputs = {"mined": str(there)} | ({"content": content} if place is None else {})
        if not processes.leads:
            processes.wait()
        run = (
            TrainedRun.open(folder, command="train", settings=settings, inputs=inputs)
            if processes.leads
            else TrainedRun.follow(folder)
        )
        with run:
            if processes.leads:
                if place is None:
                    write_examples(there, examples)
                named.keep(folder)
            for path in example_files(place or there):
                run.same_content(str(path.resolve()), hash_of_examples(path))
            if processes.leads:
                processes.wait()
            sources = sources or mined_sources(there, settings.student)
            train_into(run, sources, settings.student, [settings.stage], seed=seed, on_progress=tell)
            run.finish()
    return run


def mined_sources(mined: Path, student: StudentSettings) -> list[Source]:
    """Return the examples of a run of `mine` or of a file, as training reads them."""
    paths = example_files(mined)
    guides = read_guides([_guide_folder(path.parent) for path in paths])
    return [
        Source(
            path.parent.name, read_examples(path), prompt=student.prompt or None, template=student.template, guide=guide
        )
        for path, guide in zip(paths, guides, strict=True)
    ]


def train_into(
    run: Run,
    sources: Sequence[Source],
    student: StudentSettings,
    stages: Sequence[StageSettings],
    *,
    seed: int,
    remine: Remine | None = None,
    on_progress: Progress = silent,
) -> None:
    """Train a student through all stages and save it; stages that are done are not done again."""
    processes = Processes.running()
    if not (run.folder / "model").is_dir():
        with run.timed("train"):
            model = before_the_first_open_stage(run, student, stages, seed=seed)
            for stage in stages:
                if not stage.remine and not (run.folder / "stages" / stage.name).is_dir():
                    check_objective(sources_of(stage, sources), stage, model.get_embedding_dimension() or 0)
            for number, stage in enumerate(stages):
                saved = run.folder / "stages" / stage.name
                if saved.is_dir():
                    continue
                data = sources_of(stage, sources)
                if stage.remine:
                    assert remine, "only a recipe's stages mine again"
                    data = remine(stage, model)
                if processes.leads:
                    seen = portions(data, stage, seed + number)
                    run.count(f"queries of stage {stage.name}", {part.data: part.queries for part in seen})
                _train_one(run, model, data, stages, number, seed=seed + number, on_progress=on_progress)
                if processes.leads and number + 1 < len(stages):
                    model.save(str(saved), create_model_card=False)
                if number + 1 < len(stages) and model.has_adapters:
                    merge_adapters(model)
            if processes.leads:
                run.count("model", describe(model))
                model.save(str(run.folder / "model"), create_model_card=False)
    if processes.leads:
        write_card(run, student, stages, sources)
        remove_below(run.folder, run.folder / "checkpoints")


def _train_one(
    run: Run,
    model: EmbeddingModel,
    sources: Sequence[Source],
    stages: Sequence[StageSettings],
    number: int,
    *,
    seed: int,
    on_progress: Progress,
) -> None:
    """Train a model in place for one stage and log its steps."""
    stage = stages[number]
    folder = run.folder / "checkpoints"
    goes_on = number + 1 < len(stages) and not stages[number + 1].restart_optimizer
    last = LastSteps()

    def begin(done: int, steps: int, warning: str) -> None:
        on_progress(f"stage {stage.name}", done, steps, warning)

    def note(weights: TrainedWeights) -> None:
        counts = asdict(weights)
        run.manifest.setdefault("trained_names", {})[stage.name] = counts.pop("names")
        run.count(f"weights trained in {stage.name}", counts)

    def tell(report: StepReport) -> None:
        on_progress(f"stage {report.stage}", report.step, report.steps, last.note(report))

    reports = train_stage(
        model,
        with_prompts(sources, model),
        stage,
        folder=folder / stage.name,
        seed=seed,
        optimizer_from=None if stage.restart_optimizer or not number else _optimizer(folder, stages[number - 1]),
        optimizer_to=_optimizer(folder, stage) if goes_on else None,
        log_folder=run.folder / "tensorboard" / stage.name,
        on_weights=note,
        on_start=begin,
        on_step=tell,
    )
    if Processes.running().leads:
        _add_steps(run.folder / "steps.jsonl", reports)


def _optimizer(folder: Path, stage: StageSettings) -> Path:
    """Return the path of the optimizer state that a stage ended with."""
    return folder / f"{stage.name}-optimizer.safetensors"


def with_prompts(sources: Sequence[Source], model: EmbeddingModel) -> list[Source]:
    """Return the data sets; those without an instruction of their own get the model's prompts."""
    return [
        replace(
            source,
            prompt=model.prompt_of("query") if source.prompt is None else source.prompt,
            passage_prompt=model.prompt_of("passage") if source.passage_prompt is None else source.passage_prompt,
        )
        for source in sources
    ]


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


def before_the_first_open_stage(
    run: Run, student: StudentSettings, stages: Sequence[StageSettings], *, seed: int
) -> EmbeddingModel:
    """Return the model as the last finished stage left it, or a new student; checked against the stages to come.

    Raises:
        SettingsError: too little memory, a Matryoshka width beyond the model's, weights that cannot be quantised, or a
            tracker that is not installed.
    """
    finished = [path for stage in stages if (path := run.folder / "stages" / stage.name).is_dir()]
    name = str(finished[-1]) if finished else student.name
    with enough_memory(lambda: f"{name}: its weights", torch.device(default_device())):
        if finished:
            model = load(name, attention_backend=student.attention_backend, compile=student.compile)
        else:
            model = student_of(in_run(student, run.folder), stages, seed=seed)
    if model.has_adapters:  # as after the stage that has kept them
        merge_adapters(model)
    for stage in stages[len(finished) :]:
        trackers(stage.report_to)
        check_widths(stage, model.get_embedding_dimension() or 0)
        if stage.quantize != "none":
            check_quantises(model)
        check_memory(model, stage)
    return model


def example_files(mined: Path) -> list[Path]:
    """Return the files of examples that a run folder holds, or the file itself.

    Raises:
        RunError, InputError: the run has none, or there is no such folder or file.
    """
    if mined.is_file():
        return [mined]
    if not mined.exists():
        raise InputError(f"{mined}: no such run folder or file", hint="mine first: embedsmith mine DATA --out RUN")
    finished(mined)
    check_origin(mined)
    files = visible(mined, "negatives.jsonl") or visible(mined, "mined/*/negatives.jsonl")
    if not files:
        raise RunError(f"{mined}: a run without negatives.jsonl", hint="mine first: embedsmith mine DATA --out RUN")
    return files


def _guide_folder(folder: Path) -> Path:
    """Return the folder of the run that stored the teacher's vectors: behind a run of `select`, its run of `mine`."""
    if not (folder / "manifest.json").is_file():
        return folder
    *_, (origin, _) = lineage(folder)
    return origin


def _add_steps(path: Path, reports: Sequence[StepReport]) -> None:
    """Add a stage's steps to the run's log; those of an earlier attempt are replaced."""
    stages = {report.stage for report in reports}
    earlier = [row for row in read_steps(path) if row["stage"] not in stages]
    write_jsonl(path, earlier + [vars(report) for report in reports])

"""A recipe carried out: data, mining, scores before, training, scores after; each once, however often it is cut short.

RUN/data/NAME/train, test   BEIR folders of harvested code, and of documents
RUN/data/NAME/clean…        data without what evaluation sets hold
RUN/data/NAME/examples.jsonl  labelled data, converted
RUN/mined/NAME/             candidates and negatives.jsonl of each data set
RUN/remined/STAGE/NAME/     the same, mined by the student as a stage found it
RUN/vectors/                every vector that was needed, by fingerprint
RUN/stages/STAGE/           the model after each stage but the last
RUN/model/                  the trained model
RUN/scores.json             scores of each data set: before, after each stage, after, teacher, baselines
RUN/scores/NAME/WHAT.jsonl  the same for each query, to compare runs by
RUN/report.md               all of it to read
RUN/report.html             the scores with intervals, and the queries won and lost
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from embedsmith.cluster.running import on_cluster, running_cluster
from embedsmith.data.collection import Collection
from embedsmith.data.examples import Example, read_examples
from embedsmith.data.pair_labels import read_labels
from embedsmith.evaluation.comparison_page import write_evaluation_report
from embedsmith.mining.ensembles import PCA
from embedsmith.mining.mine import mine_into
from embedsmith.mining.settings import MiningSettings
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.pages.bars import bars
from embedsmith.progress import Progress, silent
from embedsmith.recipes.data import (
    Prepared,
    clean,
    convert_data,
    evaluation_side,
    examples_file,
    examples_path,
    training_side,
)
from embedsmith.recipes.harvested import elsewhere_settings, found_again, harvest_into
from embedsmith.recipes.labelled_scores import scoring_of
from embedsmith.recipes.own_queries import own_queries
from embedsmith.recipes.preconditions import Opened, Preconditions
from embedsmith.recipes.recipe import DataSettings, Recipe, prompt_of, read_recipe, remined
from embedsmith.recipes.report import write_report
from embedsmith.recipes.results import RecipeRun
from embedsmith.recipes.scores import score_after, score_before
from embedsmith.recipes.shelf import (
    Shelf,
    identity_of_files,
    identity_of_model,
    once,
    shared_candidates,
    shared_stages,
    versions_of_arithmetic,
)
from embedsmith.recipes.written import with_written
from embedsmith.runs.named import ELSEWHERE
from embedsmith.runs.run import Run
from embedsmith.settings import fingerprint
from embedsmith.training.batches import Source
from embedsmith.training.blend import capped_examples
from embedsmith.training.processes import Processes
from embedsmith.training.settings import StageSettings
from embedsmith.training.train import before_the_first_open_stage, train_into
from embedsmith.variables import Written, filled, filled_places
from embedsmith.vectors.guide import Guide, read_guides

_log = logging.getLogger("embedsmith")


def run_recipe(
    recipe: Recipe | str | Path,
    *,
    out: str | Path,
    command: str = "train",
    shelf: Shelf | None = None,
    preconditions: Preconditions | None = None,
    planned: Mapping[str, Any] | None = None,
    on_skip: Callable[[str], None] | None = None,
    on_progress: Progress | None = None,
    progress: bool = True,
) -> RecipeRun:
    """Carry out a recipe into a run folder; one that was cut short goes on.

    Args:
        recipe: what to do, or the YAML file that says it.
        out: the run folder.
        command: the command's name, which the folder remembers.
        shelf: what other runs have made of the same things, and where this one leaves what it makes.
        preconditions: what has looked at other recipes already, and tells of what it sees itself.
        planned: what the run's manifest keeps of how the recipe was chosen; see `embedsmith.recipes.minutes`.
        on_skip: called, when a run begins, with what of each data set is left out and what its labels mean; by default
            the logger `embedsmith` is, at the level INFO.
        on_progress: called with the progress of the work, in place of bars.
        progress: draw bars, where there is a terminal or a notebook.

    Returns:
        The run; `model` is the trained model, `scores` has what was scored.

    Raises:
        InputError, ModelError, RunError, SettingsError: see `embedsmith.errors`. What the recipe asks for and cannot be
            done is refused before anything is made.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    written = Written(recipe)  # a variable that is not set is an error before the folder is made
    if not Processes.running().leads:
        with written.errors():
            return _follow(recipe, Path(out))
    known = preconditions or Preconditions(on_skip or _log.info)
    with (
        written.errors(),
        on_cluster(None if running_cluster() else recipe.cluster),
        bars(on_progress, show=progress) as tell,
        RecipeRun.open(out, command=command, settings=recipe, inputs={}) as run,
    ):
        if shelf:
            run.vectors = shelf.vectors
        if planned:
            run.manifest["planned"] = dict(planned)
            run.save()
        _carry_out(run, recipe, shelf, known, written.progress(tell))
        run.finish()
    return run


def _carry_out(
    run: Run, recipe: Recipe, shelf: Shelf | None, preconditions: Preconditions, on_progress: Progress
) -> None:
    """Do all that is not done yet: data, mining, scores before, training, scores after, reports."""
    found: Mapping[str, Opened] = {}
    if run.is_new:
        found = preconditions.check(recipe, run)
    elif not (run.folder / "model").is_dir():
        before_the_first_open_stage(run, recipe.student, recipe.stages, seed=recipe.seed)
    ready = {
        name: _prepare(run, recipe, name, found.get(name, Opened()), shelf, on_progress)
        # What is converted may be mined for it, which takes long: first all that may yet turn out to be broken.
        for name in sorted(recipe.data, key=lambda name: recipe.data[name].convert is not None)
    }
    prepared = [ready[name] for name in recipe.data]
    for data in prepared:
        if data.train:
            folder = run.folder / "mined" / data.name
            with shared_candidates(shelf, partial(_candidates_of, recipe, data.train), folder, on_progress):
                selection = mine_into(
                    run, folder, data.train, recipe.mining, listed=data.listed, on_progress=on_progress
                )
            run.count(f"mining {data.name}", selection.counts)
    tested = [*prepared, *own_queries(run, prepared), *_elsewhere(run, recipe, shelf, on_progress)]
    score_before(run, recipe, tested, shelf, on_progress)
    sources = _sources(run.folder, "mined", recipe, list(recipe.data))
    with shared_stages(shelf, run, recipe.student, recipe.stages, sources, seed=recipe.seed, on_progress=on_progress):
        Processes.running().wait()
        train_into(
            run,
            sources,
            recipe.student,
            recipe.stages,
            seed=recipe.seed,
            remine=_Remine(run, recipe, prepared, on_progress),
            on_progress=on_progress,
        )
    score_after(run, recipe, tested, on_progress)
    write_report(run, recipe)
    if (run.folder / "scores").is_dir():
        write_evaluation_report(run.folder)


def _elsewhere(run: Run, recipe: Recipe, shelf: Shelf | None, on_progress: Progress) -> list[Prepared]:
    """Return the test side on which it is seen what the student has lost, if the recipe looks."""
    settings = elsewhere_settings(recipe)
    if settings is None:
        return []
    harvest_into(run, ELSEWHERE, settings, recipe.student, shelf, on_progress)
    test = evaluation_side(run.folder, ELSEWHERE, settings)
    return [Prepared(ELSEWHERE, settings, train=None, test=test, elsewhere=True)]


def _follow(recipe: Recipe, out: Path) -> RecipeRun:
    """Take part in the training of a recipe that the first process carries out."""
    Processes.running().wait()
    run = RecipeRun.follow(out)
    sources = _sources(run.folder, "mined", recipe, list(recipe.data))
    train_into(run, sources, recipe.student, recipe.stages, seed=recipe.seed, remine=_Remine(run, recipe, [], silent))
    return run


@dataclass(frozen=True)
class _Remine:
    """Mines a stage's data again with the model as it stands."""

    run: Run
    recipe: Recipe
    prepared: list[Prepared]
    """Of the process that leads; the others wait for it."""
    on_progress: Progress

    def __call__(self, stage: StageSettings, model: EmbeddingModel) -> list[Source]:
        """Return the stage's data sets with new negatives; those that came with negatives keep them."""
        part = f"remined/{stage.name}"
        folder = self.run.folder / part
        names = stage.data or list(self.recipe.data)
        for data in self.prepared:
            if data.name in names and data.train:
                selection = mine_into(
                    self.run,
                    folder / data.name,
                    data.train,
                    self._settings(data, folder / "model", model),
                    listed=data.listed,
                    on_progress=self.on_progress,
                )
                self.run.count(f"mining {data.name} for {stage.name}", selection.counts)
        Processes.running().wait()
        return _sources(self.run.folder, part, self.recipe, names)

    def _settings(self, data: Prepared, teacher: Path, model: EmbeddingModel) -> MiningSettings:
        """Return the recipe's mining with the model as the only teacher."""
        if not teacher.is_dir():
            model.save(str(teacher), create_model_card=False)
        return remined(self.recipe, data.settings, str(teacher))


def _sources(folder: Path, part: str, recipe: Recipe, names: Sequence[str]) -> list[Source]:
    """Return the examples of data sets, as training reads them; what was mined lies in a part of the run folder."""
    guides = read_guides([folder / part / name for name in names])
    return [
        source_of(recipe, name, read_examples(examples_file(folder, part, recipe, name)), guide)
        for name, guide in zip(names, guides, strict=True)
    ]


def source_of(recipe: Recipe, name: str, examples: list[Example], guide: Guide | None = None) -> Source:
    """Return examples as a recipe says that they are trained on."""
    settings = recipe.data[name]
    prompt = prompt_of(recipe, settings)
    return Source(
        name,
        capped_examples(examples, settings.max_examples, seed=recipe.seed),
        prompt=prompt,
        # What the recipe says goes before what the examples say.
        template=recipe.student.template if settings.instruction is None else None,
        weight=settings.weight,
        share=settings.share,
        passage_prompt=prompt if settings.symmetric else None,
        in_batch=settings.in_batch,
        guide=guide,
    )


def _candidates_of(recipe: Recipe, collection: Collection) -> Any:
    """Return all that a collection's candidates depend on."""
    mining = recipe.mining
    return {
        "collection": collection.content_hash(),
        "teachers": [identity_of_model(name) for name in mining.teachers],
        "reading": mining.teacher_settings.model_dump(mode="json"),
        "depth": mining.depth,
        "joined": mining.pca_variance if mining.ensemble == PCA else None,
        "versions": versions_of_arithmetic(),
    }


def _prepare(
    run: Run, recipe: Recipe, name: str, known: Opened, shelf: Shelf | None, on_progress: Progress
) -> Prepared:
    """Return the collections of one data set; what must be made of it first is made once, in the run."""
    settings = recipe.data[name]
    if places := filled_places(settings):
        # The settings are the same where a variable has another value: what lies there has to be.
        files = {written: identity_of_files(Path(path)) for written, path in places.items()}
        run.same_content(f"{name} (files)", fingerprint(files))
    if settings.is_harvested:
        harvest_into(run, name, settings, recipe.student, shelf, on_progress)
        train, listed = training_side(run.folder, name, settings)
        test = evaluation_side(run.folder, name, settings)
        assert test
        train = found_again(run, name, settings, train, recipe.mining, on_progress)
        train = with_written(run, name, settings, train, test, recipe.mining, shelf, on_progress)
        return Prepared(name, settings, train, test, listed)
    scoring = scoring_of(settings)
    ready = clean(run, name, settings, on_progress)
    if settings.convert or settings.format == "examples":
        if settings.convert:
            target = examples_path(run.folder, name)
            with once(shelf, "examples", partial(_conversion_of, recipe, ready), target, on_progress):
                convert_data(run, recipe, name, ready, on_progress)
        file = examples_file(run.folder, "mined", recipe, name)
        run.same_content(name, hashlib.sha256(file.read_bytes()).hexdigest()[:16])
        return Prepared(name, settings, train=None, test=None, scoring=scoring)
    test = known.test or evaluation_side(run.folder, name, settings)
    if known.train and not settings.against:
        return Prepared(name, settings, known.train, test, known.listed)
    train, listed = training_side(run.folder, name, settings)
    return Prepared(name, settings, train, test, listed)


def _conversion_of(recipe: Recipe, data: DataSettings) -> Any:
    """Return all that the examples of labelled data depend on."""
    mining = recipe.mining if data.mined else None
    there = filled(data)
    return {
        "files": identity_of_files(Path(there.path)),
        "labels": read_labels(there.convert.labels) if there.convert and there.convert.labels else None,
        "data": data.model_dump(mode="json"),
        "mining": mining.model_dump(mode="json") if mining else None,
        "teachers": [identity_of_model(name) for name in mining.teachers] if mining else None,
        "versions": versions_of_arithmetic(),
    }

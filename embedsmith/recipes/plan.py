"""The plan of a training run: data, steps, tokens, and what they will take in time and memory on this machine.

Nothing is mined and nothing stays written; what evaluation sets hold is taken out first. Tokens are those of a sample,
times the number of texts; time and memory are those of one chunk of the sample, run forward and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from embedsmith.data.collection import Collection
from embedsmith.data.examples import Example, Passage, read_examples
from embedsmith.mining.mine import read_source
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.settings import StudentSettings
from embedsmith.progress import Progress, silent
from embedsmith.recipes.data import cleaned, decontaminate_into, drafted_of
from embedsmith.recipes.harvested import elsewhere_settings, sides_of
from embedsmith.recipes.own_queries import own_collection, read_own_queries
from embedsmith.recipes.preconditions import Opened, Preconditions
from embedsmith.recipes.recipe import DataSettings, Recipe
from embedsmith.recipes.run import source_of
from embedsmith.runs.run import Run
from embedsmith.training.batches import Source
from embedsmith.training.blend import Portion
from embedsmith.training.cost import cost_of
from embedsmith.training.memory import enough_memory, free_bytes
from embedsmith.training.objective import check_objective
from embedsmith.training.plan import plan_of, portions
from embedsmith.training.processes import refuse_spreading
from embedsmith.training.settings import StageSettings
from embedsmith.training.student import opening_bytes, student_of
from embedsmith.training.train import TrainingSettings, mined_sources, sources_of, with_prompts
from embedsmith.training.weights import TrainedWeights
from embedsmith.variables import Written, filled


@dataclass(frozen=True)
class DataPlan:
    """One data set."""

    name: str
    queries: int
    passages: int
    """Of the corpus, where negatives are still to be mined."""
    negatives: int
    to_be_mined: bool
    removed: int = 0
    """Rows that evaluation sets hold, and that are not in the other counts any more."""
    labels: str = ""
    """What the labels of pairs are taken for."""


@dataclass(frozen=True)
class StagePlan:
    """One stage."""

    name: str
    steps: int
    queries_a_step: int
    tokens_a_step: int
    trained_parameters: int
    trained: TrainedWeights
    """The same by the part of the model."""
    seconds: float
    memory_gib: float
    """Weights, gradients, optimizer and activations."""
    blend: list[Portion]
    """What it sees of each data set."""


@dataclass(frozen=True)
class TrainingPlan:
    """What a training run is going to do."""

    device: str
    free_gib: float
    """Memory that is free there before the student is."""
    opening_gib: float
    """Memory at most while the student is opened; on the way to a GPU it is the machine's, then the GPU's."""
    parameters: int
    data: list[DataPlan]
    stages: list[StagePlan]


def plan_of_recipe(
    recipe: Recipe, *, on_skip: Callable[[str], None] | None = None, on_progress: Progress = silent
) -> TrainingPlan:
    """Return the plan of a recipe; its data are read and cleaned, and neither mined nor kept.

    Args:
        recipe: what is planned.
        on_skip: called with what of each data set is left out and what its labels mean.
        on_progress: called with the progress of the work.

    Raises:
        InputError, ModelError, SettingsError: a step could not be done; see `embedsmith.recipes.preconditions`.
    """
    refuse_spreading()
    written = Written(recipe)
    with written.errors():
        with TemporaryDirectory() as folder:
            opened = Preconditions(on_skip).check(recipe, Run.follow(folder))
        return _plan_of(recipe, opened, written.progress(on_progress))


def _plan_of(recipe: Recipe, opened: dict[str, Opened], on_progress: Progress) -> TrainingPlan:
    """Return the plan of a recipe that can be carried out."""
    read = read_data(recipe, opened, on_progress)
    model = student_of(recipe.student, recipe.stages, seed=recipe.seed)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return TrainingPlan(
        device=str(model.device),
        free_gib=_free_gib(model),
        opening_gib=opening_bytes(model) / 2**30,
        parameters=parameters,
        data=read.plans,
        stages=[
            _stage_plan(model, sources_of(stage, read.sources), stage, recipe.seed + number)
            for number, stage in enumerate(recipe.stages)
        ],
    )


@dataclass(frozen=True)
class ReadData:
    """The data of a recipe, read and cleaned, not mined."""

    plans: list[DataPlan]
    sources: list[Source]
    """What stages train on; passages at random stand in the place of negatives that are not mined yet."""
    mined: dict[str, Collection]
    """Data sets that are to be mined, by name."""
    tests: dict[str, Collection]
    """Test sides to be searched, by name; not those of labelled data."""
    elsewhere: Collection | None
    """What it is seen on what the student has lost."""
    own: dict[str, Collection]
    """Users' own queries on the passages of a test side, by its name."""


def read_data(recipe: Recipe, opened: dict[str, Opened], on_progress: Progress) -> ReadData:
    """Return the data of a recipe that can be carried out; nothing stays written."""
    made = elsewhere_settings(recipe)
    elsewhere = None if made is None else sides_of(made, recipe.student, on_progress).test
    read = ReadData([], [], {}, {}, elsewhere, {})
    for name, settings, removed in _cleaned(recipe, on_progress):
        there = filled(settings)
        if settings.format == "examples":
            examples = read_examples(Path(there.path))
            plan = _data_plan(name, examples)
        elif there.convert:
            # What evaluation sets hold was still there when the data were looked at.
            drafted = drafted_of(there) if settings.against else opened[name].drafted
            assert drafted
            examples = list(drafted.examples(there.convert))
            plan = replace(_data_plan(name, examples), labels=str(drafted.meanings or ""))
        else:
            collection, test = _collections(settings, recipe.student, on_progress)
            examples = _as_if_mined(collection, recipe.mining.negatives)
            plan = DataPlan(name, len(collection.queries), len(collection.passages), 0, True)
            read.mined[name] = collection
            if test := test or opened[name].test:
                read.tests[name] = test
                if there.queries and (own := own_collection(read_own_queries(Path(there.queries)), test)):
                    read.own[name] = own
        read.sources.append(source_of(recipe, name, examples))
        read.plans.append(replace(plan, removed=removed))
    return read


def plan_of_run(mined: Path, settings: TrainingSettings) -> TrainingPlan:
    """Return the plan of training on a run of `mine`, or on a file of examples."""
    refuse_spreading()
    sources = mined_sources(mined, settings.student)
    model = student_of(settings.student, [settings.stage], seed=settings.seed)
    check_objective(sources, settings.stage, model.get_embedding_dimension() or 0)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return TrainingPlan(
        device=str(model.device),
        free_gib=_free_gib(model),
        opening_gib=opening_bytes(model) / 2**30,
        parameters=parameters,
        data=[_data_plan(source.name, source.examples) for source in sources],
        stages=[_stage_plan(model, sources, settings.stage, settings.seed)],
    )


def _cleaned(recipe: Recipe, on_progress: Progress) -> Iterator[tuple[str, DataSettings, int]]:
    """Yield each data set, with its clean rows for as long as the next one is not asked for, and how many it lost."""
    for name, settings in recipe.data.items():
        if not settings.against:
            yield name, settings, 0
            continue
        with TemporaryDirectory() as folder:
            ready = cleaned(Path(folder), name, settings)
            found = decontaminate_into(Path(ready.path), settings, on_progress)
            yield name, ready, found.removed


def _free_gib(model: EmbeddingModel) -> float:
    """Return the memory that was free before a model was opened."""
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return (free_bytes(model.device) + weights) / 2**30


def _data_plan(name: str, examples: Sequence[Example]) -> DataPlan:
    """Return what is known of examples that have their negatives."""
    return DataPlan(name, len(examples), 0, sum(len(example.negatives) for example in examples), False)


def _collections(
    settings: DataSettings, student: StudentSettings, on_progress: Progress
) -> tuple[Collection, Collection | None]:
    """Return the training side of a data set, and the test side of one that is split here."""
    if settings.is_harvested:
        sides = sides_of(settings, student, on_progress)
        return sides.train, sides.test
    return read_source(filled(settings).path, settings.source, None)[0], None


def _as_if_mined(collection: Collection, negatives: int) -> list[Example]:
    """Return examples with passages at equal distances in place of negatives: about as long as those will be."""
    queries, passages = collection.positive_pairs()
    queries, first = np.unique(queries, return_index=True)
    drawn = np.arange(len(queries) * negatives).reshape(-1, negatives) % len(collection.passages)
    return [
        Example(
            query_id=collection.query_ids[query],
            query=collection.queries[query],
            positives=[Passage(id=str(positive), text=collection.passages[positive])],
            negatives=[Passage(id=str(row), text=collection.passages[row]) for row in own],
        )
        for query, positive, own in zip(queries.tolist(), passages[first].tolist(), drawn.tolist(), strict=True)
    ]


def _stage_plan(model: EmbeddingModel, sources: Sequence[Source], stage: StageSettings, seed: int) -> StagePlan:
    """Return the plan of one stage, by a sample of its first batches."""
    plan = plan_of(with_prompts(sources, model), stage, seed)
    with enough_memory(lambda: f"stage {stage.name}: a first chunk", model.device):
        cost = cost_of(model, plan, stage)
    return StagePlan(
        name=stage.name,
        steps=len(plan) // stage.accumulation,
        queries_a_step=len(plan[0].queries) * stage.accumulation,
        tokens_a_step=cost.tokens_a_batch * stage.accumulation,
        trained_parameters=cost.trained.count,
        trained=cost.trained,
        seconds=cost.seconds_a_batch * len(plan),
        memory_gib=cost.bytes / 2**30,
        blend=portions(sources, stage, seed),
    )

"""A recipe that ends within some minutes: the largest variant of it that this machine carries out in time.

First passages are read, and trained on, to fewer tokens; then there are fewer steps; then, of code, fewer functions,
and of documents fewer passages.
What was chosen is in the recipe that comes back: carried out again, wherever, it writes the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from embedsmith.data.files import read_json
from embedsmith.errors import SettingsError
from embedsmith.progress import Progress, silent
from embedsmith.recipes.plan import ReadData, read_data
from embedsmith.recipes.preconditions import Preconditions
from embedsmith.recipes.recipe import DataSettings, Recipe
from embedsmith.recipes.speed import Estimate, Speed
from embedsmith.runs.run import Run
from embedsmith.settings import flat
from embedsmith.training.processes import refuse_spreading
from embedsmith.variables import Written

LEAST_STEPS = 30
"""Steps of a variant, at least, unless the recipe has fewer: 40 steps of 64 tokens raised MiniLM's nDCG@10 on the
standard library from .562 to .628, 80 to .645, 200 to .656."""

_SHARE = 0.9
"""Of the minutes that the estimate may take: another program may want a core for a while."""
_ELSEWHERE_S = 60.0
"""Seconds that seeing what was lost elsewhere may take; where it takes longer it is left out."""
_TOKENS = ((None, None), (128, 128), (128, 64))
"""Of passages: as they are read by teacher and student, and as they are trained on. None: as the recipe says."""
_SHARES = (1.0, 0.5, 0.25, 0.125)
"""Shares of the functions of code, and of the passages of documents."""
_FEWEST = {"code": 500, "documents": 2000}
"""Functions and passages, at least."""


@dataclass(frozen=True)
class Fitted:
    """A recipe for some minutes."""

    recipe: Recipe
    estimate: Estimate
    seconds: float
    """That it may take, from the beginning of the measurement."""
    taken: float
    """Seconds that reading and measuring took."""
    read: ReadData
    """The data as the recipe that was asked for reads them."""
    changes: dict[str, Any]
    """What differs from the recipe that was asked for, by its path."""

    @property
    def total(self) -> float:
        """Seconds from the beginning of the measurement to the end of the run."""
        return self.taken + self.estimate.total

    @property
    def is_in_time(self) -> bool:
        """Whether it ends within its time."""
        return self.total <= self.seconds

    def note(self, asked: Recipe) -> dict[str, Any]:
        """Return what a run's manifest keeps of the plan, as plain values."""
        return {
            "asked": asked.fingerprint(),
            "minutes": self.seconds / 60,
            "estimate_s": round(self.total, 1),
            "changes": self.changes,
        }


def fitted(
    recipe: Recipe,
    minutes: float,
    *,
    on_skip: Callable[[str], None] | None = None,
    on_progress: Progress = silent,
) -> Fitted:
    """Return a recipe that ends within some minutes on this machine as it is now, or the least that is worth it.

    The data are read, models opened, and a few seconds of encoding and training measured; nothing stays written.

    Args:
        recipe: what is asked for, which is also the most that is done.
        minutes: from now to the end of the run.
        on_skip: see `embedsmith.recipes.plan.plan_of_recipe`.
        on_progress: called with the progress of the work.

    Raises:
        InputError, ModelError, SettingsError: a step could not be done; see `embedsmith.recipes.preconditions`.
    """
    refuse_spreading()
    if any(data.documents.generators for data in recipe.data.values()):
        raise SettingsError(
            "how long generators write is not known beforehand, so there is no plan for some minutes",
            hint="leave --minutes out, or the generators",
        )
    started = time.monotonic()
    written = Written(recipe)
    with written.errors():
        on_progress("plan: read data", 0, 2)
        with TemporaryDirectory() as folder:
            opened = Preconditions(on_skip).check(recipe, Run.follow(folder))
        reading = time.monotonic()
        read = read_data(recipe, opened, written.progress(on_progress))
        reading = time.monotonic() - reading
        on_progress("plan: measure this machine", 1, 2)
        speed = Speed(recipe, read, reading_s=reading)
        on_progress("plan: measure this machine", 2, 2)
    taken = time.monotonic() - started
    asked = recipe
    if speed.seconds_elsewhere(recipe) > _ELSEWHERE_S:
        evaluation = recipe.evaluation.model_copy(update={"elsewhere": None})
        recipe = recipe.model_copy(update={"evaluation": evaluation})
    chosen, estimate = _chosen(recipe, read, speed, minutes * 60 * _SHARE - taken)
    return Fitted(chosen, estimate, minutes * 60, taken, read, _changes(asked, chosen))


def begun(out: Path, asked: Recipe) -> Recipe | None:
    """Return the recipe that the run in a folder goes on with; None where there is no run yet.

    If the same recipe was asked for when the run began, that is what was chosen then. Else it is the recipe asked for
    now: opening the run refuses it if the run is another one's.
    """
    path = out / "manifest.json"
    if not path.is_file():
        return None
    manifest = read_json(path)
    planned = manifest.get("planned") if isinstance(manifest, dict) else None
    if isinstance(planned, dict) and planned.get("asked") == asked.fingerprint():
        return Recipe.parse(manifest.get("settings"), where=str(path))
    return asked


def _chosen(recipe: Recipe, read: ReadData, speed: Speed, seconds: float) -> tuple[Recipe, Estimate]:
    """Return the largest variant that takes no longer than some seconds; else the smallest one."""
    variants = list(_variants(recipe, read))
    for variant, share in variants:
        if share == 1 and speed.estimate(variant, share=share).total <= seconds:
            return variant, speed.estimate(variant, share=share)
    # The shortest texts of each share, with as many steps as fit.
    shortest = {share: variant for variant, share in variants}
    for share, variant in shortest.items():
        estimate = speed.estimate(variant, share=share)
        part = min(1.0, (seconds - (estimate.total - estimate.training)) / estimate.training)
        least = min(1.0, LEAST_STEPS / sum(estimate.steps))
        # Fewer texts are the last resort: 40 steps on all of the code gained .066, 101 on a quarter of it .032.
        if part >= least:
            break
    variant = with_steps(variant, estimate.steps, max(least, part))
    return variant, speed.estimate(variant, share=share)


def _variants(recipe: Recipe, read: ReadData) -> Iterator[tuple[Recipe, float]]:
    """Yield variants of a recipe and their share of its functions or passages, the largest first."""
    # Documents are cut into passages as long as the student reads: shorter ones would be more of them.
    is_cut = any(data.format == "documents" for data in recipe.data.values())
    count = sum(len(one.passages) for one in read.tests.values())
    for share in _SHARES if _can_be_a_part(recipe) else (1.0,):
        data = {name: _part_of(one, share, count) for name, one in recipe.data.items()}
        if any(share < 1 and share * count < _FEWEST[one.format] for one in data.values()):
            return
        for reads, trains in _TOKENS:
            yield _of_tokens(recipe.model_copy(update={"data": data}), None if is_cut else reads, trains), share


def _can_be_a_part(recipe: Recipe) -> bool:
    """Return whether a part of the data can be taken."""
    # Of a recipe that mines other data too, the rest stays as it is: an estimate of a part of it would be wrong.
    if len(recipe.data) > 1:
        return False
    (data,) = recipe.data.values()
    # A user's own queries may be for any passage.
    return data.is_harvested and data.queries is None


def _part_of(data: DataSettings, share: float, count: int) -> DataSettings:
    """Return a data set with a share of its functions or passages."""
    if share == 1:
        return data
    most = round(share * count)
    if data.format == "code":
        return data.model_copy(update={"max_functions": most})
    return data.model_copy(update={"documents": data.documents.model_copy(update={"max_passages": most})})


def _of_tokens(recipe: Recipe, reads: int | None, trains: int | None) -> Recipe:
    """Return a recipe whose passages are no longer than some tokens, read and trained on."""
    teacher = recipe.mining.teacher_settings
    student = recipe.student
    stages = [
        stage.model_copy(update={"passage_max_tokens": _least(trains, stage.passage_max_tokens)})
        if trains and trains < (stage.passage_max_tokens or student.passage_max_tokens)
        else stage
        for stage in recipe.stages
    ]
    if reads and reads < student.passage_max_tokens:
        student = student.model_copy(update={"passage_max_tokens": reads})
    if reads and reads < (teacher.max_tokens or reads + 1):
        teacher = teacher.model_copy(update={"max_tokens": reads})
    mining = recipe.mining.model_copy(update={"teacher_settings": teacher})
    return recipe.model_copy(update={"mining": mining, "student": student, "stages": stages})


def _least(*counts: int | None) -> int:
    """Return the least of some counts, those that are there."""
    return min(count for count in counts if count is not None)


def with_steps(recipe: Recipe, steps: tuple[int, ...], share: float) -> Recipe:
    """Return a recipe whose stages have a share of some steps, each one at least."""
    stages = [
        stage.model_copy(update={"steps": max(1, round(count * share)), "epochs": None, "least_steps": None})
        for stage, count in zip(recipe.stages, steps, strict=True)
    ]
    return recipe.model_copy(update={"stages": stages})


def _changes(asked: Recipe, chosen: Recipe) -> dict[str, Any]:
    """Return the values of a recipe that differ from another's, by their path."""
    before = flat(asked.model_dump(mode="json"))
    return {path: value for path, value in flat(chosen.model_dump(mode="json")).items() if before.get(path) != value}

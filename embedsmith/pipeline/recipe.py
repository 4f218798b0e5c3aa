"""A recipe: everything that a run from raw data to a scored model needs, as one YAML file.

name, seed
data:        name -> where it lies, its instruction, its weight
mining:      teacher, method, number of negatives
student:     which model, and what is made of it
stages:      a list; each with its data, negatives, steps and learning rates
evaluation:  what is scored beside the trained model
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from embedsmith.errors import InputError, SettingsError
from embedsmith.mining.settings import MiningSettings
from embedsmith.models.settings import Dtype, StudentSettings
from embedsmith.settings import Settings
from embedsmith.training.settings import StageSettings


class DataSettings(Settings):
    """One data set of a recipe."""

    path: str
    """A BEIR folder, pairs (a file, a `datasets` folder, hf:OWNER/NAME), or (`format: code`) Python sources, of which
    `stdlib` is the running Python's."""
    format: Literal["auto", "code"] = "auto"
    """`auto`: a BEIR folder or pairs; `code`: harvest (docstring, function) pairs from a tree of Python files."""
    split: str | None = None
    """Split to mine and train on; `train` where there is one."""
    test_split: str | None = "test"
    """Split to evaluate on, where the data has it; null for none. `code` holds out whole modules instead."""
    instruction: str | None = None
    """Instruction of its queries; the student's when not given."""
    weight: float = Field(1.0, gt=0)
    """How often its examples are drawn, relative to their number."""
    split_seed: int = 0
    """`code`: seed of the choice of test modules."""
    test_share: float = Field(0.2, gt=0, lt=1)
    """`code`: share of the pairs held out, in whole modules."""


class EvaluationSettings(Settings):
    """What is scored beside the trained model."""

    before: bool = True
    """Score the student before training."""
    baselines: list[str] = ["bm25"]
    """Other models to score, by name; the teacher is always scored."""
    dtype: Dtype = "auto"
    """Precision. `auto`: bfloat16 where the hardware has it."""


class Recipe(Settings):
    """A run from raw data to a scored model."""

    name: str = "recipe"
    seed: int = 0
    data: dict[str, DataSettings]
    mining: MiningSettings = MiningSettings()
    student: StudentSettings = StudentSettings()
    stages: list[StageSettings] = Field(default=[StageSettings()], min_length=1)
    evaluation: EvaluationSettings = EvaluationSettings()

    def model_post_init(self, context: Any) -> None:
        """Refuse stages of the same name: their checkpoints would lie in the same folder."""
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"two stages have the same name: {', '.join(names)}")
        for stage in self.stages:
            if missing := [name for name in stage.data if name not in self.data]:
                raise ValueError(f"stage {stage.name} names data that the recipe does not have: {missing[0]}")


def read_recipe(path: str | Path) -> Recipe:
    """Return the recipe of a YAML file.

    Raises:
        InputError: the file is missing or not YAML; names the line.
        SettingsError: a key is unknown or a value does not fit; names the nearest key.
    """
    return Recipe.parse(read_yaml(path), where=str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping that a recipe's file holds.

    Raises:
        InputError: the file is missing or not YAML; names the line.
        SettingsError: it is no mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe", hint="the repository's recipes/ holds complete ones") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder, wanted a recipe", hint="name a YAML file") from None
    # A ValueError is a date that does not exist, or bytes that are not UTF-8.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise InputError(f"{place}: not YAML: {reason}", hint="mend the file") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: not a recipe", hint="a recipe is a mapping with data, student, mining, stages")
    return values

"""A recipe: everything that a run from raw data to a scored model needs, as one YAML file.

name, seed
data:        name -> where it lies, its instruction, its weight
mining:      teacher, method, number of negatives
student:     which model, and what is made of it
stages:      a list; each with its data, negatives, steps and learning rates
evaluation:  what is scored beside the trained model
cluster:     who encodes and searches, where this process does not

A path of `data` may hold `${NAME}`; no other setting may. See `embedsmith.variables`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from embedsmith.cluster.asked import parsed
from embedsmith.data.columns import ColumnSettings
from embedsmith.data.files import check_regular
from embedsmith.data.labelled_rows import LabelledColumns
from embedsmith.data.plain_yaml import plain_yaml
from embedsmith.data.source import SourceSettings
from embedsmith.errors import InputError, SettingsError
from embedsmith.mining.settings import MiningSettings
from embedsmith.models.settings import ChunkScore, ChunkSettings, Dtype, StudentSettings
from embedsmith.prepare.contamination import ContaminationSettings
from embedsmith.prepare.converters.settings import ConvertSettings
from embedsmith.prepare.documents.settings import PairSettings
from embedsmith.recipes.overrides import overridden, override_of
from embedsmith.runs.named import ELSEWHERE
from embedsmith.settings import Seed, Settings, is_folder_name, is_title
from embedsmith.training.settings import StageSettings
from embedsmith.variables import Place, filled, refuse_elsewhere, refuse_names

OWN = "own"
"""Split and folder of the queries that a user has for a folder of documents."""


def label_of_own(name: str) -> str:
    """Return what the scores on a user's own queries on a data set stand under."""
    return f"{name}-{OWN}"


class DataSettings(Settings):
    """One data set of a recipe."""

    path: Place
    """A BEIR folder, pairs (a file, a `datasets` folder, hf:OWNER/NAME), (`format: code`) Python sources, of which
    `stdlib` is the running Python's, or (`format: documents`) a folder of documents."""
    format: Literal["auto", "code", "documents", "examples"] = "auto"
    """`auto`: a BEIR folder or pairs; `code`: harvest (docstring, function) pairs from a tree of Python files;
    `documents`: cut a folder of documents into passages and make pairs of them; `examples`: a JSON lines or Parquet
    file of examples that have their negatives, which are not mined again."""
    split: str | None = None
    """Split to mine and train on; `train` where there is one."""
    test_split: str | None = "test"
    """Split to evaluate on, where the data has it; several with commas between; null for none. It is read as the split
    to train on is. `code` holds out whole modules instead, `documents` whole files."""
    corpus: Place | None = None
    """File of passages that join the corpus: JSON lines, Parquet or CSV."""
    columns: ColumnSettings = ColumnSettings()
    """Names of the columns of pairs."""
    exclude_qrels: list[Place] = []
    """Files of judgements whose passages are no negatives either, such as another split's."""
    exclude_ids: Place | None = None
    """File of passage ids, one a line, that are never negatives."""
    skip_bad: bool = False
    """Leave out rows that cannot be used, of the sets in `against` too."""
    instruction: str | None = None
    """Instruction of its queries; the student's when not given."""
    symmetric: bool = False
    """Put the instruction before the passages too: both sides are of a kind."""
    in_batch: bool = True
    """Whether its queries are contrasted with other queries' passages, in stages that do that. Not for labels: another
    text of the same label is no negative."""
    weight: float = Field(1.0, gt=0)
    """How often its examples are drawn, relative to their number."""
    share: float | None = Field(None, gt=0, le=1)
    """Its part of all draws of a stage, in place of a weight: a small data set may be drawn again and again."""
    max_examples: int | None = Field(None, gt=0)
    """Examples to train on, at most; which ones is drawn at random."""
    convert: ConvertSettings | None = None
    """Make examples of labelled texts, pairs or a reranking set, which lie at the path."""
    labelled_columns: LabelledColumns = LabelledColumns()
    """`convert`: names of the columns of labelled data."""
    mined: bool = True
    """`convert`: mine the negatives that the data does not give, with the recipe's teachers; else draw them at random,
    as NV-Embed does for classes."""
    against: list[Place] = []
    """Evaluation sets: training rows with a text that is in one of them, in its test split, are left out."""
    contamination: ContaminationSettings = ContaminationSettings()
    """`against`: which texts count as the same."""
    split_seed: Seed = 0
    """`code`, `documents`: seed of the choice of what is held out."""
    test_share: float = Field(0.2, gt=0, lt=1)
    """`code`, `documents`: share of the pairs held out, in whole modules or files."""
    max_functions: int | None = Field(None, gt=0)
    """`code`: functions to read, at most, of files drawn at random; all by default."""
    documents: PairSettings = PairSettings()
    """`documents`: how they are cut, and which pairs are made of them."""
    queries: Place | None = None
    """`documents`: file of your own queries, which are scored apart: text (behind a tab the file that answers it), or
    rows with `query` and `answer` (a file, or the id of a passage) as JSON lines, CSV or Parquet."""

    @property
    def is_harvested(self) -> bool:
        """Whether both of its sides are made of what lies at the path, in the run."""
        return self.format in ("code", "documents")

    @property
    def source(self) -> SourceSettings:
        """Which part of the data is mined, and how it is read, with the paths of its files as they are opened."""
        data = filled(self)
        return SourceSettings.model_validate(
            {name: getattr(data, name) for name in SourceSettings.model_fields if name in type(self).model_fields}
        )

    def model_post_init(self, context: Any) -> None:
        """Refuse what says nothing for the format."""
        if self.convert and self.format != "auto":
            raise ValueError(f"convert is for labelled data, the format is {self.format}")
        if self.against and self.is_harvested:
            raise ValueError(f"against is not for {self.format}, of which whole files are held out")
        if self.queries is not None and self.format != "documents":
            raise ValueError(f"queries is for documents, the format is {self.format}; other data has a test split")
        if self.queries is not None and self.documents.max_passages:
            raise ValueError(
                "documents.max_passages leaves out passages that your queries may be for: leave one of them out"
            )
        if self.convert and self.convert.labels and "=" in self.convert.labels:
            refuse_names(self.convert.labels, "convert.labels")


class EvaluationSettings(ChunkSettings):
    """What is scored beside the trained model, and how embedding models read passages that are longer than they read.

    What is no embedding model of this machine, BM25 for example, reads passages as they are.
    """

    before: bool = True
    """Score the student before training."""
    baselines: list[str] = ["bm25"]
    """Other models to score, by name; the teacher is always scored."""
    hybrid: bool = False
    """Score BM25 and the trained model together too, by the reciprocal ranks of what each finds."""
    elsewhere: Literal["stdlib"] | None = None
    """Score the student before and after training on what it is not trained for too, which shows what it has lost:
    `stdlib`, descriptions of some hundred functions of the running Python's standard library."""
    dtype: Dtype = "auto"
    """Precision. `auto`: bfloat16 where the hardware has it (on a CPU for matmuls of longer texts)."""
    chunk_score: ChunkScore = "max"
    """`chunk`: a passage has the score of its best chunk, the mean of all, or that of its first."""

    def model_post_init(self, context: Any) -> None:
        """Refuse settings of chunks without chunks."""
        super().model_post_init(context)
        self.check_score(self.chunk_score)

    @property
    def chunks(self) -> ChunkSettings:
        """How passages are cut."""
        return ChunkSettings.model_validate({name: getattr(self, name) for name in ChunkSettings.model_fields})


class Recipe(Settings):
    """A run from raw data to a scored model."""

    name: str = "recipe"
    seed: Seed = 0
    data: dict[str, DataSettings]
    mining: MiningSettings = MiningSettings()
    student: StudentSettings = StudentSettings()
    stages: list[StageSettings] = Field(default=[StageSettings()], min_length=1)
    evaluation: EvaluationSettings = EvaluationSettings()
    cluster: str | None = Field(None, exclude=True)
    """`local`, `local:N`, `auto` or HOST:PORT: the workers of this Ray cluster encode and search. It changes no byte:
    it is no part of the run's identity, which may go on without it, and is written down without it."""

    def model_post_init(self, context: Any) -> None:
        """Refuse names that two things would have, of folders and of scores; and variables where nothing fills them."""
        refuse_elsewhere(self, but="name")
        if self.cluster is not None:
            parsed(self.cluster)
        if not is_title(self.name):
            raise ValueError(f"name: {self.name!r} is to be a folder's name, and cannot be one")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"two stages have the same name: {', '.join(names)}")
        folders: dict[str, str] = {}
        for name in self.data:
            if not is_folder_name(name):
                raise ValueError(
                    f"data: {name!r} is to be a folder's name, and cannot be one: "
                    "up to 100 letters of a to z, digits and ._-, a letter or a digit first"
                )
            # Some disks take `NQ` for `nq`.
            if (twin := folders.setdefault(name.casefold(), name)) != name:
                raise ValueError(f"data: {twin} and {name} would lie in one folder")
        for name, data in self.data.items():
            if data.queries and label_of_own(name) in self.data:
                raise ValueError(f"data: {label_of_own(name)} is what the scores on the queries of {name} stand under")
        if self.evaluation.elsewhere and ELSEWHERE in self.data:
            raise ValueError(f"data: {ELSEWHERE} is what the scores of evaluation.elsewhere stand under")
        if self.evaluation.elsewhere and not self.evaluation.before:
            raise ValueError("evaluation.elsewhere compares with the scores before training: set evaluation.before")
        labels = {"before", "after", "hybrid", "teacher", *(f"after {stage.name}" for stage in self.stages)}
        for name in self.evaluation.baselines:
            if name in labels:
                raise ValueError(f'baselines: "{name}" is what the run calls a score of its own; write ./{name}')
        for stage in self.stages:
            if missing := [name for name in stage.data if name not in self.data]:
                raise ValueError(f"stage {stage.name} names data that the recipe does not have: {missing[0]}")


def prompt_of(recipe: Recipe, data: DataSettings) -> str | None:
    """Return what stands before a data set's queries; None stands for the model's own.

    Raises:
        SettingsError: the instruction names a task that is not known.
    """
    if data.instruction is None:
        return recipe.student.prompt or None
    return recipe.student.model_copy(update={"instruction": data.instruction}).prompt


def remined(recipe: Recipe, data: DataSettings, teacher: str) -> MiningSettings:
    """Return a recipe's mining of a data set with one teacher alone, reading as it is trained to read."""
    prompt = prompt_of(recipe, data)
    reading = recipe.mining.teacher_settings.model_copy(
        update={
            "max_tokens": None,
            "query_prompt": prompt,
            "passage_prompt": prompt if data.symmetric else None,
        }
    )
    return recipe.mining.model_copy(
        update={"teachers": [teacher], "ensemble": "first", "weights": [], "teacher_settings": reading}
    )


def read_recipe(path: str | Path, *, changes: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a YAML file; its paths are as they stand there, and filled when the recipe is carried out.

    Args:
        path: the file.
        changes: values that differ from the file's, such as "stages.0.learning_rate=1e-5".

    Raises:
        InputError: the file is missing or not YAML; names the line.
        SettingsError: a key is unknown or a value does not fit; names the nearest key.
    """
    return recipe_of(read_yaml(path), where=str(path), changes=changes)


def recipe_of(
    values: dict[str, Any],
    *,
    where: str,
    changes: Sequence[str] = (),
) -> Recipe:
    """Return the recipe of plain values; see `read_recipe`.

    Raises:
        SettingsError: a key is unknown or a value does not fit; names the nearest key.
    """
    return Recipe.parse(overridden(values, dict(map(override_of, changes)), Recipe), where=where)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping that a recipe's file holds.

    Raises:
        InputError: the file is missing or not YAML; names the line.
        SettingsError: it is no mapping.
    """
    check_regular(Path(path))
    try:
        values = plain_yaml(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe", hint="the repository's recipes/ holds complete ones") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder, wanted a recipe", hint="name a YAML file") from None
    # A ValueError is bytes that are not UTF-8.
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise InputError(f"{place}: not YAML: {reason}", hint="mend the file") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: not a recipe", hint="a recipe is a mapping with data, student, mining, stages")
    return values

"""The scores of a run: one layout for evaluations, recipes and comparisons of a model with its start.

FOLDER/scores.json    {"version": 2, "data": {NAME: …}, "scores": {NAME: {LABEL: …}}, …}

`data` says what each data set is: its path, split, columns and content hash. `scores` says what each model scored
there: which model it was, the file with the scores of each query, and its metrics. A label tells the models of a
folder apart: `model` in an evaluation of one model; `before`, `after`, `teacher`, `bm25` in a recipe's run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import Field, field_validator

from embedsmith.data.files import read_json, write_json
from embedsmith.data.plain_values import LARGEST
from embedsmith.errors import EmbedsmithError, RunError, SettingsError
from embedsmith.runs.old_scores import upgraded
from embedsmith.settings import Settings
from embedsmith.variables import Place, filled

VERSION: Literal[2] = 2
MODEL = "model"
"""Label of an evaluation of one model."""
HYBRID = "hybrid"
"""Label of BM25 and the trained model together."""

Metric = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]


class ScoredData(Settings):
    """A data set that models were scored on."""

    path: Place | None = None
    """Where it lies, as it was named; None for a task of a benchmark."""
    in_run: bool = False
    """Whether the path is below the folder of the run."""
    task: str
    """`retrieval`, `sts`, `classification`, …; a type of mteb's for a task of a benchmark."""
    split: str | None = None
    """None where the data has no splits."""
    columns: dict[str, str | float] = {}
    """Role -> column, of those that were named; see `ColumnSettings` and `LabelledColumns`."""
    corpus: Place | None = None
    """File of passages that joined the corpus."""
    skip_bad: bool = False
    """Whether rows that cannot be used were left out."""
    content_hash: str | None = None
    """Hash of the texts and judgements; None where an older version did not note it."""
    queries: Count | None = None
    """Scored queries, of retrieval."""
    passages: Count | None = None
    rows: Count | None = None
    """Scored rows, of labelled data."""
    left_out: Count = 0
    """Queries or rows that say nothing about a model."""
    labels: dict[str, Any] | None = None
    """What the labels of pairs were taken for, and of how many rows."""


class Score(Settings):
    """What one model scored on one data set."""

    model: str
    """Its name; of a trained model its folder within the run."""
    model_hash: str | None = None
    """Hash of all that determines its scores beside the data; None where an older version did not note it."""
    per_query: str | None = None
    """File with the scores of each query, relative to the folder; None for tasks without queries."""
    not_in_run: Count | None = None
    """Judged queries that a run file does not rank, and that score 0."""
    metrics: dict[str, Metric] = Field(min_length=1)
    """Metric -> score; the main metric of the task first."""

    @field_validator("per_query")
    @classmethod
    def _stays_inside(cls, value: str | None) -> str | None:
        """Refuse a path that leads out of the folder."""
        parts = PurePosixPath(value or "").parts
        if value is not None and (not parts or ".." in parts or PurePosixPath(value).is_absolute() or "\0" in value):
            raise ValueError("a path below the folder of the run")
        return value


class Scoreboard(Settings):
    """All scores of a folder."""

    version: Literal[2] = VERSION
    command: str = ""
    """What was typed."""
    versions: dict[str, str] = {}
    """Package -> version, of those that determine scores."""
    python: str = ""
    machine: str = ""
    data: dict[str, ScoredData] = {}
    scores: dict[str, dict[str, Score]] = {}
    """Data set -> label -> score."""
    means: dict[str, dict[str, Metric]] = {}
    """Label -> means over the tasks of a benchmark, over their types, and of each type."""

    @field_validator("scores")
    @classmethod
    def _of_known_data(cls, value: Any, info: Any) -> Any:
        """Refuse scores on data that are not described."""
        if unknown := [name for name in value if name not in info.data.get("data", value)]:
            raise ValueError(f"{unknown[0]} is not under data")
        return value

    def has(self, data: str, label: str) -> bool:
        """Return whether a model was scored on a data set."""
        return label in self.scores.get(data, {})

    def metrics_of(self, data: str) -> dict[str, dict[str, float]]:
        """Return the scores on one data set: label -> metric -> value."""
        return {label: score.metrics for label, score in self.scores.get(data, {}).items()}

    def metrics(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return all scores: data set -> label -> metric -> value."""
        return {name: self.metrics_of(name) for name in self.scores}

    def per_query_files(self, data: str) -> dict[str, str]:
        """Return the files with the scores of each query of a data set: label -> path within the folder, sorted."""
        found = self.scores.get(data, {})
        return {label: found[label].per_query or "" for label in sorted(found) if found[label].per_query}

    def of_label(self, label: str) -> dict[str, dict[str, float]]:
        """Return the scores of one model: data set -> metric -> value."""
        return {name: found[label].metrics for name, found in self.scores.items() if label in found}

    def with_score(self, name: str, label: str, data: ScoredData, score: Score) -> Scoreboard:
        """Return the scoreboard with one more score."""
        scores = {**self.scores, name: {**self.scores.get(name, {}), label: score}}
        return self.model_copy(update={"data": {**self.data, name: data}, "scores": scores})


def scores_path(folder: Path) -> Path:
    """Return the file of a folder's scores."""
    return folder / "scores.json"


def per_query_path(run: Path, data: str, label: str) -> Path:
    """Return the file of what a recipe's run scored on each query of a data set; a label may be a path.

    >>> per_query_path(Path("run"), "code", "static:package:wordllama").as_posix()
    'run/scores/code/static%3Apackage%3Awordllama.jsonl'
    """
    return run / "scores" / data / f"{quote(label, safe='')}.jsonl"


def path_of(run: Path, data: ScoredData) -> str | None:
    """Return where a data set lies on this machine; None for a task of a benchmark.

    Raises:
        SettingsError: the path has a variable that is not set.
    """
    path = filled(data, where="path").path
    return path if path is None or not data.in_run else str(run / path)


def read_scores(folder: Path) -> Scoreboard:
    """Return what is scored so far in a folder; an empty scoreboard where nothing is. Older layouts are read too.

    Raises:
        InputError: the file is not JSON.
        RunError: it holds something else, or was written by a newer version.
    """
    path = scores_path(folder)
    found = read_json(path, finite=True) if path.is_file() else {}
    hint = "remove it and score again: in the same folder if the run was cut short, else with another --out"
    if isinstance(found, dict) and isinstance(found.get("version"), int) and found["version"] > VERSION:
        raise RunError(
            f"{path}: version {found['version']} of the layout, this embedsmith reads up to {VERSION}",
            hint="upgrade embedsmith",
        )
    try:
        if not isinstance(found, dict) or found.get("version") != VERSION:
            found = upgraded(folder, found)
        return Scoreboard.parse(found, where=f"{path}: scores")
    except SettingsError as error:
        raise RunError(str(error), hint=hint) from None
    except EmbedsmithError as error:
        raise RunError(str(error), hint=hint) from None


def write_scores(folder: Path, board: Scoreboard) -> None:
    """Write the scores of a folder, whole."""
    plain = board.model_dump(mode="json", exclude_none=True)
    write_json(scores_path(folder), plain)


def plain_columns(named: Mapping[str, Any]) -> dict[str, str | float]:
    """Return the columns that were named, of settings as plain values.

    >>> plain_columns({"query": "Q", "positive": None})
    {'query': 'Q'}
    """
    return {role: column for role, column in named.items() if column is not None}

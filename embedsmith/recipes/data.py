"""A recipe's data, made ready: without what evaluation sets hold, and labelled texts as examples; and its two sides.

Both sides of a data set are read in one way: with the same names of columns, the same passages beside it, and the same
rows left out.

RUN/data/NAME/clean…            the training data without contaminated rows, and which those were
RUN/data/NAME/examples.jsonl    labelled data, converted
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsmith.data.collection import Collection
from embedsmith.data.files import remove_below
from embedsmith.data.load import known_splits, load_collection
from embedsmith.errors import InputError, did_you_mean
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.mining.exclusions import Listed
from embedsmith.mining.mine import read_source
from embedsmith.prepare.convert import Drafted, convert, draft
from embedsmith.prepare.decontaminate import Cleaned, decontaminate
from embedsmith.progress import Progress
from embedsmith.recipes.recipe import OWN, DataSettings, Recipe
from embedsmith.runs.run import Run
from embedsmith.variables import Written, filled

_USUAL_TEST = "test"
"""The default of `test_split`, which says nothing of what the data has."""


@dataclass(frozen=True)
class Prepared:
    """One data set of a recipe, ready to be mined and scored."""

    name: str
    settings: DataSettings
    train: Collection | None
    """None where the examples are there already."""
    test: Collection | None
    listed: Listed | None = None
    """Passages that the settings exclude as negatives."""
    scoring: ScoringSettings | None = None
    """How the test split of labelled data is scored."""
    own: bool = False
    """Whether the test side has the user's own queries on documents."""
    elsewhere: bool = False
    """Whether it is scored before and after training alone, to see what was lost."""

    @property
    def in_run(self) -> tuple[str, str] | None:
        """Folder below the run, and split, of a test side that the run holds."""
        if not self.settings.is_harvested:
            return None
        return (f"{OWN}/{self.name}", OWN) if self.own else (f"data/{self.name}/test", "test")


def clean_path(folder: Path, name: str, settings: DataSettings) -> str:
    """Return where the training data of a data set lie once they are clean: at their own path if nothing is against."""
    own = filled(settings).path
    if not settings.against:
        return own
    path = Path(own)
    inside = folder / "data" / name
    if (path / "qrels").is_dir():
        return str(inside / "clean")
    suffix = path.suffix if path.is_file() else ".jsonl"
    return str(inside / f"clean{suffix}")


def clean(run: Run, name: str, settings: DataSettings, on_progress: Progress) -> DataSettings:
    """Return the settings of a data set whose contaminated rows are gone; they are looked for once."""
    if not settings.against:
        return settings
    ready = cleaned(run.folder, name, settings)
    path = Path(ready.path)
    if not (path / "corpus.jsonl" if path.suffix == "" else path).is_file():
        if path.is_dir():
            remove_below(run.folder, path)
        with run.timed("decontaminate"):
            found = decontaminate_into(path, settings, on_progress)
        counts = {"rows": found.rows, "kept": found.kept, "removed": found.removed, "negatives": found.negatives}
        run.count(f"contamination {name}", {**counts, **found.by_how})
    return ready


def cleaned(folder: Path, name: str, settings: DataSettings) -> DataSettings:
    """Return the settings that read a data set where its clean training data lie, or will."""
    if not settings.against:
        return settings
    update: dict[str, Any] = {"path": clean_path(folder, name, settings)}
    if (Path(filled(settings).path) / "qrels").is_dir():
        # What was chosen is one split there, and what joins the corpus has joined it.
        update |= {"split": None, "corpus": None}
    return settings.model_copy(update=update)


def training_side(
    folder: Path, name: str, settings: DataSettings, on_skip: Callable[[str], None] | None = None
) -> tuple[Collection, Listed]:
    """Return what is mined of a data set that a run has made ready, and the passages that are never negatives.

    Args:
        folder: of the run.
        on_skip: called with one line for rows that were left out.

    Raises:
        InputError: it cannot be read as the settings say.
    """
    if settings.is_harvested:
        return load_collection(folder / "data" / name / "train", split="train"), Listed.nothing()
    ready = cleaned(folder, name, settings)
    return read_source(filled(ready).path, ready.source, on_skip)


def evaluation_side(
    folder: Path, name: str, settings: DataSettings, on_skip: Callable[[str], None] | None = None
) -> Collection | None:
    """Return what a data set is evaluated on as retrieval, None where there is nothing.

    Args:
        folder: of the run, where what was harvested lies.
        on_skip: called with one line for rows that were left out.

    Raises:
        InputError: it cannot be read as the settings say, or there is no such split.
    """
    if settings.is_harvested:
        return load_collection(folder / "data" / name / "test", split="test")
    if settings.convert or settings.format == "examples":
        return None
    path = filled(settings).path
    split = evaluation_split(settings, known_splits(path))
    if split is None:
        return None
    source = settings.source.model_copy(update={"split": split, "exclude_qrels": [], "exclude_ids": None})
    return read_source(path, source, on_skip)[0]


def evaluation_split(settings: DataSettings, known: Sequence[str]) -> str | None:
    """Return the split to evaluate on, None where there is none; `test` need not be there, another one must.

    >>> sts = DataSettings(path="sts")
    >>> evaluation_split(sts, ["train", "test"]), evaluation_split(sts, ["train"])
    ('test', None)

    Raises:
        InputError: a split that was asked for is not there.
    """
    wanted = settings.test_split
    if wanted is None or (wanted == _USUAL_TEST and wanted not in known):
        return None
    for part in [] if wanted in (*known, "all") else [part.strip() for part in wanted.split(",")]:
        if part not in known:
            raise InputError(
                f'{settings.path}: no split "{part}" to evaluate on{did_you_mean(part, known)}',
                hint=f"test_split is one of {', '.join(known)}, several with commas between, or null for none"
                if known
                else "a file has no splits: set test_split to null, or test",
            )
    return wanted


def decontaminate_into(path: Path, settings: DataSettings, on_progress: Progress) -> Cleaned:
    """Write the training data of a data set without what the evaluation sets hold that it names."""
    data = filled(settings)
    return decontaminate(
        data.path,
        against=data.against,
        out=path,
        settings=settings.contamination,
        as_written=Written(settings),
        split=settings.split,
        corpus=data.corpus,
        names=_conventional(settings),
        skip_bad=settings.skip_bad,
        on_progress=on_progress,
    )


def _conventional(settings: DataSettings) -> dict[str, str]:
    """Return the columns of training rows that the settings name -> the conventional names that they stand for."""
    if settings.convert:
        labelled = settings.labelled_columns
        named = {"text": labelled.text, "sentence1": labelled.first, "sentence2": labelled.second}
        named |= {"query": labelled.query, "positive": labelled.positive, "negative": labelled.negative}
    else:
        pairs = settings.columns
        named = {"query": pairs.query, "positive": pairs.positive, "negative": pairs.negative}
    return {column: name for name, column in named.items() if column is not None}


def drafted_of(settings: DataSettings, on_skip: Callable[[str], None] | None = None) -> Drafted:
    """Return what becomes of a recipe's labelled data before negatives are found; its paths are filled in."""
    assert settings.convert
    return draft(
        settings.path,
        settings.convert,
        columns=settings.labelled_columns,
        split=settings.split,
        skip_bad=settings.skip_bad,
        on_skip=on_skip,
    )


def examples_path(folder: Path, name: str) -> Path:
    """Return where the examples of a converted data set lie."""
    return folder / "data" / name / "examples.jsonl"


def convert_data(run: Run, recipe: Recipe, name: str, settings: DataSettings, on_progress: Progress) -> None:
    """Write the examples of labelled data, once."""
    data = filled(settings)
    assert settings.convert and data.convert
    out = examples_path(run.folder, name)
    if out.is_file():
        return
    with run.timed("convert"):
        found = convert(
            data.path,
            out=out,
            settings=data.convert,
            asked=(settings.path, settings.convert),
            columns=settings.labelled_columns,
            split=settings.split,
            mining=recipe.mining if settings.mined else None,
            skip_bad=settings.skip_bad,
            on_progress=on_progress,
        )
    counts = {"rows": found.rows, "examples": found.examples, "dropped": sum(found.dropped.values())}
    labels = {"labels": found.meanings} if found.meanings else {}
    negatives = {f"{k}_negatives": v for k, v in found.negatives_by.items()}
    run.count(f"conversion {name}", {**counts, **negatives, **labels})


def examples_file(folder: Path, part: str, recipe: Recipe, name: str) -> Path:
    """Return the file of a data set's examples: what was converted, what was mined, or the data set itself.

    Args:
        folder: of the run.
        part: of it, where what was mined lies.
    """
    settings = recipe.data[name]
    if settings.convert:
        return examples_path(folder, name)
    if settings.format == "examples":
        return Path(clean_path(folder, name, settings))
    return folder / part / name / "negatives.jsonl"

"""A recipe's training data, made ready: without what evaluation sets hold, and labelled texts as examples.

RUN/data/NAME/clean…            the training data without contaminated rows, and which those were
RUN/data/NAME/examples.jsonl    labelled data, converted
"""

from __future__ import annotations

import shutil
from pathlib import Path

from embedsmith.pipeline.contamination import Cleaned, decontaminate
from embedsmith.pipeline.convert import convert
from embedsmith.pipeline.recipe import DataSettings, Recipe
from embedsmith.pipeline.runs import Run
from embedsmith.progress import Progress


def clean_path(folder: Path, name: str, settings: DataSettings) -> str:
    """Return where the training data of a data set lie once they are clean: at their own path if nothing is against."""
    if not settings.against:
        return settings.path
    path = Path(settings.path)
    inside = folder / "data" / name
    if (path / "qrels").is_dir():
        return str(inside / "clean")
    suffix = path.suffix if path.is_file() else ".jsonl"
    return str(inside / f"clean{suffix}")


def clean(run: Run, name: str, settings: DataSettings, on_progress: Progress) -> DataSettings:
    """Return the settings of a data set whose contaminated rows are gone; they are looked for once."""
    path = Path(clean_path(run.folder, name, settings))
    if not settings.against:
        return settings
    if not (path / "corpus.jsonl" if path.suffix == "" else path).is_file():
        if path.is_dir():
            shutil.rmtree(path)
        with run.timed("decontaminate"):
            found = decontaminate_into(path, settings, on_progress)
        counts = {"rows": found.rows, "kept": found.kept, "removed": found.removed, "negatives": found.negatives}
        run.count(f"contamination {name}", {**counts, **found.by_how})
    return settings.model_copy(update={"path": str(path)})


def decontaminate_into(path: Path, settings: DataSettings, on_progress: Progress) -> Cleaned:
    """Write the training data of a data set without what the evaluation sets hold that it names."""
    return decontaminate(
        settings.path,
        against=settings.against,
        out=path,
        settings=settings.contamination,
        split=settings.split,
        on_progress=on_progress,
    )


def examples_path(folder: Path, name: str) -> Path:
    """Return where the examples of a converted data set lie."""
    return folder / "data" / name / "examples.jsonl"


def convert_data(run: Run, recipe: Recipe, name: str, settings: DataSettings, on_progress: Progress) -> None:
    """Write the examples of labelled data, once."""
    assert settings.convert
    out = examples_path(run.folder, name)
    if out.is_file():
        return
    with run.timed("convert"):
        found = convert(
            settings.path,
            out=out,
            settings=settings.convert,
            columns=settings.labelled_columns,
            split=settings.split,
            mining=recipe.mining if settings.mined else None,
            skip_bad=settings.skip_bad,
            on_progress=on_progress,
        )
    counts = {"rows": found.rows, "examples": found.examples, "dropped": sum(found.dropped.values())}
    run.count(f"conversion {name}", {**counts, **{f"{k}_negatives": v for k, v in found.negatives_by.items()}})


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

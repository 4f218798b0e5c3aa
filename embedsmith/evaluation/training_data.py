"""Whether a model is scored on data that it was trained on: such scores say nothing of new queries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from embedsmith.data.load import usual_split
from embedsmith.errors import EmbedsmithError
from embedsmith.runs.lineage import lineage
from embedsmith.runs.named import named_data, source_of_run
from embedsmith.runs.part import is_run


def note_of_training_data(model: str, data: str, split: str | None) -> str | None:
    """Return a line for the user where a model was trained on a data set; None where it was not, or nothing says so.

    Compares paths and splits, not texts: `decontaminate` finds queries that two files share.

    Args:
        model: its name; a run folder says what it was trained on.
        data: path of the data set.
        split: the split that is scored; None where the data has none.
    """
    for path, trained in _trained_on(model):
        if Path(path).resolve() == Path(data).resolve() and _overlap(trained or usual_split(path, "train"), split):
            return (
                f"{data}: {model} was trained on it, so this score says how well it was learned, not what new queries "
                "would find; score pairs that were kept out of training"
            )
    return None


def _trained_on(model: str) -> Iterator[tuple[str, str | None]]:
    """Yield the path and the split of each data set that a run's model was trained on."""
    try:
        runs = list(lineage(model)) if is_run(model) else []
        for folder, manifest in runs:
            inputs = manifest.get("inputs", {})
            if "data" in inputs and "source" in inputs:
                yield str(inputs["data"]), source_of_run(folder, manifest).get("split")
            for each in named_data(folder, manifest).values():
                yield each["path"], each.get("split")
    except EmbedsmithError:  # an edited manifest: whoever opens the run says so
        return


def _overlap(one: str | None, other: str | None) -> bool:
    """Return whether two choices of splits have one in common; None is all of the data.

    >>> _overlap("train,dev", "dev"), _overlap("train", "test"), _overlap(None, "test"), _overlap("all", "test")
    (True, False, True, True)
    """
    if one is None or other is None or "all" in (one, other):
        return True
    return bool({part.strip() for part in one.split(",")} & {part.strip() for part in other.split(",")})

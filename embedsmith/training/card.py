"""The model card of a trained model: what it was made of, how, and under which licence it can be passed on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import yaml

from embedsmith.data.files import atomic_write
from embedsmith.models.licence import UNSTATED, licence_of
from embedsmith.models.names import find_model
from embedsmith.models.opened import in_run
from embedsmith.models.settings import StudentSettings
from embedsmith.pages.markdown import block, code, inline
from embedsmith.runs.run import Run
from embedsmith.training.batches import Source
from embedsmith.training.settings import StageSettings


def write_card(run: Run, student: StudentSettings, stages: Sequence[StageSettings], sources: Sequence[Source]) -> None:
    """Write RUN/model/README.md."""
    with atomic_write(run.folder / "model" / "README.md") as file:
        file.write("\n".join(_lines(run, student, stages, sources)) + "\n")


def _lines(
    run: Run, student: StudentSettings, stages: Sequence[StageSettings], sources: Sequence[Source]
) -> Iterator[str]:
    """Yield the card's lines."""
    licence = licence_of(find_model(in_run(student, run.folder).name))
    front = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "feature-extraction", "embedsmith"],
        "license": licence,
    }
    yield from ("---", yaml.safe_dump(front, sort_keys=False).strip(), "---", "")
    yield from ("# An embedding model, trained with embedsmith", "")
    stated = f"its licence, {inline(licence)}, goes with this model" if licence != UNSTATED else "look up its licence"
    yield f"A changed copy of {code(student.name)}: {stated}. The weights were trained further as follows."
    yield from ("", "## Data", "")
    for source in sources:
        mined = sum(len(example.negatives) for example in source.examples)
        yield f"- {inline(source.name)}: {len(source.examples):,} queries with {mined:,} mined negatives"
    yield from ("", "## Recipe", "")
    recipe = {"student": student.model_dump(mode="json"), "stages": [stage.model_dump(mode="json") for stage in stages]}
    yield block(yaml.safe_dump(recipe, sort_keys=False).strip(), "yaml")
    yield from ("", "## Use", "", "```python")
    yield "import embedsmith"
    yield 'model = embedsmith.load("path/to/this/folder")'
    yield 'queries, passages = model.encode_query(["…"]), model.encode_document(["…"])'
    yield "```"
    versions = ", ".join(f"{name} {version}" for name, version in run.manifest["versions"].items())
    yield from ("", f"Made with {versions}.")

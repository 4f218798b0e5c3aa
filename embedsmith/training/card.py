"""The model card of a trained model: what it was made of, how, and under which licence it can be passed on."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from embedsmith.data.files import atomic_write
from embedsmith.models.licence import UNSTATED, licence_of
from embedsmith.models.names import find_model
from embedsmith.models.opened import in_run
from embedsmith.models.settings import StudentSettings
from embedsmith.pages.markdown import block, code, inline
from embedsmith.pages.model_card import USE, ModelCard, use
from embedsmith.runs.run import Run
from embedsmith.training.batches import Source
from embedsmith.training.settings import StageSettings


def write_card(run: Run, student: StudentSettings, stages: Sequence[StageSettings], sources: Sequence[Source]) -> None:
    """Write RUN/model/README.md."""
    with atomic_write(run.folder / "model" / "README.md") as file:
        file.write(card_of(run, student, stages, sources).text())


def card_of(
    run: Run, student: StudentSettings, stages: Sequence[StageSettings], sources: Sequence[Source]
) -> ModelCard:
    """Return the model card of a trained model."""
    licence = licence_of(find_model(in_run(student, run.folder).name))
    stated = f"its licence, {inline(licence)}, goes with this model" if licence != UNSTATED else "look up its licence"
    card = ModelCard.new(
        "An embedding model, trained with embedsmith",
        f"A changed copy of {code(student.name)}: {stated}. The weights were trained further as follows.",
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=["sentence-transformers", "feature-extraction", "embedsmith"],
        license=licence,
    )
    recipe = {"student": student.model_dump(mode="json"), "stages": [stage.model_dump(mode="json") for stage in stages]}
    versions = ", ".join(f"{name} {version}" for name, version in run.manifest["versions"].items())
    card = card.with_section("Data", map(_counted, sources))
    card = card.with_section("Recipe", [block(yaml.safe_dump(recipe, sort_keys=False).strip(), "yaml")])
    return card.with_section(USE, [*use("path/to/this/folder", is_plain=False), "", f"Made with {versions}."])


def _counted(source: Source) -> str:
    """Return a line on one data set."""
    mined = sum(len(example.negatives) for example in source.examples)
    return f"- {inline(source.name)}: {len(source.examples):,} queries with {mined:,} mined negatives"

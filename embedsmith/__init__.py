"""Mine hard negatives, train LLM embedding models with them, and measure what they are worth.

import embedsmith
embedsmith.mine("data", out="runs/mined")
embedsmith.train("runs/mined", out="runs/model")
print(embedsmith.evaluate("runs/model", "data").mean)
model = embedsmith.load("runs/model")          # a SentenceTransformer
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedsmith.data.load import load_collection as load_collection
    from embedsmith.errors import EmbedsmithError as EmbedsmithError
    from embedsmith.mining.settings import MiningSettings as MiningSettings
    from embedsmith.models.embedder import EmbeddingModel as EmbeddingModel
    from embedsmith.models.embedder import load as load
    from embedsmith.models.settings import StudentSettings as StudentSettings
    from embedsmith.models.student import build_student as build_student
    from embedsmith.pipeline.evaluate import evaluate as evaluate
    from embedsmith.pipeline.find import find as find
    from embedsmith.pipeline.forge import forge as forge
    from embedsmith.pipeline.mine import mine as mine
    from embedsmith.pipeline.recipe import Recipe as Recipe
    from embedsmith.pipeline.recipe import read_recipe as read_recipe
    from embedsmith.pipeline.train import train as train
    from embedsmith.training.settings import StageSettings as StageSettings

__version__ = "0.1.0"

_HOMES = {
    "EmbeddingModel": "models.embedder",
    "EmbedsmithError": "errors",
    "MiningSettings": "mining.settings",
    "Recipe": "pipeline.recipe",
    "StageSettings": "training.settings",
    "StudentSettings": "models.settings",
    "build_student": "models.student",
    "evaluate": "pipeline.evaluate",
    "find": "pipeline.find",
    "forge": "pipeline.forge",
    "load": "models.embedder",
    "load_collection": "data.load",
    "mine": "pipeline.mine",
    "read_recipe": "pipeline.recipe",
    "train": "pipeline.train",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: the model libraries take seconds to import."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return [*__all__, "__version__"]

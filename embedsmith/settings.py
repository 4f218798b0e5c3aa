"""The base of all settings: frozen, strict about keys, and hashable into a fingerprint.

A settings class lives beside the component that it configures. A field's docstring is its help text, in the
command line and in the recipe; a new setting is therefore one field.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from embedsmith.errors import SettingsError, did_you_mean

MOST_SEEDS = 2**31
"""Seeds are smaller than this."""

Seed = Annotated[int, Field(ge=0, lt=MOST_SEEDS)]
"""NumPy takes no negative seed and none of more than 32 bits; a stage adds its number to it."""


HALF = re.compile("[\\ud800-\\udfff]")
"""Half of a surrogate pair: a letter of no text, and how Python shows a byte of a path that is not UTF-8."""

FOLDER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
"""What a name that becomes a file's or a folder's looks like: it leads nowhere else, and is the same on every disk."""


def is_folder_name(name: str) -> bool:
    """Return whether a name may become a file's or a folder's.

    >>> [is_folder_name(name) for name in ("nq-2.dev", "..", "a/b", "/home/me", ".git", "a b", "")]
    [True, False, False, False, False, False, False]
    """
    return re.fullmatch(FOLDER_NAME, name) is not None and not name.endswith("\n")


def folder_name(text: str) -> str:
    """Return a text as a name that may become a folder's.

    >>> folder_name("my data"), folder_name(".."), folder_name("nq-2.dev")
    ('my-data', 'data', 'nq-2.dev')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-_")[:100] or "data"


def is_title(name: str) -> bool:
    """Return whether a name can stand in one line, and below a folder without leading elsewhere.

    >>> [is_title(name) for name in ("pooling=mean, ratio=0.9", "été", "..", "a/b", "a\\nb", "\\x1b[2J", "")]
    [True, True, False, False, False, False, False]
    """
    return name.isprintable() and not re.match(r"\.|$", name) and not re.search(r"[/\\]", name)


def is_row(text: str, rows: int) -> bool:
    """Return whether a text is the number of one of some rows, from 0.

    >>> is_row("2", 3), is_row("3", 3), is_row("-1", 3), is_row("9" * 5000, 3)
    (True, False, False, False)
    """
    # int() refuses texts of more than 4,300 digits.
    return text.isdecimal() and len(text) < 20 and int(text) < rows


def checked_template(template: str) -> str:
    """Return a template that has a place for the instruction, and for nothing else.

    Raises:
        ValueError: it has none, or another one.
    """
    try:
        filled = template.format(instruction="\0")
    except (KeyError, IndexError, ValueError, AttributeError):
        filled = ""
    if "\0" not in filled:
        raise ValueError("a template has {instruction} where the instruction stands, and no other braces")
    return template


class Settings(BaseModel):
    """Frozen settings that refuse unknown keys, and numbers that are not finite.

    >>> class Margin(Settings):
    ...     margin: float = 0.05
    >>> Margin.parse({"margn": 0.1}, where="recipe.yaml: mining")
    Traceback (most recent call last):
    embedsmith.errors.SettingsError: recipe.yaml: mining: unknown key "margn" (did you mean "margin"?)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_passwords(cls, values: Any) -> Any:
        """Refuse a URL with a user or a password in it: settings are written into files and quoted in errors."""
        for name, value in values.items() if isinstance(values, dict) else ():
            texts = [value, *(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())]
            if any(isinstance(text, str) and holds_password(text) for text in texts):
                raise SettingsError(
                    f"{name}: a URL with a user or a password in it",
                    hint="write https://HOST/v1#MODEL, and put the key into the environment",
                )
        return values

    @model_validator(mode="before")
    @classmethod
    def _refuse_halves(cls, values: Any) -> Any:
        """Refuse half of a surrogate pair, in a name or a text: no file of ours could hold it."""
        for name, value in values.items() if isinstance(values, dict) else ():
            inner = (*value, *value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
            if any(isinstance(text, str) and HALF.search(text) for text in (name, value, *inner)):
                raise SettingsError(f"{name!r}: half of a surrogate pair, which no text can hold", hint="write it anew")
        return values

    @classmethod
    def parse(cls, values: Any, *, where: str, flags: Mapping[str, str] | None = None) -> Self:
        """Return settings from plain values.

        Args:
            values: as a recipe has them.
            where: what an error names as their place.
            flags: field -> the option that gave its value, which an error names in that place's stead.

        Raises:
            SettingsError: a key is unknown, or a value does not fit; names the place and the nearest key.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _explained(error, cls, where, flags or {}) from None
        except SettingsError as error:
            raise SettingsError(f"{where}: {error}", hint=error.hint) from None

    def fingerprint(self) -> str:
        """Return a hash of every value, the same in every process.

        >>> len(Settings().fingerprint())
        16
        """
        return fingerprint(self.model_dump(mode="json"))


def holds_password(text: str) -> bool:
    """Return whether a text is a URL with a user or a password in it, in any spelling.

    >>> [holds_password(text) for text in ("HTTPS://me:pass@a.org/v1#m", "https:me@a.org", "ftp://me@a.org")]
    [True, True, True]
    >>> [holds_password(text) for text in ("https://a.org/v1#me@model", "mail me@a.org", "query: me@a.org")]
    [False, False, False]
    """
    return re.match(r"\s*(https?:/*|[a-z][a-z0-9+.-]*://)[^/\s#]*@", text, re.IGNORECASE) is not None


def without_passwords(text: str) -> str:
    """Return a text without the user and the password of the URLs in it.

    >>> without_passwords("HTTPS://me:pass@a.org/v1#m: no such folder; http:/me:pass@a.org")
    'HTTPS://…@a.org/v1#m: no such folder; http:/…@a.org'
    """
    return re.sub(r"(https?:/*|\b[a-z][a-z0-9+.-]{0,30}:/+)[^/\s#@]{0,2000}@", r"\1…@", text, flags=re.IGNORECASE)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings and lists as one mapping of dotted names.

    >>> flat({"a": {"b": 1}, "c": [2]})
    {'a.b': 1, 'c.0': 2}
    """
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: dict[str, Any] = {}
    for key, inner in items:
        found |= flat(inner, f"{prefix}{key}.") if isinstance(inner, (dict, list)) else {f"{prefix}{key}": inner}
    return found


def fingerprint(value: Any) -> str:
    """Return 16 hexadecimal digits that depend on a JSON-like value and nothing else.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _explained(
    error: ValidationError, settings: type[BaseModel], where: str, flags: Mapping[str, str]
) -> SettingsError:
    """Return the first thing that is wrong, with its place and the remedy."""
    errors = error.errors()
    # A mapping that is refused as a whole (a key is missing, it is no string in a union of text and settings) may
    # just have a mistyped key: that error knows the nearest name.
    around = errors[0]["loc"][:-1]
    mistyped = [other for other in errors if _is_unknown(other) and other["loc"][: len(around)] == around]
    first = mistyped[0] if mistyped and isinstance(errors[0]["input"], dict) else errors[0]
    *parents, last = [str(part) for part in first["loc"]] or [""]
    if flag := flags.get((*parents, last)[0]):
        where, parents, last = "", [], flag
    place = ".".join(filter(None, [where, *parents]))
    known = sorted(_fields_at(settings, parents))
    if _is_unknown(first):
        what = f'unknown key "{last}"{did_you_mean(last, known)}'
        hint = f"known keys: {', '.join(known)}" if known else "remove it"
    elif first["type"] == "missing":
        what = f'missing key "{last}"'
        hint = f"add it; known keys: {', '.join(known)}" if known else "add it"
    else:
        reason = first["msg"].removeprefix("Value error, ")
        # What does not go together says itself which values those are.
        got = "" if first["type"] == "value_error" and not first["loc"] else f", got {_shortened(first['input'])}"
        what = ": ".join(filter(None, [last, reason + got]))
        hint = "see the settings' descriptions with --help"
    return SettingsError(": ".join(filter(None, [place, what])), hint=hint)


def _is_unknown(error: ErrorDetails) -> bool:
    """Return whether an error is about a key that does not exist."""
    return error["type"] == "extra_forbidden"


def _shortened(value: Any) -> str:
    """Return a value as it is written in Python, in one line of a readable length.

    >>> _shortened(list(range(100)))
    '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21...'
    """
    text = without_passwords(repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _fields_at(annotation: Any, path: list[str]) -> list[str]:
    """Return the field names of the settings at a path of keys, indices and union members, as pydantic writes one.

    >>> class Margin(Settings):
    ...     margin: float = 0.05
    >>> _fields_at(dict[str, list[Margin | None]], ["hard", "0"])
    ['margin']
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _fields_at(arguments[0], path)
    if origin in (Union, UnionType):
        members = [member for member in arguments if member is not NoneType]
        if len(members) == 1:  # pydantic names the member of a union, but not that of an optional
            return _fields_at(members[0], path)
        return next((_fields_at(member, path[1:]) for member in members if path and _is_called(member, path[0])), [])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not path:
            return list(annotation.model_fields)
        field = annotation.model_fields.get(path[0])
        return _fields_at(field.annotation, path[1:]) if field else []
    if not path or not arguments:
        return []
    if origin is tuple and Ellipsis not in arguments:
        return _fields_at(arguments[int(path[0])], path[1:])
    # The last argument is what a list, a mapping or a tuple of any length holds.
    return _fields_at([argument for argument in arguments if argument is not Ellipsis][-1], path[1:])


def _is_called(member: Any, name: str) -> bool:
    """Return whether a member of a union is meant by its class name or by its tag, the value of a `Literal` field."""
    if not (isinstance(member, type) and issubclass(member, BaseModel)):
        return False
    return name == member.__name__ or any(
        name in map(str, get_args(field.annotation))
        for field in member.model_fields.values()
        if get_origin(field.annotation) is Literal
    )

"""`${NAME}` in a recipe's paths: what is stored and shown is the name; its value is known where the path is opened.

A recipe goes from hand to hand, and its run's files do. So a path keeps the form in which it was written, in the
run's recipe, its manifest and its reports; `filled` gives the settings that a reader of files needs, and `Written`
puts the names back into what that reader says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from embedsmith.errors import EmbedsmithError, SettingsError
from embedsmith.progress import Progress
from embedsmith.settings import Settings

S = TypeVar("S", bound=Settings)

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SECRETS = ("KEY", "TOKEN", "SECRET", "PASSWORD")
"""A variable with one of these in its name is not for a path."""


class Place(str):
    """A path as a recipe writes it; `${NAME}` in it stands for the value of an environment variable."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check a text; it is written as a plain text again."""
        return core_schema.no_info_after_validator_function(
            cls._checked,
            core_schema.str_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(str.__str__, return_schema=_PLAIN),
        )

    @classmethod
    def _checked(cls, text: str) -> Self:
        """Return a text as a path.

        Raises:
            ValueError: it names a variable that holds a secret.
        """
        for name in names_in(text):
            if any(word in name.upper() for word in _SECRETS):
                raise ValueError(f"{name} may hold a secret, and is no part of a path: give the folder another name")
        return cls(text)


_PLAIN = core_schema.str_schema()


def names_in(text: str) -> list[str]:
    """Return the variables that a text names, each once.

    >>> names_in("${SETS}/${NAME}-${SETS}.jsonl"), names_in("$SETS and ${}")
    (['SETS', 'NAME'], [])
    """
    return list(dict.fromkeys(_VARIABLE.findall(text)))


def refuse_elsewhere(settings: Settings, *, but: str) -> None:
    """Refuse a variable in a text that is no path: it would be filled nowhere.

    Args:
        settings: what is looked through.
        but: the place of a text that is taken as it stands.

    Raises:
        ValueError: there is one; names the place.
    """
    for place, text in _texts(settings):
        if not isinstance(text, Place) and place != but:
            refuse_names(text, place)


def refuse_names(text: str, place: str) -> None:
    """Refuse a text with a variable in it.

    Raises:
        ValueError: it has one.
    """
    if names := names_in(text):
        raise ValueError(f"{place}: ${{{names[0]}}} in a text that is no path of data; write what it stands for")


def filled(settings: S, *, where: str = "") -> S:
    """Return settings whose paths have the values of the variables that they name.

    Args:
        settings: as they were written.
        where: what an error names as their place.

    Raises:
        SettingsError: a variable is not set.
    """
    whole: S = _filled(settings, where)
    return whole


def _filled(value: Any, where: str) -> Any:
    """Return a value of settings with every path in it filled; what has none is the same object."""
    if isinstance(value, Place):
        return fill(value, where)
    if isinstance(value, Settings):
        inner = {name: getattr(value, name) for name in type(value).model_fields}
        new = {name: _filled(one, f"{where}.{name}".lstrip(".")) for name, one in inner.items()}
        changes = {name: one for name, one in new.items() if one is not inner[name]}
        return value.model_copy(update=changes) if changes else value
    if isinstance(value, dict):
        new = {key: _filled(one, f"{where}.{key}".lstrip(".")) for key, one in value.items()}
        return new if any(new[key] is not value[key] for key in value) else value
    if isinstance(value, list):
        members = [_filled(one, where) for one in value]
        return members if any(a is not b for a, b in zip(members, value, strict=True)) else value
    return value


def fill(place: str, where: str = "") -> str:
    """Return a path with the values of its variables.

    Raises:
        SettingsError: one is not set.
    """
    for name in names_in(place):
        if not os.environ.get(name):
            raise SettingsError(
                f"{where}: {name} is not set, in {place}".removeprefix(": "), hint=f"export {name}=FOLDER"
            )
    # In one pass: a value may hold the form of a variable.
    return _VARIABLE.sub(lambda found: os.environ[found[1]], place)


def _texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text of some settings with its place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Settings):
        for name in type(value).model_fields:
            yield from _texts(getattr(value, name), f"{place}.{name}".lstrip("."))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _texts(inner, f"{place}.{number}".lstrip("."))


def filled_places(settings: Settings) -> dict[str, str]:
    """Return the paths of some settings that name a variable, each with what it is when it is opened.

    Raises:
        SettingsError: a variable is not set.
    """
    found = [(where, text) for where, text in _texts(settings) if isinstance(text, Place) and names_in(text)]
    return {str(text): fill(text, where) for where, text in found}


class Written:
    """Puts the names of variables back into texts that quote the paths of some settings."""

    def __init__(self, *settings: Settings) -> None:
        """Learn what the paths of some settings look like once they are opened.

        Raises:
            SettingsError: a variable is not set.
        """
        forms: dict[str, str] = {}
        for place in dict.fromkeys(place for one in settings for place in filled_places(one)):
            head = _head(place)
            shown = fill(head, "")
            for form in (shown, os.path.normpath(shown), os.path.abspath(shown), os.path.realpath(shown)):
                if form.strip("./\\"):
                    forms.setdefault(form, head)
        self._forms = forms
        # Whole parts of a path: of `/sets` neither `/sets2` nor `/home/sets` is made.
        whole = [
            (r"(?<![\w.-])" if os.path.isabs(form) else r"(?<![\w./-])") + re.escape(form)
            for form in sorted(forms, key=len, reverse=True)
        ]
        self._pattern = re.compile(rf"(?:{'|'.join(whole)})(?![\w-])") if whole else None

    def __call__(self, text: str) -> str:
        """Return a text in which the values of variables in paths are replaced by their names."""
        return self._pattern.sub(lambda found: self._forms[found[0]], text) if self._pattern else text

    def progress(self, on_progress: Progress) -> Progress:
        """Return a progress function that tells of paths as they are written."""

        def tell(what: str, done: int, total: int, note: str = "") -> None:
            on_progress(self(what), done, total, self(note))

        return tell

    def note(self, on_note: Callable[[str], None] | None) -> Callable[[str], None] | None:
        """Return what takes a note, and passes it on with paths as they are written."""
        return None if on_note is None else lambda line: on_note(self(line))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Have errors within the block name paths as they are written."""
        try:
            yield
        except (EmbedsmithError, OSError) as error:
            error.args = tuple(self(one) if isinstance(one, str) else one for one in error.args)
            if isinstance(error, EmbedsmithError):
                error.hint = self(error.hint)
            elif isinstance(error.filename, str | bytes | os.PathLike):
                error.filename = self(os.fsdecode(error.filename))
            raise


def _head(place: str) -> str:
    """Return a path up to the end of the part that holds its last variable.

    >>> _head("${SETS}/nq/${PART}.jsonl"), _head("${SETS}/nq")
    ('${SETS}/nq/${PART}.jsonl', '${SETS}')
    """
    *_, last = _VARIABLE.finditer(place)
    return place[: last.end()] + re.split(r"[/\\]", place[last.end() :], maxsplit=1)[0]

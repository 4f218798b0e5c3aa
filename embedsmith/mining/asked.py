"""What `mine` is asked for in Python: teachers that are open already, and settings in short."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from embedsmith.errors import SettingsError
from embedsmith.mining.settings import MiningSettings

Teachers = Any
"""A name as in `embedsmith.teachers.named`, an open SentenceTransformer, or a list of some of both."""

_READING = ("dtype", "compile", "max_tokens", "query_prompt", "passage_prompt")
"""Settings of teachers that an open model has made up its mind about."""


@contextmanager
def named_teachers(teacher: Teachers) -> Iterator[dict[str, Any]]:
    """Give the name of each teacher within the block, with the model where it is open; none where none is asked for.

    Raises:
        TypeError: a teacher is neither a name nor an open embedding model.
        ModelError: an open model has weights that cannot be identified.
        SettingsError: a teacher is given twice.
    """
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        for each in _listed(teacher):
            name, model = os.fspath(each) if isinstance(each, os.PathLike) else each, None
            if not isinstance(each, str | os.PathLike):
                from embedsmith.models.opened import borrowed, name_of_open

                model = stack.enter_context(borrowed(each))
                name = name_of_open(model)
            if name in found:
                raise SettingsError(f"teacher: {name} is given twice", hint="give each teacher once")
            found[name] = model
        yield found


def settings_asked(
    settings: MiningSettings | None, *, teachers: dict[str, Any], negatives: int | None
) -> MiningSettings:
    """Return settings with what was asked for beside them.

    Raises:
        SettingsError: something is asked for twice, or how an open model reads texts.
    """
    given = settings or MiningSettings()
    asked: dict[str, Any] = {"teachers": list(teachers)} if teachers else {}
    if negatives is not None:
        asked["negatives"] = negatives
    for short, name in (("teacher", "teachers"), ("negatives", "negatives")):
        if name in asked and name in given.model_fields_set:
            raise SettingsError(f"{short}: given beside settings.{name}", hint="give one of the two")
    if any(model is not None for model in teachers.values()):
        _check_reading(given)
    return MiningSettings.parse({**given.model_dump(), **asked}, where="mine") if asked else given


def _check_reading(settings: MiningSettings) -> None:
    """Refuse settings of how a model reads texts, where one is open: it is read as it stands."""
    usual = type(settings.teacher_settings)()
    for name in _READING:
        if getattr(settings.teacher_settings, name) != getattr(usual, name):
            raise SettingsError(
                f"teacher_settings.{name}: an open model is used as it stands",
                hint="set it on the model (max_seq_length, prompts, its dtype), or name the model in place of it",
            )


def _listed(teacher: Teachers) -> Sequence[Any]:
    """Return teachers as a list.

    >>> _listed(None), _listed("bm25"), _listed(["bm25", "random"])
    ([], ['bm25'], ['bm25', 'random'])
    """
    if teacher is None:
        return []
    return teacher if isinstance(teacher, list | tuple) else [teacher]

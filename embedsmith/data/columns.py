"""Columns of pairs: which of a row's keys is the query, the positive, a negative?

    query       `query`, `anchor` or `question`: a string
    positives   `positive`, `passage`, `document` or `answer`: a string, or a list of strings;
                `pos` or `positives`: a list of strings
    negatives   optional: `negative`, `negative_1`, `negative_2`...: a string, or a list of strings;
                `neg` or `negatives`: a list of strings
    ids         optional: `query_id`; `positive_id`, a list where the positives are one

So FlagEmbedding's `{"query", "pos", "neg"}` and sentence-transformers' `(anchor, positive, negative_1, ...)` both fit.
Other names are the caller's to give; nothing is guessed from the order of columns.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from embedsmith.data.bad_rows import Unusable
from embedsmith.errors import did_you_mean
from embedsmith.settings import Settings

ONLY_LISTS = ("pos", "positives", "neg", "negatives")

_QUERY = ("query", "anchor", "question")
_POSITIVE = ("positive", "passage", "document", "answer", "pos", "positives")
_NEGATIVE = ("negative", "neg", "negatives")


class ColumnSettings(Settings):
    """Names of the columns of pairs, where they are not the conventional ones."""

    query: str | None = None
    """Column of the query; by default `query`, `anchor` or `question`."""

    positive: str | None = None
    """Column of what answers it, a text or a list of them; by default `positive`, `passage`, `document`, `answer`,
    `pos` or `positives`."""

    negative: str | None = None
    """Column of negatives that the data brings along, together with NAME_1, NAME_2...; by default `negative`, `neg` or
    `negatives`."""

    query_id: str | None = None
    """Column of the query's id; by default `query_id` where there is one, else queries are numbered."""

    positive_id: str | None = None
    """Column of the positive's id, or of a list of them; by default `positive_id` where there is one, else passages are
    numbered."""


@dataclass(frozen=True)
class Layout:
    """The keys of a row by their role."""

    query: str
    positive: str
    negatives: tuple[str, ...]
    query_id: str | None
    positive_id: str | None


def layout_of(names: Sequence[str], settings: ColumnSettings) -> Layout:
    """Return which of a row's keys is what.

    >>> layout_of(["anchor", "positive", "negative_1", "source"], ColumnSettings()).negatives
    ('negative_1',)
    >>> layout_of(["Q", "A"], ColumnSettings(query="Q", positive="B"))
    Traceback (most recent call last):
    embedsmith.data.bad_rows.Unusable: no value under "B"; the row has "Q", "A"

    Raises:
        Unusable: the query or the positive is missing or could be several, or a name is nearly one that counts.
    """
    return Layout(
        query=one_column("query", _QUERY, names, settings),
        positive=one_column("positive", _POSITIVE, names, settings),
        negatives=tuple(name for name in names if _is_negative(name, settings)),
        query_id=_id("query_id", names, settings),
        positive_id=_id("positive_id", names, settings),
    )


def readable(names: Iterable[str], settings: ColumnSettings) -> list[str]:
    """Return the columns that a layout can be made of, so that no other need be read.

    >>> readable(["query", "positive", "embedding"], ColumnSettings())
    ['query', 'positive']
    """
    known = {*_QUERY, *_POSITIVE, "query_id", "positive_id", *settings.model_dump().values()}
    return [name for name in names if name in known or _is_negative(name, settings)]


def missing(names: Iterable[str], settings: ColumnSettings) -> Unusable | None:
    """Return what is wrong where a column that the caller named is nowhere among the names."""
    known = list(names)
    for role, name in settings.model_dump().items():
        found = any(_numbered(name, other) for other in known) if role == "negative" and name else name in known
        if name is not None and not found:
            return _no_column(name, known)
    return None


def one_column(role: str, conventional: Sequence[str], names: Sequence[str], settings: Settings) -> str:
    """Return the one key of a row for a role that every row must have.

    Raises:
        Unusable: there is none, or several could be it.
    """
    named = getattr(settings, role)
    if named is not None:
        if named in names:
            return named
        raise _no_value(named, names)
    others = {name for other, name in settings.model_dump().items() if other != role}
    found = [name for name in conventional if name in names and name not in others]
    if len(found) == 1:
        return found[0]
    if found:
        raise Unusable(
            f"{quoted(found)} could each be the {role}",
            reason=f"several columns could be the {role}",
            hint=f"say which of them is the {role}, or remove the others",
        )
    near = next((near for name in names if (near := did_you_mean(name, conventional))), "")
    raise Unusable(
        f"no {role}; the row has {quoted(names) if names else 'no values'}{near}",
        reason=f"no {role}",
        hint=f"name the {role} one of {', '.join(conventional)}, or say which column it is: --{role}-column",
    )


def _id(role: str, names: Sequence[str], settings: ColumnSettings) -> str | None:
    """Return the key of an id, if there is one."""
    named = getattr(settings, role)
    if named is not None and named not in names:
        raise _no_value(named, names)
    others = {name for other, name in settings.model_dump().items() if other != role}
    return named or (role if role in names and role not in others else None)


def _is_negative(name: str, settings: ColumnSettings) -> bool:
    """Return whether a key names negatives.

    Raises:
        Unusable: it nearly does; its texts would be lost in silence.
    """
    if settings.negative is not None:
        return _numbered(settings.negative, name)
    if name in settings.model_dump().values():
        return False
    if name in _NEGATIVE or _numbered("negative", name):
        return True
    near = difflib.get_close_matches(name, _NEGATIVE, n=1, cutoff=0.85)
    if near:
        raise Unusable(
            f'unknown column "{name}" (did you mean "{near[0]}"?)',
            reason=f'unknown column "{name}"',
            hint=f"rename it; negatives are under {', '.join(_NEGATIVE)} or negative_1, negative_2...",
        )
    return False


def _numbered(stem: str, name: str) -> bool:
    """Return whether a name is the stem, or the stem and a number.

    >>> _numbered("negative", "negative_12"), _numbered("negative", "negative_score")
    (True, False)
    """
    return name == stem or re.fullmatch(rf"{re.escape(stem)}_[0-9]+", name) is not None


def _no_column(name: str, names: Sequence[str]) -> Unusable:
    """Return what is wrong with a name that the caller gave."""
    return Unusable(
        f'no column "{name}"; there are {quoted(names)}{did_you_mean(name, names)}',
        reason=f'no column "{name}"',
        hint="give the name of a column that is there",
    )


def _no_value(name: str, names: Sequence[str]) -> Unusable:
    """Return what is wrong with a row that has nothing under a name that the caller gave."""
    return Unusable(
        f'no value under "{name}"; the row has {quoted(names) if names else "no values"}{did_you_mean(name, names)}',
        reason=f'no value under "{name}"',
        hint="give the name of a column that every row has, or remove the row",
    )


def quoted(names: Iterable[str]) -> str:
    """Return names in quotes.

    >>> quoted(["positive", "passage"])
    '"positive", "passage"'
    """
    return ", ".join(f'"{name}"' for name in names)

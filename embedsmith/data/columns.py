"""Columns of pairs: which of a row's keys is the query, the positive, a negative?

    query       `query`, `anchor` or `question`: a string
    positives   `positive`, `passage`, `document` or `answer`: a string, or a list of strings;
                `pos` or `positives`: a list of strings
    negatives   optional: `negative`, `negative_1`, `negative_2`...: a string, or a list of strings;
                `neg` or `negatives`: a list of strings
    ids         optional: `query_id`; `positive_id`, a list where the positives are one
    relevance   optional, beside a query and one passage: a name of `RELEVANCE`; 0 makes the passage a negative of the
                query, more a positive of that grade; a list beside a list

So FlagEmbedding's `{"query", "pos", "neg"}` and sentence-transformers' `(anchor, positive, negative_1, ...)` both fit.
Other names are the caller's to give; nothing is guessed from the order of columns.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedsmith.data.bad_rows import Misread, Unusable
from embedsmith.errors import did_you_mean
from embedsmith.settings import Settings

ONLY_LISTS = ("pos", "positives", "neg", "negatives")

RELEVANCE = (
    "label",
    "score",
    "relevance",
    "relevant",
    "is_relevant",
    "relevance_score",
    "relevance_label",
    "rel",
    "grade",
    "rating",
    "similarity",
    "similarity_score",
    "judgement",
    "judgment",
    "gold_label",
    "is_duplicate",
)
"""Names, in any case, that say how relevant a passage is; their plurals are lists beside lists."""
IGNORED = "none"
"""As the column of relevance: there is none, whatever the columns are called."""

_RELEVANCE = {*RELEVANCE, *(f"{name}s" for name in RELEVANCE)}
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

    relevance: str | None = None
    """Column of how relevant the positive is: 0 makes it a negative of the query. By default `label`, `score`,
    `relevance`, `grade`, `rating`, `similarity` or the like where there is one; `none` for no such column."""

    relevant_from: float | None = None
    """Relevance from which on a passage is a positive, where it is a fraction; what lies below is a negative."""

    @property
    def names(self) -> dict[str, str | None]:
        """Role -> the column that the caller named for it."""
        named = self.model_dump(exclude={"relevant_from"})
        return named | {"relevance": None if self.relevance == IGNORED else self.relevance}


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
    known = {*_QUERY, *_POSITIVE, "query_id", "positive_id", *settings.names.values()}
    return [name for name in names if name in known or _is_negative(name, settings) or is_relevance(name)]


def has_query(names: Iterable[str]) -> bool:
    """Return whether there is a query among conventional names.

    >>> has_query(["anchor", "text"]), has_query(["id", "text"])
    (True, False)
    """
    return not set(names).isdisjoint(_QUERY)


def is_pair(names: Iterable[str]) -> bool:
    """Return whether there are a query and a passage among conventional names.

    >>> is_pair(["anchor", "document", "label"]), is_pair(["text", "label"])
    (True, False)
    """
    known = set(names)
    return not known.isdisjoint(_QUERY) and not known.isdisjoint(_POSITIVE)


def is_relevance(name: str) -> bool:
    """Return whether a name says how relevant something is.

    >>> is_relevance("Label"), is_relevance("scores"), is_relevance("source")
    (True, True, False)
    """
    return name.strip().casefold() in _RELEVANCE


def relevance_column(row: Mapping[str, Any], settings: ColumnSettings) -> str | None:
    """Return the key of a row that says how relevant its passage is, None where nothing does.

    >>> relevance_column({"query": "cat?", "passage": "a dog", "label": 0}, ColumnSettings())
    'label'
    >>> relevance_column({"query": "cat?", "positive": "a cat", "negative": "a dog", "score": [1]}, ColumnSettings())

    Raises:
        Unusable: there are several, or negatives too, so that it may say something else.
    """
    if settings.relevance is not None:
        if settings.relevance == IGNORED:
            return None
        if settings.relevance not in row:
            raise _no_value(settings.relevance, list(row))
        return settings.relevance
    taken = {*settings.names.values(), *_QUERY, *_POSITIVE}
    has_negatives = any(_is_negative(name, settings) for name, value in row.items() if value is not None)
    # Beside negatives a list holds the scores of the positive and of each negative: no judgements.
    found = [
        name
        for name, value in row.items()
        if name not in taken and is_relevance(name) and not (has_negatives and isinstance(value, list | None))
    ]
    if not found:
        return None
    if len(found) > 1 or has_negatives:
        beside = " beside negatives" if has_negatives else ""
        raise Misread(
            f"{quoted(found)}{beside}: it is not clear what says how relevant the positive is",
            reason="unclear relevance",
            hint=f"name it: --relevance-column {found[0]}, or --relevance-column {IGNORED} if nothing does",
        )
    return found[0]


def missing(names: Iterable[str], settings: ColumnSettings) -> Unusable | None:
    """Return what is wrong where a column that the caller named is nowhere among the names."""
    known = list(names)
    for role, name in settings.names.items():
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
            hint=f"say which of them is the {role}: {_said(role, settings)}; or remove the others",
        )
    near = next((near for name in names if (near := did_you_mean(name, conventional))), "")
    raise Unusable(
        f"no {role}; the row has {quoted(names) if names else 'no values'}{near}",
        reason=f"no {role}",
        hint=f"name the {role} one of {', '.join(conventional)}, or say which column it is: {_said(role, settings)}",
    )


def _said(role: str, settings: Settings) -> str:
    """Return how a caller names the column of a role.

    >>> _said("query", ColumnSettings())
    '--query-column, in Python ColumnSettings(query=...)'
    """
    return f"--{role.replace('_', '-')}-column, in Python {type(settings).__name__}({role}=...)"


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
    if name in settings.names.values():
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

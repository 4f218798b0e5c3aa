"""What a chat model's answer holds, beside what it was asked for."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from embedsmith.data.near_texts import NearTexts, Shingles
from embedsmith.data.normalised import normalised

SAID_TWICE = "said twice"
ALMOST_SAID_TWICE = "almost the same as another one"

_MARK = re.compile(
    r"^\W*?(?:[-*•–]|\(?\d{1,3}[.):]|(?:search\s+)?(?:query|question)\s*(?:\d+\s*)?:\**)\s+", re.IGNORECASE
)
_OPENING: dict[type, re.Pattern[str]] = {
    dict: re.compile(r"\{(?=\s*[\"}])"),
    list: re.compile(r"\[(?=\s*[\"\[{\]\-0-9tfnNI])"),
}
"""Where an object or an array may begin, by what comes next."""
_MOST_MARKS = 10
"""Marks of a list that are taken from one line."""
_MOST_OPENINGS = 100
"""Braces at which a JSON value is looked for: each may take the whole text."""
_QUOTES = "\"'“”„«»`*"


@dataclass
class Rejects:
    """What could not be used: counted by reason, and kept to be read."""

    counts: Counter[str] = field(default_factory=Counter)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, reason: str, **row: Any) -> None:
        """Count one."""
        self.counts[reason] += 1
        self.rows.append({"reason": reason, **row})


class Different:
    """Texts of which none is said twice, or almost.

    >>> different = Different(0, shingles=lambda text: [])
    >>> different.add("do cats purr?")
    >>> different.flaw("Do cats  purr?"), different.flaw("do cats purr")
    ('said twice', '')
    """

    def __init__(self, limit: float, *, shingles: Shingles) -> None:
        """Begin without texts.

        Args:
            limit: share of shingles from which on a text is almost another one; 0 for none.
            shingles: the parts of a text that are compared.

        Raises:
            SettingsError: the library for it is missing.
        """
        self.texts: list[str] = []
        self._known: set[str] = set()
        self._near = NearTexts(limit, shingles=shingles) if limit else None

    def flaw(self, text: str) -> str:
        """Return why a text is not different from those that are there, or nothing."""
        if normalised(text) in self._known:
            return SAID_TWICE
        return ALMOST_SAID_TWICE if self.twin(text) is not None else ""

    def twin(self, text: str) -> str | None:
        """Return the text that one is almost the same as, None where there is none."""
        like = self._near.like(text) if self._near else []
        return self.texts[max(like, key=lambda one: one[1])[0]] if like else None

    def add(self, text: str) -> None:
        """Add a text."""
        self.texts.append(text)
        self._known.add(normalised(text))
        if self._near:
            self._near.add(text)


def said(text: str) -> str:
    """Return an answer without the thoughts that some models write before it.

    >>> said("<think>Is it? It is.</think> Yes."), said("Yes. ")
    ('Yes.', 'Yes.')
    """
    return text.rpartition("</think>")[2].strip()


def lines(text: str) -> list[str]:
    """Return the lines of an answer without the marks of a list; a line that announces others is none of them.

    >>> lines("Here are two queries:\\n\\n1. \\"what is a cat\\"\\n- **Query 2: do cats purr?**")
    ['what is a cat', 'do cats purr?']
    """
    found = []
    for line in text.splitlines():
        bare = line.strip().strip(_QUOTES)
        for _ in range(_MOST_MARKS):
            shorter = _MARK.sub("", bare, count=1).strip().strip(_QUOTES)
            if shorter == bare:
                break
            bare = shorter
        if bare and not bare.endswith((":", "：")):
            found.append(bare)
    return found


def is_copy(text: str, of: str) -> bool:
    """Return whether a text is a piece of another one; one or two words may be in both by chance.

    >>> prompt = "Write a few search queries."
    >>> is_copy("A few  SEARCH queries", prompt), is_copy("search queries", prompt)
    (True, False)
    """
    words = normalised(text)
    return words.count(" ") >= 2 and words in normalised(of)


def json_in(text: str, kind: type) -> Any:
    """Return the first JSON object, or the first array, that a text holds; None where there is none.

    >>> json_in('Sure! ```json\\n{"a": [1]}\\n``` I hope {this} helps.', dict)
    {'a': [1]}
    >>> json_in("[1, 2", list)
    """
    decoder = json.JSONDecoder()
    for opening in itertools.islice(_OPENING[kind].finditer(text), _MOST_OPENINGS):
        try:
            value, _ = decoder.raw_decode(text, opening.start())
        except RecursionError:
            return None
        except ValueError:
            continue
        return value
    return None

"""Contamination: which training texts occur in evaluation sets, to the letter, normalised, or almost?

Almost is the Jaccard share of their shingles; see `embedsmith.data.near_texts`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field

from embedsmith.data.bad_rows import Unusable
from embedsmith.data.columns import quoted
from embedsmith.data.labelled_rows import FIRST, QUERY, SECOND, TEXT
from embedsmith.data.labels import is_listed
from embedsmith.data.near_texts import NearTexts, Shingles
from embedsmith.data.normalised import normalised
from embedsmith.settings import Settings

How = Literal["exact", "normalised", "near"]

_PASSAGES = ("positive", "positives", "pos", "passage", "document", "answer", "negative", "negatives", "neg")


class ContaminationSettings(Settings):
    """Which texts count as the same, and which of a row are looked at."""

    near_duplicates: float = Field(0.8, ge=0, le=1)
    """Jaccard share of 3-word shingles from which on two texts are the same. 0 for none: then case, width and white
    space are all that may differ."""
    match: Literal["any", "all"] = "any"
    """any: a training row goes when it has one text of an evaluation row; all: when it has all of them, for pairs whose
    sentences recur in other pairs."""
    passages: bool = False
    """Look at passages too. Of retrieval sets, whose corpus is there in training and evaluation alike, by default only
    the queries count; of classes and pairs all texts do."""
    columns: list[str] = []
    """Column of a text that counts, in all of the data; by default texts of labelled rows and pairs, and queries."""


class Match(NamedTuple):
    """A training text, and the evaluation text that it is."""

    text: str
    data: str
    """The evaluation set."""
    found: str
    """Its text."""
    how: How
    similarity: float
    """1 for the same normalised text, else the Jaccard share of shingles."""


class EvaluationIndex:
    """The texts of evaluation sets, to be found again.

    >>> index = EvaluationIndex(ContaminationSettings(near_duplicates=0), shingles=lambda text: [])
    >>> index.add("sts", ["A plane takes off.", "An aircraft departs."])
    >>> index.match(["a plane  takes off."]).how, index.match(["A plane"])
    ('normalised', None)
    """

    def __init__(self, settings: ContaminationSettings, *, shingles: Shingles) -> None:
        """Begin without texts.

        Args:
            settings: which texts count as the same.
            shingles: the parts of a text that are compared.
        """
        self._settings = settings
        self._numbers: dict[str, int] = {}
        """Normalised text -> its number."""
        self._exact: dict[str, None] = {}
        self._texts: list[str] = []
        self._rows: list[tuple[str, frozenset[int]]] = []
        self._rows_of: dict[int, list[int]] = defaultdict(list)
        self._near = NearTexts(settings.near_duplicates, shingles=shingles) if settings.near_duplicates else None

    def add(self, data: str, texts: Sequence[str]) -> None:
        """Add the texts of one row of an evaluation set."""
        numbers = set()
        for text in texts:
            self._exact[text] = None
            number = self._numbers.setdefault(normalised(text), len(self._texts))
            if number == len(self._texts):
                self._texts.append(text)
                if self._near:
                    self._near.add(text)
            numbers.add(number)
        for number in numbers:
            self._rows_of[number].append(len(self._rows))
        self._rows.append((data, frozenset(numbers)))

    def match(self, texts: Iterable[str]) -> Match | None:
        """Return what makes a training row with these texts contaminated, None where nothing does.

        Where one text in common is enough it is the most similar one, where all are wanted the least similar.
        """
        best: dict[int, Match] = {}
        for text in texts:
            for number, how, similarity in self._find(text):
                match = Match(text, "", self._texts[number], how, similarity)
                if number not in best or _strength(match) > _strength(best[number]):
                    best[number] = match
        rows = dict.fromkeys(row for number in best for row in self._rows_of[number])
        if self._settings.match == "any":
            # What is found is the best of the row's texts.
            found = {row: max((best[n] for n in self._rows[row][1] if n in best), key=_strength) for row in rows}
        else:
            # All are there: as similar as the row is the worst of them.
            whole = [row for row in rows if self._rows[row][1] <= best.keys()]
            found = {row: min((best[n] for n in self._rows[row][1]), key=_strength) for row in whole}
        if not found:
            return None
        row = max(found, key=lambda row: _strength(found[row]))
        return found[row]._replace(data=self._rows[row][0])

    def _find(self, text: str) -> list[tuple[int, How, float]]:
        """Return the numbers of the texts that are the same as one."""
        number = self._numbers.get(normalised(text))
        found: list[tuple[int, How, float]] = []
        if number is not None:
            found.append((number, "exact" if text in self._exact else "normalised", 1.0))
            if self._settings.match == "any":
                return found
        if self._near:
            found += [(other, "near", round(share, 4)) for other, share in self._near.like(text) if other != number]
        return found


def _strength(match: Match) -> tuple[float, bool]:
    return match.similarity, match.how == "exact"


def checked_texts(row: dict[str, Any], settings: ContaminationSettings) -> list[str]:
    """Return the texts of a row that count.

    >>> any_of = ContaminationSettings()
    >>> checked_texts({"text": "where is my card?", "label": "lost"}, any_of)
    ['where is my card?']
    >>> checked_texts({"query": "cat?", "positives": [{"text": "a cat"}], "symmetric": True}, any_of)
    ['cat?', 'a cat']
    >>> checked_texts({"query": "cat?", "positives": [{"text": "a cat"}]}, any_of)
    ['cat?']

    Raises:
        Unusable: the row has none, or a list that was written as a text.
    """
    if settings.columns:
        keys: list[str] = [key for key in settings.columns if key in row]
    else:
        keys = [next((key for key in known if key in row), "") for known in (FIRST, SECOND)]
        if not all(keys):
            query = next((key for key in QUERY if key in row), None)
            keys = [query or next((key for key in TEXT if key in row), "")]
            # Of an example, negatives are looked at one by one: one of them is no reason to drop the row.
            known = ("positives",) if is_example(row) else _PASSAGES
            if query and (settings.passages or row.get("symmetric")):
                keys += [key for key in known if key in row]
    for key in keys:
        if key in _PASSAGES and isinstance(row[key], str) and is_listed(row[key]):
            raise Unusable(
                f'"{key}" is a text that holds a list or an object: {row[key].strip()[:40]}',
                reason=f'"{key}" is a list in a text',
                hint="write JSON lines or Parquet, which hold lists",
            )
    texts = [text for key in keys if key for text in _texts(row[key])]
    if not texts:
        raise Unusable(
            f"no text; the row has {quoted(row)}", reason="no text", hint="name the column of the text with --column"
        )
    return texts


def is_example(row: dict[str, Any]) -> bool:
    """Return whether a row is a training example, whose passages are objects."""
    positives = row.get("positives")
    return isinstance(positives, list) and any(isinstance(passage, dict) for passage in positives)


def clean_negatives(row: dict[str, Any], index: EvaluationIndex) -> tuple[dict[str, Any], list[Match]]:
    """Return a training example without the negatives that are evaluation texts, and those."""
    kept, removed = [], []
    for passage in row.get("negatives") or []:
        match = index.match(_texts(passage))
        if match:
            removed.append(match)
        else:
            kept.append(passage)
    if not removed:
        return row, []
    outcome = "short" if kept else "none"
    return {**row, "negatives": kept, "outcome": outcome}, removed


def _texts(value: Any) -> list[str]:
    """Return the texts of a value: itself, or those of a list, or of passages."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, dict):
        return _texts(value.get("text"))
    return [text for one in value for text in _texts(one)] if isinstance(value, list) else []

"""Pairs of texts, made queries and positives: similar ones (STS), entailed ones (NLI), those that belong together.

A pair says that the second text answers the first, that it does not, or that it might. What might is nobody's negative.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from enum import Enum

from embedsmith.data.converters.drafts import Converted, Draft, PassagePool, rows_of
from embedsmith.data.converters.rows import TextPair
from embedsmith.data.converters.settings import ConvertSettings
from embedsmith.data.normalised import normalised
from embedsmith.errors import InputError

_NLI = {"0": "entailment", "1": "neutral", "2": "contradiction", "-1": "-"}
"""Numbers of SNLI, MultiNLI and XNLI as published; -1 and - are pairs on which the annotators did not agree."""


class Relation(Enum):
    """What a pair says of its second text."""

    ANSWERS = 1
    MIGHT = 0
    DOES_NOT = -1


Judge = Callable[[TextPair], tuple[Relation, str]]
"""A pair in; how its texts relate, and why the row is dropped where that makes no example."""


def convert_sts(pairs: Iterable[TextPair], settings: ConvertSettings) -> Converted:
    """Return drafts of the pairs whose score reaches the threshold.

    Raises:
        InputError: no score does; says which there are.
    """
    low, high = settings.exclude_above, settings.threshold
    seen: list[float] = []

    def judge(pair: TextPair) -> tuple[Relation, str]:
        score = float(pair.value)
        seen.append(score)
        if score >= high:
            return Relation.ANSWERS, ""
        if score > low:
            return Relation.MIGHT, f"a score between {low:g} and {high:g}"
        return Relation.DOES_NOT, ""

    found = _convert(pairs, judge, symmetric=settings.symmetric is not False)
    if not found.drafts and seen:
        raise InputError(
            f"no pair has a score of {high:g} or more; they run from {min(seen):g} to {max(seen):g}",
            hint="give --threshold, and --exclude-above, on the scale of the data",
        )
    return found


def convert_nli(pairs: Iterable[TextPair], settings: ConvertSettings) -> Converted:
    """Return drafts of entailed pairs; what contradicts the same premise is their negative.

    Raises:
        InputError: a label is none of the three.
    """

    def judge(pair: TextPair) -> tuple[Relation, str]:
        name = str(pair.value).casefold()
        name = _NLI.get(name, name)
        if name == "entailment":
            return Relation.ANSWERS, ""
        if name in ("contradiction", "contradictory"):
            return Relation.DOES_NOT, ""
        if name not in ("neutral", "-"):
            raise InputError(
                f'{pair.place}: the label "{pair.value}", wanted entailment, neutral or contradiction',
                hint="name its column with --value-column, or convert with --task pairs --positive-label",
            )
        return Relation.MIGHT, "neutral" if name == "neutral" else "no agreed label"

    return _convert(pairs, judge, symmetric=bool(settings.symmetric))


def convert_pairs(pairs: Iterable[TextPair], settings: ConvertSettings) -> Converted:
    """Return drafts of the pairs that belong together.

    Raises:
        InputError: a label is neither 0, 1, true nor false, and the settings do not name the positive ones; or no pair
            has a positive label.
    """
    positive = {label.casefold() for label in settings.positive_labels}
    # By value, not by what was written: a run's recipe names every setting.
    named = settings.positive_labels != type(settings).model_fields["positive_labels"].default
    labels: Counter[str] = Counter()

    def judge(pair: TextPair) -> tuple[Relation, str]:
        name = str(pair.value).casefold()
        labels[str(pair.value)] += 1
        if not named and name not in ("0", "1", "true", "false"):
            raise InputError(
                f'{pair.place}: the label "{pair.value}", wanted 0 or 1', hint="name what is positive: --positive-label"
            )
        return (Relation.ANSWERS if name in positive else Relation.DOES_NOT), ""

    found = _convert(pairs, judge, symmetric=settings.symmetric is not False)
    if not found.drafts and labels:
        raise InputError(
            f"no pair has a positive label; there are {', '.join(label for label, _ in labels.most_common(5))}",
            hint="name what is positive: --positive-label",
        )
    return found


def _convert(pairs: Iterable[TextPair], judge: Judge, *, symmetric: bool) -> Converted:
    """Return drafts of the pairs whose second text answers the first, in both directions where they are `symmetric`."""
    pool, dropped, rows = PassagePool(), Counter[str](), 0
    answers: list[tuple[TextPair, str, str]] = []
    # By normalised text: what answers it or might, and what does not, with the row that says so.
    related: dict[str, set[str]] = defaultdict(set)
    refuted: dict[str, dict[str, str]] = defaultdict(dict)
    negative_places: set[str] = set()
    known: set[tuple[str, str]] = set()
    for pair in pairs:
        rows += 1
        relation, reason = judge(pair)
        first, second = normalised(pair.first), normalised(pair.second)
        if first == second:
            dropped["the same text on both sides"] += 1
            continue
        key = (first, second) if not symmetric or first < second else (second, first)
        if key in known:
            dropped["the same pair again"] += 1
            continue
        known.add(key)
        if symmetric:
            pool.add(pair.first, f"{pair.place}:1")
        pool.add(pair.second, f"{pair.place}:2")
        if relation is Relation.DOES_NOT:
            negative_places.add(pair.place)
            refuted[first][second] = pair.place
            if symmetric:
                refuted[second][first] = pair.place
            continue
        related[first].add(second)
        related[second].add(first)
        if relation is Relation.ANSWERS:
            answers.append((pair, first, second))
        else:
            dropped[reason] += 1
    drafts = []
    for pair, first, second in answers:
        sides = [(pair.place, pair.first, first, second)]
        if symmetric:
            sides.append((f"{pair.place}:reversed", pair.second, second, first))
        for query_id, text, query, positive in sides:
            near = {query} | related[query]
            # Where a is like b and b like c, a may well be like c, though nobody was asked about the two.
            near |= {other for neighbour in related[query] for other in related[neighbour]}
            against = refuted.get(query, {})
            excluded = rows_of(pool.row(other) for other in near - set(against))
            negatives = [row for other in against if other != positive and (row := pool.row(other)) is not None]
            answer = pool.row(positive)
            assert answer is not None
            drafts.append(Draft(pair.place, query_id, text, [answer], negatives, list(against.values()), excluded))
    return Converted(drafts, pool, rows, dropped, negative_places, "no example whose negative it could be")

"""Pairs of texts, made queries and positives: similar ones (STS), entailed ones (NLI), those that belong together.

A pair says that the second text answers the first, that it does not, or that it might. What might is never a negative.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from embedsmith.data.labelled_rows import TextPair
from embedsmith.data.normalised import normalised
from embedsmith.data.pair_labels import Meaning, Relation
from embedsmith.errors import InputError
from embedsmith.prepare.converters.drafts import Converted, Draft, PassagePool, rows_of
from embedsmith.prepare.converters.settings import ConvertSettings

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


def convert_related(pairs: Iterable[TextPair], meanings: Mapping[str, Meaning], settings: ConvertSettings) -> Converted:
    """Return drafts of the pairs whose label says that the second text answers the first.

    Args:
        pairs: every row.
        meanings: what each label means.
        settings: whether a pair counts in both directions: by default unless it is a premise and a hypothesis.

    Raises:
        InputError: no label of `pairs` says so.
    """

    def judge(pair: TextPair) -> tuple[Relation, str]:
        meaning = meanings[str(pair.value)]
        if meaning.relation is not Relation.MIGHT:
            return meaning.relation, ""
        return Relation.MIGHT, "no agreed label" if meaning.word == "-" else "neutral"

    both_ways = bool(settings.symmetric) if settings.task == "nli" else settings.symmetric is not False
    found = _convert(pairs, judge, symmetric=both_ways)
    says_so = any(meaning.relation is Relation.ANSWERS for meaning in meanings.values())
    if settings.task == "pairs" and not found.drafts and not says_so:
        raise InputError(
            f"no pair has a positive label; there are {', '.join(list(meanings)[:5])}",
            hint="say what the labels mean: --labels, or --positive-label",
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
            # Where a is like b and b like c, a may well be like c, though no row says so.
            near |= {other for neighbour in related[query] for other in related[neighbour]}
            against = refuted.get(query, {})
            excluded = rows_of(pool.row(other) for other in near - set(against))
            negatives = [row for other in against if other != positive and (row := pool.row(other)) is not None]
            answer = pool.row(positive)
            assert answer is not None
            drafts.append(Draft(pair.place, query_id, text, [answer], negatives, list(against.values()), excluded))
    return Converted(drafts, pool, rows, dropped, negative_places, "no example whose negative it could be")

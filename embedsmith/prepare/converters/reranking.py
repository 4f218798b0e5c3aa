"""Reranking sets: a query with passages that answer it and others that do not, which are its negatives."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from embedsmith.data.labelled_rows import JudgedQuery
from embedsmith.data.normalised import normalised
from embedsmith.prepare.converters.drafts import Converted, Draft, PassagePool, rows_of


def convert_reranking(queries: Iterable[JudgedQuery]) -> Converted:
    """Return a draft for each query that has a positive; what answers the same query in another row is no negative."""
    pool, dropped, rows = PassagePool(), Counter[str](), 0
    found: list[tuple[JudgedQuery, list[int], list[int]]] = []
    answers: dict[str, set[int]] = defaultdict(set)
    for item in queries:
        rows += 1
        positives, negatives = (
            list(dict.fromkeys(pool.add(text, f"{item.place}:{side}{n}") for n, text in enumerate(texts, start=1)))
            for side, texts in (("+", item.positives), ("-", item.negatives))
        )
        if not positives:
            dropped["no positive"] += 1
            continue
        answers[normalised(item.query)].update(positives)
        found.append((item, positives, negatives))
    drafts = []
    for item, positives, negatives in found:
        right = answers[normalised(item.query)]
        own = pool.row(item.query)
        drafts.append(
            Draft(
                place=item.place,
                query_id=item.place,
                query=item.query,
                positives=positives,
                negatives=[row for row in negatives if row not in right and row != own],
                negative_places=[],
                excluded=rows_of([*right, own]),
            )
        )
    return Converted(drafts, pool, rows, dropped)

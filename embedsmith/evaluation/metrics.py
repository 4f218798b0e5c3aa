"""Retrieval metrics of a ranking, by trec_eval through ir-measures."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedsmith.errors import InputError, SettingsError, did_you_mean
from embedsmith.pages.tables import Figures, Tabular

DEFAULT_METRICS = ("ndcg@10", "recall@10", "mrr@10", "map@100", "recall@100")

_MEASURES = {"map": "AP", "mrr": "RR", "ndcg": "nDCG", "precision": "P", "recall": "R"}
"""Our name -> the name of ir-measures."""


@dataclass(frozen=True)
class Scores(Tabular):
    """What a model scored on a data set: the means, and the scores of each query. It prints as a table.

    >>> print(Scores({"ndcg@10": 0.4372, "mrr@10": 0.5}, {}))
    Scores
              value
    ndcg@10  0.4372
    mrr@10   0.5000
    """

    mean: dict[str, float]
    """Metric -> mean over the queries that have a relevant passage."""
    per_query: dict[str, dict[str, float]]
    """Query id -> metric -> value, in the order of the judgements; empty for tasks without queries."""

    def figures(self) -> Figures:
        """Return the means as a table."""
        title = f"Scores, {len(self.per_query):,} queries" if self.per_query else "Scores"
        return Figures(title, ["", "value"], [[name, f"{value:.4f}"] for name, value in self.mean.items()])


def score_run(
    ranking: dict[str, list[tuple[str, float]]],
    qrels: dict[str, dict[str, int]],
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> Scores:
    """Return the metrics of a ranking.

    A metric is a name (ndcg, recall, mrr, map, precision), "@" and a cut-off. nDCG has linear gain, as in trec_eval and
    BEIR; the other metrics call a passage relevant when its grade is above 0.

    The order of each list counts, not its scores: trec_eval sorts again, and orders ties by passage id, descending.
    A judged query without a ranking scores 0. A query without a relevant passage (no ranking could please it) is left
    out of the mean, and so is a ranking of a query without judgements.

    Args:
        ranking: query id -> (passage id, score), best first.
        qrels: query id -> passage id -> grade; 0 is judged and not relevant.

    Raises:
        SettingsError: a metric is unknown.
        InputError: a passage is ranked twice for one query, or no query has a relevant passage.

    >>> run = {"q1": [("d2", 0.9), ("d1", 0.9)]}
    >>> score_run(run, {"q1": {"d1": 1}, "q2": {"d7": 1}}, ["mrr@10", "recall@10"])
    Scores(mean={'mrr@10': 0.25, 'recall@10': 0.5}, \
per_query={'q1': {'mrr@10': 0.5, 'recall@10': 1.0}, 'q2': {'mrr@10': 0.0, 'recall@10': 0.0}})
    """
    import ir_measures

    measures = {_measure(name): name for name in metrics}
    judged = {query: grades for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    if not judged:
        raise InputError(
            f"none of {len(qrels):,} judged queries has a relevant passage",
            hint="give at least one query a judgement above 0",
        )
    run = {query: _descending(query, ranked) for query, ranked in ranking.items() if query in judged}
    values: dict[str, dict[str, float]] = {query: {} for query in judged}
    for value in ir_measures.iter_calc(list(measures), judged, run):
        values[value.query_id][measures[value.measure]] = float(value.value)
    # ir-measures yields the metrics in an order of its own.
    per_query = {query: {name: by_name[name] for name in metrics} for query, by_name in values.items()}
    mean = {name: math.fsum(by_name[name] for by_name in per_query.values()) / len(per_query) for name in metrics}
    return Scores(mean=mean, per_query=per_query)


def depth_of(name: str) -> int:
    """Return the cut-off of a metric.

    Raises:
        SettingsError: the metric is unknown.

    >>> depth_of("recall@100")
    100
    """
    return _parsed(name)[1]


def _measure(name: str) -> Any:
    """Return the measure of ir-measures that a metric's name stands for."""
    import ir_measures

    metric, cutoff = _parsed(name)
    return getattr(ir_measures, _MEASURES[metric]) @ cutoff


def _parsed(name: str) -> tuple[str, int]:
    """Return the metric's own name and its cut-off."""
    match = re.fullmatch(r"([a-z]+)@([1-9]\d*)", name)
    if match is None or match[1] not in _MEASURES:
        known = [*DEFAULT_METRICS, *(f"{metric}@10" for metric in _MEASURES)]
        raise SettingsError(
            f'unknown metric "{name}"{did_you_mean(name, known)}',
            hint=f"a metric is one of {', '.join(_MEASURES)}, then @ and a cut-off, as in ndcg@10",
        )
    return match[1], int(match[2])


def _descending(query: str, ranked: list[tuple[str, float]]) -> dict[str, float]:
    """Return scores without ties that sort the passages in the order in which they stand.

    >>> _descending("q1", [("d1", 0.5), ("d2", 0.5)])
    {'d1': 2.0, 'd2': 1.0}
    """
    scores: dict[str, float] = {}
    for place, (passage, _) in enumerate(ranked):
        if passage in scores:
            raise InputError(
                f'query "{query}": passage "{passage}" is ranked twice',
                hint="rank every passage at most once for a query",
            )
        scores[passage] = float(len(ranked) - place)
    return scores

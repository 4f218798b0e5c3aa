"""Scores of a run on documents by the source of its queries: a heading is found otherwise than a question."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from embedsmith.evaluation.per_query import read_per_query
from embedsmith.runs.scores import read_scores

METRIC = "ndcg@10"


@dataclass(frozen=True)
class SourceScores:
    """The queries of one source."""

    queries: int
    scores: dict[str, float]
    """What was scored (`before`, `bm25`) -> mean nDCG@10."""


def scores_by_source(run: Path, data: str) -> dict[str, SourceScores]:
    """Return the scores on a data set made of documents: source -> its queries; the source with most of them first.

    Args:
        run: folder of a finished run.
        data: name of the data set; the ids of its queries begin with their source.

    Raises:
        InputError, RunError: scores are missing or damaged.
    """
    sums: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for label, path in read_scores(run).per_query_files(data).items():
        found = read_per_query(run / path)
        for query, value in zip(found.query_ids, found.values(METRIC).tolist(), strict=True):
            sums[query.rpartition("-")[0]].setdefault(label, []).append(value)
    rows = {
        source: SourceScores(
            queries=max(map(len, labels.values())),
            scores={label: sum(values) / len(values) for label, values in labels.items()},
        )
        for source, labels in sums.items()
    }
    return dict(sorted(rows.items(), key=lambda row: (-row[1].queries, row[0])))

"""Scores of single queries in files: what two runs are compared by.

A row: {"query_id": "q1", "ndcg@10": 0.63, …, "first": ["d3", "d9", "d1"]}, with the passages that were ranked first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from embedsmith.data.files import read_jsonl, write_jsonl
from embedsmith.data.labels import short
from embedsmith.data.plain_values import are_texts, is_number
from embedsmith.errors import InputError, SettingsError, did_you_mean

FIRST = 3
"""Ranked passages of each query that are kept to be read."""

_DIGITS = 9
"""After the point: two values of a metric are further apart."""


@dataclass(frozen=True)
class PerQuery:
    """What each query scored.

    Q queries.
    """

    place: str
    """Where it was read, for messages."""
    query_ids: list[str]
    metrics: dict[str, Float64[np.ndarray, " Q"]]
    first: dict[str, list[str]]
    """Query id -> ids of the passages that were ranked first, best first; empty where they were not kept."""

    def rows_of(self, other: PerQuery) -> Int64[np.ndarray, " Q"]:
        """Return the rows of another's queries, in its order.

        Raises:
            InputError: the two have different queries.
        """
        theirs, mine = ({query: row for row, query in enumerate(own.query_ids)} for own in (other, self))
        only = [[query for query in one if query not in two] for one, two in ((theirs, mine), (mine, theirs))]
        if only[0] or only[1]:
            examples = " and ".join(f'"{own[0]}"' for own in only if own)
            raise InputError(
                f"{other.place} and {self.place} are of different queries: {len(theirs) - len(only[0]):,} in common, "
                f"{len(only[0]):,} and {len(only[1]):,} of their own, such as {examples}",
                hint="compare what was scored on the same split of the same data",
            )
        return np.array([mine[query] for query in other.query_ids], np.int64)

    def values(self, metric: str) -> Float64[np.ndarray, " Q"]:
        """Return the scores by one metric.

        Raises:
            SettingsError: it was not measured; names those that were.
        """
        if metric not in self.metrics:
            raise SettingsError(
                f'{self.place}: no metric "{metric}"{did_you_mean(metric, self.metrics)}',
                hint=f"there are {', '.join(self.metrics)}",
            )
        return self.metrics[metric]


def write_per_query(
    path: Path, scores: Mapping[str, Mapping[str, float]], ranking: Mapping[str, Sequence[tuple[str, float]]]
) -> None:
    """Write the scores of each query, and what was ranked first."""
    write_jsonl(
        path,
        (
            {
                "query_id": query,
                **{metric: round(value, _DIGITS) for metric, value in values.items()},
                "first": [passage for passage, _ in ranking.get(query, [])[:FIRST]],
            }
            for query, values in scores.items()
        ),
    )


def read_per_query(path: Path) -> PerQuery:
    """Return the scores of each query of a file.

    Raises:
        InputError: the file is missing or empty, or a row has no query, one that had a row, or other metrics than the
            first row.
    """
    query_ids, first, table, seen = [], {}, [], set()
    names: list[str] = []
    for number, row in read_jsonl(path):
        query, ranked = row.get("query_id"), row.get("first") or []
        values = {key: value for key, value in row.items() if type(value) in (int, float)}
        if undefined := next((name for name, value in values.items() if not is_number(value)), None):
            raise InputError(
                f'{path}:{number}: "{undefined}" is {short(values[undefined])}, wanted a finite number',
                hint="evaluate again",
            )
        names = names or list(values)
        if not isinstance(query, str) or list(values) != names or not names or not are_texts(ranked):
            raise InputError(
                f"{path}:{number}: not the scores of a query", hint="evaluate again, or mend the file's rows"
            )
        if query in seen:
            raise InputError(f'{path}:{number}: query "{query}" stands there twice', hint="evaluate again")
        seen.add(query)
        query_ids.append(query)
        table.append([float(value) for value in values.values()])
        if ranked:
            first[query] = ranked
    if not query_ids:
        raise InputError(f"{path}: no scores", hint="evaluate again")
    columns = np.array(table, np.float64)
    return PerQuery(str(path), query_ids, {name: columns[:, n] for n, name in enumerate(names)}, first)

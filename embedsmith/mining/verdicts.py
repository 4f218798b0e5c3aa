"""What judges have said of mined negatives, kept beside the candidates that every selection is made from.

MINED/judge/verdicts.jsonl    {"query_id", "passage_id", "verdict", "judge", "prompt"}, one a line
RUN/judge.json                what the last judge that was asked about a run has said, in figures
RUN/judged.jsonl              of a run of `select`: the pairs that it excluded because of them
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embedsmith.data.collection import Collection
from embedsmith.data.files import read_json, write_jsonl
from embedsmith.data.plain_values import is_number
from embedsmith.errors import InputError
from embedsmith.mining.exclusions import Listed
from embedsmith.runs.lineage import selected_from
from embedsmith.runs.mined import rows_of_texts

Pairs = list[tuple[str, str]]
"""(query id, passage id)."""


def judge_folder(run: str | Path) -> Path:
    """Return the folder of the verdicts on what a run, and all that was selected from the same candidates, mined."""
    return selected_from(run) / "judge"


def judgement_path(run: str | Path) -> Path:
    """Return the file of what the last judge has said of a run, in figures."""
    return Path(run) / "judge.json"


def read_judgement(run: str | Path) -> dict[str, Any] | None:
    """Return what the last judge has said of a run, in figures; None where none was asked.

    Raises:
        InputError: the file says something else.
    """
    path = judgement_path(run)
    if not path.is_file():
        return None
    found = read_json(path)
    if wrong := _wrong_in(found):
        raise InputError(f"{path}: no figures of a judge: nothing fits under {wrong}", hint="ask the judge again")
    figures: dict[str, Any] = found
    return figures


def _wrong_in(found: Any) -> str | None:
    """Return under which name a file of figures has none, or a word in its place."""
    if not isinstance(found, dict):
        return "judge"
    counts, kinds = ("asked", "yes", "no", "unclear", "unanswered"), ("negatives", "first", "positives")
    shares = ("false_negative_share", "false_negative_share_of_first", "positives_confirmed")
    whole = {name: found.get(name) for name in ("queries", "queries_with_false_negatives")}
    for pairs in kinds:
        own = found.get(pairs)
        whole |= {f"{pairs}.{name}": own.get(name) if isinstance(own, dict) else None for name in counts}
    wrong = [name for name in ("judge", "prompt") if not isinstance(found.get(name), str)]
    wrong += [name for name, value in whole.items() if type(value) is not int or not is_number(value)]
    wrong += [name for name in shares if found.get(name, "") is not None and not is_number(found.get(name))]
    wrong += [] if isinstance(found.get("cannot_tell"), bool) else ["cannot_tell"]
    return next(iter(wrong), None)


def read_verdicts(run: str | Path) -> list[dict[str, Any]]:
    """Return every verdict on what a run mined.

    Raises:
        InputError: the file is damaged.
    """
    return rows_of_texts(judge_folder(run) / "verdicts.jsonl", ("query_id", "passage_id", "verdict", "judge", "prompt"))


def false_negatives(run: str | Path) -> Pairs:
    """Return the pairs of which some judge has said that the passage answers the query, sorted."""
    rows = read_verdicts(run)
    return sorted({(row["query_id"], row["passage_id"]) for row in rows if row["verdict"] == "yes"})


def write_false_negatives(folder: Path, pairs: Pairs) -> None:
    """Write the pairs that a run of `select` excludes because of a judge; no file where there are none."""
    if pairs:
        write_jsonl(folder / "judged.jsonl", ({"query_id": query, "passage_id": passage} for query, passage in pairs))


def excluded_by(pairs: Sequence[tuple[str, str]], listed: Listed, collection: Collection) -> Listed:
    """Return what is listed, and the judged pairs.

    Raises:
        InputError: a pair is not of the collection, from whose candidates all that is judged was taken.
    """
    if not pairs:
        return listed
    queries, passages = zip(*pairs, strict=True)
    query_rows, passage_rows = collection.query_index.of(queries), collection.passage_index.of(passages)
    there = (query_rows >= 0) & (passage_rows >= 0)
    if not there.all():
        query, passage = pairs[int(np.argmin(there))]
        raise InputError(
            f"{int((~there).sum()):,} of {len(pairs):,} verdicts name a query or passage that the data does not have, "
            f'such as "{query}" and "{passage}"; it has "{collection.query_ids[0]}" and "{collection.passage_ids[0]}"',
            hint="they are about other data: remove the folder `judge` beside the candidates, and judge again",
        )
    return replace(
        listed,
        judged_queries=query_rows.astype(np.int64),
        judged_passages=passage_rows.astype(np.int64),
    )

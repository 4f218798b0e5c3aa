"""The report of a mining run: one HTML page that opens anywhere, without a network and without scripts.

What it shows is measured by `embedsmith.mining.report`; here the figures get words, drawings and texts to read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from math import isfinite, log
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from embedsmith.data.files import atomic_write
from embedsmith.errors import InputError
from embedsmith.mining.audit import Audit, audit, side_by_side
from embedsmith.mining.candidates import Candidates
from embedsmith.mining.exclusions import Fate, Listed
from embedsmith.mining.mine import near_of
from embedsmith.mining.report import Figures, Judged, Suspect, figures, suspects_of
from embedsmith.mining.samplers import NONE
from embedsmith.mining.samples import ReadRow, read_rows, sample_rows, some_queries
from embedsmith.mining.select import Mined, read_mined
from embedsmith.mining.selection import OUTCOMES, Selection, select
from embedsmith.mining.verdicts import read_judgement, read_verdicts
from embedsmith.mining.words import in_words, median_of, remarks, short_name
from embedsmith.pages.charts import Series, histogram_svg
from embedsmith.pages.page import render, shortened
from embedsmith.progress import Progress, silent
from embedsmith.version import __version__

_DRAWS = 2
"""Of the audit: enough to see a bad run; `embedsmith audit` draws more."""
_SAMPLES = 12
_TEMPERATURE = 0.02
"""Default temperature of the training loss; the weight of a negative in the loss depends on it."""
_POSITIVES, _CANDIDATES = 5, 20

FATES = {
    Fate.LEFT: "might be a negative, but others were taken",
    Fate.TAKEN: "taken as a negative",
    Fate.POSITIVE: "a known positive",
    Fate.SAME_TEXT: "has the text of a known positive",
    Fate.OWN_TEXT: "is the query's own text",
    Fate.LISTED: "on your list of exclusions",
    Fate.JUDGED: "answers the query, as a judge has said",
    Fate.COPY: "a copy of a better candidate",
    Fate.NEAR_DUPLICATE: "almost the words of a positive",
    Fate.NEIGHBOUR: "too close to a positive passage",
    Fate.DISTANCES: "not between query and positive",
    Fate.SHIFTED: "among the first ones, which are left out",
    Fate.CEILING: "scores at or above the ceiling",
    Fate.FLOOR: "scores below the floor",
    Fate.VETO: "vetoed by another teacher",
    Fate.UNRANKED: "not among the deciding teacher's candidates",
}

_OUTCOMES = {
    "full": "all {negatives} negatives",
    "short": "fewer than {negatives} negatives",
    "none": "no negative at all",
    "filled": "filled up with random passages",
    "dropped": "dropped, for lack of negatives",
}


def mining_report(run: str | Path, *, on_progress: Progress = silent) -> Path:
    """Write RUN/report.html and return its path.

    Args:
        run: a finished run of `mine` or `select`.

    Raises:
        InputError, RunError: see `read_mined`.
    """
    return write_mining_report(run, on_progress=on_progress)[0]


def write_mining_report(run: str | Path, *, on_progress: Progress = silent) -> tuple[Path, dict[str, Any]]:
    """Write RUN/report.html; return its path, and the numbers that are in it as plain values.

    Raises:
        InputError, RunError: see `read_mined`.
    """
    mined = read_mined(run)
    listed = mined.excluded(mined.settings)
    near = near_of(mined.candidates, mined.collection, mined.settings, on_progress)
    selection = select(mined.candidates, mined.settings, listed=listed, near=near)
    found = figures(selection, mined.candidates, mined.settings, temperature=_TEMPERATURE)
    audits = _audits(mined, *some_queries(mined.candidates, listed, near), on_progress)
    judgement = read_judgement(mined.folder)
    page = render(Path(__file__).with_name("mining.html"), **_page(mined, selection, found, audits, judgement))
    path = mined.folder / "report.html"
    with atomic_write(path) as file:
        file.write(page)
    return path, {**_plain(mined, selection, found, audits), "judge": judgement}


def _audits(
    mined: Mined,
    candidates: Candidates,
    listed: Listed,
    near: Bool[np.ndarray, "S K"] | None,
    on_progress: Progress,
) -> dict[str, Audit] | None:
    """Return the audit of every method on some candidates, None where no query has several positives."""
    try:
        ways = side_by_side(mined.settings)
        return audit(candidates, ways, listed=listed, near=near, draws=_DRAWS, on_progress=on_progress)
    except InputError:
        return None


def _plain(mined: Mined, selection: Selection, found: Figures, audits: dict[str, Audit] | None) -> dict[str, Any]:
    """Return the numbers of the page as plain values, with ids in the place of rows."""
    suspects = {
        name: [{**_ids(mined, selection, suspect), **asdict(suspect)} for suspect in getattr(found, name)]
        for name in ("by_ratio", "by_cosine")
    }
    rows = {name: asdict(row) for name, row in audits.items()} if audits else None
    return {"data": mined.collection.name, **asdict(found), **suspects, "audit": rows}


def _ids(mined: Mined, selection: Selection, suspect: Suspect) -> dict[str, str]:
    query = int(selection.row_query[suspect.row])
    passage = int(mined.candidates.rows[query, suspect.place])
    return {
        "query_id": mined.collection.query_ids[query],
        "passage_id": mined.collection.passage_ids[passage],
    }


def _page(
    mined: Mined,
    selection: Selection,
    found: Figures,
    audits: dict[str, Audit] | None,
    judgement: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return all that the template shows."""
    settings = mined.settings
    names = {name: short_name(name) for name in mined.candidates.teachers}
    read = read_rows(selection, mined.candidates, settings, sample_rows(selection, _SAMPLES))
    candidates = sum(found.fates.values())
    rows = found.counts["queries"]
    return {
        "version": __version__,
        "data": mined.collection.name,
        "folder": mined.folder.resolve().name,
        "in_words": in_words(settings, list(names.values())),
        "settings": settings.model_dump(mode="json"),
        "teachers": mined.candidates.teachers,
        "found": found,
        "rows": rows,
        "row_name": "pairs of query and positive" if selection.row_pair is not None else "queries",
        "full": (found.outcomes["full"] + found.outcomes["filled"]) / rows,
        "audits": audits,
        "audit_draws": _DRAWS,
        "judge": _judge(mined, selection, judgement) if judgement else None,
        "remarks": remarks(found, settings, audits, judgement),
        "charts": [_charts(judged, names) for judged in found.judged],
        "rules": [
            {"words": words, "count": found.fates[fate.name.lower()]}
            for fate, words in FATES.items()
            if found.fates[fate.name.lower()]
        ],
        "candidates": candidates,
        "outcomes": [
            {"words": words.format(negatives=settings.negatives), "count": found.outcomes[name]}
            for name, words in _OUTCOMES.items()
            if found.outcomes[name]
        ],
        "ranks": [{"words": words.replace("-", "–"), "count": count} for words, count in found.ranks.items()],
        "negatives": sum(found.ranks.values()),
        "agreement": [
            {"teachers": [names[name] for name in row.teachers], "jaccard": row.jaccard} for row in found.agreement
        ],
        "by_ratio": [_suspect(mined, selection, suspect) for suspect in found.by_ratio],
        "by_cosine": [_suspect(mined, selection, suspect) for suspect in found.by_cosine],
        "samples": [_sample(mined, selection, row, names) for row in read],
    }


def _judge(mined: Mined, selection: Selection, judgement: dict[str, Any]) -> dict[str, Any]:
    """Return what a judge has said, with the negatives that it takes for answers."""
    kinds = {
        "negatives": ("mined negatives", "false_negative_share"),
        "first": ("… the first of each query", "false_negative_share_of_first"),
        "positives": ("known positives", "positives_confirmed"),
    }
    said_yes = {
        (row["query_id"], row["passage_id"])
        for row in read_verdicts(mined.folder)
        if row["verdict"] == "yes" and row["judge"] == judgement["judge"] and row["prompt"] == judgement["prompt"]
    }
    row, column = np.nonzero(selection.places != NONE)
    query_ids = mined.collection.query_ids.take(selection.row_query[row])
    passage_ids = mined.collection.passage_ids.take(selection.rows[row, column])
    where = np.zeros(selection.places.shape, bool)
    where[row, column] = [pair in said_yes for pair in zip(query_ids, passage_ids, strict=True)]
    suspects = suspects_of(selection, mined.candidates, mined.settings, where)
    return {
        **judgement,
        "name": judgement["judge"].partition("#")[2],
        "rows": [
            {"words": words, "share": judgement[share], **judgement[kind]} for kind, (words, share) in kinds.items()
        ],
        "suspects": [_suspect(mined, selection, suspect) for suspect in suspects],
    }


def _charts(judged: Judged, names: dict[str, str]) -> dict[str, Any]:
    """Return the histograms of one teacher's opinion."""
    teacher = names.get(judged.teacher, judged.teacher)
    chance = log(1 + judged.most)
    return {
        "teacher": teacher,
        "judged": judged,
        "scores": histogram_svg(
            f"Scores by {teacher}: median {median_of(judged.positives)} of the positives, "
            f"{median_of(judged.negatives)} of the negatives.",
            judged.positives.edges,
            [Series("positives", judged.positives.counts), Series("negatives", judged.negatives.counts, True)],
            x_label=f"score by {teacher}"[:52],
            y_label="share of each, %",
        ),
        "differences": histogram_svg(
            f"Positive minus first negative, by {teacher}: median {median_of(judged.differences)}; "
            f"{judged.above:,} of {judged.rows:,} rows at or below 0.",
            judged.differences.edges,
            [Series("rows", judged.differences.counts)],
            x_label="positive's score − first negative's score",
            y_label="rows",
            marks=[(0.0, "0: equal")],
        ),
        "loss": histogram_svg(
            f"Cross-entropy of each row by {teacher}: median {median_of(judged.loss)}.",
            judged.loss.edges,
            [Series("rows", judged.loss.counts)],
            x_label=f"cross-entropy, nats (temperature {judged.temperature:g})",
            y_label="rows",
            marks=[(chance, f"{chance:.2f}: all equal")],
        ),
        "chance": chance,
        "tables": [
            ("score", [("positives", judged.positives), ("negatives", judged.negatives)]),
            ("difference", [("rows", judged.differences)]),
            ("cross-entropy", [("rows", judged.loss)]),
        ],
    }


def _suspect(mined: Mined, selection: Selection, suspect: Suspect) -> dict[str, Any]:
    """Return a suspected false negative with its texts."""
    candidates, texts = mined.candidates, mined.collection
    query = int(selection.row_query[suspect.row])
    pairs = range(*candidates.pair_query.searchsorted([query, query + 1]).tolist())
    # The positive that is shown is the one that the score is held against, as nearly as can be.
    pair = min(pairs, key=lambda pair: abs(float(selection.pair_scores[pair]) - suspect.positive_score))
    passage = int(candidates.rows[query, suspect.place])
    return {
        **_ids(mined, selection, suspect),
        "figures": suspect,
        "query": shortened(texts.queries[query]),
        "negative": shortened(texts.passages[passage]),
        "positive": shortened(texts.passages[int(candidates.pair_passage[pair])]),
        "positive_id": texts.passage_ids[int(candidates.pair_passage[pair])],
        "positives": len(pairs),
    }


def _sample(mined: Mined, selection: Selection, row: ReadRow, names: dict[str, str]) -> dict[str, Any]:
    """Return a query with its positives and its first candidates; negatives that stand further back come after them."""
    candidates, texts = mined.candidates, mined.collection
    fates = selection.fates[row.row]
    late = [(rank, place) for rank, place in enumerate(row.places, start=1) if rank > _CANDIDATES]
    listed = [*enumerate(row.places[:_CANDIDATES], start=1), *(pair for pair in late if fates[pair[1]] == Fate.TAKEN)]
    between = Counter(FATES[Fate(fates[place])] for _, place in late if fates[place] != Fate.TAKEN)
    return {
        "id": texts.query_ids[row.query],
        "query": shortened(texts.queries[row.query]),
        "teacher": names.get(row.teacher, row.teacher),
        "outcome": _OUTCOMES[OUTCOMES[selection.outcome[row.row]]].format(negatives=selection.places.shape[1]),
        "ceiling": row.ceiling if isfinite(row.ceiling) else None,
        "positives": [
            {
                "id": texts.passage_ids[int(candidates.pair_passage[pair])],
                "score": score,
                "text": shortened(texts.passages[int(candidates.pair_passage[pair])]),
            }
            for score, pair in sorted(zip(row.pair_scores, row.pairs, strict=True))[:_POSITIVES]
        ],
        "more_positives": max(0, len(row.pairs) - _POSITIVES),
        "candidates": [
            {
                "id": texts.passage_ids[int(candidates.rows[row.query, place])],
                "rank": rank,
                "score": float(row.scores[place]),
                "fate": FATES[Fate(fates[place])],
                "kind": Fate(fates[place]).name.lower(),
                "text": shortened(texts.passages[int(candidates.rows[row.query, place])]),
                "is_late": rank > _CANDIDATES,
            }
            for rank, place in listed
        ],
        "between": between.most_common(),
        "shown": min(_CANDIDATES, len(row.places)),
        "random": [
            {"id": texts.passage_ids[passage], "text": shortened(texts.passages[passage])}
            for passage, place in zip(selection.rows[row.row].tolist(), selection.places[row.row].tolist(), strict=True)
            if passage >= 0 and place < 0
        ],
    }

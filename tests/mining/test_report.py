"""The figures of a report against the same counted one negative at a time."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest

from embedsmith.mining import histograms, report, samples
from embedsmith.mining.candidates import NO_PASSAGE
from embedsmith.mining.ensembles import views
from embedsmith.mining.exclusions import Fate, Listed
from embedsmith.mining.histograms import histogram, round_edges
from embedsmith.mining.report import figures, score_ratios
from embedsmith.mining.samplers import NONE
from embedsmith.mining.samples import read_rows, sample_rows, some_queries
from embedsmith.mining.selection import OUTCOMES, select
from embedsmith.mining.settings import SelectionSettings
from tests.mining.toy import toy_candidates

WAYS = [
    SelectionSettings(ratio=1.1, negatives=3),
    SelectionSettings(method="naive", negatives=2, ensemble="cross"),
    SelectionSettings(method="naive", negatives=4, ensemble="intra"),
    SelectionSettings(method="marginpos", negatives=3, positive="each", short="random"),
    SelectionSettings(ratio=0.5, negatives=3, short="drop", ensemble="fuse"),
]
IDS = ["percpos", "cross", "intra", "each", "drop"]


@pytest.mark.parametrize("settings", WAYS, ids=IDS)
def test_the_figures_are_what_counting_one_by_one_finds(settings: SelectionSettings):
    candidates = toy_candidates(3)
    selection = select(candidates, settings)
    found = figures(selection, candidates, settings, temperature=0.05)
    opinions = views(candidates, settings)
    rule = {"each": min}.get(settings.positive, min)
    differences: dict[int, list[float]] = {}
    losses: dict[int, list[float]] = {}
    most: dict[int, int] = {}
    sizes = [0] * (settings.negatives + 1)
    for row, query in enumerate(selection.row_query):
        kept = selection.outcome[row] != OUTCOMES.index("dropped")
        places = [p for p in selection.places[row] if p != NONE] if kept else []
        sizes[len(places)] += 1
        pairs = [row] if settings.positive == "each" else np.flatnonzero(candidates.pair_query == query)
        for number, view in enumerate(opinions):
            own = [
                float(view.scores[query, place])
                for place, teacher in zip(selection.places[row], selection.teacher[row], strict=True)
                if kept and place != NONE and teacher == number
            ]
            if own:
                most[number] = max(most.get(number, 0), len(own))
                positive = rule(float(view.pair_scores[pair]) for pair in pairs)
                differences.setdefault(number, []).append(positive - max(own))
                scale = 0.05 if settings.ensemble != "fuse" else found.judged[number].temperature
                losses.setdefault(number, []).append(
                    math.log(1 + sum(math.exp((score - positive) / scale) for score in own))
                )
    assert found.sizes == sizes
    assert sum(found.outcomes.values()) == len(selection.row_query)
    assert sum(found.fates.values()) == int((selection.fates != Fate.ABSENT).sum())
    assert sum(found.ranks.values()) == int(sum(n * rows for n, rows in enumerate(sizes)))
    for number, judged in enumerate(found.judged):
        assert judged.most == most.get(number, 0)
        assert judged.rows == len(differences.get(number, []))
        assert sum(judged.differences.counts) == sum(judged.loss.counts) == judged.rows
        if judged.rows:
            assert judged.differences.median == pytest.approx(np.median(differences[number]), abs=1e-5)
            assert judged.loss.median == pytest.approx(np.median(losses[number]), rel=1e-4, abs=1e-6)
            assert judged.above == sum(d <= 0 for d in differences[number])


def test_the_riskiest_negatives_come_first_one_a_query():
    candidates = toy_candidates(1, queries=40)
    settings = SelectionSettings(method="naive", negatives=3)
    selection = select(candidates, settings)
    found = figures(selection, candidates, settings, temperature=0.05)
    for suspects in (found.by_ratio, found.by_cosine):
        assert len({int(selection.row_query[suspect.row]) for suspect in suspects}) == len(suspects) == report.SUSPECTS
        assert all(selection.fates[suspect.row, suspect.place] == Fate.TAKEN for suspect in suspects)
    rounded = [round(suspect.ratio, 2) for suspect in found.by_ratio]
    assert rounded == sorted(rounded, reverse=True)
    cosines = [suspect.cosine for suspect in found.by_cosine]
    assert cosines == sorted(cosines, reverse=True)
    taken = selection.fates == Fate.TAKEN
    nearest = np.maximum.reduceat(
        candidates.neighbours["teacher-0"], np.flatnonzero(np.diff(candidates.pair_query, prepend=-1)), axis=0
    )
    assert cosines[0] == nearest[taken].max()


def test_the_agreement_is_the_mean_jaccard_of_the_best_that_are_not_known():
    candidates = toy_candidates(5)
    settings = SelectionSettings()
    selection = select(candidates, settings, listed=Listed.nothing())
    known = {Fate.ABSENT, Fate.POSITIVE, Fate.SAME_TEXT, Fate.OWN_TEXT, Fate.LISTED, Fate.COPY}

    def best(query: int, teacher: int, top: int) -> set[int]:
        places = [k for k in range(candidates.rows.shape[1]) if selection.fates[query, k] not in known]
        return set(sorted(places, key=lambda k: (-candidates.scores[teacher, query, k], k))[:top])

    (found,) = figures(selection, candidates, settings, temperature=0.05).agreement
    assert found.teachers == ("teacher-0", "teacher-1")
    for top in (4, 10):
        pairs = [(best(query, 0, top), best(query, 1, top)) for query in range(len(candidates.rows))]
        expected = np.mean([len(one & other) / len(one | other) for one, other in pairs])
        assert found.jaccard[f"top {top}"] == pytest.approx(expected)


def test_the_figures_of_a_selection_without_negatives_are_empty():
    candidates = toy_candidates(2)
    settings = SelectionSettings(method="abs", threshold=-5)
    found = figures(select(candidates, settings), candidates, settings, temperature=0.05)
    assert (found.median_rank, found.ranks, found.by_ratio, found.by_cosine) == (None, {}, [], [])
    assert found.judged[0].rows == found.judged[0].above == 0
    assert found.judged[0].loss.median is None
    assert not any(math.isnan(edge) for edge in found.judged[0].loss.edges)
    assert asdict(found)["sizes"] == [len(candidates.rows), 0, 0, 0, 0]


@pytest.mark.parametrize("spread", [1e-6, 0.3, 40.0, 5e4])
def test_edges_are_round_and_hold_all_but_a_thousandth_at_each_end(spread: float):
    values = np.random.default_rng(0).normal(size=20_000) * spread + 3
    edges = round_edges(values)
    assert len(edges) - 1 <= histograms.BINS + 2
    assert np.mean((values < edges[0]) | (values > edges[-1])) <= 0.002
    assert sum(histogram(values, edges).counts) == len(values)


def test_a_value_that_must_be_seen_is_within_the_edges():
    edges = round_edges(np.array([0.5, 0.6]), through=(0.0, 1.6))
    assert edges[0] <= 0.0
    assert edges[-1] >= 1.6


def test_a_score_ratio_below_zero_still_grows_with_the_negative():
    ratios = score_ratios(np.float32([-0.9, -0.5, -0.1]), np.float32([-0.5, -0.5, -0.5]))
    assert (np.diff(ratios) > 0).all()
    assert ratios[1] == 1.0


def test_samples_show_every_outcome_that_occurs():
    candidates = toy_candidates(4, queries=60)
    selection = select(candidates, SelectionSettings(ratio=0.6, negatives=6))
    rows = sample_rows(selection, 6)
    assert rows == sorted(set(rows))
    assert set(selection.outcome[rows]) == set(selection.outcome)


def test_a_row_is_read_in_the_order_of_the_deciding_teacher():
    candidates = toy_candidates(6)
    settings = SelectionSettings(ensemble="fuse", negatives=2, ratio=1.0)
    selection = select(candidates, settings)
    for row in read_rows(selection, candidates, settings, [0, 3]):
        scores = row.scores[row.places]
        assert (np.diff(scores) <= 0).all()
        assert len(row.places) == int((candidates.rows[row.query] != NO_PASSAGE).sum())
        assert candidates.pair_query[row.pairs].tolist() == [row.query] * len(row.pairs)
        taken = [place for place in row.places if selection.fates[row.row, place] == Fate.TAKEN]
        assert all(row.scores[place] < row.ceiling for place in taken)


def test_some_queries_keep_their_pairs_and_lists(monkeypatch: pytest.MonkeyPatch):
    candidates = toy_candidates(7, queries=20)
    monkeypatch.setattr(samples, "SAMPLED", 5)
    listed = Listed(np.array([0, 1, 4]), np.array([10, 11, 12]), np.array([3]))
    near = np.random.default_rng(0).random((len(candidates.pair_query), candidates.rows.shape[1])) < 0.5
    few, own, few_near = some_queries(candidates, listed, near)
    assert (few_near == near[candidates.pair_query % 4 == 0]).all()
    assert (few.rows == candidates.rows[::4]).all()
    assert (own.queries.tolist(), own.passages.tolist(), own.everywhere.tolist()) == ([0, 1], [10, 12], [3])
    for new, old in enumerate(range(0, 20, 4)):
        mine = few.pair_passage[few.pair_query == new].tolist()
        assert mine == candidates.pair_passage[candidates.pair_query == old].tolist()

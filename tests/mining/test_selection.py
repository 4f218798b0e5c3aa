"""Selection against the rules applied one candidate at a time."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from embedsmith.errors import SettingsError
from embedsmith.mining.candidates import NO_PASSAGE, Candidates
from embedsmith.mining.ensembles import PCA, _accuracy
from embedsmith.mining.exclusions import Fate, Listed
from embedsmith.mining.filling import RANDOM
from embedsmith.mining.samplers import NONE
from embedsmith.mining.selection import OUTCOMES, Selection, select
from embedsmith.mining.settings import SelectionSettings
from tests.mining.toy import toy_candidates

RULES = [
    {"method": "naive"},
    {"method": "shifted", "shift": 2},
    {"method": "abs", "threshold": 0.25},
    {"method": "marginpos", "margin": 0.125},
    {"method": "marginpos", "margin": 0.0, "floor": -0.5},
    {"method": "percpos", "ratio": 0.75},
    {"method": "percpos", "ratio": 1.25, "neighbour": 0.25},
    {"method": "percpos+abs+shifted", "ratio": 1.5, "threshold": 0.5, "shift": 1},
    {"method": "percpos", "ratio": 1.0, "veto": True},
    {"method": "percpos", "ratio": 1.25, "veto_deviations": 0.5},
    {"method": "percpos", "ratio": 0.9, "veto": True, "veto_deviations": 0.25},
    {"method": "percpos", "ratio": 1.25, "neighbour_ratio": 0.8},
    {"method": "percpos", "ratio": 1.25, "neighbour": 0.25, "neighbour_ratio": 1.0},
    {"method": "percpos", "ratio": 1.0, "positive": "max"},
    {"method": "marginpos", "margin": 0.25, "positive": "mean"},
    {"method": "percpos", "ratio": 0.75, "positive": "each"},
]
NAMES = ["+".join(f"{key}={value}" for key, value in rule.items()) for rule in RULES]


class Slow:
    """The rules, one candidate at a time."""

    def __init__(self, candidates: Candidates, settings: SelectionSettings) -> None:
        self.candidates, self.settings = candidates, settings

    def rows(self) -> list[tuple[int, list[int]]]:
        """Return (query, pairs that count) of each row."""
        c = self.candidates
        if self.settings.positive == "each":
            return [(int(q), [pair]) for pair, q in enumerate(c.pair_query)]
        return [(q, np.flatnonzero(c.pair_query == q).tolist()) for q in range(len(c.rows))]

    def is_excluded(self, q: int, place: int) -> bool:
        """Return whether a candidate answers the query, is it, or is a copy of one before it."""
        c = self.candidates
        row = int(c.rows[q, place])
        if row == NO_PASSAGE:
            return True
        text = c.passage_text[row]
        same = [other for other in range(len(c.rows)) if c.query_text[other] == c.query_text[q]]
        answers = {
            c.passage_text[p] for s in same for p, owner in zip(c.pair_passage, c.pair_query, strict=True) if owner == s
        }
        before = [c.passage_text[r] for r in c.rows[q, :place]]
        return text in answers or text == c.query_text[q] or text in before

    def limit(self, pairs: list[int], scores: np.ndarray) -> float:
        own = [float(scores[pair]) for pair in pairs]
        rule = {"max": max, "mean": lambda s: sum(s) / len(s)}.get(self.settings.positive, min)
        positive = float(np.float32(rule(own)))
        limits = {
            "percpos": positive - (1 - self.settings.ratio) * abs(positive),
            "marginpos": positive - self.settings.margin,
            "abs": self.settings.threshold,
        }
        return min(limits.get(method, float("inf")) for method in self.settings.methods)

    def left(
        self, q: int, pairs: list[int], scores: np.ndarray, pair_scores: np.ndarray, ranked: np.ndarray
    ) -> list[int]:
        """Return the places that every rule leaves, best first."""
        c, s = self.candidates, self.settings
        order = sorted(range(c.rows.shape[1]), key=lambda k: (-np.nan_to_num(scores[q, k], nan=-9), k))
        skip = s.shift if "shifted" in s.methods else 0
        left = []
        for place in order:
            if self.is_excluded(q, place):
                continue
            first = c.neighbours[c.teachers[0]]
            limits = {
                pair: max(
                    -9 if s.neighbour is None else s.neighbour,
                    -9 if s.neighbour_ratio is None else s.neighbour_ratio * float(c.pair_scores[0, pair]),
                )
                for pair in pairs
            }
            asked = s.neighbour is not None or s.neighbour_ratio is not None
            if asked and any(float(first[pair, place]) >= limits[pair] for pair in pairs):
                continue
            if not ranked[q, place]:
                continue
            if skip:
                skip -= 1
                continue
            if float(scores[q, place]) >= self.limit(pairs, pair_scores):
                continue
            if s.floor is not None and float(scores[q, place]) < s.floor:
                continue
            vetoes = []
            for t in range(1 if s.veto_deviations is not None else 0, len(c.teachers) - 1):
                above = float(c.scores[t, q, place]) >= self.limit(pairs, c.pair_scores[t])
                far = (c.scores[t, q, place] - c.mean[t, q]) / c.deviation[t, q] >= (s.veto_deviations or 0)
                vetoes.append((above or not s.veto) and (far or s.veto_deviations is None))
            if (s.veto or s.veto_deviations is not None) and any(vetoes):
                continue
            left.append(place)
        return left


def own_candidates(candidates: Candidates, teacher: int) -> np.ndarray:
    """Return which candidates are among the best `depth` of a teacher."""
    table = np.nan_to_num(candidates.scores[teacher], nan=-9)
    rank = np.argsort(np.argsort(-table, axis=1, kind="stable"), axis=1, kind="stable")
    return rank < candidates.depth


def places(selection: Selection) -> list[list[int]]:
    return [[int(p) for p in row if p != NONE] for row in selection.places]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_the_best_that_every_rule_leaves_are_taken(rule: dict, seed: int) -> None:
    candidates = toy_candidates(seed)
    settings = SelectionSettings(negatives=3, **rule)
    slow = Slow(candidates, settings)
    ranked = own_candidates(candidates, 0)
    expected = [
        slow.left(q, pairs, candidates.scores[0], candidates.pair_scores[0], ranked)[:3] for q, pairs in slow.rows()
    ]
    selection = select(candidates, settings)
    assert places(selection) == expected
    assert [OUTCOMES[o] for o in selection.outcome] == [
        ("none", "short", "short", "full")[len(row)] for row in expected
    ]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rule", RULES[:8], ids=NAMES[:8])
def test_intra_takes_the_best_of_each_teacher_in_turn(rule: dict, seed: int) -> None:
    candidates = toy_candidates(seed)
    for ensemble in ("intra", "intra-dedup"):
        settings = SelectionSettings(negatives=3, ensemble=ensemble, **rule)
        slow = Slow(candidates, settings)
        order = sorted([0, 1], key=lambda t: -_accuracy(candidates, t))
        expected = []
        for q, pairs in slow.rows():
            lists = [
                slow.left(q, pairs, candidates.scores[t], candidates.pair_scores[t], own_candidates(candidates, t))
                for t in order
            ]
            taken: list[int] = []
            for turn in range(3):
                of_teacher = lists[turn % 2]
                if ensemble == "intra":
                    taken += of_teacher[turn // 2 : turn // 2 + 1]
                else:
                    # The sampler hands over three; more than three are never needed.
                    taken += [place for place in of_teacher[:3] if place not in taken][:1]
            expected.append(taken)
        assert places(select(candidates, settings)) == expected


def test_a_fused_score_is_the_mean_of_the_standardised_ones() -> None:
    candidates = toy_candidates(1)
    settings = SelectionSettings(ensemble="fuse", weights=[1, 3], negatives=2, method="naive")
    selection = select(candidates, settings)
    z = (candidates.scores[:2] - candidates.mean[:2, :, None]) / candidates.deviation[:2, :, None]
    fused = (z[0] + 3 * z[1]) / 4
    for row, column in zip(*np.nonzero(selection.places != NONE), strict=True):
        assert selection.scores[row, column] == pytest.approx(fused[row, selection.places[row, column]], abs=1e-5)
    taken = np.nanmin(selection.scores, axis=1)
    free = np.where((selection.fates == Fate.LEFT), fused, -np.inf)
    assert (free.max(axis=1) <= taken + 1e-6).all()


def test_rank_fusion_gives_one_to_what_is_first_everywhere() -> None:
    candidates = toy_candidates(2, teachers=2)  # one teacher beside pca
    selection = select(candidates, SelectionSettings(ensemble="rrf", method="naive", negatives=1))
    first = selection.places[:, 0] == 0
    assert first.any()
    assert selection.scores[first, 0] == pytest.approx(1.0)


def test_a_word_for_word_rank_fusion_agrees() -> None:
    candidates = toy_candidates(3)
    selection = select(candidates, SelectionSettings(ensemble="rrf", method="naive", negatives=4))
    for row, column in zip(*np.nonzero(selection.places != NONE), strict=True):
        place, expected = selection.places[row, column], 0.0
        for t in range(2):
            scores = np.nan_to_num(candidates.scores[t, row], nan=-9)
            rank = 1 + sum(s > scores[place] for s in scores) + sum(scores[:place] == scores[place])
            expected += 61 / (60 + rank) / 2 if rank <= candidates.depth else 0
        assert selection.scores[row, column] == pytest.approx(expected, abs=1e-6)


def test_cross_gives_each_query_one_teacher_and_all_of_them_a_turn() -> None:
    candidates = toy_candidates(4, queries=60)
    for positive in ("min", "each"):
        selection = select(candidates, SelectionSettings(ensemble="cross", method="naive", positive=positive))
        assert (selection.teacher == selection.teacher[:, :1]).all()
        assert set(selection.teacher[:, 0].tolist()) == {0, 1}
        for query in range(60):
            assert len(set(selection.teacher[selection.row_query == query, 0].tolist())) == 1
        for row, column in zip(*np.nonzero(selection.places != NONE), strict=True):
            teacher, place = selection.teacher[row, column], selection.places[row, column]
            assert selection.scores[row, column] == candidates.scores[teacher, selection.row_query[row], place]


def test_two_distances_keep_what_lies_between_query_and_positive() -> None:
    candidates = toy_candidates(5)
    settings = SelectionSettings(ensemble="pca", method="twodistances", negatives=3)
    selection = select(candidates, settings)
    assert (selection.places != NONE).any()
    for row, column in zip(*np.nonzero(selection.places != NONE), strict=True):
        place, pairs = selection.places[row, column], np.flatnonzero(candidates.pair_query == row)
        score = candidates.scores[-1, row, place]
        assert score > candidates.pair_scores[-1, pairs].min()
        assert score > candidates.neighbours[PCA][pairs, place].max()
    with pytest.raises(SettingsError, match="twodistances compares distances"):
        select(candidates, SelectionSettings(method="twodistances"))


@pytest.mark.parametrize("sampler", ["uniform", "softmax", "top1", "window"])
def test_a_sampler_takes_only_what_it_may(sampler: str) -> None:
    candidates = toy_candidates(6, queries=40, passages=60, depth=40, texts=60)
    settings = SelectionSettings(
        method="percpos", ratio=1.5, sampler=sampler, sample_from=5, window_first=3, window_last=9, negatives=3
    )
    slow = Slow(candidates, settings)
    selection = select(candidates, settings)
    ranked = own_candidates(candidates, 0)
    for (q, pairs), taken in zip(slow.rows(), places(selection), strict=True):
        left = slow.left(q, pairs, candidates.scores[0], candidates.pair_scores[0], ranked)
        if sampler == "window":
            passed = [k for k in range(candidates.rows.shape[1]) if not slow.is_excluded(q, k) and ranked[q, k]]
            pool = [place for place in left if 3 <= passed.index(place) + 1 <= 9]
        else:
            pool = left[:5]
        assert set(taken) <= set(pool)
        assert len(taken) == len(set(taken)) == min(3, len(pool))
        if sampler == "top1" and left:
            assert taken[0] == left[0]
        scores = [float(candidates.scores[0, q, place]) for place in taken]
        assert scores == sorted(scores, reverse=True)


def test_the_same_seed_draws_the_same_and_another_seed_does_not() -> None:
    candidates = toy_candidates(7, queries=40)
    one, again, other = (
        places(select(candidates, SelectionSettings(method="naive", sampler="softmax", mining_seed=seed)))
        for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other


def test_softmax_prefers_high_scores_as_its_temperature_falls() -> None:
    candidates = toy_candidates(8, queries=200, passages=60, depth=40, texts=60)
    means = [
        np.nanmean(
            select(
                candidates,
                SelectionSettings(
                    method="naive", sampler="softmax", sample_from=20, sampler_temperature=temperature, negatives=2
                ),
            ).scores
        )
        for temperature in (0.02, 0.2, 50.0)
    ]
    assert means[0] > means[1] > means[2]


def test_short_queries_are_kept_dropped_or_filled_up_and_say_so() -> None:
    candidates = toy_candidates(9)
    settings = {"method": "percpos", "ratio": 0.75, "negatives": 3}
    kept = select(candidates, SelectionSettings(**settings))
    assert {OUTCOMES[o] for o in kept.outcome} >= {"full", "short"}
    dropped = select(candidates, SelectionSettings(short="drop", **settings))
    assert ((dropped.outcome == OUTCOMES.index("dropped")) == (kept.outcome != 0)).all()
    filled = select(candidates, SelectionSettings(short="random", **settings))
    assert (filled.places == kept.places).all()
    slow = Slow(candidates, SelectionSettings(**settings))
    for row, (query, _) in enumerate(slow.rows()):
        drawn = filled.rows[row][filled.teacher[row] == len(filled.teachers)]
        seen = candidates.rows[query]
        texts = candidates.passage_text[drawn].tolist()
        assert not set(texts) & {candidates.passage_text[r] for r in seen if r != NO_PASSAGE}
        same = np.flatnonzero(candidates.query_text == candidates.query_text[query])
        answers = candidates.passage_text[candidates.pair_passage[np.isin(candidates.pair_query, same)]]
        assert not set(texts) & {*answers.tolist(), int(candidates.query_text[query])}
        assert len(set(texts)) == len(texts)
        full = (filled.rows[row] != NO_PASSAGE).all()
        assert OUTCOMES[filled.outcome[row]] == (
            "full" if kept.outcome[row] == 0 else "filled" if full else OUTCOMES[kept.outcome[row]]
        )
    assert any((filled.teacher == len(filled.teachers)).any(axis=1))
    assert RANDOM not in filled.teachers


def test_what_the_caller_lists_is_never_taken() -> None:
    candidates = toy_candidates(10)
    settings = SelectionSettings(method="naive", negatives=2)
    before = select(candidates, settings)
    listed = Listed(np.arange(12), before.rows[:, 0], before.rows[:1, 1])
    texts = candidates.passage_text
    for short in ("keep", "random"):
        after = select(candidates, settings.model_copy(update={"short": short}), listed=listed)
        # By text: a copy under another id is what the caller meant too.
        own = np.where(after.rows == NO_PASSAGE, NO_PASSAGE, texts[after.rows])
        assert (own >= 0).sum() > 12
        assert not (own == texts[before.rows[:, :1]]).any()
        assert not (own == texts[before.rows[0, 1]]).any()
        assert after.counts["excluded_by_list"] >= 12


def test_every_candidate_has_one_fate_and_the_counts_add_up() -> None:
    candidates = toy_candidates(11)
    settings = SelectionSettings(method="percpos+shifted", shift=1, ratio=1.2, floor=-0.5, neighbour=0.75, veto=True)
    selection = select(candidates, settings)
    counts = selection.counts
    dropped = sum(value for key, value in counts.items() if key.startswith(("excluded", "dropped_by")))
    other = np.isin(selection.fates, [Fate.LEFT, Fate.TAKEN, Fate.UNRANKED]).sum()
    assert counts["candidates"] == dropped + other == (candidates.rows != NO_PASSAGE).sum()
    assert counts["negatives"] == (selection.fates == Fate.TAKEN).sum()
    assert counts["queries"] == sum(counts[outcome] for outcome in OUTCOMES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ensemble": "fuse", "weights": [1.0]}, "weights: 1 for 2 teachers"),
        ({"neighbour": 0.5}, "neighbour: none of the teachers has vectors"),
        ({"ensemble": "pca"}, "the candidates were mined without it"),
        ({"veto_deviations": 2.0}, "veto_deviations: asks another teacher than the first"),
    ],
)
def test_settings_that_the_candidates_cannot_serve_are_refused(change: dict, message: str) -> None:
    candidates = toy_candidates(12)
    without = Candidates(**{**vars(candidates), "neighbours": {}, "teachers": ["teacher-0", "teacher-1", "teacher-2"]})
    alone = Candidates(**{**vars(candidates), "teachers": ["teacher-0", PCA]})
    fitting = candidates if "weights" in change else alone if "veto_deviations" in change else without
    with pytest.raises(SettingsError, match=re.escape(message)):
        select(fitting, SelectionSettings(**change))


@pytest.mark.slow
def test_every_combination_obeys_the_rules_that_always_hold() -> None:
    candidates = toy_candidates(13, queries=8, passages=24, depth=10)
    slow = Slow(candidates, SelectionSettings())
    excluded = np.array([[slow.is_excluded(q, place) for place in range(candidates.rows.shape[1])] for q in range(8)])
    methods = ["naive", "shifted", "abs", "marginpos", "percpos", "percpos+abs"]
    samplers = ["top", "uniform", "softmax", "top1", "window"]
    ensembles = ["first", "cross", "intra", "intra-dedup", "rrf", "fuse", "pca"]
    for method, sampler, ensemble, short, positive in itertools.product(
        methods, samplers, ensembles, ["keep", "drop", "random"], ["min", "each"]
    ):
        settings = SelectionSettings(
            method=method, sampler=sampler, ensemble=ensemble, short=short, positive=positive,
            negatives=3, shift=2, window_first=2, window_last=8,
        )  # fmt: skip
        selection = select(candidates, settings)
        taken = selection.places != NONE
        row, _ = np.nonzero(taken)
        assert not excluded[selection.row_query[row], selection.places[taken]].any(), settings
        if ensemble != "intra":
            ordered = np.sort(selection.places, axis=1)
            assert not ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NONE)).any(), settings
        assert ((selection.outcome == 0) == taken.all(axis=1)).all(), settings

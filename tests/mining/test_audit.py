"""The audit against positives hidden by hand."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from embedsmith.errors import InputError, SettingsError
from embedsmith.mining.audit import Audit, audit, calibrate, kept_pairs, side_by_side
from embedsmith.mining.candidates import NO_PASSAGE, Candidates
from embedsmith.mining.exclusions import Listed
from embedsmith.mining.samplers import NONE
from embedsmith.mining.selection import select
from embedsmith.mining.settings import SelectionSettings
from tests.mining.toy import toy_candidates

NAIVE = SelectionSettings(method="naive", negatives=4)


def texts_of(candidates: Candidates, query: int) -> list[int]:
    return [int(candidates.passage_text[p]) for p in candidates.pair_passage[candidates.pair_query == query]]


def by_hand(candidates: Candidates, settings: SelectionSettings, seed: int, listed: Listed) -> tuple[float, float, int]:
    """Return rate, hardness and negatives of one draw: a query at a time, alone with its one positive."""
    hidden_mined, scores = [], []
    for pair in kept_pairs(candidates, seed=seed):
        query = int(candidates.pair_query[pair])
        alone = candidates.of_pairs(np.array([pair]))
        others = {*texts_of(candidates, query)} - {int(candidates.passage_text[candidates.pair_passage[pair]])}
        is_hidden = np.isin(candidates.passage_text, list(others))
        own = listed.passages[(listed.queries == query) & ~is_hidden[listed.passages]]
        few = Listed(np.zeros_like(own), own, listed.everywhere[~is_hidden[listed.everywhere]])
        selection = select(alone, settings, listed=few)
        for row, place in zip(selection.rows[0], selection.places[0], strict=True):
            if row != NO_PASSAGE:
                hidden_mined.append(int(candidates.passage_text[row]) in others)
            if place != NONE:
                scores.append(float(candidates.scores[0, query, place]))
    return float(np.mean(hidden_mined)), float(np.mean(scores)), len(hidden_mined)


@pytest.mark.parametrize("seed", range(3))
def test_the_audit_is_what_hiding_by_hand_gives(seed: int):
    # Queries of the same text would exclude each other's answers: here each has words of its own.
    candidates = replace(toy_candidates(seed, queries=40), query_text=np.arange(1000, 1040))
    ways = {
        "naive": NAIVE,
        "percpos": SelectionSettings(method="percpos", ratio=1.2, negatives=4),
        "filled": SelectionSettings(method="percpos", ratio=1.2, negatives=4, short="random"),
        "fused": SelectionSettings(method="naive", ensemble="fuse", negatives=4),
    }
    listed = Listed(np.array([0, 1, 2, 3]), candidates.rows[[0, 1, 2, 3], 0], candidates.rows[5, :1])
    found = audit(candidates, ways, listed=listed, seed=7, draws=2)
    for name, settings in ways.items():
        if name == "filled":  # random passages depend on the number of the row, which is another by hand
            continue
        draws = [by_hand(candidates, settings, draw, listed) for draw in (7, 8)]
        assert found[name].false_negative_rate == pytest.approx(np.mean([rate for rate, *_ in draws]), abs=1e-4)
        assert found[name].spread == pytest.approx(np.std([rate for rate, *_ in draws]), abs=1e-4)
        assert found[name].hardness == pytest.approx(np.mean([hardness for _, hardness, _ in draws]), abs=1e-4)
        assert found[name].negatives == pytest.approx(np.mean([count for *_, count in draws]))
        assert found[name].queries == len(kept_pairs(candidates, seed=0))
    assert found["filled"].negatives > found["percpos"].negatives
    assert found["naive"].false_negative_rate > found["percpos"].false_negative_rate > 0


def test_one_pair_is_kept_of_each_query_with_positives_of_different_texts():
    candidates = replace(toy_candidates(1, queries=60), query_text=np.arange(1000, 1060))
    kept = kept_pairs(candidates, seed=3)
    several = [query for query in range(60) if len(set(texts_of(candidates, query))) > 1]
    assert candidates.pair_query[kept].tolist() == several
    assert kept.tolist() == kept_pairs(candidates, seed=3).tolist() != kept_pairs(candidates, seed=4).tolist()
    drawn = np.concatenate([kept_pairs(candidates, seed=seed) for seed in range(40)])
    assert set(drawn.tolist()) == set(np.flatnonzero(np.isin(candidates.pair_query, several)).tolist())


def test_data_with_one_positive_a_query_cannot_be_audited():
    candidates = replace(toy_candidates(2), query_text=np.arange(1000, 1012))
    single = candidates.of_pairs(np.flatnonzero(np.diff(candidates.pair_query, prepend=-1)))
    with pytest.raises(InputError, match="no query has two positives of different texts"):
        audit(single, {"naive": NAIVE})


def test_every_method_stands_beside_the_settings_of_the_run():
    own = SelectionSettings(method="percpos", ratio=0.5, negatives=2, ensemble="fuse", short="drop")
    ways = side_by_side(own)
    assert list(ways) == ["naive", "shifted", "abs", "marginpos", "percpos", "this run"]
    assert ways["this run"] == own
    assert all((way.ensemble, way.negatives) == ("first", 2) for name, way in ways.items() if name != "this run")


@pytest.mark.parametrize(("method", "field", "target"), [("percpos+shifted", "ratio", 0.1), ("abs", "threshold", 0.14)])
def test_calibration_reaches_its_target_and_one_step_more_does_not(method: str, field: str, target: float):
    candidates = replace(toy_candidates(3, queries=40), query_text=np.arange(1000, 1040))
    settings = SelectionSettings(method=method, shift=0, negatives=4)
    chosen, measured = calibrate(candidates, settings, target, seed=5)
    assert measured == audit(candidates, {"": chosen}, seed=5)[""]
    assert measured.false_negative_rate <= target
    higher = chosen.model_copy(update={field: round(getattr(chosen, field) + 0.01, 3)})
    assert audit(candidates, {"": higher}, seed=5)[""].false_negative_rate > target
    assert chosen.model_copy(update={field: getattr(settings, field)}) == settings


def test_a_margin_is_calibrated_downwards():
    candidates = replace(toy_candidates(3, queries=40), query_text=np.arange(1000, 1040))
    settings = SelectionSettings(method="marginpos", negatives=4)
    strict, loose = (calibrate(candidates, settings, target)[0].margin for target in (0.135, 0.3))
    assert strict > loose


def test_what_has_no_ceiling_or_cannot_reach_the_target_is_not_calibrated():
    candidates = replace(toy_candidates(3, queries=40), query_text=np.arange(1000, 1040))
    with pytest.raises(SettingsError, match="method shifted has no ceiling to move"):
        calibrate(candidates, SelectionSettings(method="shifted"), 0.5)
    # With nothing mined there is no false negative either: that does not count as reaching it.
    with pytest.raises(
        SettingsError, match=r"0\.0 is not reached by marginpos: the lowest rate is 0\.\d+, at margin 0\.\d+"
    ):
        calibrate(candidates, SelectionSettings(method="marginpos"), 0.0)
    nothing = SelectionSettings(method="percpos", floor=9.0)
    with pytest.raises(SettingsError, match=r"0\.5 is not reached by percpos: no value mines anything"):
        calibrate(candidates, nothing, 0.5)


def test_the_highest_ceiling_is_found_where_the_rate_rises_and_falls(monkeypatch: pytest.MonkeyPatch):
    rates = {1.1: 0.3, 1.0: 0.3, 0.9: 0.1, 0.8: 0.2, 0.7: 0.05, 0.6: 0.15}
    module = sys.modules["embedsmith.mining.audit"]

    def known(candidates, ways, **_):
        ratio = ways[""].ratio
        return {"": Audit(rates.get(ratio, 0.25), 0.0, 0.5, 1.0, 10.0, 10)}

    monkeypatch.setattr(module, "audit", known)
    candidates = toy_candidates(3)
    heard = []
    chosen, measured = calibrate(
        candidates, SelectionSettings(), 0.1, on_progress=lambda what, done, total, note="": heard.append((done, total))
    )
    assert (chosen.ratio, measured.false_negative_rate) == (0.9, 0.1)
    assert heard[0] == (1, 106)
    assert heard[-1] == (106, 106)
    assert calibrate(candidates, SelectionSettings(), 0.09)[0].ratio == 0.7
    with pytest.raises(
        SettingsError, match=r"0\.01 is not reached by percpos: the lowest rate is 0\.05, at ratio 0\.7"
    ):
        calibrate(candidates, SelectionSettings(), 0.01)


def test_what_is_hidden_is_hidden_from_the_callers_lists_too():
    candidates = replace(toy_candidates(4, queries=40), query_text=np.arange(1000, 1040))
    free = audit(candidates, {"": NAIVE}, seed=1)[""]
    assert free.false_negative_rate > 0
    none = np.zeros(0, np.int64)
    # Every judgement listed once more, as in a file of all splits' judgements, or by a copy under another id.
    copies = np.array([np.flatnonzero(candidates.passage_text == t)[-1] for t in candidates.passage_text])
    for passages in (candidates.pair_passage, copies[candidates.pair_passage]):
        listed = Listed(candidates.pair_query, passages, none)
        assert audit(candidates, {"": NAIVE}, seed=1, listed=listed)[""] == free
    # As nobody's negatives they are hidden from their own query, and excluded from the others.
    everyone = Listed(none, none, candidates.pair_passage)
    found = audit(candidates, {"": NAIVE}, seed=1, draws=1, listed=everyone)[""]
    rate, _, count = by_hand(candidates, NAIVE, 1, everyone)
    assert (found.false_negative_rate, found.negatives) == (pytest.approx(rate, abs=1e-4), count)
    assert rate > free.false_negative_rate
    # What answers nothing stays out.
    answers = set(candidates.passage_text[candidates.pair_passage].tolist())
    other = np.array([row for row, text in enumerate(candidates.passage_text) if int(text) not in answers])
    query, passage = (axis.ravel() for axis in np.meshgrid(np.arange(40), other))
    assert len(other) > 0
    by_pairs = audit(candidates, {"": NAIVE}, seed=1, listed=Listed(query, passage, none))[""]
    everywhere = audit(candidates, {"": NAIVE}, seed=1, listed=Listed(none, none, other))[""]
    assert by_pairs == everywhere != free


def test_queries_of_the_same_text_are_audited_as_one_with_the_positives_of_all():
    candidates = toy_candidates(5, queries=8)
    same = replace(candidates, query_text=np.array([1000, 1001, 1002, 1003, 1000, 1001, 1002, 1003]))
    kept = kept_pairs(same, seed=2)
    asked = same.query_text[same.pair_query[kept]]
    assert sorted(asked.tolist()) == sorted(set(asked.tolist()))
    drawn = {pair for seed in range(60) for pair in kept_pairs(same, seed=seed).tolist()}
    assert drawn == set(range(len(same.pair_query)))
    rates = []
    for pair in kept:
        query, text = same.pair_query[pair], same.passage_text
        twins = np.flatnonzero(same.query_text == same.query_text[query])
        others = {t for twin in twins for t in texts_of(same, twin)} - {int(text[same.pair_passage[pair]])}
        rows = select(same.of_pairs(np.array([pair])), NAIVE).rows[0]
        rates += [int(text[row]) in others for row in rows if row != NO_PASSAGE]
    assert audit(same, {"": NAIVE}, seed=2, draws=1)[""].false_negative_rate == pytest.approx(np.mean(rates), abs=1e-4)
    assert any(rates)


def test_where_nothing_is_mined_there_is_no_hardness():
    found = audit(toy_candidates(6), {"": NAIVE.model_copy(update={"floor": 9.0})})[""]
    assert (found.hardness, found.false_negative_rate, found.full_rows, found.negatives) == (None, 0.0, 0.0, 0.0)


def test_audits_print_as_a_table_and_stay_a_dict():
    found = audit(toy_candidates(0), {"naive": NAIVE, "<none>": NAIVE.model_copy(update={"floor": 9.0})})
    assert str(found) == repr(found)
    title, columns, naive, none = str(found).splitlines()
    assert title == f"Hold-out audit, {found['naive'].queries} queries with several positives"
    assert columns.split("  ")[-1] == "full rows"
    row = found["naive"]
    assert naive.split() == [
        "naive",
        *f"{row.false_negative_rate:.3f} ± {row.spread:.3f} {row.hardness:.3f} {row.full_rows:.2f}".split(),
    ]
    assert "–" in none
    assert "<th>&lt;none&gt;</th>" in found._repr_html_()
    assert found == dict(found)

"""Each ensemble's opinion, computed a number at a time."""

import numpy as np
import pytest

from embedsmith.errors import SettingsError
from embedsmith.mining.candidates import NO_PASSAGE, Candidates
from embedsmith.mining.ensembles import PCA, View, views
from embedsmith.mining.settings import EnsembleSettings
from tests.mining.toy import toy_candidates

NAN = float("nan")


def of(candidates: Candidates, **settings) -> list[View]:
    return views(candidates, EnsembleSettings(**settings))


def two_teachers(*, proposes: tuple[bool, bool] = (True, True)) -> Candidates:
    """One query with three candidates and two positives, a second query with one candidate and one positive."""
    return Candidates(
        teachers=["a", "b"],
        depth=2,
        proposes=list(proposes),
        rows=np.array([[4, 2, 9], [3, NO_PASSAGE, NO_PASSAGE]]),
        scores=np.array([[[0.9, 0.5, 0.1], [0.4, NAN, NAN]], [[10, 30, 20], [5, NAN, NAN]]], np.float32),
        mean=np.array([[0.1, 0.0], [5, 5]], np.float32),
        deviation=np.array([[0.2, 0.1], [5, 0]], np.float32),
        pair_query=np.array([0, 0, 1]),
        pair_passage=np.array([1, 4, 3]),
        pair_scores=np.array([[0.6, 0.9, 0.4], [25, 10, 5]], np.float32),
        passage_text=np.arange(10),
        query_text=np.array([100, 101]),
    )


def test_first_is_the_first_teacher_and_pca_the_joined_one_and_neither_the_other():
    candidates = toy_candidates(0)
    for ensemble, number, name in (("first", 0, "teacher-0"), ("pca", 2, PCA)):
        (view,) = of(candidates, ensemble=ensemble)
        assert view.teacher == name
        np.testing.assert_array_equal(view.scores, candidates.scores[number])
        np.testing.assert_array_equal(view.pair_scores, candidates.pair_scores[number])
    for ensemble in ("cross", "intra", "intra-dedup"):
        assert {view.teacher for view in of(candidates, ensemble=ensemble)} == {"teacher-0", "teacher-1"}
    with pytest.raises(SettingsError, match="ensemble: pca, but the candidates were mined without it"):
        of(two_teachers(), ensemble="pca")


def test_a_teacher_has_an_opinion_of_what_it_proposed_and_a_rescorer_of_everything():
    both = of(two_teachers(), ensemble="cross")
    np.testing.assert_array_equal(both[0].ranked, [[True, True, False], [True, True, False]])
    np.testing.assert_array_equal(both[1].ranked, [[False, True, True], [True, True, False]])
    rescored = of(two_teachers(proposes=(True, False)), ensemble="cross")
    assert rescored[1].ranked is None


def test_the_order_of_a_view_is_by_its_scores_with_ties_as_they_stand():
    view = View("x", np.array([[0.5, 0.9, 0.5, NAN]], np.float32), np.zeros(1, np.float32))
    assert view.order.tolist() == [[1, 0, 2, 3]]
    first = of(two_teachers(), ensemble="first")[0]
    assert first.is_sorted
    assert first.order.tolist() == [[0, 1, 2]] * 2


def test_fused_scores_are_standardised_over_the_corpus_and_weighted():
    (view,) = of(two_teachers(), ensemble="fuse")
    np.testing.assert_allclose(view.scores[0], [(4 + 1) / 2, (2 + 5) / 2, (0 + 3) / 2], atol=1e-5)
    np.testing.assert_allclose(view.pair_scores[:2], [(2.5 + 4) / 2, (4 + 1) / 2], atol=1e-5)
    # The second query's words are unknown to b: all its scores are alike, and say nothing.
    np.testing.assert_allclose([view.scores[1, 0], view.pair_scores[2]], [4 / 2, 4 / 2], atol=1e-5)
    assert np.isnan(view.scores[1, 1:]).all()
    (weighted,) = of(two_teachers(), ensemble="fuse", weights=[3, 1])
    np.testing.assert_allclose(weighted.scores[0], [(12 + 1) / 4, (6 + 5) / 4, (0 + 3) / 4], atol=1e-5)
    with pytest.raises(SettingsError, match=r"weights: 3 for 2 teachers \(a, b\)"):
        of(two_teachers(), ensemble="fuse", weights=[1, 1, 1])


def test_rank_fusion_adds_reciprocal_ranks_of_what_each_teacher_proposed():
    (view,) = of(two_teachers(), ensemble="rrf")
    whole = 2 / 61
    # By a the ranks are 1, 2, 3, by b 3, 1, 2; the third of each was not proposed by it.
    expected = [1 / 61 / whole, (1 / 62 + 1 / 61) / whole, 1 / 62 / whole]
    np.testing.assert_allclose(view.scores[0], expected, atol=1e-6)
    # A positive's rank is one more than the candidates above it: by a 2 and 1, by b 2 and 3.
    np.testing.assert_allclose(view.pair_scores[:2], [2 / 62 / whole, 1 / 61 / whole], atol=1e-6)
    assert view.scores[1, 0] == pytest.approx(1)
    assert np.isnan(view.scores[1, 1:]).all()
    (all_ranked,) = of(two_teachers(proposes=(True, False)), ensemble="rrf")
    np.testing.assert_allclose(all_ranked.scores[0, 0], (1 / 61 + 1 / 63) / whole, atol=1e-6)


def test_intra_orders_the_teachers_by_their_accuracy_and_cross_does_not():
    candidates = two_teachers()
    # Reciprocal ranks of the positives: 1/2, 1, 1 by a; 1/2, 1/3, 1 by b.
    assert [view.teacher for view in of(candidates, ensemble="intra")] == ["a", "b"]
    better = np.array([[0.05, 0.05, 0.4], [40, 40, 5]], np.float32)
    turned = Candidates(**{**vars(candidates), "pair_scores": better})
    assert [view.teacher for view in of(turned, ensemble="intra-dedup")] == ["b", "a"]
    assert [view.teacher for view in of(turned, ensemble="cross")] == ["a", "b"]

"""The blend: weights, shares and caps decide what a stage draws, and the table says what it will."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from embedsmith.data.examples import Example, Passage
from embedsmith.errors import SettingsError
from embedsmith.training.batches import Source
from embedsmith.training.blend import capped_examples, draw_shares
from embedsmith.training.held_out import held_out_batches
from embedsmith.training.plan import plan_of, portions
from embedsmith.training.settings import StageSettings


def examples(name: str, count: int, negatives: int = 2) -> list[Example]:
    return [
        Example(
            f"{name}{i}",
            f"{name} {i}",
            [Passage(f"{name}+{i}", f"{name} answer {i}")],
            [Passage(f"{name}-{i}-{j}", f"{name} other {i} {j}") for j in range(negatives)],
        )
        for i in range(count)
    ]


def test_shares_are_what_they_are_and_the_rest_goes_by_number_and_weight():
    shares = draw_shares([1000, 10, 200, 100], [1.0, 1.0, 1.0, 4.0], [None, 0.25, None, None])
    assert shares[1] == 0.25
    assert shares.sum() == pytest.approx(1.0)
    assert shares[0] / shares[2] == pytest.approx(5.0)
    assert shares[3] / shares[2] == pytest.approx(2.0)


def test_shares_of_all_are_scaled_to_one():
    assert draw_shares([5, 5], [1.0, 1.0], [0.2, 0.6]).tolist() == pytest.approx([0.25, 0.75])
    assert draw_shares([5], [1.0], [0.2]).tolist() == [1.0]


def test_shares_that_leave_nothing_for_the_others_are_refused():
    with pytest.raises(SettingsError, match=r"add up to 1\.1, and 1 have none"):
        draw_shares([5, 5, 5], [1.0, 1.0, 1.0], [0.5, 0.6, None])


def test_a_small_data_set_with_a_share_is_drawn_as_often_as_it_says():
    sources = [Source("big", examples("big", 400)), Source("small", examples("small", 10), share=0.3)]
    stage = StageSettings(steps=100, batch_size=10)
    plan = plan_of(sources, stage, 0)
    drawn = Counter(query.split()[0] for step in range(len(plan)) for query in plan[step].queries)
    assert drawn["small"] == pytest.approx(300, abs=60)
    small = Counter(query for step in range(100) for query in plan[step].queries if query.startswith("small"))
    # Every one is seen once before any is seen again.
    assert max(small.values()) - min(small.values()) <= 1


def test_the_table_says_what_the_batches_hold():
    sources = [
        Source("big", examples("big", 90)),
        Source("small", examples("small", 10, negatives=4), share=0.5),
        Source("heavy", examples("heavy", 30), weight=2.0),
    ]
    for batches in ("blended", "homogeneous"):
        stage = StageSettings(name="two", steps=7, batch_size=6, accumulation=2, batches=batches)
        plan = plan_of(sources, stage, 3)
        seen = Counter(query.split()[0] for step in range(len(plan)) for query in plan[step].queries)
        table = portions(sources, stage, 3)
        assert {row.data: row.queries for row in table} == {name: seen[name] for name in ("big", "small", "heavy")}
        assert sum(row.queries for row in table) == 7 * 2 * 6
        assert sum(row.share for row in table) == pytest.approx(1.0)
        assert [row.passes for row in table] == pytest.approx([seen[s.name] / len(s.examples) for s in sources])
        assert [(row.stage, row.examples, row.negatives) for row in table] == [
            ("two", 90, 2.0),
            ("two", 10, 4.0),
            ("two", 30, 2.0),
        ]


def test_what_is_held_out_is_not_counted_as_trained_on():
    sources = [Source("big", examples("big", 90)), Source("small", examples("small", 30))]
    stage = StageSettings(batch_size=10, held_out=20)
    held = Counter(query.split()[0] for batch in held_out_batches(sources, stage, 3) for query in batch.queries)
    plan = plan_of(sources, stage, 3)
    seen = Counter(query.split()[0] for step in range(len(plan)) for query in plan[step].queries)
    table = portions(sources, stage, 3)
    assert len(plan) == 10
    assert {row.data: row.examples for row in table} == {"big": 90 - held["big"], "small": 30 - held["small"]}
    assert {row.data: row.queries for row in table} == seen
    assert [row.passes for row in table] == pytest.approx([row.queries / row.examples for row in table])


def test_a_cap_is_a_choice_in_order_that_depends_on_the_seed():
    whole = examples("x", 50)
    few = capped_examples(whole, 8, seed=0)
    assert len(few) == 8
    rows = [whole.index(example) for example in few]
    assert rows == sorted(set(rows))
    assert few == capped_examples(whole, 8, seed=0) != capped_examples(whole, 8, seed=1)
    assert capped_examples(whole, 50, seed=0) is capped_examples(whole, None, seed=0) is whole
    counts = Counter(e.query_id for seed in range(600) for e in capped_examples(whole[:5], 2, seed=seed))
    assert np.allclose([counts[e.query_id] for e in whole[:5]], 240, atol=45)


@pytest.mark.parametrize(("epochs", "least", "steps"), [(2.0, 5, 20), (2.0, 100, 100), (0.5, None, 5), (None, 12, 12)])
def test_steps_follow_from_the_epochs_and_are_no_fewer_than_the_least(epochs, least, steps):
    stage = StageSettings(epochs=epochs, least_steps=least, batch_size=10)
    assert len(plan_of([Source("all", examples("all", 100))], stage, 0)) == steps


def test_steps_and_the_least_of_them_are_refused_together():
    with pytest.raises(SettingsError, match="steps is 5 and least_steps 2: give one of them"):
        StageSettings.parse({"steps": 5, "least_steps": 2}, where="stage")

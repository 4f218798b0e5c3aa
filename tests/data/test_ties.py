"""Ties: drawn for each query from the texts, not from rows or ids, and the same everywhere."""

import random
import subprocess
import sys

import numpy as np
import pytest

from embedsmith.data.ties import NO_PASSAGE, Ties

TEXTS = ["a cat", "a dog", "an owl", "", "a cat", "\ud800", "a cat"]
IDS = ["d0", "d1", "d2", "d3", "d4", "d5", "d6"]


def slow_order(ties: Ties, query: str, rows: list[int], scores: list[float]) -> list[int]:
    """Places by score, then draw, then row; gaps last."""
    there = [place for place, row in enumerate(rows) if row != NO_PASSAGE]
    drawn = {place: int(ties.draw(query, np.array([rows[place]]))[0]) for place in there}
    there.sort(key=lambda place: (-scores[place], drawn[place], rows[place]))
    return there + [place for place, row in enumerate(rows) if row == NO_PASSAGE]


def test_the_order_is_by_score_then_draw_and_gaps_come_last_whatever_they_score():
    rng = random.Random(0)
    ties, queries = Ties(TEXTS, IDS), [f"query {n}" for n in range(40)]
    rows, scores = np.full((40, 7), NO_PASSAGE), np.zeros((40, 7), np.float32)
    for q in range(40):
        some = rng.sample(range(7), rng.randint(0, 7))
        rows[q, rng.sample(range(7), len(some))] = some
        scores[q] = [rng.choice([0.5, 0.25, -1.0]) for _ in range(7)]
    scores[rows == NO_PASSAGE] = [rng.choice([9, -np.inf, np.nan]) for _ in range(int((rows == NO_PASSAGE).sum()))]
    order = ties.order(queries, rows, scores)
    for q, query in enumerate(queries):
        mine = rows[q, order[q]]
        assert mine.tolist() == [rows[q, place] for place in slow_order(ties, query, rows[q].tolist(), scores[q])]


@pytest.mark.parametrize("seed", range(3))
def test_neither_the_order_of_the_passages_nor_the_names_of_unique_texts_move_a_draw(seed):
    rows = list(range(7))
    random.Random(seed).shuffle(rows)
    moved = Ties([TEXTS[row] for row in rows], [IDS[row] for row in rows])
    np.testing.assert_array_equal(moved.keys, Ties(TEXTS, IDS).keys[rows])
    renamed = Ties(TEXTS, [f"other-{row}" for row in range(7)])
    unique = [row for row in range(7) if TEXTS.count(TEXTS[row]) == 1]
    np.testing.assert_array_equal(renamed.keys[unique], Ties(TEXTS, IDS).keys[unique])


def test_copies_of_a_text_are_told_apart_by_their_ids_and_each_is_first_now_and_then():
    ties = Ties(["a cat"] * 4, ["a", "b", "c", "d"])
    rows, scores = np.arange(4)[None], np.zeros((1, 4), np.float32)
    first = [int(ties.order([f"query {n}"], rows, scores)[0, 0]) for n in range(400)]
    assert min(np.bincount(first, minlength=4)) > 65  # 100 each, less four standard deviations


def test_a_draw_is_the_same_in_every_process():
    code = "from embedsmith.data.ties import Ties; import numpy as np; print(Ties(['a', 'b']).draw('q', np.arange(2)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(Ties(["a", "b"]).draw("q", np.arange(2)))

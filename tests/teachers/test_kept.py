"""Scores that are kept: the same, asked for once, and never another's."""

import numpy as np
import pytest

from embedsmith.teachers import kept
from embedsmith.teachers.kept import KeptScores
from embedsmith.teachers.named import Teacher

PASSAGES = ["a", "bb", "ccc", "dddd"]
ROWS = np.array([[0, 3], [2, 1], [1, 0], [3, 2], [0, 1]])
QUERIES = [f"query {n}" for n in range(5)]


class Counted(Teacher):
    """Scores a pair by its lengths, and remembers what it was asked."""

    name, proposes, contract = "counted", False, {}

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def scores(self, queries, rows):
        self.asked.append(list(queries))
        return np.array(
            [[len(q) * 10 + len(PASSAGES[row]) for row in r] for q, r in zip(queries, rows, strict=True)], np.float32
        )


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_BLOCK", 2)


def keeping(teacher, folder, passages=PASSAGES, **contract) -> KeptScores:
    return KeptScores(teacher, passages, contract=contract, folder=folder)


def test_scores_are_the_teachers_and_asked_for_once(tmp_path):
    teacher = Counted()
    wanted = Counted().scores(QUERIES, ROWS)
    for _ in range(2):
        assert np.array_equal(keeping(teacher, tmp_path).scores(QUERIES, ROWS), wanted)
    assert teacher.asked == [QUERIES[:2], QUERIES[2:4], QUERIES[4:]]


def test_what_was_cut_short_goes_on_with_the_next_block(tmp_path):
    teacher, scores = Counted(), Counted.scores

    def cut(queries, rows):
        if len(teacher.asked) == 1:
            raise KeyboardInterrupt
        return scores(teacher, queries, rows)

    teacher.scores = cut
    with pytest.raises(KeyboardInterrupt):
        keeping(teacher, tmp_path).scores(QUERIES, ROWS)
    after = Counted()
    assert np.array_equal(keeping(after, tmp_path).scores(QUERIES, ROWS), Counted().scores(QUERIES, ROWS))
    assert after.asked == [QUERIES[2:4], QUERIES[4:]]


def test_another_model_text_or_row_is_asked_for_anew(tmp_path):
    keeping(Counted(), tmp_path, weights="1").scores(QUERIES, ROWS)
    for passages, queries, rows, weights in (
        (PASSAGES, QUERIES, ROWS, "2"),
        (["b", *PASSAGES[1:]], QUERIES, ROWS, "1"),
        (PASSAGES, [*QUERIES[:4], "?"], ROWS, "1"),
        (PASSAGES, QUERIES, ROWS[:, ::-1], "1"),
    ):
        teacher = Counted()
        keeping(teacher, tmp_path, passages, weights=weights).scores(queries, rows)
        assert len(teacher.asked) == 3

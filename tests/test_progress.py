"""Rate and time left follow the last steps, and count nothing that was found done."""

from __future__ import annotations

import pytest

from embedsmith import progress
from embedsmith.progress import Paces


@pytest.fixture
def paces(monkeypatch: pytest.MonkeyPatch):
    """Tell of work at a second of a clock that stands."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    paces = Paces()

    def at(second: float, done: int, total: int, what: str = "stage train") -> str:
        now[0] = second
        return paces.update(what, done, total).pace

    return at


def test_the_time_left_is_that_of_the_last_steps_and_not_of_all(paces):
    paces(0, 0, 100)
    second = 0.0
    for step in range(1, 51):
        second += 100 if step <= 30 else 2
        notes = paces(second, step, 100)
    # The mean of all is 60.8 seconds a step: 50m 40s.
    assert notes == "2.0s each, 1m 40s left"


def test_ten_steps_count_however_long_they_take(paces):
    paces(0, 0, 100)
    second = 0.0
    for step in range(1, 31):
        second += 1000 if step % 2 else 3000
        notes = paces(second, step, 100)
    assert notes == "33m 20s each, 38h 53m left"


def test_what_a_run_found_done_counts_for_neither_rate_nor_time(paces):
    assert paces(0, 900, 1000) == ""
    assert paces(60, 910, 1000) == "6.0s each, 9m 00s left"
    assert paces(600, 1000, 1000) == "6.0s each, took 10m 00s"


def test_many_notes_in_a_moment_leave_the_rate_of_the_last_seconds(paces):
    paces(0, 0, 10**6)
    for tenth in range(1, 10_000):
        # A thousand seconds: 10 a second for most of the time, at last 1,000 a second.
        late = max(0, tenth - 9_600)
        notes = paces(tenth / 10, tenth + 99 * late, 10**6)
    assert notes.startswith("1,000/s, ")


def test_work_that_begins_anew_begins_with_no_rate(paces):
    paces(0, 0, 10)
    paces(100, 10, 10)
    assert paces(200, 0, 10) == ""
    assert paces(201, 5, 10) == "5.0/s, 1.0s left"


def test_two_pieces_of_work_have_a_rate_each(paces):
    paces(0, 0, 10, "encode")
    paces(0, 0, 10, "search")
    assert paces(10, 1, 10, "encode") == "10.0s each, 1m 30s left"
    assert paces(10, 5, 10, "search") == "2.0s each, 10.0s left"


def test_a_clock_that_stands_still_tells_no_rate(paces):
    paces(5, 0, 10)
    assert paces(5, 3, 10) == ""
    assert paces(5, 10, 10) == ""

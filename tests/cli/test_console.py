"""What is printed is what was meant, whatever rich would make of it."""

import gc
import io
import itertools

import pytest
from rich.console import Console

import embedsmith.progress
from embedsmith.cli import console
from embedsmith.cli.console import out, progress, quick_imports, scores_table


def test_a_model_name_is_printed_as_it_is():
    name = "static:package:wordllama"
    with out.capture() as captured:
        out.print(scores_table(f"Scores of {name}", {name: {"ndcg@10": 0.5}}, ["ndcg@10"]))
    assert captured.get().count(name) == 2


@pytest.mark.usefixtures("unfrozen")
def test_the_collector_rests_while_libraries_are_imported_and_no_longer():
    with quick_imports():
        assert not gc.isenabled()
        with progress(show=False):
            assert gc.isenabled()
            assert gc.get_freeze_count() > 0
    assert gc.isenabled()
    gc.unfreeze()


def test_the_collector_works_again_after_a_command_that_failed(embedsmith_command):
    # An empty query is refused before there is any progress, which would switch it on too.
    assert embedsmith_command("search", "no-such-run", " ").code == 2
    assert gc.isenabled()


@pytest.fixture
def clock(monkeypatch):
    """Seconds, as progress sees them."""
    now = [0.0]
    monkeypatch.setattr(embedsmith.progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("second", "left"), [(300, "30.0s"), (900, "3m 30s")])
def test_a_rate_is_that_of_its_own_piece_of_work(clock, capsys, second, left):
    tell = console._PlainProgress()
    for seconds, done, total in ((0, 0, 900), (9, 900, 900), (1000, 0, second), (1060, 200, second)):
        clock[0] = seconds
        tell("encode", done, total)
    written = capsys.readouterr().err.splitlines()
    assert written == [
        "encode: 0 of 900",
        "encode: 900 of 900, 100/s, took 9.0s",
        f"encode: 0 of {second}",
        f"encode: 200 of {second}, 3.3/s, {left} left",
    ]


def lines_of(capsys, clock, step_s, steps):
    """Return the lines of a log of a piece of work, each with the time at which it was written."""
    tell, lines = console._PlainProgress(), []
    for done in range(steps + 1):
        clock[0] = done * step_s
        tell("stage train", done, steps, "loss 0.5")
        lines += [(clock[0], line) for line in capsys.readouterr().err.splitlines()]
    return lines


def test_a_log_of_short_work_has_its_first_line_and_its_last(clock, capsys):
    assert [line for _, line in lines_of(capsys, clock, 0.01, 4000)] == [
        "stage train: 0 of 4,000; loss 0.5",
        "stage train: 4,000 of 4,000, 100/s, took 40.0s; loss 0.5",
    ]


def test_a_log_of_slow_steps_says_what_each_takes_and_what_is_left(clock, capsys):
    lines = lines_of(capsys, clock, 15.3, 120)
    assert lines[1] == (61.2, "stage train: 4 of 120, 15.3s each, 29m 35s left; loss 0.5")
    assert lines[-1] == (1836.0, "stage train: 120 of 120, 15.3s each, took 30m 36s; loss 0.5")


@pytest.mark.parametrize(("step_s", "steps"), [(0.5, 7200), (15.3, 120), (60, 1440), (1, 86_400), (30, 20_160)])
def test_a_log_of_any_length_has_a_few_dozen_lines_a_minute_apart(clock, capsys, step_s, steps):
    at = [when for when, _ in lines_of(capsys, clock, step_s, steps)]
    gaps = [after - before for before, after in itertools.pairwise(at)]
    assert 10 < len(at) < 60
    assert min(gaps[:-1]) >= 60
    assert at[1] < 120
    assert max(gaps) <= steps * step_s / 10 + step_s


def test_a_bar_of_work_that_was_done_begins_anew_for_more_of_it(monkeypatch):
    bars = []

    class Kept(console.Progress):
        def __init__(self, *columns, **settings):
            super().__init__(*columns, **settings)
            bars.append(self)

    monkeypatch.setattr(console, "Progress", Kept)
    monkeypatch.setattr(console, "err", Console(file=io.StringIO(), force_terminal=True))
    with progress() as tell:
        for done in (0, 9, 0, 4):
            tell("encode", done, 9)
    (bar,) = bars[0].tasks
    assert bar.completed == 4
    assert bar.finished_time is None


def test_a_bar_of_slow_work_says_what_each_step_takes_and_what_is_left(clock, monkeypatch):
    monkeypatch.setattr(console, "err", Console(file=io.StringIO(), force_terminal=True, width=120))
    with progress() as tell:
        for done in range(8):
            clock[0] = 15.3 * done
            tell("stage train", done, 120, "loss 0.5")
    shown = console.err.file.getvalue()
    assert "7/120" in shown
    assert "15.3s each, 28m 49s left loss 0.5" in shown


NOTE = "loss 0.013, in-batch accuracy 100%, 5.8 examples/s, 123 tokens/s"


@pytest.mark.parametrize(
    ("what", "shown"), [("stage train", "stage train"), ("encode passages with package:some_model/model", "encode pa")]
)
def test_what_is_left_is_never_cut_on_a_terminal_of_eighty_columns(clock, monkeypatch, what, shown):
    monkeypatch.setattr(console, "err", Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None))
    with progress() as tell:
        for done in range(8):
            clock[0] = 15.3 * done
            tell(what, done, 120, NOTE)
    line = console.err.file.getvalue().split("\x1b[2K")[-1].splitlines()[0]
    assert line.startswith(shown)
    assert "7/120 15.3s each, 28m 49s left loss " in line
    assert len(line) <= 80


def test_a_table_fits_eighty_columns_and_loses_no_letter_of_a_name(monkeypatch):
    monkeypatch.setattr(out, "_width", 80)
    name = "runs/quickstart-minilm/data/code/test/that/lies/somewhere/deep/in/a/tree/of/folders"
    metrics = ["ndcg@10", "recall@10", "mrr@10", "map@100", "recall@100"]
    row = ["pair-classification", "cosine_spearman", "0.123", "0.234", "+0.111"]
    for table in (
        scores_table("Scores", {name: dict.fromkeys(metrics, 0.5)}, metrics),
        console.figures_table("Scores", {name: row}, ["task", "metric", "before", "after", "difference"]),
    ):
        with out.capture() as captured:
            out.print(table)
        lines = captured.get().splitlines()
        assert max(map(len, lines)) <= 80
        cells = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
        assert "".join(cells) == name

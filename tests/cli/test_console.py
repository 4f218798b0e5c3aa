"""What is printed is what was meant, whatever rich would make of it."""

import gc
import io

import pytest
from rich.console import Console

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
    """Seconds, as the plain lines see them."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("second", [300, 900])
def test_a_rate_is_that_of_its_own_piece_of_work(clock, capsys, second):
    tell = console._PlainProgress()
    for seconds, done, total in ((0, 0, 900), (9, 900, 900), (1000, 0, second), (1010, 200, second)):
        clock[0] = seconds
        tell("encode", done, total)
    written = capsys.readouterr().err.splitlines()
    assert written == [
        "encode: 0 of 900",
        "encode: 900 of 900 100/s",
        f"encode: 0 of {second}",
        f"encode: 200 of {second} 20/s",
    ]


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

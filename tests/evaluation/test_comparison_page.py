"""The page of a recipe's run."""

import re
from pathlib import Path

import pytest

import embedsmith
from embedsmith.data.files import write_json
from embedsmith.errors import RunError
from embedsmith.evaluation.comparison_page import write_evaluation_report
from embedsmith.evaluation.per_query import PerQuery, read_per_query
from embedsmith.evaluation.significance import compare_paired
from embedsmith.runs.scores import read_scores
from tests.cli.conftest import embedsmith_command as embedsmith_command
from tests.evaluation.test_compare import recipe_on, write_data


@pytest.fixture(scope="module")
def run(tiny_bert: Path, tmp_path_factory) -> Path:
    """A run whose queries hold what a browser would read as markup."""
    data = write_data(tmp_path_factory.mktemp("data") / "animals", said="<b>the {a}</b> & co is on the {p}")
    return embedsmith.run(recipe_on(data, tiny_bert), out=tmp_path_factory.mktemp("run") / "run").folder


def scores_of(run: Path, label: str) -> PerQuery:
    return read_per_query(run / "scores" / "animals" / f"{label}.jsonl")


def test_every_score_stands_there_with_its_interval_and_its_difference(run: Path):
    path, numbers = write_evaluation_report(run)
    page = path.read_text()
    rows = numbers["data"]["animals"]["scores"]
    assert list(rows) == ["teacher", "before", "after"]
    after = scores_of(run, "after").values("ndcg@10")
    for label, row in rows.items():
        values = scores_of(run, label).values("ndcg@10")
        assert row["ndcg@10"] == pytest.approx(values.mean())
        assert row["interval"]["low"] <= values.mean() <= row["interval"]["high"]
        assert f"{values.mean():.4f}" in page
        if label != "after":
            expected = compare_paired(values, after)
            assert (row["difference"]["mean"], row["difference"]["wins"]) == (expected.mean, expected.wins)
            assert f"{expected.mean:+.4f}" in page
    assert rows["after"]["difference"] is None


def test_the_page_is_written_with_the_run_and_opens_offline(run: Path):
    page = (run / "report.html").read_text()
    assert "<script" not in page
    assert not re.search(r"https?://", page)
    assert "<b>the " not in page  # texts are escaped
    assert "&lt;b&gt;the " in page


def test_lost_and_won_queries_stand_there_to_be_read(run: Path):
    (found,) = embedsmith.compare(run)
    page = (run / "report.html").read_text()
    for query in [*found.losses, *found.wins]:
        assert f"Query <code>{query.query_id}</code>" in page
    assert ("Lost most" in page, "Won most" in page) == (bool(found.losses), bool(found.wins))


def test_the_command_writes_it_for_a_recipes_run(embedsmith_command, run: Path):
    (run / "report.html").unlink()
    done = embedsmith_command("report", run, "--json")
    assert done.code == 0
    assert done.json["data"]["animals"]["queries"] == 40
    assert read_scores(run).metrics_of("animals")["after"]["ndcg@10"] == pytest.approx(
        done.json["data"]["animals"]["scores"]["after"]["ndcg@10"], abs=1e-4
    )
    assert (run / "report.html").is_file()


def test_a_run_that_scored_nothing_is_refused(tmp_path: Path):
    write_json(tmp_path / "manifest.json", {"command": "train", "settings": {}, "status": "finished"})
    with pytest.raises(RunError, match="nothing was scored"):
        write_evaluation_report(tmp_path)

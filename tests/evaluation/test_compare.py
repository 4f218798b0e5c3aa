"""Two runs compared: real runs of BM25 and a random model on a few sentences."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import embedsmith
from embedsmith import MiningSettings, Recipe, StageSettings, StudentSettings
from embedsmith.data.files import write_json, write_jsonl
from embedsmith.data.load import load_collection
from embedsmith.data.trec import write_ranking
from embedsmith.errors import InputError, RunError, SettingsError
from embedsmith.evaluation.per_query import read_per_query
from embedsmith.recipes.recipe import DataSettings, EvaluationSettings
from embedsmith.runs.scores import read_scores
from tests.cli.conftest import embedsmith_command as embedsmith_command
from tests.scored import write_evaluation

ANIMALS = ["cat", "dog", "owl", "bat", "eel", "ape", "hen", "yak"]
PLACES = ["mat", "log", "tree", "lake", "road"]


def write_data(folder: Path, *, said: str = "the {a} is on the {p}") -> Path:
    """Write a BEIR folder whose train and test queries are the same 40."""
    both = [(a, p) for a in ANIMALS for p in PLACES]
    folder.mkdir()
    write_jsonl(folder / "corpus.jsonl", ({"_id": f"{a}-{p}", "text": said.format(a=a, p=p)} for a, p in both))
    write_jsonl(folder / "queries.jsonl", ({"_id": f"q-{a}-{p}", "text": f"find the {a} of the {p}"} for a, p in both))
    (folder / "qrels").mkdir()
    rows = "".join(f"q-{a}-{p}\t{a}-{p}\t1\n" for a, p in both)
    for split in ("train", "test"):
        (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "animals")


def recipe_on(data: Path, model: Path) -> Recipe:
    return Recipe(
        data={"animals": DataSettings(path=str(data))},
        mining=MiningSettings(teachers=["bm25"], method="naive", depth=10),
        student=StudentSettings(name=str(model)),
        stages=[StageSettings(steps=2, batch_size=4, learning_rate=0.01)],
        evaluation=EvaluationSettings(baselines=[], dtype="float32"),
    )


@pytest.fixture(scope="module")
def run(data: Path, tiny_bert: Path, tmp_path_factory) -> Path:
    return embedsmith.run(recipe_on(data, tiny_bert), out=tmp_path_factory.mktemp("run") / "run").folder


def evaluation(folder: Path, rows: list[dict], *, ranking: str = "") -> Path:
    """Write what an evaluation into a folder leaves."""
    write_evaluation(folder, rows)
    if ranking:
        (folder / "ranking.trec").write_text(ranking)
    return folder


def test_a_run_keeps_what_each_query_scored(run: Path):
    means = read_scores(run).metrics_of("animals")
    assert means.keys() == {"teacher", "before", "after"}
    for label, expected in means.items():
        kept = read_per_query(run / "scores" / "animals" / f"{label}.jsonl")
        assert len(kept.query_ids) == 40
        assert {name: round(float(values.mean()), 4) for name, values in kept.metrics.items()} == expected


def test_one_run_is_compared_with_what_it_was_before(run: Path):
    (found,) = embedsmith.compare(run)
    means = read_scores(run).metrics_of("animals")
    assert (found.a, found.b) == (f"{run} (before)", f"{run} (after)")
    assert found.difference.a == pytest.approx(means["before"]["ndcg@10"], abs=1e-4)
    assert found.difference.b == pytest.approx(means["after"]["ndcg@10"], abs=1e-4)
    assert found.difference.mean == pytest.approx(found.difference.b - found.difference.a)
    assert found.difference.low <= found.difference.mean <= found.difference.high


def test_the_worst_queries_can_be_read(run: Path):
    (found,) = embedsmith.compare(run, against="teacher", shown=3)
    assert len(found.losses) == 3  # BM25 finds all of them, a model of random weights does not
    worst = found.losses[0]
    place = worst.query_id.removeprefix("q-")
    animal, where = place.split("-")
    assert worst.query == f"find the {animal} of the {where}"
    assert (worst.answer.id, worst.answer.text) == (place, f"the {animal} is on the {where}")
    assert (worst.first_a.id, worst.a) == (place, 1.0)
    assert worst.first_b.id != place
    assert worst.b - worst.a <= found.losses[1].b - found.losses[1].a < 0


def test_two_runs_are_compared_by_what_was_trained(run: Path, tmp_path: Path):
    other = shutil.copytree(run, tmp_path / "other")
    rows = [json.loads(line) for line in (run / "scores/animals/before.jsonl").read_text().splitlines()]
    write_jsonl(other / "scores/animals/after.jsonl", rows)
    (found,) = embedsmith.compare(run, other)
    means = read_scores(run).metrics_of("animals")
    expected = means["after"]["ndcg@10"], means["before"]["ndcg@10"]
    assert (found.difference.a, found.difference.b) == pytest.approx(expected, abs=1e-4)


def test_queries_are_matched_by_id_not_by_place(tmp_path: Path):
    a = evaluation(tmp_path / "a", [{"query_id": "q1", "ndcg@10": 0.2}, {"query_id": "q2", "ndcg@10": 1.0}])
    b = evaluation(tmp_path / "b", [{"query_id": "q2", "ndcg@10": 1.0}, {"query_id": "q1", "ndcg@10": 0.5}])
    (found,) = embedsmith.compare(a, b)
    assert (found.difference.wins, found.difference.losses, found.difference.ties) == (1, 0, 1)
    assert [(one.query_id, one.a, one.b) for one in found.wins] == [("q1", 0.2, 0.5)]
    assert np.isclose(found.difference.mean, 0.15)


def test_what_an_evaluation_ranked_first_is_read_from_its_ranking(tmp_path: Path):
    rows = [{"query_id": "q1", "ndcg@10": 0.2}]
    a = evaluation(tmp_path / "a", rows, ranking="q1 Q0 d7 1 0.9 bm25\nq1 Q0 d8 2 0.8 bm25\n")
    b = evaluation(tmp_path / "b", [{"query_id": "q1", "ndcg@10": 0.1}])
    (found,) = embedsmith.compare(a, b)
    assert (found.losses[0].first_a.id, found.losses[0].first_a.text, found.losses[0].first_b) == ("d7", None, None)


def test_ids_with_spaces_are_read_from_a_ranking_as_they_were_written(tmp_path: Path):
    write_ranking(tmp_path / "a" / "ranking.trec", {"q 1": [("d 7", 0.9), ("d 8", 0.8)]}, tag="bm25")
    a = evaluation(tmp_path / "a", [{"query_id": "q 1", "ndcg@10": 0.2}])
    b = evaluation(tmp_path / "b", [{"query_id": "q 1", "ndcg@10": 0.1}])
    (found,) = embedsmith.compare(a, b)
    assert found.losses[0].first_a.id == "d 7"


def test_runs_on_different_queries_are_refused(run: Path, tmp_path: Path):
    a = evaluation(tmp_path / "a", [{"query_id": "q1", "ndcg@10": 0.2}, {"query_id": "q2", "ndcg@10": 0.2}])
    b = evaluation(tmp_path / "b", [{"query_id": "q2", "ndcg@10": 0.2}])
    with pytest.raises(InputError, match='different queries: 1 in common, 1 and 0 of their own, such as "q1"'):
        embedsmith.compare(a, b)


def on_other_data(run: Path, data: Path, folder: Path) -> Path:
    """Return a copy of a run that was scored on another data set under the same name."""
    scores = json.loads((run / "scores.json").read_text())
    scores["data"]["animals"]["path"] = str(data)
    write_json(shutil.copytree(run, folder) / "scores.json", scores)
    return folder


def test_other_data_under_the_same_query_ids_is_refused(run: Path, tmp_path: Path):
    data = write_data(tmp_path / "changed", said="a {a} sits on a {p}")
    other = on_other_data(run, data, tmp_path / "other")
    scores = json.loads((other / "scores.json").read_text())
    scores["data"]["animals"]["content_hash"] = load_collection(data, split="test").content_hash()
    write_json(other / "scores.json", scores)
    with pytest.raises(InputError, match="different data under the same query ids"):
        embedsmith.compare(run, other)


def test_texts_that_have_changed_since_are_not_shown(run: Path, tmp_path: Path):
    same = on_other_data(run, write_data(tmp_path / "same"), tmp_path / "run")
    assert embedsmith.compare(same, against="teacher")[0].losses[0].query is not None
    changed = on_other_data(run, write_data(tmp_path / "changed", said="the {a} under the {p}"), tmp_path / "other")
    assert embedsmith.compare(changed, against="teacher")[0].losses[0].query is None


def test_a_metric_or_a_model_that_was_not_scored_is_refused_with_those_that_were(run: Path):
    with pytest.raises(SettingsError, match=r'no metric "ndgc@10" \(did you mean "ndcg@10"\?\)'):
        embedsmith.compare(run, metric="ndgc@10")
    with pytest.raises(
        RunError, match=r'nothing is called "techer" \(did you mean "teacher"\?\); on animals it scored'
    ):
        embedsmith.compare(run, against="techer")


def test_a_run_without_scores_is_refused(tmp_path: Path):
    write_json(tmp_path / "mined" / "manifest.json", {"command": "mine", "status": "finished"})
    with pytest.raises(RunError, match="a run of `mine` without scores of single queries"):
        embedsmith.compare(tmp_path / "mined", tmp_path / "mined")


def test_a_file_that_holds_no_scores_is_refused_with_its_line(tmp_path: Path):
    a = evaluation(tmp_path / "a", [{"query_id": "q1", "ndcg@10": 0.2}, {"query_id": "q2"}])
    with pytest.raises(InputError, match=r"per_query.jsonl:2: not the scores of a query"):
        embedsmith.compare(a, a)


def test_the_command_prints_the_comparison(embedsmith_command, run: Path):
    done = embedsmith_command("compare", run, "--against", "teacher", "--json")
    assert done.code == 0
    (found,) = done.json["comparisons"]
    assert found["difference"].keys() >= {"mean", "low", "high", "p", "wins", "losses", "ties"}
    done = embedsmith_command("compare", run, "--against", "teacher", "--show", 1)
    assert done.code == 0
    assert "ndcg@10 on animals, 40 queries" in done.out
    assert done.out.count("find the ") == 1
    assert "p < 0.001" in done.out
    done = embedsmith_command("compare", run / "nothing", run)
    assert (done.code, done.error) == (2, f"{run / 'nothing'}: no such run folder")

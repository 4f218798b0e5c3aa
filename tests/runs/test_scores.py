"""Scores of a run: what is written is read again, older layouts too, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

import embedsmith
from embedsmith.data.files import write_json, write_jsonl
from embedsmith.errors import RunError
from embedsmith.pages.model_card import ModelCard, with_scores
from embedsmith.recipes.report_pages import write_page
from embedsmith.runs.scores import MODEL, Score, Scoreboard, ScoredData, path_of, read_scores, write_scores

ROWS = [{"query_id": "q1", "ndcg@10": 0.25}, {"query_id": "q2", "ndcg@10": 0.75}]
BETTER = [{"query_id": "q2", "ndcg@10": 1.0}, {"query_id": "q1", "ndcg@10": 0.5}]


def manifest(folder: Path, command: str, settings: dict[str, Any], content: dict[str, str]) -> None:
    known = {"command": command, "status": "finished", "settings": settings, "content": content, "inputs": {}}
    write_json(folder / "manifest.json", known)


def beir(folder: Path) -> Path:
    """Write two queries about two passages."""
    write_jsonl(folder / "corpus.jsonl", [{"_id": "d1", "text": "a cat"}, {"_id": "d2", "text": "a dog"}])
    write_jsonl(folder / "queries.jsonl", [{"_id": "q1", "text": "cat"}, {"_id": "q2", "text": "dog"}])
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\n")
    return folder


def old_evaluation(folder: Path, data: str, rows: list[dict[str, Any]], *, side: str = "", files: str = "") -> None:
    """Write an evaluation as the first layout had it."""
    about = {"task": "retrieval", "split": "test", "fingerprint": "0123456789abcdef", "passages": 2, "queries": 2}
    found = {
        "command": f"embedsmith evaluate bm25 {data}",
        "model": {"name": "bm25", "fingerprint": "fedcba9876543210"},
        "versions": {"embedsmith": "0.1"},
        "python": "3.11",
        "machine": "Linux",
        "data": {data: {**about, "left_out": 1, "files": files}},
        "scores": {data: {"ndcg@10": sum(row["ndcg@10"] for row in rows) / 2}},
    }
    write_json(folder / side / "scores.json", found)
    write_jsonl(folder / side / files / "per_query.jsonl", rows)


def old_recipe(folder: Path, data: Path) -> Path:
    """Write the run of a recipe as the first layout had it."""
    settings = {
        "data": {
            "toy": {"path": str(data), "test_split": "test", "columns": {"query": None}, "skip_bad": True},
            "code": {"path": "src", "format": "code"},
            "duplicates": {"path": "quora", "test_split": "dev", "convert": {"task": "pairs"}},
        },
        "mining": {"teachers": ["package:minilm"]},
        "student": {"name": "smollm"},
    }
    manifest(folder, "train", settings, {})
    scores = {
        "toy": {"bm25": 0.25, "teacher": 0.5, "before": 0.5, "after warm": 0.5, "after": 0.75},
        "code": {"after": 0.5},
    }
    plain: dict[str, Any] = {
        name: {label: {"ndcg@10": value} for label, value in labels.items()} for name, labels in scores.items()
    }
    write_json(folder / "scores.json", plain | {"duplicates": {"after": {"ap": 0.75}}})
    for label, rows in (("before", ROWS), ("after", BETTER)):
        write_jsonl(folder / "scores" / "toy" / f"{label}.jsonl", rows)
    return folder


def test_what_is_written_is_read_again(tmp_path):
    about = ScoredData(
        path="${SETS}/toy",
        task="retrieval",
        split="test",
        columns={"query": "Q", "relevant_from": 0.5},
        content_hash="0123456789abcdef",
        queries=2,
    )
    score = Score(model="bm25", model_hash="fedcba9876543210", per_query="a/per_query.jsonl", metrics={"ndcg@10": 0.1})
    board = Scoreboard(means={MODEL: {"tasks": 0.1}}).with_score("toy", MODEL, about, score)
    write_scores(tmp_path, board)
    assert read_scores(tmp_path) == board
    assert json.loads((tmp_path / "scores.json").read_text())["version"] == 2
    assert read_scores(tmp_path / "nothing") == Scoreboard()


def test_a_path_is_filled_where_it_is_opened(tmp_path, monkeypatch):
    monkeypatch.setenv("SETS", "/sets")
    assert path_of(tmp_path, ScoredData(path="${SETS}/toy", task="retrieval")) == "/sets/toy"
    inside = ScoredData(path="data/toy/test", in_run=True, task="retrieval")
    assert path_of(tmp_path, inside) == str(tmp_path / "data/toy/test")
    assert path_of(tmp_path, ScoredData(task="STS")) is None


def test_an_evaluation_of_the_first_layout_is_read_and_compared(tmp_path):
    data = str(beir(tmp_path / "toy"))
    for name, rows in (("a", ROWS), ("b", BETTER)):
        old_evaluation(tmp_path / name, data, rows)
        asked = {"pair_columns": {"query": "Q", "positive": None}, "corpus": "more.jsonl", "skip_bad": True}
        manifest(tmp_path / name, "evaluate", {"scoring": asked}, {})
    board = read_scores(tmp_path / "a")
    about = board.data[data]
    assert (about.path, about.task, about.split, about.content_hash) == (data, "retrieval", "test", "0123456789abcdef")
    assert (about.columns, about.corpus, about.skip_bad) == ({"query": "Q"}, "more.jsonl", True)
    assert (about.queries, about.passages, about.left_out) == (2, 2, 1)
    score = board.scores[data][MODEL]
    assert (score.model, score.model_hash, score.per_query) == ("bm25", "fedcba9876543210", "per_query.jsonl")
    assert (score.metrics, board.versions) == ({"ndcg@10": 0.5}, {"embedsmith": "0.1"})
    (found,) = embedsmith.compare(tmp_path / "a", tmp_path / "b")
    assert (found.data, found.difference.a, found.difference.b) == ("", 0.5, 0.75)


def test_several_data_sets_and_a_benchmark_of_the_first_layout(tmp_path):
    old_evaluation(tmp_path, "a/nq", ROWS, files="nq")
    found = json.loads((tmp_path / "scores.json").read_text())
    found["data"]["STS17"] = {"task": "STS", "fingerprint": "rev"}
    found["scores"]["STS17"] = {"cosine_spearman": 0.9}
    write_json(tmp_path / "scores.json", {**found, "means": {"tasks": 0.7, "STS": 0.9}})
    manifest(tmp_path, "evaluate", {}, {})
    board = read_scores(tmp_path)
    assert board.scores["a/nq"][MODEL].per_query == "nq/per_query.jsonl"
    assert (board.data["STS17"].path, board.scores["STS17"][MODEL].per_query) == (None, None)
    assert board.means == {MODEL: {"tasks": 0.7, "STS": 0.9}}


def test_before_and_after_of_the_first_layout_are_one_scoreboard(tmp_path):
    for side, rows in (("before", ROWS), ("after", BETTER)):
        old_evaluation(tmp_path, "toy", rows, side=side)
    manifest(tmp_path, "evaluate --before-and-after", {"scoring": {}}, {})
    board = read_scores(tmp_path)
    assert board.metrics() == {"toy": {"before": {"ndcg@10": 0.5}, "after": {"ndcg@10": 0.75}}}
    assert board.scores["toy"]["after"].per_query == "after/per_query.jsonl"
    (found,) = embedsmith.compare(tmp_path)
    assert (found.difference.a, found.difference.b, found.difference.wins) == (0.5, 0.75, 2)


def test_a_recipe_s_run_of_the_first_layout_is_read_compared_and_shown(tmp_path):
    run = old_recipe(tmp_path / "run", beir(tmp_path / "toy"))
    board = read_scores(run)
    assert list(board.metrics_of("toy")) == ["bm25", "teacher", "before", "after warm", "after"]
    models = {label: score.model for label, score in board.scores["toy"].items()}
    assert models == {
        "bm25": "bm25",
        "teacher": "package:minilm",
        "before": "smollm",
        "after warm": "stages/warm",
        "after": "model",
    }
    assert board.per_query_files("toy") == {label: f"scores/toy/{label}.jsonl" for label in ("after", "before")}
    about = board.data["toy"]
    assert (about.path, about.split, about.task, about.skip_bad) == (str(tmp_path / "toy"), "test", "retrieval", True)
    assert path_of(run, board.data["code"]) == str(run / "data/code/test")
    assert (board.data["duplicates"].task, board.data["duplicates"].split) == ("pair-classification", "dev")
    (found,) = embedsmith.compare(run)
    assert (found.data, found.difference.mean, found.wins[0].query) == ("toy", 0.25, "dog")
    assert write_page(run)[1]["data"]["toy"]["queries"] == 2
    assert "| after | 0.750 |" in with_scores(ModelCard("# A"), board.metrics()).text()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], "no scores by data set, model and metric"),
        ({"toy": 1}, "no scores by data set, model and metric"),
        ({"toy": {"after": {"ndcg@10": "0.5"}}}, "no scores by data set, model and metric"),
        ({"model": {"fingerprint": "a"}, "scores": []}, "no scores of an evaluation"),
        ({"model": {"fingerprint": "a"}, "scores": {"x": {"a": 1}}, "data": {}}, "nothing is said of x under data"),
        ({"version": 3}, "version 3 of the layout"),
        ({"version": 2, "scores": {"toy": {}}}, "toy is not under data"),
        ({"version": 2, "data": {"toy": {}}}, 'missing key "task"'),
        ({"version": 2, "more": 1}, 'unknown key "more"'),
    ],
)
def test_what_is_no_scores_is_refused_with_its_place(found, said, tmp_path):
    write_json(tmp_path / "scores.json", found)
    with pytest.raises(RunError, match=said) as refused:
        read_scores(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / 'scores.json'}: ")
    assert refused.value.hint


@pytest.mark.parametrize("path", ["../a.jsonl", "/etc/passwd", "a/../../b", "", "a\0"])
def test_files_of_queries_lie_inside_the_run(path, tmp_path):
    score = {"model": "m", "per_query": path, "metrics": {"ndcg@10": 0.5}}
    found = {"version": 2, "data": {"toy": {"task": "retrieval"}}, "scores": {"toy": {"after": score}}}
    write_json(tmp_path / "scores.json", found)
    with pytest.raises(RunError, match="below the folder of the run"):
        read_scores(tmp_path)


@pytest.mark.parametrize("value", [1e16, "x", None])
def test_a_score_is_a_number_to_compute_with(value, tmp_path):
    score = {"model": "m", "metrics": {"ndcg@10": value}}
    found = {"version": 2, "data": {"toy": {"task": "retrieval"}}, "scores": {"toy": {"after": score}}}
    write_json(tmp_path / "scores.json", found)
    with pytest.raises(RunError, match=r"ndcg@10"):
        read_scores(tmp_path)

"""Folders with scores of single queries, as an evaluation and a recipe's run leave them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from embedsmith.data.files import write_json, write_jsonl
from embedsmith.runs.scores import (
    MODEL,
    Score,
    Scoreboard,
    ScoredData,
    per_query_path,
    read_scores,
    write_scores,
)


def write_evaluation(folder: Path, rows: Iterable[Mapping[str, object]], *, name: str = "toy") -> Path:
    """Write what an evaluation of one model on one data set leaves."""
    manifest = {"command": "evaluate", "status": "finished", "content": {}, "settings": {}, "inputs": {}}
    write_json(folder / "manifest.json", manifest)
    write_jsonl(folder / "per_query.jsonl", rows)
    score = Score(model="bm25", per_query="per_query.jsonl", metrics={"ndcg@10": 0.5})
    write_scores(folder, Scoreboard().with_score(name, MODEL, ScoredData(path=name, task="retrieval"), score))
    return folder


def write_labelled(run: Path, label: str, rows: Iterable[Mapping[str, object]], *, name: str = "toy") -> None:
    """Add what a recipe's run keeps of one of its models."""
    path = per_query_path(run, name, label)
    write_jsonl(path, rows)
    score = Score(model=label, per_query=path.relative_to(run).as_posix(), metrics={"ndcg@10": 0.5})
    about = ScoredData(path=f"data/{name}", task="retrieval")
    write_scores(run, read_scores(run).with_score(name, label, about, score))

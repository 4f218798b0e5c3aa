"""What a run says of itself, for gains, losses and what chance may have made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedsmith.evaluation.per_query import write_per_query
from embedsmith.recipes.verdict import verdicts
from embedsmith.runs.scores import Score, ScoredData, per_query_path, read_scores, write_scores


def written(run: Path, scores: dict[str, list[float]]) -> Path:
    about = ScoredData(path="data/own/test", in_run=True, task="retrieval", split="test")
    for label, values in scores.items():
        path = per_query_path(run, "own", label)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_per_query(path, {f"q{number}": {"ndcg@10": value} for number, value in enumerate(values)}, {})
        score = Score(
            model=label, per_query=path.relative_to(run).as_posix(), metrics={"ndcg@10": float(np.mean(values))}
        )
        write_scores(run, read_scores(run).with_score("own", label, about, score))
    return run


BEFORE = [0.1, 0.5, 0.3, 0.4] * 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ([0.2, 0.1, 0.3, 0.2], "training helped: ndcg@10 from 0.325 to 0.525, +0.200"),
        ([-0.1, -0.1, -0.1, -0.2], "training made it worse"),
        ([0.3, -0.3, 0.2, -0.2], "whether training helped is not known"),
    ],
)
def test_a_gain_is_one_where_chance_is_no_explanation(tmp_path: Path, change: list[float], said: str):
    after = [one + more for one, more in zip(BEFORE, change * 20, strict=True)]
    (verdict,) = verdicts(written(tmp_path, {"before": BEFORE, "after": after}))
    assert said in verdict.lines()[0]
    assert verdict.helped == (said.startswith("training helped"))
    assert len(verdict.lines()) == (1 if verdict.helped else 2)


def test_what_finds_more_is_named(tmp_path: Path):
    after = [one + 0.1 for one in BEFORE]
    scores = {"before": BEFORE, "after": after, "bm25": [0.9] * 80, "teacher": [0.0] * 80, "hybrid": [0.95] * 80}
    (verdict,) = verdicts(written(tmp_path, scores))
    assert list(verdict.better) == ["hybrid", "bm25"]
    assert [line.strip()[:4] for line in verdict.lines()[1:]] == ["BM25", "BM25"] and "0.950" in verdict.lines()[1]


def test_a_run_that_scored_no_start_has_none(tmp_path: Path):
    assert verdicts(written(tmp_path, {"after": BEFORE})) == []

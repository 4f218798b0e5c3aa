"""The plan against what is then really done."""

import json
from pathlib import Path

import numpy as np
import pytest

from embedsmith.mining.mine import mine
from embedsmith.mining.plan import Plan, candidate_bytes
from embedsmith.mining.settings import MiningSettings
from embedsmith.models.opening import load
from embedsmith.teachers.settings import TeacherSettings


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"query": f"find {a} {b}", "positive": f"the {a} on the {b} " * n}
        for n, a in enumerate("pqrs", 1)
        for b in "xyz"
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def planned(pairs: Path, out: Path, teachers: list[str], **settings) -> Plan:
    plans: list[Plan] = []
    given = MiningSettings(teachers=teachers, depth=5, teacher_settings=TeacherSettings(dtype="float32", **settings))
    mine(pairs, out=out, settings=given, on_plan=plans.append)
    (plan,) = plans
    return plan


def test_a_plan_counts_texts_tokens_and_bytes(pairs: Path, tiny_bert: Path, tmp_path: Path):
    plan = planned(pairs, tmp_path / "run", [str(tiny_bert), "bm25"])
    assert (plan.queries, plan.passages, plan.teachers) == (12, 12, [str(tiny_bert), "bm25"])
    (work,) = plan.encodings
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    model = load(str(tiny_bert))
    tokens = sum(
        model.count_tokens([row[key]], role)
        for row in rows
        for key, role in (("query", "query"), ("positive", "passage"))
    )
    assert (work.teacher, work.texts, work.tokens) == (str(tiny_bert), 24, tokens)
    assert 0 < work.seconds < 60
    stored = [np.load(path) for path in (tmp_path / "run" / "vectors").glob("*/shard-*.npy")]
    assert work.vector_bytes == sum(vectors.nbytes for vectors in stored)
    # This process holds torch at least, and exact search may fill 0.2 GiB more.
    assert 0.3 * 2**30 < plan.memory_bytes < 64 * 2**30


def test_what_is_encoded_already_and_words_need_no_encoding(pairs: Path, tiny_bert: Path, tmp_path: Path):
    assert planned(pairs, tmp_path / "words", ["bm25"]).encodings == []
    roomy, tight = (
        planned(pairs, tmp_path / f"run-{memory}", [str(tiny_bert)], memory_gib=memory).memory_bytes
        for memory in (1, 0.01)
    )
    assert tight < roomy


def test_the_size_of_the_candidates_is_known_before_they_are(pairs: Path, tiny_bert: Path, tmp_path: Path):
    planned(pairs, tmp_path / "run", [str(tiny_bert), "bm25"])
    folder = tmp_path / "run" / "candidates"
    tables = [np.load(folder / f"{name}.npy") for name in ("rows", "scores", "neighbours-0")]
    places = tables[0].shape[1]
    assert candidate_bytes(queries=12, pairs=12, places=places, teachers=2, with_vectors=1) == sum(
        t.nbytes for t in tables
    )
    assert places <= 10

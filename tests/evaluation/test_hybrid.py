"""Two contenders as one, against a run file of TREC that is fused by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedsmith.data.load import load_collection
from embedsmith.evaluation.contender import Contender
from embedsmith.evaluation.hybrid import Hybrid
from embedsmith.evaluation.settings import ScoringSettings

ROWS = """query,positive
the cat,a cat sat on the mat
the owl,an owl in a tree
the plum,a plum is blue
"""


def test_what_both_rank_high_is_first(tmp_path: Path):
    (tmp_path / "pairs.csv").write_text(ROWS)
    collection = load_collection(tmp_path / "pairs.csv")
    cat, owl, plum = collection.passage_ids
    orders = {"one": (cat, owl, plum), "two": (owl, plum)}
    for name, order in orders.items():
        lines = [f"{collection.query_ids[0]} Q0 {one} {rank} {9 - rank} x" for rank, one in enumerate(order, 1)]
        (tmp_path / f"{name}.trec").write_text("\n".join(lines))
    parts = [Contender(str(tmp_path / f"{name}.trec")) for name in orders]
    found = Hybrid(parts).ranking(collection, ScoringSettings(), depth=2)
    wanted = [(owl, 1 / 62 + 1 / 61), (plum, 1 / 63 + 1 / 62)]
    assert found[collection.query_ids[0]] == [(one, pytest.approx(score)) for one, score in wanted]
    assert found[collection.query_ids[1]] == []


def test_its_fingerprint_is_that_of_all_its_parts():
    bm25, chance = Contender("bm25"), Contender("random")
    both = Hybrid([bm25, chance]).fingerprint
    assert both == Hybrid([Contender("bm25"), Contender("random")]).fingerprint
    assert both not in (bm25.fingerprint, chance.fingerprint, Hybrid([bm25]).fingerprint)

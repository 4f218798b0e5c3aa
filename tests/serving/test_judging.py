"""Judging what a run finds: pooled without a hint of who found it, kept at once, evaluated like any other data."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedsmith.serving.judging import Judging
from embedsmith.serving.search import Finder
from embedsmith.teachers.bm25 import BM25, BM25Settings
from tests.recipes.test_documents import documents, recipe, run

__all__ = ["documents", "recipe", "run"]

ASKED = ["how is a pear opened", "where is the cat", "what is read"]


@pytest.fixture
def judging(run: Path):
    yield Judging(run, each=4)
    for path in sorted((run / "judged").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def test_the_pool_has_what_each_finder_finds_in_an_order_of_none(run: Path, judging: Judging):
    pool = judging.pool(ASKED[0])
    ids = [hit.id for hit in pool]
    model = [hit.id for hit in Finder(run).find(ASKED[0], 4)]
    texts = [hit.text for hit in Finder(run).find(ASKED[0], 1000)]
    words = [texts[row] for row in BM25(texts, BM25Settings()).search([ASKED[0]], 1)[0][0]]
    assert len(set(ids)) == len(ids) and set(model) <= set(ids) and set(words) <= {hit.text for hit in pool}
    assert ids != model + [one for one in ids if one not in model]
    assert ids == [hit.id for hit in judging.pool(ASKED[0])]


def test_what_was_said_is_kept_at_once_and_known_to_others(run: Path, judging: Judging):
    pool = judging.pool(ASKED[0])
    assert not judging.is_judged(ASKED[0])
    judging.note(ASKED[0], pool, [pool[1].id])
    assert Judging(run, each=4).is_judged(" How is a  pear opened")
    judging.note(ASKED[1], judging.pool(ASKED[1]), [])
    assert judging.write() == 1
    rows = (run / "judged" / "qrels.trec").read_text().splitlines()
    assert len(rows) == len(pool) and [row for row in rows if row.endswith("\t1")] == [f"judged-1\t0\t{pool[1].id}\t1"]

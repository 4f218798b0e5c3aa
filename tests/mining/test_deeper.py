"""A query whose positives fill all places of its candidates is searched deeper, and finds negatives as others do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embedsmith.data.collection import Collection
from embedsmith.data.source import SourceSettings
from embedsmith.mining.candidates import NO_PASSAGE, mine_candidates
from embedsmith.mining.exclusions import Listed
from embedsmith.mining.mine import mine
from embedsmith.mining.selection import select
from embedsmith.mining.settings import MiningSettings, SelectionSettings

PASSAGES = 90


class Table:
    """A teacher whose scores are written down, a row for each of the queries "query 0", "query 1"…"""

    proposes = True

    def __init__(self, name: str, table: np.ndarray) -> None:
        self.name, self.contract, self.table = name, {}, np.asarray(table, np.float32)
        self.asked: list[tuple[int, int]] = []

    def _of(self, queries) -> np.ndarray:
        return self.table[[int(query.split()[-1]) for query in queries]]

    def search(self, queries, k):
        self.asked.append((len(queries), k))
        rows = np.argsort(-self._of(queries), axis=1, kind="stable")[:, :k]
        return rows, np.take_along_axis(self._of(queries), rows, axis=1)

    def scores(self, queries, rows):
        return np.take_along_axis(self._of(queries), rows, axis=1)

    def moments(self, queries):
        return self._of(queries).mean(axis=1), self._of(queries).std(axis=1)

    def similarities(self, rows, others):
        return None

    def vectors_of(self, queries):
        return None


def toy(seed: int) -> tuple[Collection, Listed, list[Table]]:
    """Return queries with 1 to 80 positives, some of them copies of one text, and teachers that like positives."""
    rng = np.random.default_rng(seed)
    texts = [f"text {rng.integers(60)}" for _ in range(PASSAGES)]
    texts[0] = "QUERY 2"  # a query's own text is its negative neither
    counts = [1, 3, 5, 10, 30, 60, 80]
    qrels = {
        f"q{q}": {f"d{d}": 1 for d in rng.choice(PASSAGES, count, replace=False)} for q, count in enumerate(counts)
    }
    queries = [f"query {q}" for q in range(len(counts))]
    collection = Collection.of(
        name="toy",
        passage_ids=[f"d{d}" for d in range(PASSAGES)],
        passages=texts,
        query_ids=list(qrels),
        queries=queries,
        qrels=qrels,
    )
    listed = Listed(np.repeat(1, 40), rng.choice(PASSAGES, 40, replace=False), np.zeros(0, np.int64))
    tables = rng.permuted(np.tile(np.arange(PASSAGES), (2, len(counts), 1)), axis=2).astype(np.float32)
    for query, passage in zip(*collection.positive_pairs(), strict=True):
        tables[:, query, passage] += 100
    tables[:, listed.queries, listed.passages] += 200
    return collection, listed, [Table("one", tables[0]), Table("two", tables[1])]


def slow_taken(collection: Collection, listed: Listed, query: int) -> set[int]:
    """Return the passages that are no negatives of a query, compared text by text."""
    pairs = [*zip(*collection.positive_pairs(), strict=True), *zip(*listed.pairs, strict=True)]
    texts = {collection.passages[passage].lower() for other, passage in pairs if other == query}
    texts.add(collection.queries[query].lower())
    return {row for row, text in enumerate(collection.passages) if text.lower() in texts}


@pytest.mark.parametrize("depth", [1, 2, 5, 8, 20, 89, 90, 100])
@pytest.mark.parametrize("teachers", [1, 2])
def test_half_the_places_go_to_what_may_be_a_negative(depth, teachers):
    for seed in range(3):
        collection, listed, tables = toy(seed)
        found = mine_candidates(tables[:teachers], collection, depth=depth, listed=listed.pairs, block=4)
        half = (depth + 1) // 2
        for query in range(len(collection.queries)):
            taken, expected = slow_taken(collection, listed, query), set()
            for table in tables[:teachers]:
                ranked = np.argsort(-table.table[query], kind="stable").tolist()
                free = [row for row in ranked if row not in taken]
                natural = sum(row in free for row in ranked[:depth])
                best = free[: max(half, natural)]
                expected |= {*best, *[row for row in ranked if row in taken][: max(0, depth - len(best))]}
            own = found.rows[query][found.rows[query] != NO_PASSAGE].tolist()
            assert set(own) == expected
            assert own == sorted(own, key=lambda row: -tables[0].table[query, row])
            assert found.scores[0, query, : len(own)].tolist() == tables[0].table[query, own].tolist()
        assert found.rows.shape[1] <= depth * teachers


def test_queries_with_few_positives_are_searched_once():
    collection, listed, tables = toy(0)
    mine_candidates(tables[:1], collection, depth=20, listed=listed.pairs)
    assert tables[0].asked[0] == (7, 20)
    deep = [query for query in range(7) if len(slow_taken(collection, listed, query)) > 10]
    assert sum(count for count, _ in tables[0].asked[1:]) == len(deep) < 7


def test_every_query_has_as_many_negatives_as_there_are():
    collection, listed, tables = toy(1)
    found = mine_candidates(tables[:1], collection, depth=10, listed=listed.pairs)
    selection = select(found, SelectionSettings(method="naive", negatives=3), listed=listed)
    for query, rows in enumerate(selection.rows):
        free = PASSAGES - len(slow_taken(collection, listed, query))
        assert (rows != NO_PASSAGE).sum() >= min(3, free // 4), "copies of one text are one negative"


@pytest.mark.parametrize("source", ["positives", "copies of one positive", "given negatives", "extra judgements"])
@pytest.mark.parametrize("teacher", ["bm25", "random"])
def test_more_positives_than_the_depth_leave_negatives(tmp_path: Path, source, teacher):
    words = [f"the cat sat on mat {number}" for number in range(60)]
    liked = ["cat cat mat"] * 40 if source == "copies of one positive" else [f"cat cat mat {n}x" for n in range(40)]
    passages = {f"d{number}": text for number, text in enumerate(liked + words)}
    folder = tmp_path / "data"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": key, "text": text}) + "\n" for key, text in passages.items())
    )
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "cat mat"}\n')
    judged = "".join(f"q\td{number}\t1\n" for number in range(40))
    (folder / "qrels" / "train.tsv").write_text(judged if source == "positives" else "q\td0\t1\n")
    (tmp_path / "extra.tsv").write_text(judged)
    options = {"exclude_qrels": [str(tmp_path / "extra.tsv")]} if source == "extra judgements" else {}
    settings = MiningSettings(teachers=[teacher], depth=10, negatives=5, method="naive")
    data = folder
    if source == "given negatives":
        data = tmp_path / "pairs.jsonl"
        data.write_text(
            json.dumps({"query": "cat mat", "positive": "cat cat mat", "negatives": liked})
            + "\n"
            + "".join(json.dumps({"query": f"x{word}", "positive": word}) + "\n" for word in words)
        )
        settings = settings.model_copy(update={"keep_negatives": True})

    run = mine(data, out=tmp_path / "run", settings=settings, source=SourceSettings(**options))
    first = json.loads((run.folder / "negatives.jsonl").read_text().splitlines()[0])
    mined = [negative for negative in first["negatives"] if negative["teacher"] != "given"]
    assert first["outcome"] == "full"
    assert len(mined) == 5
    assert {negative["text"] for negative in mined} <= set(words)

"""Candidates: what the teachers are asked, and a folder that gives back every number or one clear error."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from embedsmith.data.collection import Collection
from embedsmith.errors import InputError
from embedsmith.mining.candidates import NO_PASSAGE, Candidates, mine_candidates, read_candidates, write_candidates


class TableTeacher:
    """A teacher whose scores are written down: one row for each of the queries "0", "1"…"""

    def __init__(self, name: str, table: np.ndarray, *, proposes: bool = True, vectors: np.ndarray | None = None):
        self.name, self.proposes, self.contract = name, proposes, {"table": name}
        self.table = np.asarray(table, np.float32)
        self.passages = vectors
        self.searches = 0

    def _rows(self, queries) -> np.ndarray:
        return self.table[[int(query) for query in queries]]

    def search(self, queries, k):
        assert self.proposes
        self.searches += 1
        rows = np.argsort(-self._rows(queries), axis=1, kind="stable")[:, :k]
        return rows, np.take_along_axis(self._rows(queries), rows, axis=1)

    def scores(self, queries, rows):
        return np.take_along_axis(self._rows(queries), rows, axis=1)

    def moments(self, queries):
        return self._rows(queries).mean(axis=1), self._rows(queries).std(axis=1)

    def similarities(self, rows, others):
        if self.passages is None:
            return None
        return np.einsum("sd,skd->sk", self.passages[rows], self.passages[others])

    def vectors_of(self, queries):
        return None


@pytest.fixture
def collection() -> Collection:
    rng = np.random.default_rng(0)
    ids = [f"d{row}" for row in range(9)]
    qrels = {f"q{q}": {str(d): 1 for d in rng.choice(ids, size=1 + q % 2, replace=False)} for q in range(7)}
    qrels["q3"]["d0"] = 0
    return Collection.of(
        name="toy",
        passage_ids=ids,
        passages=list("abcdefghi"),
        query_ids=[f"q{q}" for q in range(7)],
        queries=[str(q) for q in range(7)],
        qrels=qrels,
    )


@pytest.fixture
def teachers() -> list[TableTeacher]:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((9, 3)).astype(np.float32)
    return [
        TableTeacher("one", rng.standard_normal((7, 9))),
        TableTeacher("two", rng.standard_normal((7, 9)), vectors=vectors),
        TableTeacher("rescorer", rng.standard_normal((7, 9)), proposes=False),
    ]


def test_the_union_of_the_proposals_is_scored_by_every_teacher(collection, teachers):
    mined = mine_candidates(teachers, collection, depth=4, block=4)
    assert mined.teachers == ["one", "two", "rescorer"]
    for q in range(7):
        best = {row for teacher in teachers[:2] for row in np.argsort(-teacher.table[q])[:4].tolist()}
        own = mined.rows[q][mined.rows[q] != NO_PASSAGE]
        assert own.tolist() == sorted(best, key=lambda row: -teachers[0].table[q, row])
        for t, teacher in enumerate(teachers):
            np.testing.assert_array_equal(mined.scores[t, q, : len(own)], teacher.table[q, own])
            assert np.isnan(mined.scores[t, q, len(own) :]).all()
    np.testing.assert_allclose(mined.mean[0], teachers[0].table.mean(axis=1))
    np.testing.assert_allclose(mined.deviation[1], teachers[1].table.std(axis=1))
    # A teacher that has not seen the corpus knows the mean of the candidates only.
    np.testing.assert_allclose(mined.mean[2], np.nanmean(mined.scores[2], axis=1))


def test_every_pair_has_its_score_and_its_neighbours(collection, teachers):
    mined = mine_candidates(teachers, collection, depth=4, block=2)
    pairs = [(q, int(p)) for q in range(7) for p in sorted(map(int, (d[1:] for d in collection.positives(f"q{q}"))))]
    found = list(zip(mined.pair_query.tolist(), mined.pair_passage.tolist(), strict=True))
    assert sorted(found) == pairs
    assert mined.pair_query.tolist() == sorted(mined.pair_query.tolist())
    for t, teacher in enumerate(teachers):
        np.testing.assert_array_equal(mined.pair_scores[t], teacher.table[mined.pair_query, mined.pair_passage])
    assert list(mined.neighbours) == ["two"]
    vectors = teachers[1].passages
    for s, (q, p) in enumerate(found):
        own = mined.rows[q] != NO_PASSAGE
        np.testing.assert_allclose(
            mined.neighbours["two"][s, own], vectors[mined.rows[q, own]] @ vectors[p], rtol=1e-5, atol=1e-6
        )


def test_one_teacher_gives_what_it_found_as_it_found_it(collection, teachers):
    mined = mine_candidates(teachers[:1], collection, depth=4)
    rows, scores = teachers[0].search(list(collection.queries), 4)
    np.testing.assert_array_equal(mined.rows, rows)
    np.testing.assert_array_equal(mined.scores[0], scores)


def test_blocks_that_are_done_are_not_searched_again(collection, teachers, tmp_path):
    class Interrupted(Exception):
        pass

    def stop(what, done, total, note=""):
        if done == 4:
            raise Interrupted

    with pytest.raises(Interrupted):
        mine_candidates(teachers, collection, depth=4, block=2, parts=tmp_path, on_progress=stop)
    searches = teachers[0].searches
    again = mine_candidates(teachers, collection, depth=4, block=2, parts=tmp_path)
    assert teachers[0].searches == searches + 2
    same(again, mine_candidates(teachers, collection, depth=4, block=100))


def test_a_rescorer_alone_has_nothing_to_score(collection, teachers):
    with pytest.raises(InputError, match="rescorer scores candidates and proposes none"):
        mine_candidates(teachers[2:], collection, depth=4)


def test_a_folder_gives_back_every_number(collection, teachers, tmp_path):
    mined = mine_candidates(teachers, collection, depth=4)
    write_candidates(tmp_path / "candidates", mined)
    same(read_candidates(tmp_path / "candidates"), mined)


def test_the_same_candidates_are_the_same_bytes(collection, teachers, tmp_path):
    for name in ("one", "other"):
        write_candidates(tmp_path / name, mine_candidates(teachers, collection, depth=4))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


@pytest.mark.parametrize("kept", [0, 10, 100, -1])
def test_a_truncated_file_is_one_clear_error(collection, teachers, tmp_path, kept):
    write_candidates(tmp_path / "candidates", mine_candidates(teachers, collection, depth=4))
    path = tmp_path / "candidates" / "scores.npy"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"scores\.npy: damaged"):
        read_candidates(tmp_path / "candidates")


def test_a_folder_of_another_kind_is_one_clear_error(collection, teachers, tmp_path):
    with pytest.raises(InputError, match="nowhere: no candidates"):
        read_candidates(tmp_path / "nowhere")
    write_candidates(tmp_path / "candidates", mine_candidates(teachers, collection, depth=4))
    (tmp_path / "candidates" / "rows.npy").unlink()
    with pytest.raises(InputError, match="not a whole folder of candidates"):
        read_candidates(tmp_path / "candidates")


def same(one: Candidates, other: Candidates) -> None:
    """Assert that two are equal, number by number."""
    for field in fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
        elif field.name == "neighbours":
            assert list(left) == list(right)
            for name in left:
                np.testing.assert_array_equal(left[name], right[name])
        else:
            assert left == right


def test_no_half_folder_is_left_behind(collection, teachers, tmp_path: Path):
    write_candidates(tmp_path / "candidates", mine_candidates(teachers, collection, depth=4))
    assert [path.name for path in tmp_path.iterdir()] == ["candidates"]

"""The command `select`, its options in turns: what must hold of each row that it writes.

That the rules themselves are applied is tested in `tests/mining/test_selection.py`, on arrays and in every combination.
Here it is ids, texts, copies, lists of exclusions, options and counts: what only the command reads and writes.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import typer

from embedsmith.cli import main
from embedsmith.data.files import write_jsonl
from embedsmith.data.normalised import normalised
from embedsmith.mining import select
from tests.cli.conftest import Done

METHODS = ["naive", "shifted", "abs", "marginpos", "percpos", "percpos+abs", "marginpos+percpos+shifted"]
SAMPLERS = ["top", "uniform", "softmax", "top1", "window"]
SHORT = ["keep", "drop", "random"]
ENSEMBLES = ["first", "cross", "intra", "intra-dedup", "rrf", "fuse", "pca"]
POSITIVES = ["min", "max", "mean", "each"]
RULES = [[], ["--veto"], ["--neighbour-ratio", 1.0], ["--veto-deviations", 1.5]]
ONE_SCALE = ("first", "rrf", "fuse", "pca")
"""Ensembles that score positives and negatives alike."""
NEGATIVES = 3
NUMBERS = {"ratio": 0.98, "margin": 0.02, "threshold": 0.9}


class Toy:
    """12 queries with up to 3 positives, 40 passages of which 10 are copies, and what is no negative."""

    def __init__(self, folder: Path) -> None:
        draw = random.Random(0)
        things = list(itertools.product(["cat", "dog", "log", "mat", "pear"], ["sat", "ran", "ate"], ["plum", "file"]))
        self.passages = {f"d{row}": f"the {a} {b} on the {c}" for row, (a, b, c) in enumerate(things)}
        self.passages |= {f"copy-{row}": self.passages[f"d{3 * row}"].upper() for row in range(10)}
        queries = [f"where {b} the {a}" for a, b, _ in draw.sample(things, 10)]
        # One is the text of a passage; two have the same words and other positives.
        queries[1:1] = [self.passages["d4"].title(), f"  {queries[0]}"]
        self.queries = {f"q{row}": text for row, text in enumerate(queries)}
        ids = list(self.passages)
        self.positives = {query: draw.sample(ids, 1 + row % 3) for row, query in enumerate(self.queries)}
        self.judged = {(query, draw.choice(ids)) for query in self.queries}
        self.nobodys = {"d7", "copy-5"}
        self.folder, self.other_split, self.ids = folder / "toy", folder / "other.tsv", folder / "ids.txt"
        self._write()
        self.of_text: dict[str, set[str]] = {}
        for query, text in self.queries.items():
            texts = {normalised(self.passages[one]) for one in self.positives[query]}
            self.of_text.setdefault(normalised(text), set()).update(texts)

    def _write(self) -> None:
        (self.folder / "qrels").mkdir(parents=True)
        write_jsonl(self.folder / "corpus.jsonl", ({"_id": i, "text": text} for i, text in self.passages.items()))
        write_jsonl(self.folder / "queries.jsonl", ({"_id": i, "text": text} for i, text in self.queries.items()))
        rows = [(query, passage) for query, own in self.positives.items() for passage in own]
        for path, pairs in ((self.folder / "qrels" / "train.tsv", rows), (self.other_split, sorted(self.judged))):
            lines = [f"{query}\t{passage}\t1\n" for query, passage in pairs]
            path.write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
        self.ids.write_text("\n".join(sorted(self.nobodys)))

    def forbidden(self, query: str) -> set[str]:
        """Return the normalised texts that are no negatives of a query."""
        listed = [passage for owner, passage in self.judged if owner == query] + sorted(self.nobodys)
        own = normalised(self.queries[query])
        return {own, *self.of_text[own], *(normalised(self.passages[passage]) for passage in listed)}


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Toy:
    return Toy(tmp_path_factory.mktemp("every-way"))


@pytest.fixture
def mined(embedsmith_command, toy: Toy, tiny_bert: Path) -> Path:
    """A run that every ensemble can select from."""
    run = toy.folder.with_name("mined")
    if not run.exists():
        teachers = ["--teacher", tiny_bert, "--teacher", "bm25", "--teacher", "random", "--teacher-dtype", "float32"]
        excluded = ["--exclude-qrels", toy.other_split, "--exclude-ids", toy.ids]
        words = [*teachers, *excluded, "--ensemble", "pca", "--depth", 12, "--json"]
        assert embedsmith_command("mine", toy.folder, "--out", run, *words).code == 0
    return run


def ways() -> Iterator[Way]:
    """Yield each sampler with each ensemble; methods and the other options change in turns of other lengths."""
    for e, ensemble in enumerate(ENSEMBLES):
        for i, sampler in enumerate(SAMPLERS):
            method, short = METHODS[(e + 3 * i) % 7], SHORT[(e + 2 * i) % 3]
            positive, rule = POSITIVES[(e + 2 * i + i // 2) % 4], RULES[(3 * e + i + e // 2) % 4]
            yield Way(method, sampler, short, ensemble, positive, bool((5 * e + i) // 2 % 2), rule)
    yield Way("twodistances", "top", "keep", "pca", "min", True, [])
    yield Way("twodistances+percpos", "uniform", "random", "pca", "max", False, ["--veto"])


def test_every_row_that_select_writes_obeys_the_rules(
    embedsmith_command, mined: Path, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made_once(monkeypatch)
    known = select.read_mined(mined)
    floors = {}
    for ensemble in ENSEMBLES:
        whole = Way("naive", "top", "keep", ensemble, "min", False, [])
        rows = whole.rows(embedsmith_command, mined, tmp_path / ensemble)
        floors[ensemble] = median(score for row in rows for score in whole.scores(row))
    seen: Counter[str] = Counter()
    for way in ways():
        # A floor at or above the threshold of `abs` is refused: nothing lies between.
        has_room = "abs" not in way.method.split("+") or floors[way.ensemble] < NUMBERS["threshold"]
        way.floor = floors[way.ensemble] if way.has_floor and has_room else None
        rows = way.rows(embedsmith_command, mined, tmp_path / f"{way.ensemble}-{way.method}")
        for row in rows:
            check_row(row, toy, way, known)
        outcomes = Counter(row["outcome"] for row in rows)
        total = 12 if way.positive != "each" else sum(map(len, toy.positives.values()))
        counts = way.done.json
        assert outcomes.total() == total - counts["dropped"]
        assert counts["dropped"] == 0 or way.short == "drop"
        assert counts["negatives"] == sum(len(row["negatives"]) for row in rows)
        assert {name: counts[name] for name in outcomes} == outcomes
        seen += outcomes
        seen["dropped"] += counts["dropped"]
        if way.sampler == "softmax":
            assert way.rows(embedsmith_command, mined, tmp_path / f"again-{way.ensemble}") == rows
    assert all(seen[outcome] for outcome in ("full", "short", "none", "filled", "dropped")), seen


@dataclass
class Way:
    """One way of selecting."""

    method: str
    sampler: str
    short: str
    ensemble: str
    positive: str
    has_floor: bool
    rule: list
    floor: float | None = None

    def rows(self, command, mined: Path, folder: Path) -> list[dict]:
        """Return the rows that the command writes."""
        out = folder / f"{self.method}-{self.sampler}-{self.short}-{self.positive}"
        words = ["--method", self.method, "--sampler", self.sampler, "--short", self.short]
        words += ["--ensemble", self.ensemble, "--positive", self.positive, *self.rule]
        words += [] if self.floor is None else ["--floor", self.floor]
        words += [word for name, value in NUMBERS.items() for word in (f"--{name}", value)]
        words += ["--negatives", NEGATIVES, "--shift", 2, "--sample-from", 6, "--window-first", 2, "--window-last", 8]
        self.done: Done = command("select", mined, "--out", out, *words, "--json")
        assert self.done.code == 0, self.done.err
        return [json.loads(line) for line in (out / "negatives.jsonl").read_text().splitlines()]

    def scores(self, row: dict) -> list[float]:
        """Return the scores of the negatives that a teacher found."""
        return [passage["score"] for passage in row["negatives"] if passage["score"] is not None]

    def limit(self, positive_scores: list[float]) -> float:
        """Return the ceiling over positives of some scores."""
        rules = {"max": max, "mean": lambda scores: sum(scores) / len(scores)}
        score = rules.get(self.positive, min)(positive_scores)
        limits = {
            "abs": NUMBERS["threshold"],
            "marginpos": score - NUMBERS["margin"],
            "percpos": score - (1 - NUMBERS["ratio"]) * abs(score),
        }
        return min(limits.get(name, float("inf")) for name in self.method.split("+"))


def made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let some fifty commands share what is the same in each of them."""
    command = typer.main.get_command(main.app)
    monkeypatch.setattr(main, "app", lambda **keywords: command(**keywords))
    monkeypatch.setattr(select, "read_mined", functools.cache(select.read_mined))


def check_row(row: dict, toy: Toy, way: Way, known: select.Mined) -> None:
    """Assert what must hold of a row, whichever way it was selected."""
    query, negatives = row["query_id"], row["negatives"]
    answers = {passage["id"] for passage in row["positives"]}
    assert answers <= set(toy.positives[query])
    assert len(row["positives"]) == (1 if way.positive == "each" else len(toy.positives[query]))
    assert not {passage["id"] for passage in negatives} & {*toy.positives[query], *toy.nobodys}
    assert not {normalised(passage["text"]) for passage in negatives} & toy.forbidden(query)
    assert all(toy.passages[passage["id"]] == passage["text"] for passage in negatives)
    drawn = [passage for passage in negatives if passage["teacher"] == "random passage"]
    names = [(normalised(p["text"]), p["teacher"] if way.ensemble == "intra" else "") for p in negatives]
    assert len(set(names)) == len(names)
    assert all((p["score"] is None) == (p["rank"] is None) == (p in drawn) for p in negatives)
    assert way.short == "random" or not drawn
    found = len(negatives)
    if row["outcome"] in ("full", "filled"):
        assert (found, bool(drawn)) == (NEGATIVES, row["outcome"] == "filled")
    else:
        assert way.short != "drop"
        assert row["outcome"] == ("short" if 0 < found < NEGATIVES else "none" if not found else "")
    if way.ensemble in ONE_SCALE:
        assert way.scores(row) == sorted(way.scores(row), reverse=True)
    for passage in negatives:
        if passage not in drawn:
            check_score(row, passage, way, known)


def check_score(row: dict, passage: dict, way: Way, known: select.Mined) -> None:
    """Assert that a negative stays under its ceiling and over the floor, by the teacher that took it."""
    scores = [positive["score"] for positive in row["positives"]]
    if way.ensemble not in ONE_SCALE:
        ids, candidates = known.collection, known.candidates
        query, answers = ids.query_index[row["query_id"]], [ids.passage_index[p["id"]] for p in row["positives"]]
        pairs = (candidates.pair_query == query) & np.isin(candidates.pair_passage, answers)
        scores = candidates.pair_scores[candidates.teachers.index(passage["teacher"]), pairs].tolist()
    # Scores are written with 6 decimals.
    assert passage["score"] < way.limit(scores) + 2e-6, (way, row)
    assert way.floor is None or passage["score"] > way.floor - 2e-6, (way, row)

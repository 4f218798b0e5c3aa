"""Every way of selecting, through the command: what must hold of each row that it writes."""

import functools
import itertools
import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest
import typer

from embedsmith.cli import main
from embedsmith.data.collection import normalised
from embedsmith.data.files import write_jsonl
from embedsmith.pipeline import mine
from tests.cli.conftest import Done

METHODS = ["naive", "shifted", "abs", "marginpos", "percpos", "percpos+abs"]
SAMPLERS = ["top", "uniform", "softmax", "top1", "window"]
SHORT = ["keep", "drop", "random"]
ENSEMBLES = ["first", "cross", "intra", "intra-dedup", "rrf", "fuse", "pca"]
WAYS = [*itertools.product(METHODS, ENSEMBLES), ("twodistances", "pca")]
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


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_every_row_of_every_way_obeys_the_rules(
    embedsmith_command, mined: Path, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ensemble: str
):
    made_once(monkeypatch)
    seen: Counter[str] = Counter()
    for method in [method for method, joint in WAYS if joint == ensemble]:
        for sampler, short in itertools.product(SAMPLERS, SHORT):
            out = tmp_path / f"{method}-{sampler}-{short}"
            done = selected(embedsmith_command, mined, out, method, sampler, short, ensemble)
            assert done.code == 0, done.err
            rows = [json.loads(line) for line in (out / "negatives.jsonl").read_text().splitlines()]
            for row in rows:
                check_row(row, toy, method, short, ensemble)
            outcomes = Counter(row["outcome"] for row in rows)
            assert outcomes.total() == (12 if short != "drop" else 12 - done.json["dropped"])
            assert done.json["negatives"] == sum(len(row["negatives"]) for row in rows)
            assert {name: done.json[name] for name in outcomes} == outcomes
            seen += outcomes
            if method == "percpos" and sampler != "top" and short != "drop":
                again = tmp_path / "again" / out.name
                selected(embedsmith_command, mined, again, method, sampler, short, ensemble)
                assert (again / "negatives.jsonl").read_bytes() == (out / "negatives.jsonl").read_bytes()
    assert {outcome for outcome, times in seen.items() if times} >= {"full", "filled"}


def made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hundreds of commands share what is the same in each of them."""
    command = typer.main.get_command(main.app)
    monkeypatch.setattr(main, "app", lambda **keywords: command(**keywords))
    monkeypatch.setattr(mine, "read_mined", functools.cache(mine.read_mined))
    monkeypatch.setattr(os, "fsync", lambda file: None)


def selected(command, mined: Path, out: Path, method: str, sampler: str, short: str, ensemble: str) -> Done:
    numbers = [word for name, value in NUMBERS.items() for word in (f"--{name}", value)]
    words = ["--method", method, "--sampler", sampler, "--short", short, "--ensemble", ensemble, *numbers]
    words += ["--negatives", NEGATIVES, "--shift", 2, "--sample-from", 6, "--window-first", 2, "--window-last", 8]
    return command("select", mined, "--out", out, *words, "--json")


def check_row(row: dict, toy: Toy, method: str, short: str, ensemble: str) -> None:
    """Assert what must hold of a row, whichever way it was selected."""
    query, negatives = row["query_id"], row["negatives"]
    assert {passage["id"] for passage in row["positives"]} == set(toy.positives[query])
    assert not {passage["id"] for passage in negatives} & {*toy.positives[query], *toy.nobodys}
    assert not {normalised(passage["text"]) for passage in negatives} & toy.forbidden(query)
    assert all(toy.passages[passage["id"]] == passage["text"] for passage in negatives)
    drawn = [passage for passage in negatives if passage["teacher"] == "random passage"]
    names = [(normalised(p["text"]), p["teacher"] if ensemble == "intra" else "") for p in negatives]
    assert len(set(names)) == len(names)
    assert all((p["score"] is None) == (p["rank"] is None) == (p in drawn) for p in negatives)
    assert short == "random" or not drawn
    found = len(negatives)
    if row["outcome"] in ("full", "filled"):
        assert (found, bool(drawn)) == (NEGATIVES, row["outcome"] == "filled")
    else:
        assert short != "drop"
        assert row["outcome"] == ("short" if 0 < found < NEGATIVES else "none" if not found else "")
    scores = [passage["score"] for passage in negatives if passage not in drawn]
    if ensemble in ONE_SCALE:
        assert scores == sorted(scores, reverse=True)
        limit = limit_of(row, method)
        assert all(score < limit for score in scores), (query, scores, limit)


def limit_of(row: dict, method: str) -> float:
    """Return the ceiling of a row, from scores as they are written: rounded to 6 decimals."""
    lowest = min(passage["score"] for passage in row["positives"])
    limits = {
        "abs": NUMBERS["threshold"],
        "marginpos": lowest - NUMBERS["margin"],
        "percpos": lowest - (1 - NUMBERS["ratio"]) * abs(lowest),
    }
    return min(limits.get(name, float("inf")) for name in method.split("+")) + 2e-6

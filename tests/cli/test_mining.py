"""The commands of mining on data as users have it: columns, an extra corpus, bad rows, lists; the audit's output."""

import csv
import json
from pathlib import Path

import pytest

FRUIT = ["apple", "pear", "plum", "fig"]
ANIMALS = ["cat", "dog", "owl", "bat"]
BM25 = ["--teacher", "bm25", "--method", "naive"]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """16 queries with two positives each."""
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"query": f"where is the {a} of the {b}", "positive": [f"the {a} is on the {b}", f"a {b} holds the {a}"]}
        for a in ANIMALS
        for b in FRUIT
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """The same with one positive each, in a CSV of columns with other names."""
    path = tmp_path / "table.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "Title", "body text", "wrong"])
        for row, (a, b) in enumerate((a, b) for a in ANIMALS for b in FRUIT):
            writer.writerow([f"no {row}", f"where is the {a} of the {b}", f"the {a} is on the {b}", f"a {b}, {a}-less"])
    return path


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "negatives.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_audit_prints_every_method_as_one_object_and_as_a_table(embedsmith_command, pairs: Path, tmp_path: Path):
    run = tmp_path / "run"
    assert embedsmith_command("mine", pairs, "--out", run, *BM25).code == 0
    done = embedsmith_command("audit", run, "--json", "--draws", 2)
    assert done.code == 0
    methods = done.json["methods"]
    assert list(methods) == ["naive", "shifted", "abs", "marginpos", "percpos", "this run"]
    for figures in methods.values():
        assert figures.keys() >= {"false_negative_rate", "hardness", "full_rows"}
        assert 0 <= figures["false_negative_rate"] <= 1
        assert figures["queries"] == 16
    assert methods["this run"] == methods["naive"]
    assert methods["naive"]["false_negative_rate"] > methods["percpos"]["false_negative_rate"]
    assert embedsmith_command("audit", run, "--json", "--draws", 2).json == done.json
    assert embedsmith_command("audit", run, "--json", "--draws", 2, "--seed", 9).json != done.json
    shown = embedsmith_command("audit", run, "--draws", 2)
    assert "16 queries with several positives" in shown.out
    rate = f"{methods['naive']['false_negative_rate']:.3f} ±"
    assert any("naive" in line and rate in line for line in shown.out.splitlines())
    assert "audit: " in shown.err


def test_what_cannot_be_audited_is_one_line(embedsmith_command, table: Path, tmp_path: Path):
    words = ["--query-column", "Title", "--positive-column", "body text"]
    assert embedsmith_command("mine", table, "--out", tmp_path / "run", *BM25, *words).code == 0
    done = embedsmith_command("audit", tmp_path / "run")
    assert done.code == 2
    assert done.error.startswith("no query has two positives of different texts")


def test_a_target_that_no_ceiling_reaches_says_what_is_reached(embedsmith_command, pairs: Path, tmp_path: Path):
    run = tmp_path / "run"
    assert embedsmith_command("mine", pairs, "--out", run, *BM25).code == 0
    done = embedsmith_command("select", run, "--out", tmp_path / "other", "--target-false-negatives", 0.1)
    assert (done.code, done.error) == (2, "target_false_negatives: method naive has no ceiling to move")
    words = ["--method", "marginpos", "--floor", 99, "--target-false-negatives", 0.0]
    done = embedsmith_command("select", run, "--out", tmp_path / "other", *words)
    assert done.code == 2
    assert "target_false_negatives: 0.0 is not reached by marginpos: no value mines anything" in done.error
    assert not (tmp_path / "other").exists()
    words = ["--method", "percpos", "--target-false-negatives", 0.3, "--json"]
    chosen = embedsmith_command("select", run, "--out", tmp_path / "third", *words).json
    assert chosen["calibration"]["false_negative_rate"] <= 0.3
    assert chosen["settings"]["ratio"] <= 1.1


def test_columns_with_other_names_are_named(embedsmith_command, table: Path, tmp_path: Path):
    words = ["--query-column", "Title", "--positive-column", "body text", "--negative-column", "wrong"]
    words += ["--query-id-column", "number", "--keep-negatives"]
    assert embedsmith_command("mine", table, "--out", tmp_path / "run", *BM25, *words).code == 0
    first = rows_of(tmp_path / "run")[0]
    assert (first["query_id"], first["query"]) == ("no 0", "where is the cat of the apple")
    assert [passage["text"] for passage in first["positives"]] == ["the cat is on the apple"]
    assert (first["negatives"][0]["text"], first["negatives"][0]["teacher"]) == ("a apple, cat-less", "given")


def test_a_mistyped_column_names_the_nearest(embedsmith_command, table: Path, tmp_path: Path):
    words = ["--query-column", "Titel", "--positive-column", "body text"]
    done = embedsmith_command("mine", table, "--out", tmp_path / "run", *BM25, *words)
    assert done.code == 2
    assert '"Titel"' in done.error
    assert '(did you mean "Title"?)' in done.error
    assert not (tmp_path / "run").exists()


def test_an_extra_corpus_gives_negatives_too(embedsmith_command, pairs: Path, tmp_path: Path):
    extra = tmp_path / "more.jsonl"
    extra.write_text(
        "".join(json.dumps({"_id": f"e {n}", "text": f"where the {b} is of"}) + "\n" for n, b in enumerate(FRUIT))
    )
    assert embedsmith_command("mine", pairs, "--out", tmp_path / "run", *BM25, "--corpus", extra).code == 0
    found = {passage["id"] for row in rows_of(tmp_path / "run") for passage in row["negatives"]}
    assert found & {"e 0", "e 1", "e 2", "e 3"}
    done = embedsmith_command("mine", pairs, "--out", tmp_path / "no", *BM25, "--corpus", tmp_path / "moer.jsonl")
    assert done.code == 2
    assert '(did you mean "more.jsonl"?)' in done.error


def test_bad_rows_stop_the_command_or_are_counted(embedsmith_command, pairs: Path, tmp_path: Path):
    with open(pairs, "ab") as file:
        file.write(b'{"query": "", "positive": "x"}\n{"query": "caf\xe9", "positive": "x"}\n{"query": "a",\n')
    done = embedsmith_command("mine", pairs, "--out", tmp_path / "run", *BM25)
    assert done.code == 2
    assert done.error.startswith(f"{pairs}:17: ")
    done = embedsmith_command("mine", pairs, "--out", tmp_path / "run", *BM25, "--skip-bad", "--json")
    assert done.code == 0
    assert done.json["queries"] == 16
    notes = [line for line in done.err.splitlines() if line.startswith("note: 1 row skipped")]
    assert len(notes) == 3
    for place, reason in ((17, "empty text"), (18, "not UTF-8"), (19, "broken JSON")):
        assert any(f'"{reason}"' in note and f"{pairs}:{place}" in note for note in notes), notes


def test_what_other_judgements_and_lists_name_is_no_negative(embedsmith_command, pairs: Path, tmp_path: Path):
    assert embedsmith_command("mine", pairs, "--out", tmp_path / "run", *BM25).code == 0
    first, *_, last = rows_of(tmp_path / "run")
    judged, listed = first["negatives"][0]["id"], last["negatives"][0]["id"]
    (tmp_path / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{first['query_id']}\t{judged}\t1\n")
    (tmp_path / "ids.txt").write_text(f"{listed}\n")
    words = ["--exclude-qrels", tmp_path / "test.tsv", "--exclude-ids", tmp_path / "ids.txt"]
    assert embedsmith_command("mine", pairs, "--out", tmp_path / "other", *BM25, *words).code == 0
    rows = rows_of(tmp_path / "other")
    assert judged not in {passage["id"] for passage in rows[0]["negatives"]}
    assert listed not in {passage["id"] for row in rows for passage in row["negatives"]}


def test_what_the_teachers_cannot_do_is_refused_before_any_work(embedsmith_command, pairs: Path, tmp_path: Path):
    for words, message in (
        (["--neighbour", 0.9], "options: neighbour: none of the teachers has vectors (bm25)"),
        (["--ensemble", "pca"], "options: ensemble: pca: none of the teachers has vectors (bm25)"),
        (["--veto-deviations", 2], "options: veto_deviations: asks another teacher than the first"),
    ):
        done = embedsmith_command("mine", pairs, "--out", tmp_path / "run", *BM25, *words)
        assert done.code == 2
        assert done.error.startswith(message)
        assert not (tmp_path / "run").exists()

"""What a command says to type next has this run's paths, and can be typed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Done
from tests.cli.test_every_option import CLICKED

ANIMALS, PLACES = ["cat", "dog", "owl", "bat", "eel"], ["mat", "log", "tree", "lake"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs, in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("a b")
    rows = [
        {"query": f"find the {a} of the {p}", "positive": f"the {a} is on the {p}"} for a in ANIMALS for p in PLACES
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labelled = [{"text": row["query"], "label": row["query"].split()[2]} for row in rows]
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    return folder


@pytest.fixture
def pairs(folder: Path) -> Path:
    return folder / "pairs.jsonl"


@pytest.fixture
def model(embedsmith_command, folder: Path, tiny_bert: Path) -> Path:
    """A trained run."""
    if not (folder / "model").is_dir():
        words = ["--teacher", "bm25", "--method", "naive"]
        assert embedsmith_command("mine", folder / "pairs.jsonl", "--out", folder / "mined", *words).code == 0
        stage = ["--student", tiny_bert, "--steps", 1, "--batch-size", 4]
        assert embedsmith_command("train", folder / "mined", "--out", folder / "model", *stage).code == 0
    return folder / "model"


def following(done: Done) -> list[list[str]]:
    """Return the commands that one says to type next, in words; each can be typed."""
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    (first,) = [number for number, line in enumerate(lines) if line.startswith("next: ")]
    commands = [shlex.split(line.removeprefix("next: ").strip()) for line in lines[first:]]
    for program, name, *words in commands:
        assert program == "embedsmith"
        CLICKED[name].make_context(name, list(words))
    return [words[1:] for words in commands]


def test_search_goes_on_to_more_queries_and_to_the_model_itself(embedsmith_command, model: Path, pairs: Path):
    done = embedsmith_command("search", model, "the owl", "--data", pairs)
    assert following(done) == [
        ["search", str(model), "--data", str(pairs)],
        ["export-model", str(model), "--out", "my-model"],
    ]
    assert "next: " not in embedsmith_command("search", model, "the owl", "--data", pairs, "--json").out


@pytest.mark.parametrize(("role", "other"), [("passage", "QUERIES"), ("query", "PASSAGES")])
def test_encode_goes_on_to_the_other_side_as_it_was_encoded(embedsmith_command, model, pairs, tmp_path, role, other):
    words = ["encode", model, pairs.parent / "labelled.jsonl", "--role", role, "--dimensions", 8, "--dtype", "float32"]
    done = embedsmith_command(*words, "--out", tmp_path / "out.npy")
    (command,) = following(done)
    assert command[:3] == ["encode", str(model), other]
    assert command[3:5] == ["--role", "query" if role == "passage" else "passage"]
    assert command[5:9] == ["--dtype", "float32", "--dimensions", "8"]
    assert command[-1] == str(tmp_path / f"{other.lower()}.npy")


def test_evaluate_goes_on_to_a_folder_and_from_there_to_a_comparison(embedsmith_command, model, pairs, tmp_path):
    (again,) = following(embedsmith_command("evaluate", model, pairs, "--metric", "mrr@10"))
    assert again == ["evaluate", str(model), str(pairs), "--metric", "mrr@10", "--out", "runs/scores"]
    done = embedsmith_command(*again[:-1], tmp_path / "scores")
    assert following(done) == [["compare", str(tmp_path / "scores"), "ANOTHER"]]


def test_scores_without_queries_go_on_to_another_model(embedsmith_command, model, folder: Path, tmp_path: Path):
    done = embedsmith_command("evaluate", model, folder / "labelled.jsonl", "--out", tmp_path / "scores")
    (other,) = following(done)
    assert other == ["evaluate", "ANOTHER", str(folder / "labelled.jsonl"), "--out", f"{tmp_path}/scores-of-another"]


def test_before_and_after_goes_on_to_a_comparison_and_the_model(embedsmith_command, model, pairs, tmp_path):
    words = ["evaluate", model, pairs, "--before-and-after"]
    kept, export = following(embedsmith_command(*words))
    assert kept == [*map(str, words), "--out", "runs/gain"]
    assert export == ["export-model", str(model), "--out", "my-model"]
    compare, _ = following(embedsmith_command(*kept[:-1], tmp_path / "gain"))
    assert compare == ["compare", str(tmp_path / "gain")]
    (more,) = following(embedsmith_command(*compare))
    # An evaluation has no page of its own: `report` would refuse it.
    assert more == ["compare", str(tmp_path / "gain"), "--metric", "recall@10"]
    assert embedsmith_command(*more).code == 0


def test_a_comparison_of_two_goes_on_with_both_of_them(embedsmith_command, pairs: Path, tmp_path: Path):
    for name, metrics in (("one", ["ndcg@10", "mrr@10"]), ("two", ["mrr@10", "ndcg@10", "recall@5"])):
        words = [word for metric in metrics for word in ("--metric", metric)]
        assert embedsmith_command("evaluate", "bm25", pairs, "--out", tmp_path / name, *words).code == 0
    both = [str(tmp_path / "one"), str(tmp_path / "two")]
    assert following(embedsmith_command("compare", *both)) == [["compare", *both, "--metric", "mrr@10"]]


def test_a_comparison_within_a_recipes_run_goes_on_to_its_page(embedsmith_command, pairs, tiny_bert, tmp_path):
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    for name in ("corpus", "queries"):
        rows = [{"_id": f"{n}", "text": f"the {name} of {n}"} for n in range(8)]
        (beir / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split in ("train", "test"):
        judged = "".join(f"{n}\t{n}\t1\n" for n in range(8))
        (beir / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    (tmp_path / "recipe.yaml").write_text(
        f"data: {{a: {{path: {beir}}}}}\nmining: {{teachers: [bm25], method: naive}}\n"
        f"student: {{name: {tiny_bert}}}\nstages: [{{steps: 1, batch_size: 4}}]\n"
    )
    assert embedsmith_command("run", tmp_path / "recipe.yaml", "--out", tmp_path / "run").code == 0
    report, more = following(embedsmith_command("compare", tmp_path / "run", "--baseline", "bm25"))
    assert report == ["report", str(tmp_path / "run")]
    assert more == ["compare", str(tmp_path / "run"), "--baseline", "bm25", "--metric", "recall@10"]
    assert embedsmith_command(*report).code == 0

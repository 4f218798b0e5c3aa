"""The command line: what it prints where, and how it ends."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import embedsmith
from embedsmith.data import files
from embedsmith.runs.run import read_manifest
from embedsmith.runs.scores import read_scores
from tests.cli.conftest import Done

ANIMALS = ["cat", "dog", "owl", "bat", "eel", "ape", "hen", "yak"]
PLACES = ["mat", "log", "tree", "lake", "road"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {"query": f"find the {a} of the {p}", "positive": f"the {a} is on the {p}"} for a in ANIMALS for p in PLACES
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def mined(embedsmith_command, pairs: Path, tmp_path: Path) -> Path:
    """A finished run of `mine`."""
    folder = tmp_path / "mined"
    assert embedsmith_command("mine", pairs, "--out", folder, "--teacher", "bm25", "--method", "naive").code == 0
    return folder


def test_from_pairs_to_scores_with_one_json_object_each(
    embedsmith_command, pairs: Path, tiny_llama: Path, tmp_path, monkeypatch
):
    mined, model = tmp_path / "mined", tmp_path / "model"
    words = ["--teacher", "bm25", "--method", "naive", "--negatives", 2, "--depth", 10]
    done = embedsmith_command("mine", pairs, "--out", mined, *words, "--json")
    assert done.code == 0
    assert done.json.keys() >= {"run", "seconds", "queries", "negatives", "full", "short", "none"}
    assert (done.json["run"], done.json["queries"], done.json["negatives"]) == (str(mined), 40, 80)

    words = ["--student", tiny_llama, "--latents", 4, "--heads", 2, "--steps", 3, "--batch-size", 8, "--json"]
    done = embedsmith_command("train", mined, "--out", model, *words)
    assert done.code == 0
    assert done.json["model"]["dimensions"] == 32
    assert done.json["model"]["pooling_parameters"] > 0
    settings = read_manifest(model)["settings"]
    assert settings["student"]["name"] == str(tiny_llama)
    assert (settings["stage"]["steps"], settings["stage"]["batch_size"], settings["seed"]) == (3, 8, 0)
    assert [read_manifest(run)["status"] for run in (mined, model)] == ["finished", "finished"]

    done = embedsmith_command("evaluate", model, pairs, "--json")
    assert done.code == 0
    assert done.json["scores"][str(pairs)].keys() >= {"ndcg@10", "recall@10", "mrr@10"}

    done = embedsmith_command("search", model, "where is the owl", "--data", pairs, "-k", 3, "--json")
    assert done.code == 0
    assert [list(hit) for hit in done.json["hits"]] == [["score", "id", "text", "metadata"]] * 3

    monkeypatch.setattr("sys.stdin", io.StringIO("where is the owl\n\nwhere is the fox\n"))
    each = embedsmith_command("search", model, "--data", pairs, "-k", 3, "--json")
    answers = [json.loads(line) for line in each.out.splitlines()]
    assert [answer["query"] for answer in answers] == ["where is the owl", "where is the fox"]
    assert answers[0] == done.json


def test_results_for_people_are_on_stdout_and_progress_on_stderr(embedsmith_command, pairs: Path, mined: Path):
    done = embedsmith_command("evaluate", "bm25", pairs)
    assert done.code == 0
    assert "ndcg@10" in done.out
    done = embedsmith_command("mine", pairs, "--out", f"{mined}-2", "--teacher", "bm25", "--method", "naive")
    assert done.out.startswith("160 negatives for 40 queries: 40 have all 4, 0 fewer, 0 none")
    assert f"next: embedsmith train {mined}-2 --out runs/model" in done.out


def test_a_recipe_is_carried_out(embedsmith_command, pairs: Path, tiny_bert: Path, tmp_path: Path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: {{animals: {{path: {pairs}}}}}\nmining: {{teachers: [bm25], method: naive}}\n"
        f"student: {{name: {tiny_bert}}}\nstages: [{{steps: 1, batch_size: 4}}]\n"
    )
    done = embedsmith_command("run", recipe, "--out", tmp_path / "run", "--seed", 3, "--json")
    assert done.code == 0
    assert done.json.keys() == {"scores", "seconds", "run"}
    assert read_manifest(tmp_path / "run")["settings"]["seed"] == 3
    # As scripts of an earlier version say it: the same run, which is finished.
    done = embedsmith_command("train", recipe, "--out", tmp_path / "run", "--seed", 3)
    assert (done.code, done.error) == (2, f"{tmp_path / 'run'}: this run is finished already")
    assert f"note: `train` takes recipes for one more version; from now on: embedsmith run {recipe}" in done.err


def test_a_recipe_takes_no_other_settings(embedsmith_command, tmp_path: Path):
    done = embedsmith_command("train", "recipe.yaml", "--out", tmp_path / "run", "--student", "bert")
    assert (done.code, done.error) == (2, "--student: a recipe has its own settings")
    done = embedsmith_command("train", "recipe.yaml", "--out", tmp_path / "run", "--batch-size", 3)
    assert (done.code, done.error) == (2, "--batch-size: a recipe has its own settings")


def test_a_dry_run_shows_the_plan_and_writes_nothing(embedsmith_command, mined: Path, tiny_bert: Path, tmp_path: Path):
    words = ["train", mined, "--dry-run", "--student", tiny_bert, "--set", "stage.steps=7", "--batch-size", 8]
    done = embedsmith_command(*words)
    assert done.code == 0
    assert "stage train: 7 steps of 8 queries and about" in done.out
    done = embedsmith_command(*words, "--json")
    assert [stage["steps"] for stage in done.json["stages"]] == [7]
    assert done.json.keys() == {"device", "free_gib", "opening_gib", "parameters", "data", "stages"}
    done = embedsmith_command("train", mined)
    assert (done.code, done.error) == (2, "--out is missing")


def test_a_finished_or_foreign_folder_is_refused(embedsmith_command, pairs: Path, mined: Path, tmp_path: Path):
    same = ["--teacher", "bm25", "--method", "naive"]
    done = embedsmith_command("mine", pairs, "--out", mined, *same)
    assert (done.code, done.error) == (2, f"{mined}: this run is finished already")
    done = embedsmith_command("mine", pairs, "--out", mined, *same, "--negatives", 7)
    assert (done.code, done.error) == (2, f"{mined}: holds another run (negatives 4, now 7)")
    done = embedsmith_command("train", mined, "--out", mined)
    assert (done.code, done.error) == (2, f"{mined}: holds another run (it was made by `mine`)")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("years of work")
    done = embedsmith_command("mine", pairs, "--out", tmp_path / "own", *same)
    assert (done.code, done.error) == (2, f"{tmp_path / 'own'}: not empty and not a run folder")
    done = embedsmith_command("mine", pairs, "--out", tmp_path / "own" / "thesis.txt", *same)
    assert (done.code, done.error) == (2, f"{tmp_path / 'own' / 'thesis.txt'}: a file, wanted a folder to write")


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(
    embedsmith_command, pairs: Path, mined: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from embedsmith.training import train

    words = ["train", mined, "--student", tiny_bert, "--steps", 3, "--batch-size", 8, "--save-steps", 1, "--out"]
    train_stage = train.train_stage

    def interrupted(*arguments, on_step, **keywords):
        def stop(report):
            on_step(report)
            if report.step == 2:
                raise KeyboardInterrupt

        return train_stage(*arguments, on_step=stop, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_stage", interrupted)
        done = embedsmith_command(*words, tmp_path / "cut")
    assert (done.code, done.error) == (130, "interrupted")
    assert embedsmith_command(*words, tmp_path / "cut").code == 0
    whole = embedsmith_command(*words, tmp_path / "whole")
    assert whole.code == 0
    assert f"next: embedsmith evaluate {tmp_path / 'whole'} DATA --before-and-after" in whole.out
    one, other = ((tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("cut", "whole"))
    assert one == other


def test_a_full_disk_ends_with_1_and_the_same_command_goes_on(
    embedsmith_command, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ["mine", pairs, "--out", tmp_path / "run", "--teacher", "bm25", "--method", "naive"]

    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        done = embedsmith_command(*words)
    assert done.code == 1
    assert done.error.endswith(f"run{os.sep}manifest.json: No space left on device")
    assert "free some space" in done.err
    assert embedsmith_command(*words).code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mine", "PAIRS", "--out", "OUT", "--methd", "naive"], "No such option: --methd"),
        (["mine", "PAIRS"], "Missing option '--out'"),
        (["mine", "--out", "OUT"], "Missing argument 'data'"),
        (["mine", "PAIRS", "--out", "OUT", "--method", "best"], 'no method "best"; there are naive'),
        (["mine", "PAIRS", "--out", "OUT", "--depth", "many"], "Invalid value for '--depth': "),
        (["mine", "PAIRS", "--out", "OUT", "--negatives", "0"], "--negatives: Input should be greater than 0"),
        (["mine", "PAIRZ", "--out", "OUT"], 'pairz.jsonl: no such file or folder (did you mean "pairs.jsonl"?)'),
        (["mine", "BROKEN", "--out", "OUT"], "broken.jsonl:2: broken JSON: "),
        (["mine", "PAIRS", "--out", "OUT", "--teacher", "./none"], "./none: no such model folder"),
        (
            ["mine", "PAIRS", "--out", "OUT", "--teacher", "package:none/x"],
            "the Python package 'none' is not installed",
        ),
        (["mine", "PAIRS", "--out", "OUT", "--teacher", "no-one/no-model"], "no-one/no-model: cannot be opened: "),
        (["train", "PAIRZ", "--out", "OUT"], "pairz.jsonl: no such run folder or file"),
        (["run", "recipes/none.yaml", "--out", "OUT"], "recipes/none.yaml: no such recipe"),
        (["run", "recipes/none.yaml"], "--out is missing"),
        (["mine", "PAIRS", "--out", "OUT", "--device", "tpu"], '--device: no device "tpu"'),
        (["run", "MISTYPED", "--out", "OUT"], 'unknown key "studnet" (did you mean "student"?)'),
        (["run", "NOT_YAML", "--out", "OUT"], "not.yaml:2: not YAML: "),
        (["evaluate", "bm25", "PAIRZ"], "pairz.jsonl: no such file or folder"),
        (["evaluate", "bm25"], "no data to score it on"),
        (["evaluate"], "Missing argument 'model'"),
        (["evaluate", "a/b/c", "PAIRS"], "a/b/c: no such model folder"),
        (["search", "OUT", "an owl"], "out: no such run folder"),
        (["search", "OUT", " "], "the query is empty"),
        (["quickstart", "--source", "no/such", "--out", "OUT"], "no/such: no such folder"),
        (["quickstart", "--student", "bert"], "'bert' is not one of 'minilm', 'smollm2'"),
        (["foo"], "No such command 'foo'"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value),
)
def test_a_mistake_is_told_in_one_line_with_its_remedy(
    embedsmith_command, pairs: Path, tmp_path: Path, words: list[str], message: str
):
    (tmp_path / "broken.jsonl").write_text('{"query": "a", "positive": "b"}\n{"query": "a",\n')
    (tmp_path / "mistyped.yaml").write_text("data: {a: {path: x}}\nstudnet: {}\n")
    (tmp_path / "not.yaml").write_text("data: [\n")
    stands_for = {
        "PAIRS": pairs,
        "PAIRZ": pairs.with_name("pairz.jsonl"),
        "BROKEN": tmp_path / "broken.jsonl",
        "MISTYPED": tmp_path / "mistyped.yaml",
        "NOT_YAML": tmp_path / "not.yaml",
        "OUT": tmp_path / "out",
    }
    done = embedsmith_command(*(stands_for.get(word, word) for word in words))
    assert done.code == 2
    assert message.casefold() in done.error.casefold()  # Typer writes an argument now so, now so
    assert not (tmp_path / "out").exists()


def test_without_words_the_help_is_shown(embedsmith_command):
    done = embedsmith_command()
    assert done.code == 2
    assert "quickstart" in done.out + done.err
    assert "error:" not in done.err


def test_the_version_is_printed(embedsmith_command):
    assert embedsmith_command("--version") == Done(0, f"embedsmith {embedsmith.__version__}\n", "")


def test_the_public_names_are_sorted_and_each_is_there():
    assert embedsmith.__all__ == sorted(embedsmith.__all__)
    assert len(set(embedsmith.__all__)) == len(embedsmith.__all__) >= 22
    renamed = {"audit": "audit_run", "run": "run_recipe", "select": "select_again"}
    assert all(getattr(embedsmith, name).__name__ == renamed.get(name, name) for name in embedsmith.__all__)
    assert set(embedsmith.__all__) <= set(dir(embedsmith))
    with pytest.raises(AttributeError, match="has no attribute 'tain'"):
        _ = embedsmith.tain


@pytest.mark.parametrize(("old", "new"), [("find", "search"), ("forge", "run")])
def test_a_name_of_an_earlier_version_is_known_for_one_more(old: str, new: str):
    with pytest.warns(DeprecationWarning, match=f"embedsmith.{old} is called embedsmith.{new} now"):
        assert getattr(embedsmith, old) is getattr(embedsmith, new)
    assert old not in embedsmith.__all__


def test_a_public_name_is_loaded_when_it_is_used():
    program = "import embedsmith, sys; a = set(sys.modules); embedsmith.MiningSettings; print(*set(sys.modules) - a)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "embedsmith.mining.settings" in done.stdout.split()
    assert "embedsmith.recipes" not in done.stdout.split()


def test_a_report_is_one_page_and_its_numbers_are_one_object(embedsmith_command, mined: Path):
    done = embedsmith_command("report", mined)
    page, following = done.out.splitlines()
    assert (done.code, page) == (0, str(mined / "report.html"))
    assert following == f"next: embedsmith train {mined} --out runs/model"
    assert (mined / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    numbers = embedsmith_command("report", mined, "--json").json
    assert numbers["report"] == str(mined / "report.html")
    assert sum(numbers["judged"][0]["positives"]["counts"]) == 40
    assert sum(numbers["outcomes"].values()) == 40


def test_a_report_of_what_is_no_mining_run_is_refused_in_one_line(embedsmith_command, tmp_path: Path):
    done = embedsmith_command("report", tmp_path)
    assert done.code == 2
    assert "not a run folder" in done.error


def test_scores_are_written_with_the_command_that_made_them(embedsmith_command, pairs: Path, tmp_path: Path):
    out = tmp_path / "scores"
    words = ["evaluate", "bm25", pairs, "--metric", "precision@1", "--metric", "ndcg@5", "--out", out, "--json"]
    done = embedsmith_command(*words)
    assert done.code == 0
    assert done.json["run"] == str(out)
    assert list(done.json["scores"][str(pairs)]) == ["precision@1", "ndcg@5"]
    written = read_scores(out)
    assert written.of_label("model") == done.json["scores"]
    assert written.command == " ".join(map(str, ["embedsmith", *words]))
    assert embedsmith_command(*words).error.startswith(f"{out}: this run is finished already")

    done = embedsmith_command("evaluate", out / "ranking.trec", out / "judgements.qrels", "--metric", "ndcg@5")
    assert done.code == 0
    assert "ndcg@5" in done.out and "precision@1" not in done.out

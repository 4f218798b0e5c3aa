"""The readers of what commands leave in folders: runs of recipes, ablations, evaluations, checkpoints, shelves."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.attacks import reading
from tests.attacks.model_readers import tiny_bert_in
from tests.attacks.reading import Reader, each

ANIMALS, PLACES = ["cat", "dog", "owl"], ["mat", "log"]


@contextlib.contextmanager
def few_samples() -> Iterator[None]:
    """Draw few samples for an interval: it is the files that matter here."""
    from embedsmith.evaluation import significance

    drawn = significance.bootstrap_means
    significance.bootstrap_means = lambda values, *, samples, seed: drawn(values, samples=9, seed=seed)
    try:
        yield
    finally:
        significance.bootstrap_means = drawn


class CutShort(Exception):
    """What ends a run before it is finished."""


def _data_in(folder: Path) -> Path:
    """Write a BEIR folder of six pairs, the same for training and for testing."""
    both = [(a, p) for a in ANIMALS for p in PLACES]
    (folder / "qrels").mkdir(parents=True)
    _write_rows(folder / "corpus.jsonl", [{"_id": f"{a}-{p}", "text": f"the {a} is on the {p}"} for a, p in both])
    _write_rows(folder / "queries.jsonl", [{"_id": f"q-{a}-{p}", "text": f"find the {a} of a {p}"} for a, p in both])
    rows = "".join(f"q-{a}-{p}\t{a}-{p}\t1\n" for a, p in both)
    for split in ("train", "test"):
        (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    return folder


def _write_rows(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _recipe_on(folder: Path, *, stages: tuple[str, ...] = ("one", "two")) -> Any:
    """Return a recipe on the data and the model of a folder: one step of training a stage."""
    from embedsmith.recipes.recipe import Recipe

    stage = {"steps": 1, "batch_size": 2, "report_to": "none"}
    return Recipe.model_validate(
        {
            "data": {"animals": {"path": str(folder / "animals")}},
            "mining": {"teachers": ["bm25"], "method": "naive", "depth": 4},
            "student": {"name": str(folder / "bert")},
            "stages": [{**stage, "name": name} for name in stages],
            "evaluation": {"baselines": [], "dtype": "float32"},
        }
    )


def _finish_again(run: Path) -> None:
    """Let a run seem one that was cut short when all was done, and the manifest not written."""
    path = run / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "running"}, indent=2))


def _quietly(work: Callable[[], Any]) -> Callable[[], Any]:
    """Return work that prints, without what it prints."""

    def do() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            work()

    return do


@few_samples()
def _recipe_run(folder: Path) -> None:
    from embedsmith.recipes.run import run_recipe

    _data_in(folder / "animals")
    tiny_bert_in(folder / "bert")
    run_recipe(_recipe_on(folder), out=folder / "run")


@few_samples()
def _read_recipe_run(folder: Path) -> None:
    """Look at a recipe's run in every way, and go on with it as if its last line had not been written."""
    from embedsmith.cli.recipes import show_run
    from embedsmith.evaluation.before_and_after import own_scorings
    from embedsmith.evaluation.compare import compare
    from embedsmith.evaluation.settings import ScoringSettings
    from embedsmith.models.settings import StudentSettings
    from embedsmith.recipes.report_pages import write_page
    from embedsmith.recipes.run import run_recipe
    from embedsmith.runs.run import Run, read_manifest
    from embedsmith.serving.export import _card
    from embedsmith.training.train import mined_sources

    run = folder / "run"
    each(
        lambda: write_page(run),
        lambda: compare(run),
        lambda: compare(run, run),
        lambda: own_scorings(run, ScoringSettings()),
        lambda: mined_sources(run, StudentSettings()),
        lambda: _card(str(run), run, folder / "copy", "sentence-transformers", run / "model").text(),
        _quietly(lambda: show_run(Run(run, read_manifest(run), lock=None), as_json=False, search_hint="")),
    )
    if "running" not in (run / "manifest.json").read_text("utf-8", "replace"):
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            _finish_again(run)
    run_recipe(_recipe_on(folder), out=run)


@few_samples()
def _shelf(folder: Path) -> None:
    from embedsmith.recipes.run import run_recipe
    from embedsmith.recipes.shelf import Shelf

    _data_in(folder / "animals")
    tiny_bert_in(folder / "bert")
    run_recipe(_recipe_on(folder, stages=("one",)), out=folder / "run", shelf=Shelf(folder / "shelf"))
    shutil.rmtree(folder / "run")


@few_samples()
def _read_shelf(folder: Path) -> None:
    """Carry out a recipe all of whose parts lie on a shelf."""
    from embedsmith.recipes.run import run_recipe
    from embedsmith.recipes.shelf import Shelf

    run_recipe(_recipe_on(folder, stages=("one",)), out=folder / "run", shelf=Shelf(folder / "shelf"))


def _checkpoint(folder: Path) -> None:
    _data_in(folder / "animals")
    tiny_bert_in(folder / "bert")

    def cut(what: str, done: int, total: int, note: str = "") -> None:
        if what.startswith("stage") and done >= 3:
            raise CutShort

    with contextlib.suppress(CutShort):
        _train(folder, cut)


def _train(folder: Path, on_progress: Callable[..., None]) -> None:
    from embedsmith.mining.mine import mine
    from embedsmith.mining.settings import MiningSettings
    from embedsmith.models.settings import StudentSettings
    from embedsmith.training.settings import StageSettings
    from embedsmith.training.train import train

    if not (folder / "mined").is_dir():
        settings = MiningSettings(teachers=["bm25"], method="naive", depth=4, negatives=1)
        mine(folder / "animals", out=folder / "mined", settings=settings)
    steps = {"steps": 3, "save_steps": 1, "held_out": 2, "eval_steps": 1, "report_to": "none"}
    stage = StageSettings.model_validate({**steps, "batch_size": 2, "learning_rate": 0.01, "dtype": "float32"})
    student = StudentSettings(name=str(folder / "bert"))
    train(folder / "mined", out=folder / "run", student=student, stage=stage, on_progress=on_progress)


_resumed = itertools.count()


def _read_checkpoint(folder: Path) -> None:
    """Go on from the last checkpoint of a run that was cut short; the fuzzer ends most of them after a step."""
    ends = bool(reading.is_worth) and next(_resumed) % 4 > 0

    def notes(what: str, done: int, total: int, note: str = "") -> None:
        if ends and what.startswith("stage"):
            raise CutShort

    with contextlib.suppress(CutShort):
        _train(folder, notes)


@few_samples()
def _evaluation(folder: Path) -> None:
    from embedsmith.evaluation.contender import Contender
    from embedsmith.evaluation.evaluate import evaluate_into
    from embedsmith.evaluation.settings import ScoringSettings

    places = [str(_data_in(folder / name)) for name in ("animals", "others")]
    contender = Contender("bm25", vectors=folder / "vectors")
    evaluate_into(folder / "one", contender, places[:1], ScoringSettings(), command="embedsmith evaluate")
    evaluate_into(folder / "two", contender, places, ScoringSettings())
    _finish_again(folder / "two")


@few_samples()
def _read_evaluation(folder: Path) -> None:
    """Compare two evaluations, and go on with one that was cut short."""
    from embedsmith.evaluation.compare import compare
    from embedsmith.evaluation.contender import Contender
    from embedsmith.evaluation.evaluate import evaluate_into
    from embedsmith.evaluation.settings import ScoringSettings

    places = [str(folder / name) for name in ("animals", "others")]
    contender = Contender("bm25", vectors=folder / "vectors")
    each(
        lambda: compare(folder / "one", folder / "two"),
        lambda: compare(folder / "two", folder / "one"),
        lambda: evaluate_into(folder / "two", contender, places, ScoringSettings()),
    )


def _ablation_on(folder: Path) -> Any:
    from embedsmith.recipes.ablation.grid import Ablation

    recipe = _recipe_on(folder).model_dump(mode="json")
    recipe["stages"] = recipe["stages"][:1]
    rows = {"naive": {"mining.method": "naive"}, "absolute": {"mining.method": "abs"}}
    return Ablation.model_validate({"recipe": recipe, "rows": rows, "seeds": 1, "keep_models": False})


@few_samples()
def _ablation(folder: Path) -> None:
    from embedsmith.recipes.ablation.ablate import ablate

    _data_in(folder / "animals")
    tiny_bert_in(folder / "bert")
    ablate(_ablation_on(folder), out=folder / "run")
    shutil.rmtree(folder / "bert")  # a cell that is not finished is not carried out: it ends in an error


@few_samples()
def _read_ablation(folder: Path) -> None:
    """Make the page of an ablation again, and go on with it as if its last line had not been written."""
    from embedsmith.recipes.ablation.ablate import ablate, write_ablation_report

    each(lambda: write_ablation_report(folder / "run"))
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        _finish_again(folder / "run")
    ablate(_ablation_on(folder), out=folder / "run")


def _read_kept_scores(folder: Path) -> None:
    """Ask for scores that are kept, or are computed and kept."""
    import numpy as np

    from embedsmith.teachers.chance import Chance
    from embedsmith.teachers.kept import KeptScores

    texts = ["a cat", "a dog", "an owl", "a bat"]
    kept = KeptScores(Chance(len(texts), seed=0), texts, contract={"model": "toy"}, folder=folder / "scores")
    found = kept.scores(texts[:2], np.array([[0, 1, 2], [1, 2, 3]]))
    assert np.isfinite(found).all(), found


def _locked(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run" / ".lock").write_text("17 a-machine\n")


def _read_locked(folder: Path) -> None:
    """Begin a run in a folder in which a process that is gone has left its lock."""
    from embedsmith.data.locks import Lock
    from embedsmith.runs.run import Run

    each(
        lambda: Lock.in_folder(folder / "run").holder,
        lambda: Lock.in_folder(folder / "run").held_by,
        lambda: Run.open(folder / "run", command="train", settings=_recipe_on(folder), inputs={}).__exit__(None),
    )


RUN_READERS: dict[str, Reader] = {
    "recipe-run": Reader(
        _read_recipe_run,
        _recipe_run,
        ("run/*.json", "run/*.jsonl", "run/scores/*/*.jsonl", "run/mined/animals/negatives.jsonl", "run/recipe.yaml"),
        seconds=20,
    ),
    "shelf": Reader(_read_shelf, _shelf, ("shelf/*/*/about.json", "shelf/*/*/content*"), seconds=20),
    "checkpoint": Reader(_read_checkpoint, _checkpoint, ("run/checkpoints/*/*", "run/checkpoints/*/*/*"), seconds=20),
    "evaluation": Reader(
        _read_evaluation, _evaluation, ("*/*.json", "*/*.trec", "*/per_query.jsonl", "two/*/*.trec", "two/*/*.jsonl")
    ),
    "ablation": Reader(
        _read_ablation,
        _ablation,
        ("run/*.json", "run/cells/*/*/*.json", "run/cells/*/*/scores/*/*.jsonl", "run/cells/*/*/mined/figures.json"),
        seconds=20,
    ),
    "kept-scores": Reader(_read_kept_scores, _read_kept_scores, ("scores/*/*.npy",)),
    "locks": Reader(_read_locked, _locked, ("run/.lock",)),
}

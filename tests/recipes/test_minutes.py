"""A recipe that ends in time: what is given up for it, in which order, and that the run says so."""

from pathlib import Path

import numpy as np
import pytest

import embedsmith
from embedsmith import MiningSettings, StageSettings, StudentSettings
from embedsmith.data.files import read_json
from embedsmith.errors import RunError
from embedsmith.recipes import minutes, speed
from embedsmith.recipes.minutes import LEAST_STEPS, begun, fitted
from embedsmith.recipes.recipe import DataSettings, EvaluationSettings, Recipe, read_recipe
from embedsmith.recipes.speed import Side, Texts
from embedsmith.teachers.settings import TeacherSettings
from embedsmith.training.cost import Cost
from embedsmith.training.weights import TrainedWeights


@pytest.fixture(autouse=True)
def _shorter_texts(monkeypatch):
    """The tiny model ends at 128 tokens."""
    monkeypatch.setattr(minutes, "_TOKENS", ((None, None), (64, 64), (64, 32)))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """600 functions in 30 files."""
    folder = tmp_path_factory.mktemp("source")
    for file in range(30):
        text = "".join(
            f'def work_{file}_{number}(thing):\n    """Do the piece {number} of work that file {file} has."""\n'
            f"    return [thing, {number}, {file}, {number * file}]\n\n\n"
            for number in range(20)
        )
        (folder / f"part_{file}.py").write_text(text)
    return folder


@pytest.fixture
def recipe(source: Path, tiny_bert: Path) -> Recipe:
    return Recipe(
        name="small",
        data={"code": DataSettings(path=str(source), format="code")},
        mining=MiningSettings(
            teachers=[str(tiny_bert)], depth=10, negatives=2, teacher_settings=TeacherSettings(max_tokens=100)
        ),
        student=StudentSettings(name=str(tiny_bert), query_max_tokens=24, passage_max_tokens=100),
        stages=[StageSettings(steps=60, batch_size=8)],
        evaluation=EvaluationSettings(dtype="float32"),
    )


@pytest.fixture
def machine(monkeypatch):
    """A machine that encodes and trains at a speed of the test's choice."""

    def be(*, tokens_a_second: float, seconds_a_batch: float) -> None:
        monkeypatch.setattr(speed.Speed, "_measured", lambda self, model, sample: tokens_a_second)
        cost = Cost(1000, seconds_a_batch, TrainedWeights(10, 0, 0, ""), 2.0**30)
        monkeypatch.setattr(speed, "cost_of", lambda model, plan, settings: cost)

    return be


def test_with_time_enough_nothing_is_given_up(recipe: Recipe, machine):
    machine(tokens_a_second=1e6, seconds_a_batch=0.1)
    plan = fitted(recipe, 10)
    assert plan.recipe == recipe
    assert plan.changes == {}
    assert plan.is_in_time
    assert plan.estimate.training == pytest.approx(60 * 0.1)
    assert plan.estimate.memory_gib == pytest.approx(1.0)


def test_a_slower_machine_reads_less_and_then_takes_fewer_steps(recipe: Recipe, machine, monkeypatch):
    monkeypatch.setattr(speed.Speed, "_lengths", lambda self, texts: iter([100] * len(texts)))
    plans = {}
    for name, rate in {"whole": 30_000.0, "short": 600.0, "half": 400.0, "crawl": 75.0}.items():
        machine(tokens_a_second=rate, seconds_a_batch=10_000 / rate)
        plans[name] = fitted(recipe, 10)
    assert plans["whole"].changes == {}
    assert plans["short"].changes == {
        "mining.teacher_settings.max_tokens": 64,
        "student.passage_max_tokens": 64,
        "stages.0.passage_max_tokens": 32,
        **{path: value for path, value in plans["short"].changes.items() if path.endswith("steps")},
    }
    assert plans["short"].is_in_time
    slow = [plans[name].estimate.steps[0] for name in ("short", "half", "crawl")]
    assert slow == sorted(slow, reverse=True)
    assert slow[-1] == LEAST_STEPS
    assert not plans["crawl"].is_in_time


def test_of_much_code_a_slow_machine_reads_a_part(recipe: Recipe, machine, monkeypatch):
    monkeypatch.setattr(minutes, "_FEWEST", {"code": 100})
    monkeypatch.setattr(speed.Speed, "_lengths", lambda self, texts: iter([100] * len(texts)))
    chosen = []
    for rate in (2000.0, 400.0, 250.0):
        machine(tokens_a_second=rate, seconds_a_batch=4000 / rate)
        plan = fitted(recipe, 7)
        assert plan.is_in_time
        chosen.append(plan.changes.get("data.code.max_functions", 600))
        # Fewer steps come before less code, but never too few.
        assert plan.estimate.steps[0] >= LEAST_STEPS
    assert chosen[0] == 600
    assert chosen == sorted(chosen, reverse=True)
    assert chosen[-1] < 600


def test_texts_are_counted_by_a_sample_and_cut_where_they_are_truncated():
    texts = Texts(np.array([10, 100, 400]), count=3000)
    assert texts.tokens(None) == pytest.approx(510_000)
    assert texts.tokens(100) == pytest.approx(210_000)
    assert Side(Texts(np.array([5]), 10), texts).tokens(4, 10) == pytest.approx(40 + 30_000)


def test_what_was_chosen_is_in_the_run_and_repeats_it_byte_for_byte(recipe: Recipe, machine, tmp_path: Path):
    recipe = recipe.model_copy(update={"stages": [StageSettings(steps=2, batch_size=8)]})
    machine(tokens_a_second=1e6, seconds_a_batch=300.0)
    plan = fitted(recipe, 10)
    assert plan.recipe.stages[0].passage_max_tokens == 32
    one = embedsmith.run(plan.recipe, out=tmp_path / "one", planned=plan.note(recipe))
    assert one.manifest["planned"]["changes"] == plan.changes
    other = embedsmith.run(read_recipe(tmp_path / "one" / "recipe.yaml"), out=tmp_path / "other")
    for path in ("mined/code/negatives.jsonl", "model/model.safetensors", "scores/code/after.jsonl"):
        assert (one.folder / path).read_bytes() == (other.folder / path).read_bytes()


def test_a_run_that_was_cut_short_goes_on_with_its_plan_whatever_the_machine_does_now(
    recipe: Recipe, machine, tmp_path: Path
):
    machine(tokens_a_second=1e6, seconds_a_batch=15.0)
    plan = fitted(recipe, 10)
    assert begun(tmp_path / "run", recipe) is None
    with pytest.raises(KeyboardInterrupt):
        embedsmith.run(plan.recipe, out=tmp_path / "run", planned=plan.note(recipe), on_progress=interrupting)
    assert read_json(tmp_path / "run" / "manifest.json")["status"] == "running"
    assert begun(tmp_path / "run", recipe) == plan.recipe
    another = recipe.model_copy(update={"seed": 1})
    assert begun(tmp_path / "run", another) == another
    with pytest.raises(RunError, match="holds another run"):
        embedsmith.run(another, out=tmp_path / "run")


def interrupting(what: str, done: int, total: int, note: str = "") -> None:
    if what.startswith("encode"):
        raise KeyboardInterrupt

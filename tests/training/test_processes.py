"""Two processes train as one: the same global batch, the same loss, the same weights up to the order of a sum."""

import json
import socket
from pathlib import Path

import pytest
from safetensors.torch import load_file

from embedsmith.data.examples import Example, Passage, write_examples
from embedsmith.errors import SettingsError
from embedsmith.recipes.plan import plan_of_recipe, plan_of_run
from embedsmith.recipes.recipe import Recipe
from embedsmith.recipes.run import run_recipe
from embedsmith.training.processes import Processes
from embedsmith.training.train import TrainingSettings, train
from tests.forks import Fork

PROGRAM = """
import atexit, json, os, sys
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed as dist

from embedsmith.data.examples import read_examples
from embedsmith.models.settings import StudentSettings
from embedsmith.models.opening import build_student
from embedsmith.training.batches import Source
from embedsmith.training.processes import Processes
from embedsmith.training.settings import StageSettings
from embedsmith.training.stage import train_stage

student, examples, out, settings = sys.argv[1:]
left = Path(f"{out}/left-{os.environ['RANK']}")
atexit.register(lambda: left.write_text(str(not dist.is_initialized())))  # the first comes last
model = build_student(StudentSettings.model_validate_json(student), seed=1, device="cpu")
sources = [Source("toy", read_examples(Path(examples)), prompt="")]
stage = StageSettings.model_validate_json(settings)
# Who embeds between steps leaves the model without dropout.
embed = lambda report: model.embed(["a cat"], "query")
reports = train_stage(model, sources, stage, folder=Path(out) / "checkpoints", seed=3, on_step=embed)
processes = Processes.running()
save_file({name: weight.contiguous() for name, weight in model.state_dict().items()}, f"{out}/{processes.rank}")
Path(f"{out}/reports-{processes.rank}.json").write_text(json.dumps([asdict(report) for report in reports]))
Path(f"{out}/least-{processes.rank}.json").write_text(json.dumps(processes.least(processes.rank, 7 - processes.rank)))
"""
STAGE = {
    "steps": 3,
    "batch_size": 6,
    "accumulation": 2,
    "learning_rate": 5e-3,
    "warmup": 0.0,
    "dtype": "float32",
    "dropout": 0.2,
    "chunk_tokens": 40,
    "save_steps": 2,
    "held_out": 4,
    "eval_steps": 2,
    "report_to": "none",
}


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "examples.jsonl"
    rows = [
        Example(
            f"q{i}",
            f"where is {'the long and winding ' * (i % 3)}{i}",
            [Passage(f"p{i}", f"the cat {i} sat " * (1 + i % 4))],
            [Passage(f"n{i}", f"a dog {i * i}")],
        )
        for i in range(20)
    ]
    write_examples(path, rows)
    return path


def trained(student: dict, examples: Path, out: Path, *, processes: int, **changes) -> list[dict]:
    """Train in some processes; return the reports of each."""
    out.mkdir()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = [json.dumps(student), examples, out, json.dumps({**STAGE, **changes})]
    started = []
    for rank in range(processes):
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        place |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        started.append(Fork(PROGRAM, *words, **place))
    for process in started:
        done = process.ended()
        assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / f"reports-{rank}.json").read_text()) for rank in range(processes)]


@pytest.mark.slow
def test_two_processes_have_the_losses_and_the_weights_of_one(tiny_llama, examples, tmp_path):
    student = {"name": str(tiny_llama), "attention": "bidirectional", "pooling": "latent", "latents": 4, "heads": 2}
    (expected,) = trained(student, examples, tmp_path / "one", processes=1)
    both = trained(student, examples, tmp_path / "two", processes=2)
    assert [(tmp_path / "two" / f"left-{rank}").read_text() for rank in (0, 1)] == ["True", "True"]
    for reports in both:
        for row, other in zip(reports, expected, strict=True):
            for key in ("loss", "held_out_loss", "gradient_norm", "pooling_gradient_norm"):
                assert row[key] == (other[key] if other[key] is None else pytest.approx(other[key], rel=1e-5))
            assert [row[key] for key in ("tokens", "queries", "accuracy")] == [
                other[key] for key in ("tokens", "queries", "accuracy")
            ]
    assert [json.loads((tmp_path / "two" / f"least-{rank}.json").read_text()) for rank in (0, 1)] == [[0, 6]] * 2
    one = load_file(tmp_path / "one" / "0")
    first, second = (load_file(tmp_path / "two" / str(rank)) for rank in (0, 1))
    for name, weight in one.items():
        assert first[name].equal(second[name])
        # AdamW divides a gradient by its size: where one is almost 0, the order of a sum decides its sign.
        assert (first[name] - weight).abs().mean() < 1e-5


def test_a_weight_that_nothing_reads_is_left_alone_by_two_processes_as_by_one(tiny_bert, examples, tmp_path):
    """An encoder's pooler: a gradient of 0 would have AdamW decay it."""
    student, changes = {"name": str(tiny_bert), "pooling": "mean"}, {"steps": 2, "held_out": 0, "weight_decay": 0.5}
    before = load_file(tiny_bert / "model.safetensors")
    trained(student, examples, tmp_path / "two", processes=2, **changes)
    for rank in (0, 1):
        after = load_file(tmp_path / "two" / str(rank))
        unread = {name for name in before if after[f"0.model.{name}"].equal(before[name])}
        assert unread == {"pooler.dense.weight", "pooler.dense.bias"}


def test_work_is_shared_so_that_every_piece_is_done_once():
    costs = [7, 3, 9, 1, 4, 4]
    for count in (1, 2, 3, 8):
        shares = [Processes(rank, count).share(costs) for rank in range(count)]
        assert sorted(piece for share in shares for piece in share) == list(range(6))
        loads = [sum(costs[piece] for piece in share) for share in shares]
        assert max(loads) - min(loads) <= max(costs)


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"])
@pytest.mark.parametrize("of_a_recipe", [False, True])
@pytest.mark.parametrize("only_planned", [False, True])
def test_a_model_that_shall_be_spread_over_devices_is_refused_before_anything_is_done(
    examples, tmp_path, monkeypatch, name, of_a_recipe, only_planned
):
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    recipe = Recipe.model_validate({"data": {"toy": {"path": str(examples), "format": "examples"}}})
    with pytest.raises(
        SettingsError, match=rf"is asked for \(ACCELERATE_USE_{name}\), and a model is trained"
    ) as caught:
        if of_a_recipe:
            plan_of_recipe(recipe) if only_planned else run_recipe(recipe, out=tmp_path / "run")
        else:
            plan_of_run(examples, TrainingSettings()) if only_planned else train(examples, out=tmp_path / "run")
    assert "torchrun" in caught.value.hint
    assert not (tmp_path / "run").exists()

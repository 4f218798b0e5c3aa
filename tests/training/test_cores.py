"""Training with a chunk on each core: the weights are those of one core, whichever thread was faster."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from embedsmith.models.threads import on_cores
from embedsmith.training import conditions, cost
from embedsmith.training.batches import Source
from embedsmith.training.chunks import encode
from embedsmith.training.conditions import as_trained
from embedsmith.training.plan import plan_of
from tests.training.test_trainer import STAGE, TOY, assert_same_bits, student, train, weights, without_time  # noqa: F401

STEPS = STAGE.model_copy(update={"steps": 4, "chunk_tokens": 48, "dropout": 0.2})


def slow(monkeypatch: pytest.MonkeyPatch, turn: int) -> None:
    """Have every other chunk take longer."""
    count = iter(range(10**6))

    def late(*args, **kwargs):
        time.sleep(0.02 * (next(count) % 2 == turn))
        return encode(*args, **kwargs)

    monkeypatch.setattr(conditions, "encode", late)


STAGES = {
    "whole": {},
    "adapters": {"lora_rank": 2},
    "bfloat16": {"dtype": "bfloat16"},
    "bfloat16, adapters": {"dtype": "bfloat16", "lora_rank": 2},
    "bfloat16, nothing kept": {"dtype": "bfloat16", "memory_gib": 0.0},
    "checkpointing": {"gradient_checkpointing": True},
    "checkpointing, nothing kept": {"gradient_checkpointing": True, "memory_gib": 0.0},
    "checkpointing, bfloat16, adapters": {"gradient_checkpointing": True, "dtype": "bfloat16", "lora_rank": 2},
}


@pytest.mark.usefixtures("with_bfloat16")
@pytest.mark.parametrize("changes", STAGES.values(), ids=STAGES)
def test_which_core_is_faster_changes_no_bit(student, tmp_path, monkeypatch, changes):  # noqa: F811
    stage = STEPS.model_copy(update=changes)
    one, other, alone = student(), student(), student()
    with on_cores(2):
        slow(monkeypatch, 0)
        reports = train(one, tmp_path / "one", stage)
        slow(monkeypatch, 1)
        again = train(other, tmp_path / "other", stage)
    assert without_time(again) == without_time(reports)
    assert_same_bits(weights(other), weights(one))
    with on_cores(1):
        by_one_core = train(alone, tmp_path / "alone", stage)
    # The norm of all gradients is summed in another order; what that moves may round a weight to another bfloat16.
    near = 1e-2 if "dtype" in changes else 1e-5
    assert [report.loss for report in by_one_core] == pytest.approx([report.loss for report in reports], rel=near)


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_every_core_has_a_chunk(student, cores):  # noqa: F811
    model = student()
    with on_cores(cores), as_trained(model, STEPS) as found:
        assert found.at_once == cores


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_an_estimate_times_as_many_chunks_at_once_as_a_step_runs(student, monkeypatch, cores):  # noqa: F811
    """By a clock that a chunk moves on by a second: where several run at once, each counts its part of the time."""
    now = [0.0]

    def encode_in_a_second(*args, **kwargs):
        now[0] += 1.0
        return encode(*args, **kwargs)

    monkeypatch.setattr(conditions, "encode", encode_in_a_second)
    monkeypatch.setattr(cost, "time", SimpleNamespace(monotonic=lambda: now[0]))
    model = student()
    with on_cores(cores):
        found = cost.cost_of(model, plan_of([Source("toy", TOY, prompt="", passage_prompt="")], STEPS, 0), STEPS)
    assert now[0] == 1 + cost._ROUNDS * cores
    plan = plan_of([Source("toy", TOY, prompt="", passage_prompt="")], STEPS, 0)
    with as_trained(model, STEPS) as trained:
        batches = [trained.chunks(plan[number]) for number in range(len(plan))]
    widest = max(chunk.tokens for chunk in batches[0])
    tokens = sum(chunk.tokens for chunks in batches for chunk in chunks) / len(batches)
    assert found.seconds_a_batch == pytest.approx(tokens / widest)


@pytest.mark.parametrize(
    "changes", [{}, {"lora_rank": 2}, {"memory_gib": 0.0}], ids=["whole", "adapters", "nothing kept"]
)
def test_a_layer_that_is_computed_again_drops_what_it_dropped_before(student, tmp_path, changes):  # noqa: F811
    stage = STEPS.model_copy(update=changes)
    plain, frugal = student(), student()
    with on_cores(2):
        reports = train(plain, tmp_path / "plain", stage)
        again = train(frugal, tmp_path / "frugal", stage.model_copy(update={"gradient_checkpointing": True}))
    assert [report.loss for report in again] == [report.loss for report in reports]
    assert_same_bits(weights(frugal), weights(plain))


def test_gradients_that_are_not_added_up_yet_have_a_limit(student, monkeypatch):  # noqa: F811
    model = student()
    copy = sum(weight.numel() * 4 for weight in model.parameters())
    for room, chunks in [(2 * copy - 1, 1), (4 * copy, 2), (100 * copy, 3)]:
        for stage, more in ((STEPS, 1), (STEPS.model_copy(update={"gradient_checkpointing": True}), 4)):
            monkeypatch.setattr(conditions, "_GRADIENT_BYTES", more * room)
            with on_cores(3), as_trained(model, stage) as found:
                assert found.at_once == chunks


def test_the_memory_of_several_chunks_at_once_is_counted(student):  # noqa: F811
    model = student()
    with on_cores(3), as_trained(model, STEPS) as found:
        memory = found.memory(missing=0.0)
    memory.bytes_a_token, memory.limit_bytes = 1.0, 100.0
    assert memory.kept([20] * 6) == [True, True] + [False] * 4
    assert replace(found, at_once=1).memory(missing=0.0).at_once == 1

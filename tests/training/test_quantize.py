"""Adapters over matrices in NF4 train as over a plain model of the same rounded matrices, and are merged into those."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from embedsmith.data.examples import Example, Passage, write_examples
from embedsmith.errors import SettingsError
from embedsmith.models import nf4, precision
from embedsmith.models.nf4 import NF4Linear, holds_nf4, places_for_nf4
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings
from embedsmith.training import memory
from embedsmith.training.batches import Source
from embedsmith.training.conditions import as_trained
from embedsmith.training.cost import cost_of
from embedsmith.training.memory import check_memory
from embedsmith.training.plan import plan_of
from embedsmith.training.settings import StageSettings
from embedsmith.training.stage import train_stage
from embedsmith.training.student import student_of
from embedsmith.training.train import train

pytest.importorskip("bitsandbytes")
pytest.importorskip("peft")

STAGE = StageSettings(
    name="one",
    steps=4,
    batch_size=4,
    learning_rate=1e-2,
    lora_rank=2,
    lora_dropout=0.2,
    quantize="nf4",
    dtype="float32",
    save_steps=1,
    report_to="none",
)
EXAMPLES = [
    Example(f"q{n}", f"where is the {n}", [Passage(f"p{n}", f"the cat {n} sat")], [Passage(f"n{n}", f"a dog {n * n}")])
    for n in range(12)
]
SOURCES = [Source("toy", EXAMPLES, prompt="", passage_prompt="")]
TEXTS = ["where is the 3", "a dog on a log"]


@pytest.fixture
def with_bfloat16(monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: True)


@pytest.fixture(scope="module")
def short_llama(tiny_llama, tmp_path_factory) -> str:
    """The tiny decoder as most are published: in bfloat16."""
    folder = tmp_path_factory.mktemp("models") / "short"
    AutoModel.from_pretrained(tiny_llama, dtype=torch.bfloat16).save_pretrained(folder)
    for path in Path(tiny_llama).iterdir():
        if path.name.startswith(("tokenizer", "special")):
            (folder / path.name).write_bytes(path.read_bytes())
    return str(folder)


def settings(name) -> StudentSettings:
    return StudentSettings(
        name=str(name), layers=2, attention="bidirectional", pooling="latent", latents=4, heads=2, head_width=8
    )


def rounded(name):
    """The student, each matrix of whose backbone is what NF4 makes of it."""
    model = build_student(settings(name), seed=1)
    for _, _, linear in places_for_nf4(model.backbone):
        linear.weight.data = NF4Linear(linear).weight
    return model


def run(model, folder, stage=STAGE, **arguments):
    return [report.loss for report in train_stage(model, SOURCES, stage, folder=folder, seed=3, **arguments)]


def assert_same(model, other, **tolerance):
    state = other.state_dict()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, state[name], **tolerance, msg=name)


CHANGES = {
    "float32": {},
    "bfloat16": {"dtype": "bfloat16"},
    "targets": {"lora_targets": ["q_proj"]},
    "checkpointing": {"gradient_checkpointing": True},
    "encoded twice": {"memory_gib": 0.0, "chunk_tokens": 20},
    "held out": {"held_out": 4, "eval_steps": 2},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_losses_and_weights_are_those_of_a_plain_model_of_the_rounded_matrices(
    short_llama, with_bfloat16, tmp_path, change
):
    stage = STAGE.model_copy(update=change)
    model, oracle = student_of(settings(short_llama), [stage], seed=1), rounded(short_llama)
    assert model.keeps_short and not oracle.keeps_short
    losses = run(model, tmp_path / "nf4", stage)
    expected = run(oracle, tmp_path / "plain", stage.model_copy(update={"quantize": "none"}))
    tolerance = 1e-2 if stage.dtype == "bfloat16" else 1e-5
    np.testing.assert_allclose(losses, expected, rtol=tolerance)
    assert len({round(loss, 3) for loss in losses}) > 1
    assert_same(model, oracle, rtol=tolerance, atol=tolerance)
    assert not model.keeps_short and not model.has_adapters and not holds_nf4(model)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert all(weight.requires_grad for weight in model.parameters())


def test_the_gradients_of_the_adapters_are_those_of_a_plain_model(short_llama, tmp_path):
    found = []
    for model, quantize in ((build_student(settings(short_llama), seed=1), "nf4"), (rounded(short_llama), "none")):
        stage = STAGE.model_copy(update={"quantize": quantize, "lora_dropout": 0.0})
        torch.manual_seed(0)
        with as_trained(model, stage) as conditions:
            with torch.no_grad():
                for name, weight in conditions.weights.items():
                    if "lora_B" in name:
                        weight.add_(0.05 * torch.randn_like(weight))
            (chunk, *_) = conditions.chunks(plan_of(SOURCES, stage, 3)[0])
            with conditions.kernels([chunk]):
                conditions.encode(chunk).square().mul(torch.arange(1.0, 33.0)).sum().backward()
            found.append({name: weight.grad for name, weight in conditions.weights.items() if ".lora_" in name})
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) == 28
    for name, gradient in found[0].items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_base_opened_in_bfloat16_and_one_in_float32_are_the_same_to_the_bit(short_llama, tmp_path):
    short, exact = student_of(settings(short_llama), [STAGE], seed=1), build_student(settings(short_llama), seed=1)
    assert short.keeps_short and not exact.keeps_short
    assert run(short, tmp_path / "a") == run(exact, tmp_path / "b")
    assert_same(short, exact, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_that_is_cut_short_ends_as_one_that_was_not(short_llama, with_bfloat16, tmp_path, dtype):
    stage = STAGE.model_copy(update={"dtype": dtype})

    def stop(report):
        if report.step == 3:
            raise KeyboardInterrupt("Ctrl-C")

    whole = student_of(settings(short_llama), [stage], seed=1)
    losses = run(whole, tmp_path / "whole", stage)
    cut = student_of(settings(short_llama), [stage], seed=1)
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        run(cut, tmp_path / "cut", stage, on_step=stop)
    assert not holds_nf4(cut) and not cut.has_adapters
    again = student_of(settings(short_llama), [stage], seed=1)
    assert run(again, tmp_path / "cut", stage) == losses
    assert_same(again, whole, rtol=0, atol=0)


def test_the_model_of_a_run_opens_without_bitsandbytes(short_llama, tmp_path, monkeypatch):
    write_examples(tmp_path / "examples.jsonl", EXAMPLES)
    run = train(tmp_path / "examples.jsonl", out=tmp_path / "run", student=settings(short_llama), stage=STAGE)
    vectors = run.model.embed(TEXTS, "passage")
    monkeypatch.setattr(nf4.importlib.util, "find_spec", lambda _: pytest.fail("looked for"))
    model = load(str(tmp_path / "run"), device="cpu")
    np.testing.assert_array_equal(model.embed(TEXTS, "passage"), vectors)
    assert not holds_nf4(model)


def test_stages_in_a_row_begin_with_what_the_one_before_has_merged(short_llama, tmp_path):
    model = student_of(settings(short_llama), [STAGE], seed=1)
    run(model, tmp_path / "a")
    merged = {id(linear): linear.weight.detach().clone() for _, _, linear in places_for_nf4(model.backbone)}
    with as_trained(model, STAGE):
        held = [module for module in model.backbone.modules() if isinstance(module, NF4Linear)]
        assert len(held) == len(merged) == 14
        for one, weight in zip(held, merged.values(), strict=True):
            assert 0 < (one.weight - weight).abs().max() < 0.2 * weight.abs().max()
        assert not model.keeps_short
    for adapted in model.backbone.modules():
        if hasattr(adapted, "get_base_layer"):
            assert adapted.get_base_layer().weight.dtype == torch.float32


def test_the_plan_counts_what_four_bits_take(short_llama, with_bfloat16):
    costs = {}
    for quantize in ("none", "nf4"):
        stage = STAGE.model_copy(update={"quantize": quantize, "dtype": "bfloat16", "memory_gib": 0.0})
        model = student_of(settings(short_llama), [stage], seed=1)
        numbers = sum(linear.weight.numel() for _, _, linear in places_for_nf4(model.backbone))
        costs[quantize] = cost_of(model, plan_of(SOURCES, stage, 3), stage)
    assert costs["none"].trained == costs["nf4"].trained
    saved = costs["none"].bytes - costs["nf4"].bytes
    assert saved == pytest.approx((2 - 0.5625) * numbers, rel=0.01)


def test_a_merge_that_will_not_fit_is_refused_before_anything_is_trained(short_llama, monkeypatch):
    model = student_of(settings(short_llama), [STAGE], seed=1)
    numbers = sum(linear.weight.numel() for _, _, linear in places_for_nf4(model.backbone))
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1.9 * numbers)
    monkeypatch.setattr(memory, "weights_to_train", lambda *_: 1)
    with pytest.raises(SettingsError, match="not enough memory to merge the adapters") as caught:
        check_memory(model, STAGE)
    assert "not when it ends" in caught.value.hint
    monkeypatch.setattr(memory, "free_bytes", lambda _: 2.1 * numbers)
    check_memory(model, STAGE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora_rank": None}, "quantize is nf4 without lora_rank"),
        ({"lora_merge": False}, "lora_merge: false with quantize: nf4"),
        ({"quantize": "int4"}, "quantize"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(change, message):
    with pytest.raises(SettingsError, match=message):
        StageSettings.parse({**STAGE.model_dump(mode="json"), **change}, where="stage")


def test_a_run_without_bitsandbytes_is_refused_before_it_trains(short_llama, tmp_path, monkeypatch):
    write_examples(tmp_path / "examples.jsonl", EXAMPLES)
    monkeypatch.setattr(nf4.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match="quantize needs the package bitsandbytes") as caught:
        train(tmp_path / "examples.jsonl", out=tmp_path / "run", student=settings(short_llama), stage=STAGE)
    assert "embedsmith[quantize]" in caught.value.hint
    assert not (tmp_path / "run" / "checkpoints").exists()

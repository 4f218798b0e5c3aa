"""Training on a tiny model: it learns, goes on after an interruption bit for bit, and a chunk is only a chunk."""

import math
import re
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from embedsmith.data.examples import Example, Passage
from embedsmith.errors import InputError, SettingsError
from embedsmith.models.cpu import trained_matmul
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings
from embedsmith.training import trainer
from embedsmith.training.batches import BatchPlan, Source
from embedsmith.training.chunks import chunks_of, encode
from embedsmith.training.grad_cache import ActivationMemory, GradCache
from embedsmith.training.held_out import held_out_batches, without_held_out
from embedsmith.training.plan import plan_of
from embedsmith.training.processes import Processes
from embedsmith.training.settings import StageSettings
from embedsmith.training.stage import train_stage
from embedsmith.training.trackers import trackers
from embedsmith.vectors.guide import Guide

PAIRS = {
    "where is the parser": "red apple, green pear",
    "how to sort a list": "the cat sat on the mat",
    "find the passage": "def read_lines(path)",
    "10 times 100": "yellow banana, blue plum and then a much longer end of the text",
    "the dog sat on the log": "open(path).read().split()",
    "answers the question": "2024",
    "of the reader": "the code of the file that does this",
    "a list of numbers": "the question",
}
TOY = [
    Example(f"q{i}", query, [Passage(f"p{i}", passage)], [Passage(f"n{i}", query + " negative")])
    for i, (query, passage) in enumerate(PAIRS.items())
]
STAGE = StageSettings(
    steps=12,
    batch_size=6,
    learning_rate=5e-3,
    pooling_learning_rate=1e-2,
    dtype="float32",
    save_steps=5,
    report_to="none",
)


@pytest.fixture(scope="module")
def student(tiny_llama):
    """A function that builds the same student again and again; dropout is on while it trains."""

    def build(pooling="latent", instruction="Find it"):
        settings = StudentSettings(
            name=str(tiny_llama),
            pooling=pooling,
            attention="bidirectional",
            instruction=instruction,
            latents=4,
            heads=2,
        )
        return build_student(settings, seed=1, device="cpu")

    return build


def source(model):
    return [Source("toy", TOY, prompt=model.prompts["query"])]


def train(model, folder, stage=STAGE, **arguments):
    return train_stage(model, source(model), stage, folder=folder, seed=7, **arguments)


def without_time(reports):
    return [{key: value for key, value in vars(report).items() if key != "seconds"} for report in reports]


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.fixture(scope="module")
def uninterrupted(student, tmp_path_factory):
    """The reports and the weights of a run from its first step to its last."""
    model = student()
    reports = train(model, tmp_path_factory.mktemp("whole"))
    return without_time(reports), weights(model)


class Interrupted:
    """Presses Ctrl-C after a step."""

    def __init__(self, step):
        self.step = step

    def __call__(self, report):
        if report.step == self.step:
            raise KeyboardInterrupt("Ctrl-C")


def test_the_loss_of_an_easy_task_goes_down_and_every_weight_is_trained(student, tmp_path):
    model = student()
    before = weights(model)
    reports = train(model, tmp_path)
    losses = [report.loss for report in reports]
    assert [report.step for report in reports] == list(range(1, 13))
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])
    assert all(report.gradient_norm > report.pooling_gradient_norm > 0 for report in reports)
    unchanged = [name for name, tensor in weights(model).items() if torch.equal(tensor, before[name])]
    assert unchanged == []
    assert not model.training


def test_two_runs_of_the_same_seed_are_the_same_bits(student, uninterrupted, tmp_path):
    model = student()
    reports = train(model, tmp_path)
    assert without_time(reports) == uninterrupted[0]
    assert_same_bits(weights(model), uninterrupted[1])


@pytest.mark.parametrize("step", [5, 7])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(student, uninterrupted, tmp_path, step):
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        train(student(), tmp_path, on_step=Interrupted(step))
    begins, steps_again = [], []
    resumed = student()
    reports = train(
        resumed,
        tmp_path,
        on_start=lambda done, steps, _: begins.append((done, steps)),
        on_step=lambda report: steps_again.append(report.step),
    )

    assert begins == [(5 if step > 5 else 0, 12)]
    assert steps_again[0] == begins[0][0] + 1
    assert without_time(reports) == uninterrupted[0]
    assert_same_bits(weights(resumed), uninterrupted[1])


def test_a_checkpoint_that_was_cut_short_is_removed_and_not_resumed_from(student, uninterrupted, tmp_path):
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        train(student(), tmp_path, on_step=Interrupted(7))
    (tmp_path / "checkpoint-5" / "state.json").unlink()
    seen = []

    def watch(report):
        seen.append((report.step, (tmp_path / "checkpoint-5").exists()))

    reports = train(student(), tmp_path, on_step=watch)
    assert seen[0] == (1, False)
    assert without_time(reports) == uninterrupted[0]


def test_a_newer_checkpoint_that_was_cut_short_gives_way_to_an_older_whole_one(student, tmp_path):
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        train(student(), tmp_path, on_step=Interrupted(7))
    (tmp_path / "checkpoint-10").mkdir()
    seen = []
    train(student(), tmp_path, on_step=lambda report: seen.append(report.step))
    assert seen[0] == 6


def test_a_loss_that_is_no_number_names_stage_and_step(student, tmp_path):
    model = student()

    def poison(report):
        if report.step == 3:
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))

    with pytest.raises(InputError, match="stage train, step 4: the loss is nan") as caught:
        train(model, tmp_path, on_step=poison)
    assert "learning_rate" in caught.value.hint


@pytest.mark.parametrize("ill", [0, 1])
def test_of_several_batches_to_a_step_the_one_without_a_loss_is_named(student, tmp_path, monkeypatch, ill):
    losses = []

    def objective(*arguments):
        losses.append(real(*arguments) * (float("nan") if len(losses) == ill else 1.0))
        return losses[-1]

    real = trainer.objective
    monkeypatch.setattr(trainer, "objective", objective)
    model = student()
    before = weights(model)
    plan = BatchPlan(source(model), steps=2, batch_size=3, hard_negatives=1, in_batch=True, seed=7)
    wanted = ", ".join(plan[ill].query_ids)
    with pytest.raises(InputError, match=rf"step 1: the loss is nan \(queries {wanted}\)"):
        train(model, tmp_path, STAGE.model_copy(update={"accumulation": 2, "batch_size": 3}))
    assert_same_bits(weights(model), before)


def trained_gradients(model, folder, **settings):
    """Return every gradient of the first step, and the reports."""
    gradients = {}

    def note(parameter, name):
        gradients[name] = parameter.grad.clone()

    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(partial(note, name=name))
    stage = STAGE.model_copy(update={"steps": 1, "dropout": 0.0, **settings})
    return gradients, train(model, folder, stage)


@pytest.mark.parametrize("settings", [{"chunk_tokens": 1}, {"chunk_tokens": 40}, {"gradient_checkpointing": True}])
def test_chunks_and_checkpointing_change_no_gradient(student, tmp_path, settings):
    expected, (report,) = trained_gradients(student(), tmp_path / "whole")
    gradients, (other,) = trained_gradients(student(), tmp_path / "chunks", **settings)
    assert gradients.keys() == expected.keys() == dict(student().named_parameters()).keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)
    assert other.loss == pytest.approx(report.loss, rel=1e-5)
    assert other.gradient_norm == pytest.approx(report.gradient_norm, rel=1e-4)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True}, {"lora_rank": 4}, {"dtype": "bfloat16"}])
@pytest.mark.usefixtures("with_bfloat16")
def test_float32_is_multiplied_by_whoever_is_faster_with_the_same_gradients(student, tmp_path, monkeypatch, settings):
    if "lora_rank" in settings:
        pytest.importorskip("peft")
    made, product = [], trained_matmul.linear
    monkeypatch.setattr(trained_matmul, "linear", lambda *factors: made.append(factors) or product(*factors))
    monkeypatch.setattr(trained_matmul, "multiplies_wide", lambda device: False)
    stage = STAGE.model_copy(update={"steps": 2, "dropout": 0.0, **settings})
    expected = train(student(), tmp_path / "torch", stage)
    assert not made
    monkeypatch.setattr(trained_matmul, "multiplies_wide", lambda device: True)
    reports = train(student(), tmp_path / "onednn", stage)
    assert bool(made) == (settings.get("dtype") != "bfloat16")
    for report, other in zip(reports, expected, strict=True):
        assert report.loss == pytest.approx(other.loss, rel=1e-5)
        assert report.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0.3},
        {"dropout": 0.3, "gradient_checkpointing": True},
        {"dropout": 0.1, "lora_rank": 4},
        {"dropout": 0.1, "lora_rank": 4, "dtype": "bfloat16"},
    ],
    ids=["dropout", "checkpointing", "adapters", "bfloat16"],
)
@pytest.mark.usefixtures("with_bfloat16")
def test_chunks_that_are_encoded_twice_give_the_same_bits_as_chunks_that_are_kept(student, tmp_path, settings):
    if "lora_rank" in settings:
        pytest.importorskip("peft")
    kept = student()
    expected = train(kept, tmp_path / "kept", STAGE.model_copy(update={"steps": 2, "chunk_tokens": 40, **settings}))
    twice = student()
    stage = STAGE.model_copy(update={"steps": 2, "chunk_tokens": 40, "memory_gib": 0.0, **settings})
    assert without_time(train(twice, tmp_path / "twice", stage)) == without_time(expected)
    assert_same_bits(weights(twice), weights(kept))


@pytest.mark.usefixtures("with_bfloat16")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_frozen_matrices_in_bfloat16_save_memory_and_change_no_bit(student, tmp_path, monkeypatch, checkpointing):
    pytest.importorskip("peft")
    settings = {"steps": 3, "lora_rank": 4, "dtype": "bfloat16", "gradient_checkpointing": checkpointing}
    stage = STAGE.model_copy(update=settings)

    def published():
        """A student whose weights were bfloat16 before it was built, as most decoders' are."""
        model = student()
        with torch.no_grad():
            for parameter in model[0].parameters():
                parameter.copy_(parameter.bfloat16())
        return model

    model = published()
    seen = []

    def look(_report):
        seen.append({parameter.dtype for name, parameter in model.named_parameters() if "base_layer" in name})

    reports = train(model, tmp_path / "halved", stage, on_step=look)
    assert seen == [{torch.bfloat16}] * 3
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}

    monkeypatch.setattr("embedsmith.training.conditions.halved", lambda _: nullcontext())
    whole = published()
    assert without_time(train(whole, tmp_path / "whole", stage)) == without_time(reports)
    assert_same_bits(weights(model), weights(whole))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_batches_made_beside_the_step_are_the_same(student, tmp_path, monkeypatch, accumulation):
    stage = STAGE.model_copy(update={"held_out": 2, "eval_steps": 3, "steps": 5, "accumulation": accumulation})

    def run(name, **arguments):
        model = student()
        return without_time(train(model, tmp_path / name, stage, **arguments)), weights(model)

    wanted, expected = run("one after the other")
    monkeypatch.setattr(trainer.ContrastiveTrainer, "makes_ahead", True)
    found, trained = run("ahead")
    assert found == wanted
    assert_same_bits(trained, expected)
    with pytest.raises(KeyboardInterrupt):
        run("cut short", on_step=Interrupted(4))
    again, ended = run("cut short")
    assert again == wanted
    assert_same_bits(ended, expected)


def test_batches_of_one_step_add_up_to_the_mean_of_their_gradients(student, tmp_path):
    settings = {"batch_size": 3, "steps": 1}
    gradients, (report,) = trained_gradients(student(), tmp_path / "both", accumulation=2, **settings)
    model = student()
    plan = BatchPlan(source(model), steps=2, batch_size=3, hard_negatives=1, in_batch=True, seed=7)
    for number in range(2):
        loss_of(model, plan[number]).div(2).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5)
    assert report.queries == 6
    assert report.loss == pytest.approx(np.mean([loss_of(model, plan[n]).item() for n in range(2)]), rel=1e-5)


def loss_of(model, batch):
    """One text at a time through the model, and InfoNCE written out."""

    def vector(text, **arguments):
        raw = model(model.preprocess([text], **arguments))["sentence_embedding"][0]
        return raw / raw.norm()

    prompt = model.prompts["query"]
    queries = [vector(text.removeprefix(prompt), prompt=prompt, task="query") for text in batch.queries]
    passages = [vector(text, task="document") for text in batch.passages]
    losses = []
    for b, query in enumerate(queries):
        scores = [query @ passage / STAGE.temperature for passage in passages]
        allowed = torch.stack([score for u, score in enumerate(scores) if batch.allowed[b, u]])
        losses.append(torch.logsumexp(allowed, 0) - scores[batch.positive[b]])
    return torch.stack(losses).mean()


def test_the_gradient_is_that_of_the_formula(student, tmp_path):
    gradients, (report,) = trained_gradients(student(), tmp_path)
    model = student()
    loss = loss_of(model, BatchPlan(source(model), steps=1, batch_size=6, hard_negatives=1, in_batch=True, seed=7)[0])
    loss.backward()

    assert report.loss == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5)
    everything = [parameter.grad.norm() ** 2 for parameter in model.parameters()]
    in_pooling = [parameter.grad.norm() ** 2 for parameter in model[1].parameters()]
    assert report.gradient_norm == pytest.approx(math.sqrt(sum(everything)), rel=1e-4)
    assert report.pooling_gradient_norm == pytest.approx(math.sqrt(sum(in_pooling)), rel=1e-4)


@pytest.mark.parametrize(("pooling", "instruction"), [("mean", ""), ("latent", "Find it"), ("last", "Find it")])
def test_what_is_trained_is_what_is_served(student, tmp_path, pooling, instruction):
    """The first step's loss is that of the vectors that the model gives outside training."""
    model = student(pooling, instruction)
    batch = BatchPlan(source(model), steps=1, batch_size=6, hard_negatives=1, in_batch=True, seed=7)[0]
    prompt = model.prompts["query"]
    queries = model.embed([text.removeprefix(prompt) for text in batch.queries], "query")
    passages = model.embed(batch.passages, "passage")
    scores = np.where(batch.allowed, queries @ passages.T / STAGE.temperature, -np.inf)
    own = scores[np.arange(len(queries)), batch.positive]
    expected = np.mean(np.log(np.exp(scores).sum(1)) - own)
    (report,) = train(model, tmp_path, STAGE.model_copy(update={"steps": 1, "dropout": 0.0}))
    assert report.loss == pytest.approx(expected, rel=1e-4)
    assert report.accuracy == pytest.approx(np.mean(scores.argmax(1) == batch.positive))


def test_backbone_and_pooling_have_learning_rates_of_their_own(student, tmp_path):
    model = student()
    before = weights(model)
    stage = STAGE.model_copy(update={"steps": 2, "warmup": 0.0, "learning_rate": 1e-9, "weight_decay": 0.0})
    train(model, tmp_path, stage)
    moved = {name: (tensor - before[name]).abs().max().item() for name, tensor in weights(model).items()}
    assert max(change for name, change in moved.items() if name.startswith("0.")) < 1e-7
    assert max(change for name, change in moved.items() if name.startswith("1.")) > 1e-3


def test_by_default_a_stage_is_one_pass_over_the_data(student, tmp_path):
    stage = STAGE.model_copy(update={"steps": None, "batch_size": 3})
    assert len(train(student(), tmp_path / "three", stage)) == 3
    stage = STAGE.model_copy(update={"steps": None, "batch_size": 100})
    assert len(train(student(), tmp_path / "all", stage)) == 1


def test_dropout_set_to_zero_leaves_no_chance(student, tmp_path):
    model = student()
    features = model.preprocess(["the cat sat on the mat"], task="document")

    def is_the_same_twice(*_):
        model.train()
        return torch.equal(*(model[0](dict(features))["token_embeddings"] for _ in range(2)))

    same = []
    stage = STAGE.model_copy(update={"steps": 1, "dropout": 0.0})
    train(model, tmp_path, stage, on_step=lambda report: same.append(is_the_same_twice()))
    assert same == [True]
    assert not is_the_same_twice(), "the model's own dropout is back"


class TestAdapters:
    """LoRA: the backbone's own weights stay until the adapters are merged into them."""

    STAGE = STAGE.model_copy(update={"lora_rank": 4})

    @pytest.fixture(autouse=True)
    def needs_peft(self):
        pytest.importorskip("peft")

    def test_they_learn_are_merged_and_leave_a_plain_model(self, student, tmp_path):
        model = student()
        before = weights(model)
        reports = train(model, tmp_path / "run", self.STAGE)
        after = weights(model)
        assert after.keys() == before.keys()
        changed = {name for name in after if not torch.equal(after[name], before[name])}
        backbone = {name for name in before if name.startswith("0.")}
        assert changed & backbone == {name for name in backbone if name.endswith("_proj.weight")}
        assert {name for name in before if name.startswith("1.")} <= changed
        assert np.mean([r.loss for r in reports[-3:]]) < np.mean([r.loss for r in reports[:3]])
        model.save(str(tmp_path / "model"))
        again = load(str(tmp_path / "model"), device="cpu")
        np.testing.assert_allclose(again.embed(list(PAIRS), "query"), model.embed(list(PAIRS), "query"), atol=1e-6)

    def test_merging_keeps_every_vector(self, student, tmp_path):
        model, seen = student(), []

        def embed_at_the_end(report):
            if report.step == report.steps:
                model.eval()
                seen.append(model.embed(list(PAIRS), "query"))

        train(model, tmp_path, self.STAGE, on_step=embed_at_the_end)
        np.testing.assert_allclose(model.embed(list(PAIRS), "query"), seen[0], atol=1e-5)

    def test_an_interrupted_run_ends_as_if_it_had_not_been(self, student, tmp_path):
        whole = student()
        expected = train(whole, tmp_path / "whole", self.STAGE)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            train(student(), tmp_path / "cut", self.STAGE, on_step=Interrupted(7))
        resumed = student()
        assert without_time(train(resumed, tmp_path / "cut", self.STAGE)) == without_time(expected)
        assert_same_bits(weights(resumed), weights(whole))


def test_lengths_of_a_stage_hold_while_it_trains_and_no_longer(student, tmp_path):
    model = student(instruction="")
    widths = []
    forward = model[0].forward

    def noted(features, **keywords):
        widths.append(int(features["attention_mask"].sum(1).max()))
        return forward(features, **keywords)

    model[0].forward = noted
    train(model, tmp_path, STAGE.model_copy(update={"steps": 1, "query_max_tokens": 3, "passage_max_tokens": 5}))
    del model[0].forward
    assert max(widths) == 5
    assert (model[0].query_length, model[0].document_length, model.max_seq_length) == (64, 128, 128)


class TestHeldOut:
    STAGE = STAGE.model_copy(update={"held_out": 3, "eval_steps": 2, "batch_size": 4, "steps": 8, "dropout": 0.0})

    def test_what_is_held_out_is_never_trained_on_and_always_measured(self, student, tmp_path):
        sources = source(student())
        held = {query for batch in held_out_batches(sources, self.STAGE, 7) for query in batch.query_ids}
        trained = {example.query_id for one in without_held_out(sources, 3, 7) for example in one.examples}
        assert len(held) == 3
        assert held | trained == {example.query_id for example in TOY}
        assert not held & trained

    def test_every_example_that_is_held_out_is_measured_once(self):
        sources = [Source(name, [replace(e, query=f"{name} {e.query}") for e in TOY]) for name in ("one", "two")]
        stage = self.STAGE.model_copy(update={"held_out": 7})
        batches = held_out_batches(sources, stage, 7)
        assert [len(batch.queries) for batch in batches] == [4, 3]
        trained = [e.query for source in without_held_out(sources, 7, 7) for e in source.examples]
        measured = [query for batch in batches for query in batch.queries]
        assert sorted(measured + trained) == sorted(e.query for source in sources for e in source.examples)

    def test_the_model_with_the_lowest_loss_is_the_stages(self, student, tmp_path, monkeypatch):
        def worse_later(self):
            return measure(self) + (100.0 if self.state.global_step > 4 else 0.0)

        measure = trainer.ContrastiveTrainer.measure
        monkeypatch.setattr(trainer.ContrastiveTrainer, "measure", worse_later)
        model, stage = student(), self.STAGE
        reports = train(model, tmp_path, stage)
        measured = {r.step: r.held_out_loss for r in reports if r.held_out_loss is not None}
        assert sorted(measured) == [2, 4, 6, 8]
        assert min(measured.values()) < measured[8]
        batches = held_out_batches(source(model), stage, 7)
        again = np.mean([loss_of(model, batch).item() for batch in batches])
        assert again == pytest.approx(min(measured.values()), rel=1e-4)

    def test_a_stage_that_learns_no_more_stops(self, student, tmp_path):
        stage = self.STAGE.model_copy(
            update={"learning_rate": 0.3, "pooling_learning_rate": 0.3, "warmup": 0.0, "eval_steps": 1, "patience": 1}
        )
        reports = train(student(), tmp_path, stage)
        measured = [report.held_out_loss for report in reports]
        assert len(measured) < 8
        assert measured[-1] >= min(measured[:-1])
        assert measured[:-1] == sorted(measured[:-1], reverse=True)

    def test_so_many_examples_that_none_is_left_are_refused(self, student, tmp_path):
        with pytest.raises(SettingsError, match="held_out: 8 of 8 examples"):
            train(student(), tmp_path, self.STAGE.model_copy(update={"held_out": 8}))


def test_adamw_goes_on_with_the_means_of_the_stage_before(student, tmp_path):
    model = student()
    kept = tmp_path / "optimizer.safetensors"
    train(model, tmp_path / "one", STAGE.model_copy(update={"steps": 3}), optimizer_to=kept)
    means = load_file(kept)
    assert {key.rsplit("|", 1)[1] for key in means} == {"step", "exp_avg", "exp_avg_sq"}
    last = tmp_path / "two.safetensors"
    train(model, tmp_path / "two", STAGE.model_copy(update={"steps": 2}), optimizer_from=kept, optimizer_to=last)
    assert {int(value) for key, value in load_file(last).items() if key.endswith("|step")} == {5}


def test_a_checkpoint_under_adapters_holds_adapters_and_pooling_only(student, tmp_path):
    pytest.importorskip("peft")
    train(student(), tmp_path, STAGE.model_copy(update={"steps": 5, "lora_rank": 2}))
    stored = load_file(tmp_path / "checkpoint-5" / "model.safetensors")
    assert {name for name in stored if name.startswith("0.")} == {name for name in stored if ".lora_" in name}
    assert any(name.startswith("1.") for name in stored)


def test_a_gradient_that_is_no_number_moves_no_weight(student, tmp_path):
    model = student()
    weight = next(model.parameters())
    weight.register_hook(lambda gradient: torch.full_like(gradient, float("nan")))
    before = weights(model)
    with pytest.raises(InputError, match=r"step 1: the gradient is nan \(queries q\d"):
        train(model, tmp_path)
    assert_same_bits(weights(model), before)
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("names", "said"),
    [("tensorbord", 'unknown "tensorbord" (did you mean "tensorboard"?)'), ("mlflow", "mlflow is not installed")],
)
def test_a_tracker_that_is_not_there_is_said_before_the_first_step(names, said, monkeypatch):
    monkeypatch.setattr(
        "transformers.integrations.integration_utils.get_available_reporting_integrations", lambda: ["tensorboard"]
    )
    assert trackers("tensorboard") == ["tensorboard"]
    with pytest.raises(SettingsError, match=re.escape(f"report_to: {said}")):
        trackers(names)


def test_a_step_says_which_share_of_the_in_batch_negatives_the_guide_took_out(student, tmp_path):
    class Knowing(Guide):
        """Puts every passage above the first query's positive, and none above another's."""

        def scores(self, queries, passages):
            found = np.zeros((len(queries), len(passages)), np.float32)
            found[0, 1:] = 0.9  # the first passage of a batch is the first query's positive
            return found

    model = student(instruction="")
    stage = STAGE.model_copy(update={"steps": 2, "accumulation": 2, "batch_size": 4})
    sources = [Source("toy", TOY, prompt="", guide=Knowing([], []))]
    plan = plan_of(sources, stage, 7)
    counts = np.array([[batch.guided.sum(), (~batch.own).sum()] for batch in plan])
    assert counts[:, 0].all()
    reports = train_stage(model, sources, stage, folder=tmp_path / "guided", seed=7)
    expected = [counts[:2].sum(0), counts[2:].sum(0)]
    assert [r.guide_masked for r in reports] == pytest.approx([masked / others for masked, others in expected])
    alone = train_stage(model, sources, stage.model_copy(update={"guide": False}), folder=tmp_path / "alone", seed=7)
    assert [report.guide_masked for report in alone] == [0.0, 0.0]


def test_a_loss_that_is_no_number_names_the_queries(student, tmp_path):
    model = student()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match=r"step 1: the loss is nan \(queries q\d, q\d, q\d, q\d, q\d …\)"):
        train(model, tmp_path)


@pytest.mark.parametrize(("folder", "side"), [("tiny_bert", "right"), ("tiny_llama", "right"), ("tiny_llama", "left")])
def test_chunks_of_round_numbers_of_tokens_make_the_same_vectors(folder, side, request):
    model = build_student(StudentSettings(name=str(request.getfixturevalue(folder))), seed=1, device="cpu").eval()
    model.tokenizer.padding_side = side
    batch = BatchPlan(source(model), steps=1, batch_size=6, hard_negatives=1, in_batch=True, seed=7)[0]
    plain, rounded = (chunks_of(model, batch, 256, rounded=rounded) for rounded in (False, True))
    assert all(chunk.tokens % 64 == 0 for chunk in rounded)
    assert any(chunk.tokens % 64 for chunk in plain)
    found, wanted = (
        GradCache(
            model,
            partial(encode, model, device=model.device, bfloat16=False),
            seed=0,
            memory=ActivationMemory(0.0),
            processes=Processes(),
            dimensions=model.get_embedding_dimension(),
        ).vectors(chunks, device=model.device)
        for chunks in (rounded, plain)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)

"""Stages in a row: each trains what its settings say, and leaves nothing of its own on the model."""

import copy
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from embedsmith.data.examples import Example, Passage, write_examples
from embedsmith.errors import SettingsError
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings
from embedsmith.recipes.plan import plan_of_recipe
from embedsmith.recipes.recipe import Recipe
from embedsmith.runs.run import Run, read_manifest
from embedsmith.training import train as training
from embedsmith.training import trainer
from embedsmith.training.batches import Source
from embedsmith.training.cost import cost_of
from embedsmith.training.memory import weights_to_train
from embedsmith.training.plan import plan_of
from embedsmith.training.settings import StageSettings
from embedsmith.training.stage import train_stage
from embedsmith.training.train import train_into
from embedsmith.training.weights import trained_weights

EXAMPLES = [
    Example(f"q{i}", f"where is the {i}", [Passage(f"p{i}", f"the cat {i} sat")], [Passage(f"n{i}", f"a dog {i * i}")])
    for i in range(8)
]
SHORT = {"steps": 2, "batch_size": 4, "learning_rate": 5e-3, "dtype": "float32", "report_to": "none", "warmup": 0.0}
LORA = {"lora_rank": 2, "lora_targets": ["q_proj", "up_proj"], "lora_dropout": 0.2}
KINDS = {
    "full": {},
    "merged": LORA,
    "kept": {**LORA, "lora_merge": False},
    "wider": {**LORA, "lora_rank": 3, "lora_targets": []},
}
POOLINGS = ["mean", "weighted-mean", "last", "latent", "self-attention", "multi-layer"]
PLAIN = POOLINGS[:3]
ALL_LINEAR = {f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")}


def settings_of(kind: str, name: str = "one", **others) -> StageSettings:
    return StageSettings(name=name, **{**SHORT, **KINDS[kind], **others})


def student(folder: Path, pooling: str = "latent") -> StudentSettings:
    return StudentSettings(
        name=str(folder), layers=2, attention="bidirectional", pooling=pooling, latents=4, heads=2, head_width=8
    )


def run_stage(model, stage: StageSettings, folder: Path, **arguments):
    return train_stage(model, [Source("toy", EXAMPLES, prompt="")], stage, folder=folder, seed=3, **arguments)


def base_name(name: str) -> str:
    """The name that a weight has without adapters beside it."""
    return name.replace("base_model.model.", "").replace("base_layer.", "")


def state_of(model) -> dict[str, object]:
    """All that is set on a model but the numbers of its weights: what a stage could leave behind."""
    found: dict[str, object] = {"length": model.max_seq_length, "side": model.tokenizer.padding_side}
    for name, module in model.named_modules():
        found[f"{name}: class"] = type(module)
        for key, value in vars(module).items():
            is_plain = isinstance(value, (bool, int, float, str, type(None)))
            is_as_ever = value == getattr(type(module), key, Ellipsis)
            if (is_plain and not is_as_ever) or (key.endswith("hooks") and value) or key == "forward":
                found[f"{name}: {key}"] = value
        if hasattr(module, "config"):
            found[f"{name}: config"] = copy.deepcopy(module.config.to_dict())
    for name, weight in model.named_parameters():
        found[f"{name}: weight"] = (weight.dtype, weight.requires_grad, weight.grad)
    return found


LOADED = {
    "checkpointing": {"gradient_checkpointing": True},
    "bfloat16": {"dtype": "bfloat16"},
    "adapters": LORA,
    "all": {
        "query_max_tokens": 12,
        "dropout": 0.3,
        "gradient_checkpointing": True,
        "dtype": "bfloat16",
        "held_out": 2,
        "eval_steps": 1,
        **LORA,
    },
}


@pytest.mark.parametrize(
    ("name", "ends"),
    [*((name, "well") for name in LOADED), *(("all", ends) for ends in ("by an error", "as a plan"))],
)
def test_a_stage_leaves_nothing_on_the_model_however_it_ends(tiny_llama, tmp_path, name, ends):
    model = build_student(student(tiny_llama), device="cpu")
    model.embed(["warm"], "query")
    before = state_of(model.eval())
    stage = StageSettings(name="one", **{**SHORT, **LOADED[name]})

    def stop(_report):
        raise KeyboardInterrupt("Ctrl-C")

    if ends == "well":
        run_stage(model, stage, tmp_path)
    elif ends == "by an error":
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            run_stage(model, stage, tmp_path, on_step=stop)
    else:
        sources = [Source("toy", EXAMPLES, prompt="")]
        cost_of(model, plan_of(sources, stage, 3), stage)
    after = state_of(model)
    assert {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} == set()


EVERY_PAIR = [
    *("full", "full", "merged", "full", "kept", "full", "wider", "merged", "merged"),
    *("kept", "merged", "wider", "kept", "kept", "wider", "wider", "full"),
]
"""Stages of which every kind comes after every other, and after one of its own kind."""


def test_every_kind_of_stage_follows_every_other():
    assert set(pairwise(EVERY_PAIR)) == {(one, other) for one in KINDS for other in KINDS}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_stage_trains_what_its_settings_say_whatever_came_before_it(tiny_llama, tmp_path, pooling):
    model = build_student(student(tiny_llama, pooling), device="cpu")
    names = {name for name, _ in model.named_parameters()}
    of_pooling = {name for name in names if not name.startswith("0.")}
    assert bool(of_pooling) == (pooling not in PLAIN)
    seen, notes = [], []

    def look(_report):
        seen.append({name: weight for name, weight in model.named_parameters() if weight.requires_grad})

    for number, kind in enumerate(EVERY_PAIR if pooling == "latent" else ["kept", "full", "merged"]):
        stage = settings_of(kind, steps=1)
        expected = None if model.has_adapters else weights_to_train(model, stage)
        before = {base_name(name): weight.clone() for name, weight in model.state_dict().items()}
        run_stage(model, stage, tmp_path / str(number), on_step=look, on_weights=notes.append)
        trained = seen.pop()
        after = {base_name(name): weight for name, weight in model.state_dict().items()}
        moved = {name for name in names if not torch.equal(after[name], before[name])}
        if kind == "full":
            assert trained.keys() == names
            assert moved == names
        else:
            assert {name for name in trained if ".lora_" not in name} == of_pooling
            layers = {name.split(".lora_")[0].rpartition(".")[2] for name in trained if ".lora_" in name}
            assert layers == ({"q_proj", "up_proj"} if kind != "wider" else ALL_LINEAR)
            assert {w.shape[0] for name, w in trained.items() if "lora_A" in name} == {KINDS[kind]["lora_rank"]}
            if kind != "kept" and expected is not None:
                assert moved - of_pooling == {n for n in names if n.split(".")[-2] in layers and n.startswith("0.")}
        assert notes[-1].count == (expected or notes[-1].count) == sum(weight.numel() for weight in trained.values())
        assert (notes[-1].backbone > 0, notes[-1].adapters > 0) == (kind == "full", kind != "full")
        assert model.has_adapters == (kind == "kept")
    assert len({weights.names for weights in notes if weights.backbone}) == 1


BOUNDARIES = [
    ("latent", "merged", "full", "begin"),
    ("latent", "kept", "full", "step 2"),
    ("latent", "full", "merged", "begin"),
    ("mean", "merged", "full", "step 2"),
    ("mean", "kept", "wider", "begin"),
]


def cut_in_the_second_stage(at: str):
    """What trains a stage, and presses Ctrl-C as the second begins, or after its second step."""

    def train(model, sources, stage, *, on_step, **keywords):
        if stage.name == "two" and at == "begin":
            raise KeyboardInterrupt("Ctrl-C")

        def tell(report):
            on_step(report)
            if (report.stage, report.step) == ("two", 2):
                raise KeyboardInterrupt("Ctrl-C")

        return train_stage(model, sources, stage, on_step=tell, **keywords)

    return train


@pytest.mark.parametrize(("pooling", "first", "second", "at"), BOUNDARIES)
def test_a_run_that_was_cut_at_a_boundary_of_stages_has_the_bits_of_one_that_was_not(
    tiny_llama, tmp_path, monkeypatch, pooling, first, second, at
):
    stages = [settings_of(first, "one"), settings_of(second, "two", save_steps=1)]
    settings, sources = student(tiny_llama, pooling), [Source("toy", EXAMPLES, prompt="")]

    def go(folder: Path) -> Run:
        run = Run.open(folder, command="train", settings=settings, inputs={})
        train_into(run, sources, settings, stages, seed=3)
        return run

    whole = go(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_stage", cut_in_the_second_stage(at))
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            go(tmp_path / "cut")
    resumed = go(tmp_path / "cut")
    for path in sorted((whole.folder / "model").rglob("*.safetensors")):
        other = resumed.folder / path.relative_to(whole.folder)
        assert path.read_bytes() == other.read_bytes(), path.name
    assert resumed.manifest["counts"] == whole.manifest["counts"]
    assert resumed.manifest["trained_names"] == whole.manifest["trained_names"]
    assert load(str(whole.folder / "model"), device="cpu").has_adapters == (second == "kept")


def test_what_a_plan_says_is_trained_is_what_the_run_notes(tiny_llama, tmp_path):
    stages = [settings_of(kind, kind) for kind in ("merged", "full", "kept")]
    path = tmp_path / "examples.jsonl"
    write_examples(path, EXAMPLES)
    recipe = Recipe(data={"toy": {"path": str(path), "format": "examples"}}, student=student(tiny_llama), stages=stages)
    planned = {stage.name: stage.trained for stage in plan_of_recipe(recipe).stages}
    run = Run.open(tmp_path / "run", command="train", settings=recipe, inputs={})
    train_into(run, [Source("toy", EXAMPLES, prompt="")], recipe.student, stages, seed=0)
    manifest = read_manifest(run.folder)
    for name, trained in planned.items():
        counts = manifest["counts"][f"weights trained in {name}"]
        assert counts == {part: getattr(trained, part) for part in ("backbone", "adapters", "pooling")}
        assert manifest["trained_names"][name] == trained.names
    assert planned["full"].backbone == sum(
        weight.numel() for weight in build_student(recipe.student, device="cpu").backbone.parameters()
    )


def test_a_model_of_which_all_is_frozen_is_refused_in_one_line(tiny_llama, tmp_path):
    model = build_student(student(tiny_llama), device="cpu").requires_grad_(False)
    with pytest.raises(SettingsError, match="stage one: nothing to train: every weight of the model is frozen"):
        run_stage(model, settings_of("full"), tmp_path)


def test_what_its_owner_has_frozen_stays_frozen_in_every_stage(tiny_llama, tmp_path):
    model = build_student(student(tiny_llama), device="cpu")
    embeddings = model.backbone.embed_tokens.requires_grad_(False).weight
    before = embeddings.clone()
    for number, kind in enumerate(("merged", "full")):
        run_stage(model, settings_of(kind), tmp_path / str(number))
        assert not embeddings.requires_grad
        assert torch.equal(embeddings, before)
    assert trained_weights(model).backbone == sum(
        weight.numel() for weight in model.backbone.parameters() if weight is not embeddings
    )


def test_a_stage_after_finished_ones_computes_as_the_student_says(tiny_llama, tmp_path, monkeypatch):
    """Attention and compilation are no part of a saved model: a run that goes on asks for them again."""
    settings = student(tiny_llama).model_copy(update={"attention_backend": "eager", "compile": True})
    stages = [settings_of("full", "one"), settings_of("full", "two")]
    run = Run.open(tmp_path / "run", command="train", settings=settings, inputs={})
    build_student(settings, device="cpu").save(str(run.folder / "stages" / "one"))
    asked = []
    real = training.load
    monkeypatch.setattr(training, "load", lambda name, **keywords: asked.append(keywords) or real(name, **keywords))
    model = training.before_the_first_open_stage(run, settings, stages, seed=0)
    assert model.backbone.config._attn_implementation == "eager"
    assert asked == [{"attention_backend": "eager", "compile": True}]


class TestOverrides:
    """What the Trainer would do in the place of what ours does."""

    def test_gradients_are_clipped_the_same_where_the_trainer_has_no_method_for_it(
        self, tiny_llama, tmp_path, monkeypatch
    ):
        def weights(folder):
            model = build_student(student(tiny_llama), device="cpu")
            run_stage(model, settings_of("full", max_grad_norm=0.05), folder)
            return model.state_dict()

        expected = weights(tmp_path / "ours")
        monkeypatch.delattr(trainer.ContrastiveTrainer, "_clip_grad_norm")
        for name, weight in weights(tmp_path / "theirs").items():
            assert torch.equal(weight, expected[name]), name

    def test_a_run_that_would_begin_anew_in_silence_is_stopped(self, tiny_llama, tmp_path, monkeypatch):
        def stop(report):
            if report.step == 2:
                raise KeyboardInterrupt("Ctrl-C")

        stage = settings_of("full", save_steps=1)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            run_stage(build_student(student(tiny_llama), device="cpu"), stage, tmp_path, on_step=stop)
        monkeypatch.setattr(trainer.ContrastiveTrainer, "_load_optimizer_and_scheduler", lambda self, checkpoint: None)
        with pytest.raises(AssertionError, match=r"steps of Trainer, reports and schedule: \(1, 1, 0\), wanted 1"):
            run_stage(build_student(student(tiny_llama), device="cpu"), stage, tmp_path)

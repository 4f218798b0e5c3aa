"""On a GPU: the vectors, rows, losses and weights that a CPU gives. Skipped where there is none."""

import numpy as np
import pytest
import torch

from embedsmith.data.examples import Example, Passage
from embedsmith.models.compiled import is_compiled
from embedsmith.models.opening import build_student
from embedsmith.models.settings import StudentSettings
from embedsmith.topk.exact import top_k
from embedsmith.training.batches import Source
from embedsmith.training.settings import StageSettings
from embedsmith.training.stage import train_stage

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

WORDS = "the cat sat on a mat and read lists of files with parsers".split()  # noqa: SIM905
TEXTS = [" ".join(WORDS[(7 * n + 3 * m) % len(WORDS)] for m in range(1 + n % 17)) for n in range(80)]
STAGE = StageSettings(
    steps=6,
    batch_size=8,
    hard_negatives=1,
    learning_rate=1e-3,
    dropout=0.0,
    lora_dropout=0.0,
    dtype="float32",
    save_steps=2,
    report_to="none",
)


@pytest.fixture
def build(tiny_llama):
    """A function that builds the same student on any device."""

    def on(device, **settings):
        given = {"pooling": "latent", "attention": "bidirectional", "latents": 4, "heads": 2, "instruction": "Find it"}
        return build_student(StudentSettings(name=str(tiny_llama), **{**given, **settings}), seed=1, device=device)

    return on


def train(model, folder, **settings):
    examples = [
        Example(f"q{n}", TEXTS[n], [Passage(f"p{n}", TEXTS[-n - 1])], [Passage(f"n{n}", TEXTS[n + 20] + " not")])
        for n in range(20)
    ]
    source = Source("toy", examples, prompt=model.prompts["query"])
    on_step = settings.pop("on_step", None)
    return train_stage(model, [source], STAGE.model_copy(update=settings), folder=folder, seed=7, on_step=on_step)


def losses(reports):
    return [report.loss for report in reports]


def assert_close(model, other, tolerance):
    state = other.state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor.cpu(), state[name].cpu(), rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("role", ["query", "passage"])
@pytest.mark.parametrize("tokens", [None, 20, 200])
def test_vectors_are_those_of_a_cpu(build, role, tokens):
    wanted = build("cpu").embed(TEXTS, role)
    np.testing.assert_allclose(build("cuda").embed(TEXTS, role, tokens=tokens), wanted, atol=1e-5)


def test_vectors_in_bfloat16_are_near_those_of_a_cpu(build):
    model = build("cuda").use_dtype("auto")
    assert model.dtype == torch.bfloat16
    cosines = (model.embed(TEXTS, "passage") * build("cpu").embed(TEXTS, "passage")).sum(1)
    assert cosines.min() > 0.99


@pytest.mark.parametrize("memory_gib", [1e-5, 1e-3, 1.0])
@pytest.mark.parametrize("kind", ["unit vectors", "ties"])
def test_search_finds_the_rows_and_the_scores_of_a_cpu(kind, memory_gib):
    rng = np.random.default_rng(0)
    if kind == "ties":
        queries, passages = (rng.integers(-2, 3, (count, 8)).astype(np.float32) for count in (50, 4000))
    else:
        queries, passages = (rng.standard_normal((count, 64)).astype(np.float32) for count in (50, 4000))
        queries, passages = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (queries, passages))
    for found, wanted in zip(
        top_k(queries, passages, k=20, memory_gib=memory_gib, device="cuda"),
        top_k(queries, passages, k=20),
        strict=True,
    ):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("settings", [{}, {"memory_gib": 0.0, "chunk_tokens": 60}, {"gradient_checkpointing": True}])
def test_training_goes_as_on_a_cpu(build, tmp_path, settings):
    there, here = build("cuda"), build("cpu")
    found, wanted = train(there, tmp_path / "gpu", **settings), train(here, tmp_path / "cpu")
    np.testing.assert_allclose(losses(found), losses(wanted), rtol=1e-3)
    assert_close(there, here, 2e-3)


def test_a_run_that_was_interrupted_goes_on_where_it_was(build, tmp_path):
    def interrupt(report):
        if report.step == 5:
            raise KeyboardInterrupt

    whole, cut = build("cuda"), build("cuda")
    wanted = train(whole, tmp_path / "whole", dropout=0.1)
    with pytest.raises(KeyboardInterrupt):
        train(cut, tmp_path / "cut", dropout=0.1, on_step=interrupt)
    again = build("cuda")
    np.testing.assert_allclose(losses(train(again, tmp_path / "cut", dropout=0.1)), losses(wanted), rtol=1e-4)
    assert_close(again, whole, 1e-3)


def test_what_is_held_out_is_measured_while_batches_are_made_ahead(build, tmp_path):
    reports = train(build("cuda"), tmp_path / "run", held_out=4, eval_steps=1)
    assert all(report.held_out_loss for report in reports)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_in_bfloat16_learn(build, tmp_path, checkpointing):
    pytest.importorskip("peft")
    settings = {"steps": 30, "lora_rank": 4, "dtype": "bfloat16", "learning_rate": 1e-2, "lora_dropout": 0.1}
    reports = train(build("cuda"), tmp_path / "run", gradient_checkpointing=checkpointing, **settings)
    assert reports[-1].loss < 0.7 * reports[0].loss


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_over_matrices_in_four_bits_train_as_on_a_cpu(build, tmp_path, dtype, checkpointing):
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("peft")
    settings = {"lora_rank": 4, "quantize": "nf4", "dtype": dtype, "gradient_checkpointing": checkpointing}
    there, here = build("cuda"), build("cpu")
    found, wanted = train(there, tmp_path / "gpu", **settings), train(here, tmp_path / "cpu", **settings)
    tolerance = 1e-3 if dtype == "float32" else 5e-2
    np.testing.assert_allclose(losses(found), losses(wanted), rtol=tolerance)
    assert_close(there, here, 2 * tolerance)
    assert there.device.type == "cuda"


@pytest.fixture(params=["tiny_llama_bos_eos", "tiny_bert"])
def halves(request):
    """A function that builds a model, of which the kernel for packed texts takes the heads."""
    name = str(request.getfixturevalue(request.param))
    return lambda: build_student(StudentSettings(name=name, latents=4, heads=2), seed=1, device="cuda")


def test_packed_texts_have_the_vectors_of_padded_ones(halves, monkeypatch):
    model = halves().to(torch.bfloat16)
    assert model.packs(torch.bfloat16)
    found = model.embed(TEXTS, "passage", tokens=100)
    monkeypatch.setattr(type(model), "packs", lambda *_: False)
    assert (found * model.embed(TEXTS, "passage")).sum(1).min() > 0.999


@pytest.mark.parametrize(
    "settings", [{}, {"memory_gib": 0.0, "chunk_tokens": 100}, {"gradient_checkpointing": True}, {"lora_rank": 4}]
)
def test_training_on_packed_texts_goes_as_on_padded_ones(halves, tmp_path, monkeypatch, settings):
    packed, padded = halves(), halves()
    found = train(packed, tmp_path / "packed", dtype="bfloat16", **settings)
    assert packed.packs(torch.bfloat16)
    monkeypatch.setattr("embedsmith.training.conditions._reads_packed", lambda *_, **__: False)
    wanted = train(padded, tmp_path / "padded", dtype="bfloat16", **settings)
    np.testing.assert_allclose(losses(found), losses(wanted), rtol=3e-2)
    lengths = [[report.gradient_norm for report in reports] for reports in (found, wanted)]
    np.testing.assert_allclose(lengths[0], lengths[1], rtol=0.1)


def test_compiled_layers_give_the_same_vectors_and_training(build, tmp_path):
    pytest.importorskip("peft")
    plain, compiled = build("cuda"), build("cuda", compile=True)
    assert is_compiled(compiled) and not is_compiled(plain)
    for tokens in (20, 200):
        found, wanted = (model.embed(TEXTS, "passage", tokens=tokens) for model in (compiled, plain))
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    settings = {"lora_rank": 4, "chunk_tokens": 60, "memory_gib": 0.0}
    found, wanted = (train(model, tmp_path / str(n), **settings) for n, model in enumerate((compiled, plain)))
    np.testing.assert_allclose(losses(found), losses(wanted), rtol=1e-3)
    assert_close(compiled, plain, 2e-3)

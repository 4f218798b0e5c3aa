"""Packed texts, with the flash kernel's work done slowly on a CPU: the vectors and gradients of padded texts."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from embedsmith.data.examples import Example, Passage
from embedsmith.models import packed
from embedsmith.models.budget import even_cuts
from embedsmith.models.opening import build_student
from embedsmith.models.settings import StudentSettings
from embedsmith.training.batches import Source
from embedsmith.training.chunks import chunks_of
from embedsmith.training.plan import plan_of
from embedsmith.training.settings import StageSettings
from embedsmith.training.stage import train_stage

TEXTS = ["the cat", "on", "10 apples in a long list of files with parsers", "def read(path)", "the dog sat on the log"]


def slow_flash(query, key, value, ends, longest, *, causal, dropout, scale):
    """What the kernel computes, one text after the other."""
    assert dropout == 0.0
    assert longest == ends.diff().max()
    found = []
    for start, end in pairwise(ends):
        rows = [states[start:end].transpose(0, 1)[None] for states in (query, key, value)]
        found.append(scaled_dot_product_attention(*rows, is_causal=causal, scale=scale, enable_gqa=True))
    return torch.cat([states[0].transpose(0, 1) for states in found])


@pytest.fixture
def kernel(monkeypatch):
    """Every device has the kernel, and it takes float32."""
    monkeypatch.setattr(packed, "_has_kernel", lambda device: True)
    monkeypatch.setattr(packed, "_SHORT_TYPES", (torch.float32,))
    monkeypatch.setattr(packed, "flash_attention", slow_flash)


@pytest.fixture
def build(request):
    def of(folder, **settings):
        name = str(request.getfixturevalue(folder))
        return build_student(StudentSettings(name=name, latents=4, heads=2, **settings), seed=1, device="cpu")

    return of


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("pooling", ["mean", "last", "latent"])
def test_a_decoders_vectors_are_those_of_padded_texts(build, kernel, padding_side, attention, pooling):
    model = build("tiny_llama_bos_eos", attention=attention, pooling=pooling, instruction="Find it")
    model.tokenizer.padding_side = padding_side
    features = model.preprocess(TEXTS, prompt=model.prompts["query"])
    assert model.packs(torch.float32)
    with torch.no_grad():
        wanted = model(dict(features))["sentence_embedding"]
        found = model(packed.on_device(packed.pack(features), model.device))["sentence_embedding"]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_an_encoders_vectors_are_those_of_padded_texts(build, kernel):
    model = build("tiny_bert")
    found = model.embed(TEXTS, "passage")
    assert model.packs(torch.float32)
    np.testing.assert_allclose(found, model.encode_document(TEXTS), atol=1e-5)


def test_nothing_but_texts_goes_through_a_packed_model(build, kernel, monkeypatch):
    model = build("tiny_llama", attention="bidirectional", pooling="latent")
    assert model.packs(torch.float32)
    seen = []
    monkeypatch.setattr(packed, "flash_attention", lambda *a, **k: seen.append(a[0].shape[0]) or slow_flash(*a, **k))
    found = model.embed(TEXTS, "passage", tokens=20)
    layers = model.backbone.config.num_hidden_layers
    assert len(seen) > layers  # more than one batch
    assert sum(seen) == layers * model.count_tokens(TEXTS, "passage")
    np.testing.assert_allclose(found, model.encode_document(TEXTS), atol=1e-5)


def test_an_empty_text_is_padded(build, kernel):
    model = build("tiny_llama", attention="bidirectional", pooling="mean")
    texts = [*TEXTS, ""]
    assert not packed.is_packable(model.preprocess(texts))
    np.testing.assert_allclose(model.embed(texts, "passage")[:-1], model.embed(TEXTS, "passage"), atol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "settings"),
    [("latent", {}), ("latent", {"memory_gib": 0.0}), ("last", {}), ("last", {"gradient_checkpointing": True})],
)
def test_training_goes_as_with_padding(build, kernel, monkeypatch, tmp_path, pooling, settings):
    def train(folder, *, is_packed):
        model = build("tiny_llama", attention="bidirectional", pooling=pooling, instruction="Find it")
        monkeypatch.setattr("embedsmith.training.conditions._reads_packed", lambda model, bfloat16: is_packed)
        examples = [
            Example(f"q{n}", text, [Passage(f"p{n}", text[::-1])], [Passage(f"n{n}", text + " not " * n)])
            for n, text in enumerate(TEXTS)
        ]
        stage = StageSettings(
            steps=4, batch_size=4, hard_negatives=1, learning_rate=1e-3, dropout=0.0, dtype="float32", chunk_tokens=40
        )
        stage = stage.model_copy(update={"report_to": "none", **settings})
        source = Source("toy", examples, prompt=model.prompts["query"])
        chunks = chunks_of(model, plan_of([source], stage, 7)[0], 40, packed=is_packed)
        assert all(chunk.is_packed == is_packed for chunk in chunks)
        reports = train_stage(model, [source], stage, folder=tmp_path / folder, seed=7)
        return [(report.loss, report.gradient_norm) for report in reports], model.state_dict()

    (found, weights), (wanted, padded) = train("packed", is_packed=True), train("padded", is_packed=False)
    np.testing.assert_allclose(found, wanted, rtol=1e-3)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, padded[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("folder", "settings"),
    [("tiny_bert", {}), ("tiny_llama", {"pooling": "mean", "instruction": "Find it", "append_eos": True})],
)
def test_queries_and_passages_share_a_chunk(build, folder, settings):
    model = build(folder, **settings)
    examples = [Example(f"q{n}", text, [Passage(f"p{n}", text * (n + 1))], []) for n, text in enumerate(TEXTS)]
    prompt = model.prompts["query"]
    batch = plan_of([Source("toy", examples, prompt=prompt)], StageSettings(batch_size=5, guide=False), 7)[0]
    (chunk,) = chunks_of(model, batch, 10**6, packed=True)
    assert sorted(chunk.rows.tolist()) == list(range(10))
    padded = chunks_of(model, batch, 10**6)
    assert len(padded) > 1
    assert chunk.tokens == sum(int(part.features["attention_mask"].sum()) for part in padded)
    mask = padded[0].features["attention_mask"]
    names = [name for name, value in padded[0].features.items() if getattr(value, "shape", None) == mask.shape]
    assert ("pooling_mask" in names) == ("instruction" in settings)
    place = {row: place for place, row in enumerate(chunk.rows.tolist())}
    for part in padded:
        for number, row in enumerate(part.rows.tolist()):
            for name in names:
                wanted = part.features[name][number]
                torch.testing.assert_close(chunk.features[name][place[row], : len(wanted)], wanted)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda q, k, v, ends, longest, **_: scaled_dot_product_attention(
            *(states.transpose(0, 1)[None] for states in (q, k, v)), enable_gqa=True
        )[0].transpose(0, 1),
        lambda q, k, v, ends, longest, **rest: slow_flash(q, k, v, ends, longest, **{**rest, "causal": True}),
    ],
    ids=["across texts", "causal"],
)
def test_a_kernel_that_attends_to_other_tokens_is_found_out(build, kernel, monkeypatch, wrong):
    model = build("tiny_llama", attention="bidirectional", pooling="mean")
    monkeypatch.setattr(packed, "flash_attention", wrong)
    assert not model.packs(torch.float32)


def test_what_cannot_be_packed_is_padded(build, kernel, monkeypatch):
    assert not build("tiny_llama", attention="bidirectional", pooling="multi-layer").packs(torch.float32)
    assert not build("tiny_llama", attention="bidirectional", attention_backend="eager").packs(torch.float32)
    assert not build("tiny_llama").packs(torch.float64)

    def refuse(*_, **__):
        raise RuntimeError("head dimension 4")

    monkeypatch.setattr(packed, "flash_attention", refuse)
    model = build("tiny_llama", attention="bidirectional", pooling="mean")
    assert not model.packs(torch.float32)
    np.testing.assert_allclose(model.embed(TEXTS, "passage"), model.encode_document(TEXTS), atol=1e-5)


def test_nothing_is_packed_on_a_cpu(build):
    assert not build("tiny_llama").packs(torch.bfloat16)


@pytest.mark.parametrize("tokens", [1, 7, 50, 10_000])
def test_even_cuts_keep_to_the_budget_and_are_about_even(tokens):
    lengths = np.sort(np.random.default_rng(0).integers(1, 30, 200))[::-1]
    ends = even_cuts(lengths, tokens)
    sizes = [lengths[a:b].sum() for a, b in pairwise([0, *ends])]
    assert ends[-1] == 200 and min(sizes) > 0
    assert len(sizes) <= -(-lengths.sum() // tokens)
    assert max(sizes) < max(tokens, 30) + 30
    assert max(sizes) - min(sizes) <= 60

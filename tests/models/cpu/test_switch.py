"""With the fast ways of a CPU and without them, vectors and gradients are the same up to rounding."""

import numpy as np
import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from embedsmith.models.cpu import matmul, trained_embeddings, trained_matmul
from embedsmith.models.cpu.switch import is_fast
from embedsmith.models.cpu.trained_embeddings import gradients_of_rows
from embedsmith.models.cpu.training import fast_training
from embedsmith.models.opening import build_student
from embedsmith.models.precision import onednn_multiplies
from embedsmith.models.settings import StudentSettings

TEXTS = ["where is the parser", "the cat sat on the mat", "a", "def add(a, b): return a + b", "10 times 100 " * 5]
needs_onednn = pytest.mark.skipif(not onednn_multiplies(torch.float32), reason="oneDNN does not multiply here")


@pytest.fixture
def made(monkeypatch):
    """The matmuls that oneDNN makes, on a CPU that is taken for one on which it is faster."""
    seen, product = [], matmul.linear
    for module in (matmul, trained_matmul):
        monkeypatch.setattr(module, "multiplies_wide", lambda device: device.type == "cpu")
        monkeypatch.setattr(module, "linear", lambda *factors: seen.append(factors) or product(*factors))
    monkeypatch.setattr(trained_embeddings, "_LARGE", 1)
    return seen


@pytest.fixture(params=["tiny_llama", "tiny_bert"])
def model(request):
    folder = request.getfixturevalue(request.param)
    return build_student(StudentSettings(name=str(folder), pooling="mean"), device="cpu")


@needs_onednn
@pytest.mark.parametrize("role", ["query", "passage"])
def test_vectors_are_the_same_without_it(model, made, monkeypatch, role):
    fast = model.embed(TEXTS, role)
    assert made
    made.clear()
    monkeypatch.setenv("EMBEDSMITH_CPU", "plain")
    np.testing.assert_allclose(model.embed(TEXTS, role), fast, rtol=0, atol=1e-5)
    assert not made
    monkeypatch.delenv("EMBEDSMITH_CPU")
    assert model.embed(TEXTS, role).tobytes() == fast.tobytes()


def gradients(model):
    features = model.preprocess(TEXTS)
    attention = ALL_ATTENTION_FUNCTIONS["sdpa"]
    model.train()
    model.zero_grad()
    with fast_training(model, bfloat16=False), gradients_of_rows(model, model.device):
        is_replaced = ALL_ATTENTION_FUNCTIONS["sdpa"] is not attention
        tables = [module.sparse for module in model.modules() if isinstance(module, torch.nn.Embedding)]
        torch.manual_seed(0)
        model(dict(features))["sentence_embedding"].square().mul(torch.arange(1, 6)[:, None]).sum().backward()
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is attention
    return {n: p.grad.to_dense() for n, p in model.named_parameters() if p.grad is not None}, is_replaced, any(tables)


@needs_onednn
def test_gradients_are_the_same_without_it(model, made, monkeypatch):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.backbone.config.attention_dropout = 0.0
    fast, *is_used = gradients(model)
    assert made and is_used == [True, True]
    made.clear()
    monkeypatch.setenv("EMBEDSMITH_CPU", "plain")
    plain, *is_used = gradients(model)
    assert not made and is_used == [False, False]
    assert fast.keys() >= plain.keys() and plain
    for name, gradient in plain.items():
        torch.testing.assert_close(fast[name], gradient, rtol=1e-4, atol=1e-5)
    for name in fast.keys() - plain.keys():
        assert not fast[name].any()


def test_it_is_on_unless_it_is_turned_off(monkeypatch):
    monkeypatch.delenv("EMBEDSMITH_CPU", raising=False)
    assert is_fast()
    monkeypatch.setenv("EMBEDSMITH_CPU", "plain")
    assert not is_fast()

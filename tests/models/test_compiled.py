"""Compiled layers, as far as there is something to see without a GPU."""

import pytest
import torch

from embedsmith.errors import ModelError
from embedsmith.models import compiled
from embedsmith.models.adapters import add_adapters
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings


@pytest.fixture
def model(tiny_llama):
    return build_student(StudentSettings(name=str(tiny_llama), pooling="mean"), device="cpu")


@pytest.fixture
def on_gpu(monkeypatch):
    """Models say that they are on a GPU, which has all that compiling needs."""
    monkeypatch.setattr(EmbeddingModel, "device", property(lambda _: torch.device("cuda")))
    monkeypatch.setattr(compiled, "has_triton", lambda: True)
    monkeypatch.setattr(compiled.shutil, "which", lambda name: name)


def test_on_a_cpu_nothing_is_compiled(tiny_llama, tmp_path):
    model = build_student(StudentSettings(name=str(tiny_llama), pooling="mean", compile=True), device="cpu")
    assert not compiled.is_compiled(model)
    model.save(str(tmp_path / "model"))
    assert not compiled.is_compiled(load(str(tmp_path / "model"), device="cpu", compile=True))


def test_every_layer_is_compiled_once_for_any_shape(model, on_gpu, monkeypatch):
    graphs, calls = [], []

    def backend(graph, _inputs):
        graphs.append(graph)
        return lambda *inputs: calls.append(graph) or graph.forward(*inputs)

    # A backend that makes no kernels, for no GPU is there; all else is torch's own.
    compile_layer = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: compile_layer(self, backend=backend, **how))
    batches = [torch.arange(1, 1 + 2 * length).reshape(2, length) % 50 for length in (3, 5, 9, 12)]
    with torch.no_grad():
        wanted = [model.backbone(input_ids=tokens).last_hidden_state for tokens in batches]
        assert compiled.compile_layers(model, name="it") == len(model.backbone.layers) == 3
        assert not graphs
        for tokens, states in zip(batches, wanted, strict=True):
            torch.testing.assert_close(model.backbone(input_ids=tokens).last_hidden_state, states)
    assert (len(graphs), len(calls)) == (1, len(batches) * 3)
    torch._dynamo.reset()


@pytest.mark.parametrize("missing", ["has_triton", "which"])
def test_what_compiling_needs_and_is_not_there_is_named(model, on_gpu, monkeypatch, missing):
    target = compiled if missing == "has_triton" else compiled.shutil
    monkeypatch.setattr(target, missing, lambda *_: None)
    with pytest.raises(ModelError, match="it: compile needs Triton and a C compiler"):
        compiled.compile_layers(model, name="it")


def test_a_model_without_layers_is_refused(model, on_gpu, monkeypatch):
    monkeypatch.setattr(EmbeddingModel, "modules", lambda _: iter(()))
    with pytest.raises(ModelError, match="no layers found in LlamaModel"):
        compiled.compile_layers(model, name="it")


def test_probes_run_layers_as_they_were_written(model):
    calls = []

    def backend(graph, _inputs):
        calls.append(graph)
        return graph.forward

    tokens = torch.tensor([[5, 6, 7]])
    for layer in model.backbone.layers:
        layer.compile(backend=backend, dynamic=True)
    assert compiled.is_compiled(model)
    with torch.no_grad(), compiled.uncompiled():
        wanted = model.backbone(input_ids=tokens).last_hidden_state
    assert not calls
    with torch.no_grad():
        found = model.backbone(input_ids=tokens).last_hidden_state
    assert calls
    torch.testing.assert_close(found, wanted)
    torch._dynamo.reset()


def test_adapters_over_compiled_layers_read_what_has_a_gradient(model, monkeypatch):
    monkeypatch.setattr(compiled, "is_compiled", lambda _: True)
    model.requires_grad_(False)
    tokens = torch.tensor([[5, 6, 7]])
    with compiled.inputs_with_gradients(model):
        assert model.backbone(input_ids=tokens).last_hidden_state.requires_grad
    assert not model.backbone(input_ids=tokens).last_hidden_state.requires_grad


def test_all_layers_share_what_was_compiled_for_one_with_adapters_and_in_training_too(model):
    """Else each layer of a 7B model takes seconds to compile, for every kind of call."""
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    for layer in model.backbone.layers:
        layer.compile(backend=backend, dynamic=True)
    add_adapters(model, rank=2, alpha=4, dropout=0.1, targets=[])
    with compiled.inputs_with_gradients(model):
        for length in (3, 5, 9):
            tokens = torch.arange(2 * length).reshape(2, length) % 50
            attended = torch.ones_like(tokens)
            attended[1, -1] = 0
            model({"input_ids": tokens, "attention_mask": attended})["sentence_embedding"].sum().backward()
    assert len(graphs) == 1
    torch._dynamo.reset()

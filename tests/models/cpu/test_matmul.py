"""Products by oneDNN are those of float32, and take the place of MKL's where they are meant to."""

import contextlib
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional

from embedsmith.models import embedder, measured
from embedsmith.models.cpu import matmul
from embedsmith.models.opening import build_student
from embedsmith.models.settings import StudentSettings

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
TEXTS = ["where is the parser", "s", "", "the cat sat on the mat and the dog sat on the log, " * 3]


@needs_onednn
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 7), (5, 7), (2, 3, 7), (7,), (0, 7), (2, 0, 7)])
def test_a_product_is_float64s_to_the_precision_of_float32(shape, with_bias):
    numbers = torch.Generator().manual_seed(0)
    states, weight, bias = (torch.randn(size, generator=numbers) for size in (shape, (11, 7), (11,)))
    right = states.double() @ weight.double().T + (bias.double() if with_bias else 0)
    with torch.inference_mode(), matmul.MatmulMode(is_wide=True):
        found = functional.linear(states, weight, bias if with_bias else None)
        turned = functional.linear(states.flip(-1).clone().flip(-1), weight, bias=bias if with_bias else None)
    assert found.dtype == torch.float32
    assert found.shape == right.shape
    torch.testing.assert_close(found.double(), right, rtol=0, atol=1e-5)
    torch.testing.assert_close(turned, found, rtol=0, atol=0)


@needs_onednn
def test_what_is_not_contiguous_is_multiplied_as_it_reads():
    wide = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))[::2]
    with torch.inference_mode(), matmul.MatmulMode(is_wide=True):
        found = functional.linear(wide.T, weight)
    torch.testing.assert_close(found, wide.T.contiguous() @ weight.contiguous().T)


def test_shorter_types_stay_with_torch(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", None)
    states, weight = torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(4, 3, dtype=torch.bfloat16)
    with matmul.MatmulMode(is_wide=True):
        assert functional.linear(states, weight).tolist() == [[3.0] * 4] * 2


@pytest.mark.parametrize(
    ("by_torch", "by_onednn", "device", "wide"),
    [(90.0, 260.0, "cpu", True), (52.0, 62.0, "cpu", True), (100.0, 104.0, "cpu", False), (90.0, 260.0, "cuda", False)],
)
def test_the_faster_library_multiplies(monkeypatch, by_torch, by_onednn, device, wide):
    monkeypatch.setattr(measured, "speeds", lambda: measured.Speeds(by_torch, by_onednn))
    monkeypatch.setattr(measured, "onednn_multiplies", lambda dtype: True)
    with torch.inference_mode():
        block = matmul.fast_matmul(torch.device(device))
    assert isinstance(block, matmul.MatmulMode) == wide
    assert matmul.multiplies_wide(torch.device(device)) == wide
    # oneDNN's product has no gradient.
    assert isinstance(matmul.fast_matmul(torch.device(device)), contextlib.nullcontext)
    assert not matmul.fast_matmul(torch.device(device), mixed=True).is_wide


@pytest.mark.parametrize("is_wide", [pytest.param(True, marks=needs_onednn), False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_short_weights_are_multiplied_in_their_type_and_the_rest_is_float32(is_wide, with_bias):
    numbers = torch.Generator().manual_seed(0)
    states, weight, bias = (torch.randn(size, generator=numbers) for size in ((5, 64), (7, 64), (7,)))
    bias = bias if with_bias else None
    with torch.inference_mode(), matmul.MatmulMode(is_wide=is_wide):
        found = functional.linear(states, weight.bfloat16(), bias)
    right = functional.linear(states.bfloat16().float(), weight.bfloat16().float())
    assert found.dtype == torch.float32
    # The product is rounded once; the bias, which is added after that, is not.
    rounded = right.bfloat16().float()
    assert torch.allclose(found, rounded if bias is None else rounded + bias, rtol=2**-7, atol=1e-3)
    assert not torch.equal(found, functional.linear(states, weight, bias))


@pytest.mark.parametrize("change", [None, "in place", "by name", "another"])
def test_states_are_rounded_once_for_the_products_that_read_them_unless_they_change(change, monkeypatch):
    rounded, numbers = [], torch.Generator().manual_seed(0)
    states, one, other = (torch.randn(size, generator=numbers) for size in ((5, 64), (7, 64), (3, 64)))
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *args: rounded.append(len(self)) or to(self, *args))
    weights = one.bfloat16(), other.bfloat16()
    with torch.inference_mode(), matmul.MatmulMode(is_wide=False):
        functional.linear(states, weights[0])
        if change == "by name":
            torch.neg(torch.ones(5, 64), out=states)
        if change == "in place":
            states.mul_(2)
        if change == "another":
            states = states * 2
        found = functional.linear(states, weights[1])
    assert len(rounded) == (2 if change else 1)
    torch.testing.assert_close(found, (states.bfloat16() @ weights[1].T).float(), rtol=0, atol=0)


class Block(torch.nn.Module):
    """A feed-forward whose product goes into an activation, or elsewhere too."""

    def __init__(self, activation=functional.gelu, kind="plain"):
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.narrow = torch.nn.Linear(64, 256), torch.nn.Linear(256, 64)
        self.activation, self.kind = activation, kind

    def forward(self, states):
        product = self.wide(states)
        if self.kind == "gated":
            return self.narrow(self.activation(product) * self.wide(states))
        if self.kind == "read before":
            product.mean()
        if self.kind == "a view":
            return self.narrow(self.activation(product[..., :]))
        found = self.narrow(self.activation(product))
        return found + product.mean() if self.kind == "read after" else found


STATES = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1))
ACTIVATIONS = {
    "gelu": functional.gelu,
    "tanh": partial(functional.gelu, approximate="tanh"),
    "swish": functional.silu,
    "relu": functional.relu,
    "a module": torch.nn.GELU(approximate="tanh"),
}


@pytest.mark.parametrize("kind", ["plain", "gated", "read before", "read after", "a view"])
def test_an_activation_is_found_where_a_product_goes_there_alone_and_always(kind):
    block = Block(kind=kind)
    found = matmul.activations_of(lambda: block(STATES))
    assert [activation for _, activation in found.values()] == ([("gelu", "none")] if kind == "plain" else [])
    assert all(weight is block.wide.weight for weight, _ in found.values())


@needs_onednn
@pytest.mark.parametrize("is_short", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("refuses_short", [False, True])
def test_an_activation_that_is_applied_with_its_product_gives_the_same(name, is_short, refuses_short, monkeypatch):
    if refuses_short:
        monkeypatch.setattr(matmul, "onednn_multiplies", lambda dtype: dtype == torch.float32)
    block = Block(ACTIVATIONS[name])
    right = block(STATES)
    with torch.inference_mode():
        found = matmul.activations_of(lambda: block(STATES))
        assert len(found) == 1
        copies = {id(layer.weight): (layer.weight, layer.weight.bfloat16()) for layer in (block.wide, block.narrow)}
        with matmul.MatmulMode(is_wide=True, activations=found, copies=copies if is_short else None):
            together = block(STATES)
            nothing = block(STATES[:0])
    assert together.dtype == torch.float32 and nothing.shape == (0, 5, 64)
    torch.testing.assert_close(together, right, rtol=0, atol=2e-2 if is_short else 1e-5)
    if is_short:
        assert not torch.allclose(together, right, rtol=0, atol=1e-5)


def test_what_is_known_of_a_weight_is_not_taken_for_another_that_has_its_place():
    block, other = Block(), torch.ones(2, 64)
    found = {id(block.wide.weight): (other, matmul.Activation("relu"))}
    copies = {id(block.wide.weight): (other, other)}
    with torch.inference_mode(), matmul.MatmulMode(is_wide=False, activations=found, copies=copies):
        found_here = block(STATES)
    assert torch.equal(found_here, block(STATES))


@needs_onednn
@pytest.mark.parametrize("pooling", ["mean", "latent", "multi-layer"])
def test_vectors_are_the_same_by_either_library(tiny_llama, monkeypatch, pooling):
    sizes = {"latents": 4, "heads": 2, "head_width": 8}
    settings = StudentSettings(name=str(tiny_llama), attention="bidirectional", pooling=pooling, **sizes)
    student = build_student(settings, device="cpu")
    monkeypatch.setattr(embedder, "fast_matmul", lambda device, **_: contextlib.nullcontext())
    by_mkl = student.embed(TEXTS, "passage")
    asked = []

    def counted(device, *, mixed, activations=None, copies=None, quantised=None):
        asked.append((device.type, mixed, copies))
        return matmul.MatmulMode(is_wide=True, activations=activations)

    monkeypatch.setattr(embedder, "fast_matmul", counted)
    np.testing.assert_allclose(student.embed(TEXTS, "passage"), by_mkl, rtol=0, atol=1e-6)
    assert set(asked) == {("cpu", False, None)}

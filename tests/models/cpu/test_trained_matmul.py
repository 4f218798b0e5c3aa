"""Products with gradients by oneDNN are those of float32, forward and back, and only where they are faster."""

from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from embedsmith.models.cpu import matmul, trained_matmul
from embedsmith.models.cpu.trained_matmul import trained_matmul as trained_on

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def faster(monkeypatch):
    """Whatever the processor, oneDNN is taken to be faster."""
    monkeypatch.setattr(trained_matmul, "multiplies_wide", lambda device: device.type == "cpu")


@pytest.fixture
def made(monkeypatch):
    """The shapes of the factors that oneDNN has multiplied."""
    seen = []

    def product(*factors):
        seen.append([tuple(factor.shape) for factor in factors[:2]])
        return matmul.linear(*factors)

    monkeypatch.setattr(trained_matmul, "linear", product)
    return seen


def numbers(*shape):
    """Return random numbers, the same for the same shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def a_layer(reads, returns, bias=True):
    """Return a linear layer of random weights."""
    layer = torch.nn.Linear(reads, returns, bias=bias)
    for parameter in layer.parameters():
        parameter.data = numbers(*parameter.shape)
    return layer


def gradients(layer, states):
    """Return a layer's product, and the gradients of a sum that weighs all its numbers differently."""
    product = layer(states)
    wanted = [tensor for tensor in (states, *layer.parameters()) if tensor.requires_grad]
    return product, torch.autograd.grad(product, wanted, numbers(*product.shape).to(product.dtype))


@pytest.mark.parametrize("trained", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1), (0, 1), (1, 0)])
@pytest.mark.parametrize("shape", [(1, 7), (5, 7), (2, 3, 7), (7,), (0, 7)])
def test_product_and_gradients_are_float64s_to_the_precision_of_float32(made, shape, trained):
    layer = a_layer(7, 11, bias=len(trained) == 3)
    for parameter, is_trained in zip(layer.parameters(), trained[1:], strict=True):
        parameter.requires_grad_(bool(is_trained))
    states = numbers(*shape).requires_grad_(bool(trained[0]))
    with trained_on(layer, CPU):
        found, of_found = gradients(layer, states)
    layer.double()
    right, of_right = gradients(layer, states.detach().double().requires_grad_(bool(trained[0])))
    torch.testing.assert_close(found.double(), right, rtol=0, atol=1e-5)
    for one, other in zip(of_found, of_right, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-5)
    assert len(made) == (1 + sum(trained[:2]) if len(shape) > 1 and states.numel() else 0)


@pytest.mark.parametrize("turn", [torch.Tensor.t, lambda states: states[::2], lambda states: states[:1].expand(9, 6)])
def test_what_does_not_lie_in_order_is_multiplied_as_it_reads(turn):
    layer = a_layer(6, 8)
    layer.weight.data = numbers(6, 8).t()
    states = turn(numbers(6, 6)).detach().requires_grad_()
    tensors = [states, *layer.parameters()]
    right, of_right = gradients(layer, states)
    of_sum = torch.autograd.grad(layer(states).sum(), tensors)
    with trained_on(layer, CPU):
        found, of_found = gradients(layer, states)
        of_found_sum = torch.autograd.grad(layer(states).sum(), tensors)  # a gradient of one number, repeated
    torch.testing.assert_close(found, right)
    torch.testing.assert_close(of_found, of_right)
    torch.testing.assert_close(of_found_sum, of_sum)


def test_vectors_without_gradients_are_the_same_bit_for_bit():
    layer, states = a_layer(96, 64), numbers(33, 96)
    with trained_on(layer, CPU):
        trained = layer(states)
        with torch.no_grad():
            untrained = layer(states)
    assert trained.grad_fn is not None
    assert untrained.grad_fn is None
    assert torch.equal(trained, untrained)


def test_states_before_a_frozen_weight_are_not_kept():
    kept = []
    layer = a_layer(96, 64).requires_grad_(False)
    states = numbers(33, 96).requires_grad_()
    with trained_on(layer, CPU), torch.autograd.graph.saved_tensors_hooks(kept.append, lambda tensor: tensor):
        layer(states)
    assert [tuple(tensor.shape) for tensor in kept] == [(64, 96)]


def test_what_is_computed_again_on_the_way_back_is_the_same(made):
    layer = torch.nn.Sequential(a_layer(16, 32), torch.nn.GELU(), a_layer(32, 16))
    found = []
    for call in (layer, partial(checkpoint, layer, use_reentrant=False)):
        states = numbers(5, 16).requires_grad_()
        layer.zero_grad()
        with trained_on(layer, CPU):
            call(states).square().sum().backward()
        found.append([states.grad, *(parameter.grad for parameter in layer.parameters())])
    assert all(map(torch.equal, *found))
    assert len(made) == 6 + 8


def test_shorter_types_stay_with_torch(made):
    layer = a_layer(3, 4).bfloat16()
    with trained_on(layer, CPU):
        layer(torch.ones(2, 3, dtype=torch.bfloat16))
    assert not made


def test_the_layers_are_as_before_after_the_block():
    layer = a_layer(3, 4)
    with pytest.raises(KeyError), trained_on(layer, CPU):
        assert "forward" in vars(layer)
        raise KeyError
    assert "forward" not in vars(layer)
    layer.forward = another = lambda states: states
    with trained_on(layer, CPU):
        assert layer.forward is another
    assert layer.forward is another


@pytest.mark.parametrize("is_wide", [True, False])
def test_layers_are_told_where_onednn_is_faster(monkeypatch, is_wide):
    monkeypatch.setattr(trained_matmul, "multiplies_wide", lambda device: is_wide)
    layer = a_layer(3, 4)
    with trained_on(layer, CPU):
        assert ("forward" in vars(layer)) == is_wide

"""Matmuls in int8 are those of the weights and hidden states as they are quantised, each token by itself."""

import pytest
import torch
from torch.nn import functional

from embedsmith.models import precision
from embedsmith.models.cpu import matmul, quantised
from embedsmith.models.cpu.quantised import quantised_linear, quantised_states, quantised_weight
from embedsmith.models.precision import int8_bits

pytestmark = pytest.mark.skipif(not int8_bits(), reason="nothing multiplies int8 here")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(5, 40), (2, 3, 40), (40,), (300, 40), (1, 40)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_matmul_is_that_of_the_rounded_numbers(shape, with_bias):
    states, weight, bias = draw(*shape), draw(33, 40, seed=1), draw(33, seed=2)
    most = 2 ** (int8_bits() - 1) - 1
    row_scales = weight.double().abs().amax(1, keepdim=True) / most
    least, largest = (getattr(states.double(), name)(-1, keepdim=True) for name in ("amin", "amax"))
    scales = (largest - least) / 255
    read = least + ((states.double() - least) / scales).round() * scales
    right = read @ ((weight.double() / row_scales).round() * row_scales).T + (bias.double() if with_bias else 0)
    found = quantised_linear(quantised_states(states), quantised_weight(weight), bias if with_bias else None)
    assert found.dtype == torch.float32
    assert found.shape == right.shape
    torch.testing.assert_close(found.double(), right, rtol=0, atol=2e-2)  # a number halfway may go either way
    exact = functional.linear(states, weight, bias if with_bias else None)
    assert (found - exact).norm() < 0.03 * exact.norm()


def test_no_number_of_a_token_moves_by_more_than_half_a_step():
    states = torch.cat([draw(50, 64), draw(50, 64).abs() * 1e4, draw(50, 64) * 1e-6, draw(50, 64) + 100])
    found = quantised_states(states)
    moved = (found.least + found.scales * found.numbers[: len(states)] - states).abs()
    assert (moved <= found.scales * 0.51).all()


@pytest.mark.parametrize("value", [0.0, 5.0, -3e4, 1e-20])
def test_a_token_of_equal_numbers_is_read_right(value):
    states, weight = torch.full((2, 40), value), draw(33, 40)
    small = quantised_weight(weight)
    found = quantised_linear(quantised_states(states), small, None)
    torch.testing.assert_close(found, (value * small.sums).expand(2, -1), rtol=1e-5, atol=1e-30)


def test_what_is_no_number_stays_none():
    states = draw(3, 40)
    states[1, 7] = torch.nan
    found = quantised_linear(quantised_states(states), quantised_weight(draw(33, 40)), None)
    assert found.isnan().all(1).tolist() == [False, True, False]


def test_a_token_does_not_depend_on_its_neighbours():
    states, small = draw(300, 40), quantised_weight(draw(33, 40))
    states[1:] *= 100
    together = quantised_linear(quantised_states(states), small, None)
    for rows in (slice(0, 1), slice(0, 7), slice(131, 300)):
        assert torch.equal(quantised_linear(quantised_states(states[rows]), small, None), together[rows])


def test_states_that_several_layers_read_are_rounded_once(monkeypatch):
    rounded = []
    monkeypatch.setattr(matmul, "quantised_states", lambda states: rounded.append(1) or quantised_states(states))
    states, weights = draw(4, 40), [draw(33, 40, seed=seed) for seed in range(3)]
    table = {id(weight): (weight, quantised_weight(weight)) for weight in weights}
    with torch.inference_mode(), matmul.fast_matmul(torch.device("cpu"), quantised=table):
        found = [functional.linear(states, weight) for weight in weights]
        states.mul_(2)
        changed = functional.linear(states, weights[0])
    assert len(rounded) == 2
    torch.testing.assert_close(changed, 2 * found[0])


@pytest.mark.parametrize(("has", "fits", "bits"), [(True, 8, 8), (True, 7, 7), (True, 6, 0), (False, 8, 0)])
def test_weights_have_as_many_bits_as_are_multiplied_without_an_overflow(monkeypatch, has, fits, bits):
    """By a library that adds two products in as many bits as hold those of weights of `fits` bits."""
    limit = 2 * 255 * (2 ** (fits - 1) - 1)

    def multiply(states, packed, scales):
        pairs = states.float().view(len(states), 1, -1, 2) * packed.float().view(1, len(packed), -1, 2)
        return pairs.sum(-1).clamp(-limit, limit).sum(-1) * scales

    monkeypatch.setattr(precision, "has_onednn_int8", lambda: has)
    monkeypatch.setattr(precision, "onednn_int8_pack", lambda weight: weight)
    monkeypatch.setattr(precision, "onednn_int8_linear", multiply)
    assert int8_bits.__wrapped__() == bits


def test_a_library_that_refuses_multiplies_nothing(monkeypatch):
    def refuse(*_):
        raise RuntimeError("could not create a primitive descriptor")

    monkeypatch.setattr(precision, "onednn_int8_linear", refuse)
    assert int8_bits.__wrapped__() == 0


def test_weights_of_seven_bits_are_half_as_fine(monkeypatch):
    weight = draw(33, 40)
    monkeypatch.setattr(quantised, "int8_bits", lambda: 8)
    fine = quantised_weight(weight).scales
    monkeypatch.setattr(quantised, "int8_bits", lambda: 7)
    torch.testing.assert_close(quantised_weight(weight).scales, fine * 127 / 63)

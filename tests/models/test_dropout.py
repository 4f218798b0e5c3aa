"""Dropout by a hash: random enough, and computed twice by compiled layers rather than kept."""

import pytest
import torch
import torch._functorch.config
from torch import nn

from embedsmith.models.compiled import _BANS, compile_layers
from embedsmith.models.dropout import HashedDropout, hash_dropouts
from embedsmith.models.lora import add_adapters
from embedsmith.models.settings import StudentSettings
from embedsmith.models.student import build_student


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_share_of_the_numbers_is_dropped_and_the_mean_stays(share):
    torch.manual_seed(0)
    found = HashedDropout(share)(torch.full((300, 1000), 2.0))
    assert (found == 0).float().mean().item() == pytest.approx(share, abs=0.005)
    assert found.mean().item() == pytest.approx(2.0, abs=0.02)
    assert found[found != 0].unique().tolist() == pytest.approx([2 / (1 - share)])
    for axis in (0, 1):  # rows and columns differ by as much as chance makes them
        spread = (found == 0).float().mean(axis).std().item()
        assert spread == pytest.approx((share * (1 - share) / found.shape[axis]) ** 0.5, rel=0.2)


def test_no_two_choices_are_alike_nor_each_others_moved_along():
    torch.manual_seed(0)
    choices = [(HashedDropout(0.5)(torch.ones(1, 20_000))[0] > 0).double() * 2 - 1 for _ in range(4)]
    bound = 6 / 20_000**0.5
    for number, one in enumerate(choices):
        for other in choices[number:]:
            overlaps = torch.fft.irfft(torch.fft.rfft(one) * torch.fft.rfft(other).conj()) / 20_000
            overlaps[0] -= int(one is other)
            assert overlaps.abs().max() < bound


def test_the_same_random_number_makes_the_same_choice():
    dropout = HashedDropout(0.3)
    torch.manual_seed(5)
    first, second = (dropout(torch.ones(7, 11)) for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(dropout(torch.ones(7, 11)), first)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_outside_training_nor_where_nothing_is_asked_for():
    states = torch.randn(3, 4)
    assert HashedDropout(0.3).eval()(states) is states
    assert HashedDropout(0.0)(states) is states


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch._functorch.config.patch(dict.fromkeys(_BANS, False))
def test_compiled_it_keeps_nothing_and_has_the_same_gradients(dtype):
    torch.manual_seed(0)
    layer = nn.Sequential(nn.SiLU(), HashedDropout(0.3), nn.Linear(64, 4, bias=False)).to(dtype)
    states = torch.randn(32, 64, dtype=dtype)
    kept, gradients = [], []
    for run in (layer, torch.compile(layer, backend="aot_eager_decomp_partition")):
        read = states.clone().requires_grad_()
        sizes = {}

        def keep(tensor, sizes=sizes):
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found = run(read)
        layer.zero_grad()
        found.float().square().sum().backward()
        kept.append(sum(1 for size in sizes.values() if size == states.numel()))
        gradients.append([found, read.grad, layer[2].weight.grad])
    # What is read, and no more; uncompiled the choice and what it left as well.
    assert kept[1] == 1 < kept[0]
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("is_compiled", [False, True])
def test_adapters_of_compiled_layers_have_it(tiny_llama, monkeypatch, is_compiled):
    pytest.importorskip("peft")
    model = build_student(StudentSettings(name=str(tiny_llama)), seed=1, device="cpu")
    monkeypatch.setattr("embedsmith.models.lora.is_compiled", lambda model: is_compiled)
    add_adapters(model, rank=2, dropout=0.25)
    hashed = [module.p for module in model.modules() if isinstance(module, HashedDropout)]
    adapters = sum(name.endswith("lora_A.default") for name, _ in model.named_modules())
    assert hashed == [0.25] * adapters * is_compiled
    hash_dropouts(model)
    hash_dropouts(model)  # nothing is left to do
    assert sum(isinstance(module, HashedDropout) for module in model.modules()) == adapters
    assert compile_layers(model, name="model") == 0

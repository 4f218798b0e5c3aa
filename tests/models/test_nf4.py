"""Frozen matrices in NF4: the levels of the paper, the gradients of a plain layer, and nothing left behind."""

import copy
import sys

import pytest
import torch

from embedsmith.errors import SettingsError
from embedsmith.models import nf4
from embedsmith.models.adapters import add_adapters, merge_adapters, temporarily_merged
from embedsmith.models.cpu import trained_matmul
from embedsmith.models.nf4 import NF4Linear, check_quantises, holds_nf4, in_nf4, places_for_nf4
from embedsmith.models.opening import build_student
from embedsmith.models.settings import StudentSettings

pytest.importorskip("bitsandbytes")
pytest.importorskip("peft")

# Dettmers et al., https://arxiv.org/abs/2305.14314, appendix E.
LEVELS = torch.tensor(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)
TEXTS = ["where is the parser", "10 times 100", " the cat"]


def rounded(weight):
    """What NF4 makes of a matrix: of each number the nearest level, times the largest magnitude of its block."""
    flat = weight.float().reshape(-1)
    found = []
    for block in flat.split(64):
        scale = block.abs().max()
        shares = block / scale if scale else block
        found.append(LEVELS[(shares[:, None] - LEVELS).abs().argmin(1)] * scale)
    return torch.cat(found).view(weight.shape)


def layer_of(rows, columns, *, bias=True, seed=0):
    torch.manual_seed(seed)
    layer = torch.nn.Linear(columns, rows, bias=bias).requires_grad_(False)
    torch.nn.init.normal_(layer.weight)
    layer.weight[0] = 0.0
    return layer


@pytest.fixture
def model(tiny_llama):
    settings = StudentSettings(
        name=str(tiny_llama), layers=2, attention="bidirectional", pooling="latent", latents=4, heads=2, head_width=8
    )
    return build_student(settings, device="cpu")


@pytest.mark.parametrize("shape", [(64, 64), (3, 128), (33, 66), (1, 2), (7, 10), (96, 32), (2, 7), (10, 160)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_number_is_the_nearest_level_times_the_largest_of_its_block(shape, dtype):
    layer = layer_of(*shape).to(dtype)
    small = NF4Linear(layer)
    torch.testing.assert_close(small.weight, rounded(layer.weight), rtol=1e-6, atol=0)
    assert torch.equal(small.dequantised(torch.bfloat16), small.weight.bfloat16())


def test_a_number_takes_little_more_than_half_a_byte():
    small = NF4Linear(layer_of(128, 256, bias=False))
    assert sum(one.numel() * one.element_size() for one in small.buffers()) == 0.5625 * 128 * 256
    assert not list(small.parameters())


@pytest.mark.parametrize("is_wide", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_states_and_gradients_are_those_of_a_plain_layer_with_the_same_matrix(monkeypatch, is_wide, autocast, bias):
    if is_wide and not torch.backends.mkldnn.is_available():
        pytest.skip("torch without oneDNN")
    monkeypatch.setattr(trained_matmul, "multiplies_wide", lambda _: is_wide)
    small = NF4Linear(plain := layer_of(48, 64, bias=bias))
    plain.weight.data = small.weight
    found = []
    for layer in (small, plain):
        torch.manual_seed(1)
        states = torch.randn(2, 5, 64, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            made = layer(states)
        made.float().square().sum().backward()
        found.append((made, states.grad))
    assert found[0][0].dtype == (torch.bfloat16 if autocast else torch.float32)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


def test_nothing_of_the_matrix_is_kept_for_the_backward_pass():
    small = NF4Linear(layer_of(48, 64))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape), lambda _: None):
        small(torch.randn(3, 64, requires_grad=True))
    assert kept == []


def test_every_matrix_of_the_backbone_is_quantised_and_is_a_plain_one_afterwards(model):
    linear = {name: one for name, one in model.backbone.named_modules() if isinstance(one, torch.nn.Linear)}
    assert len(linear) == 14
    wanted = {name: rounded(one.weight) for name, one in linear.items()}
    others = {name: weight.clone() for name, weight in model.state_dict().items() if "_proj" not in name}
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(False)
    with in_nf4(model):
        assert not [one for one in model.backbone.modules() if isinstance(one, torch.nn.Linear)]
        assert sum(isinstance(one, NF4Linear) for one in model.backbone.modules()) == 14
        assert any(isinstance(one, torch.nn.Linear) for one in model[1].modules()), "the pooling is trained"
        assert not any(one.weight.numel() for one in linear.values()), "they are freed"
    assert not holds_nf4(model)
    found = dict(model.backbone.named_modules())
    for name, one in linear.items():
        assert found[name] is one
        torch.testing.assert_close(one.weight.data, wanted[name], rtol=1e-6, atol=0)
    state = model.state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in others.items())


def test_a_matrix_that_is_trained_or_shared_or_of_an_odd_size_stays():
    class Backbone(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.twice = torch.nn.ModuleList([one := torch.nn.Linear(4, 4), one])
            self.odd, self.tied, self.table = torch.nn.Linear(5, 3), torch.nn.Linear(4, 9), torch.nn.Embedding(9, 4)
            self.tied.weight = self.table.weight
            self.trained = torch.nn.Linear(4, 4)
            for name, weight in self.named_parameters():
                weight.requires_grad_("trained" in name)

    class Model(torch.nn.Module):
        device, backbone = torch.device("cpu"), Backbone()

    model = Model()
    assert {name for _, name, _ in places_for_nf4(model.backbone)} == {"0", "1", "trained"}
    with in_nf4(model):
        parts = model.backbone
        assert isinstance(parts.twice[0], NF4Linear) and parts.twice[0] is parts.twice[1]
        assert {type(one) for one in (parts.odd, parts.tied, parts.trained)} == {torch.nn.Linear}
    assert type(parts.twice[0]) is torch.nn.Linear and parts.twice[0] is parts.twice[1]
    assert parts.twice[0].weight.shape == (4, 4)


def test_adapters_over_it_are_float32_and_are_merged_into_the_dequantised_matrices(model):
    oracle = copy.deepcopy(model)
    with torch.no_grad():
        for one in oracle.backbone.modules():
            if isinstance(one, torch.nn.Linear):
                one.weight.copy_(rounded(one.weight))
    torch.manual_seed(5)
    add_adapters(model, rank=4, dropout=0.0)
    torch.manual_seed(5)
    add_adapters(oracle, rank=4, dropout=0.0)
    adapters = {name: one for name, one in model.named_parameters() if ".lora_" in name}
    assert {one.dtype for one in adapters.values()} == {torch.float32}
    expected = dict(oracle.named_parameters())
    with torch.no_grad():
        for name, one in adapters.items():
            one += 0.05 * torch.randn_like(one)
            expected[name].copy_(one)
    with in_nf4(model):
        vectors = model.embed(TEXTS, "query")
    torch.testing.assert_close(torch.tensor(vectors), torch.tensor(oracle.embed(TEXTS, "query")), rtol=0, atol=1e-5)
    merge_adapters(model)
    merge_adapters(oracle)
    state = oracle.state_dict()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, state[name], rtol=1e-5, atol=1e-7, msg=name)


def test_what_needs_whole_matrices_is_refused_meanwhile(model, tmp_path):
    add_adapters(model, rank=2)
    with in_nf4(model):
        with pytest.raises(SettingsError, match="holds matrices in nf4 while a stage trains, and is not merged"):
            merge_adapters(model)
        with pytest.raises(SettingsError, match="and is not merged"), temporarily_merged(model):
            pass
        with pytest.raises(SettingsError, match="and is not saved"):
            model.save(str(tmp_path / "model"))
    assert not (tmp_path / "model").exists()
    merge_adapters(model)
    model.save(str(tmp_path / "model"))


def test_what_a_cache_knows_a_model_by_changes_with_its_matrices(model):
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(False)
    before = model.contract("query")
    with in_nf4(model):
        assert model.contract("query") != before


def test_where_a_gpu_has_no_room_for_float32_the_model_goes_to_the_machines_memory(model, monkeypatch):
    moved = []

    class OnGPU:
        backbone, device = model.backbone, torch.device("cuda")

        def to(self, device):
            moved.append(device)

    for parameter in model.backbone.parameters():
        parameter.requires_grad_(False)
    numbers = sum(one.weight.numel() for _, _, one in places_for_nf4(model.backbone))
    for free, wanted in ((4.5 * numbers, []), (4.3 * numbers, ["cpu"])):
        monkeypatch.setattr(nf4, "free_bytes", lambda _, free=free: free)
        with in_nf4(OnGPU()):
            pass
        assert moved == wanted


def test_what_cannot_be_quantised_is_refused_with_its_remedy(model, monkeypatch):
    check_quantises(model)
    with monkeypatch.context() as patched:
        patched.setattr(nf4, "is_compiled", lambda _: True)
        with pytest.raises(SettingsError, match="nf4 with compile"):
            check_quantises(model)
    with monkeypatch.context() as patched:
        patched.setattr(type(model), "device", torch.device("mps"))
        with pytest.raises(SettingsError, match="not for mps") as caught:
            check_quantises(model)
        assert "another device" in caught.value.hint
    with monkeypatch.context() as patched:
        patched.setattr(nf4, "places_for_nf4", lambda _: [])
        with pytest.raises(SettingsError, match="LlamaModel has no linear layer"):
            check_quantises(model)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "bitsandbytes.functional", None)
        with pytest.raises(SettingsError, match="bitsandbytes cannot be imported"):
            check_quantises(model)
    with monkeypatch.context() as patched:
        patched.setattr(nf4.importlib.util, "find_spec", lambda _: None)
        with pytest.raises(SettingsError, match="needs the package bitsandbytes") as caught:
            check_quantises(model)
        assert caught.value.hint == 'pip install "embedsmith[quantize]"'


def test_a_library_that_fails_is_one_line_and_the_model_is_whole(model, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no library\nfor this GPU")

    for parameter in model.backbone.parameters():
        parameter.requires_grad_(False)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    monkeypatch.setattr("bitsandbytes.functional.quantize_4bit", fails)
    with pytest.raises(SettingsError, match="bitsandbytes fails on cpu: no library for this GPU"), in_nf4(model):
        pass
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())

"""Attention as it trains on a CPU is torch's own, forward and back, and in nobody's way elsewhere."""

import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, MistralConfig, MistralModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from embedsmith.models.cpu import attention
from embedsmith.models.cpu.attention import training_attention

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.3,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
MODELS = {
    "an encoder": lambda: BertModel(BertConfig(**SIZES, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0)),
    "a causal decoder": lambda: LlamaModel(LlamaConfig(**GROUPED)),
    "a bidirectional decoder": lambda: LlamaModel(LlamaConfig(**GROUPED, is_causal=False)),
    "a window": lambda: MistralModel(MistralConfig(**GROUPED, sliding_window=3)),
}
MASKS = {
    "no padding": [[1] * 7] * 3,
    "padding on the right": [[1] * 7, [1] * 4 + [0] * 3, [1] + [0] * 6],
    "padding on the left": [[1] * 7, [0] * 3 + [1] * 4, [0] * 6 + [1]],
}


def trained(model, mask, *, bfloat16=False):
    """Return the states of what is no padding, and the gradients of all weights."""
    attended = torch.tensor(mask)
    ids = torch.randint(1, 50, attended.shape, generator=torch.Generator().manual_seed(0))
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        states = model(input_ids=ids, attention_mask=attended).last_hidden_state[attended.bool()]
    states.float().square().sum().backward()
    return states.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param]().train()


@pytest.mark.parametrize("mask", MASKS)
def test_states_and_gradients_are_those_of_torch(model, mask):
    wanted, wanted_gradients = trained(model, MASKS[mask])
    with training_attention("cpu"):
        found, gradients = trained(model, MASKS[mask])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == wanted_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted_gradients[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mask", MASKS)
def test_under_autocast_they_are_near_those_of_float32(model, mask):
    wanted, wanted_gradients = trained(model, MASKS[mask])
    with training_attention("cpu"):
        found, gradients = trained(model, MASKS[mask], bfloat16=True)
    assert torch.nn.functional.cosine_similarity(found.float(), wanted).min() > 0.999
    one, other = (torch.cat([g.flatten() for g in some.values()]) for some in (gradients, wanted_gradients))
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.999


def heads(*shape):
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))


def test_weights_are_dropped_and_scaled_as_asked():
    module = torch.nn.Module()
    query, key = heads(3, 400, 8), heads(3, 400, 8)
    ones = torch.ones_like(key)
    mask = torch.ones(2, 1, 400, 400, dtype=torch.bool)
    torch.manual_seed(0)
    dropped, _ = attention._matmul_attention(module, query, key, ones, mask, dropout=0.4)
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert dropped.std().item() > 0.1
    scaled, _ = attention._matmul_attention(module, query, key, key, mask, scaling=0.7)
    torch.testing.assert_close(scaled, sdpa_attention_forward(module, query, key, key, mask, scaling=0.7)[0])


@pytest.mark.parametrize("others", [{"position_bias": heads(3, 5, 5)}, {"attention_mask": heads(1, 5, 5)}, {}])
def test_what_is_out_of_the_ordinary_is_left_to_transformers(others):
    module = torch.nn.Module()  # a causal one, as long as nobody says otherwise
    states = heads(3, 5, 8)
    others = {"attention_mask": None, **others}
    found, _ = attention._matmul_attention(module, states, states, states, **others)
    wanted, _ = sdpa_attention_forward(module, states, states, states, **others)
    assert torch.equal(found, wanted)


def test_transformers_has_its_own_attention_back_whatever_happens():
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward
    with pytest.raises(KeyboardInterrupt), training_attention("cpu"):
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is attention._matmul_attention
        raise KeyboardInterrupt
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward
    with training_attention("cuda"):
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward

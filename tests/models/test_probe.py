"""The probe tells bidirectional attention from causal, in every situation and with every back end."""

import pytest
import torch

from embedsmith.errors import CausalityError
from embedsmith.models.probe import check_attention, measure_attention, promised_attention

SITUATIONS = {"one text", "one text without mask", "padded", "padded in a batch"}


@pytest.fixture(params=["sdpa", "eager"])
def llama(request, tiny_llama):
    from transformers import LlamaModel

    return LlamaModel.from_pretrained(tiny_llama, attn_implementation=request.param)


def test_a_decoder_is_causal_until_its_configuration_says_otherwise(llama):
    assert promised_attention(llama) is None
    assert measure_attention(llama) == dict.fromkeys(SITUATIONS, "causal")
    llama.config.is_causal = False
    assert promised_attention(llama) == "bidirectional"
    assert measure_attention(llama) == dict.fromkeys(SITUATIONS, "bidirectional")
    llama.config.is_causal = True
    assert promised_attention(llama) == "causal"
    assert measure_attention(llama) == dict.fromkeys(SITUATIONS, "causal")


def test_an_encoder_is_bidirectional(tiny_bert):
    from transformers import BertModel

    assert measure_attention(BertModel.from_pretrained(tiny_bert)) == dict.fromkeys(SITUATIONS, "bidirectional")


def test_what_is_measured_is_what_the_hidden_states_show(llama):
    ids = torch.tensor([[20, 30, 40, 50], [20, 30, 40, 51]])
    for is_causal in (True, False):
        llama.config.is_causal = is_causal
        with torch.no_grad():
            one, other = llama(input_ids=ids).last_hidden_state
        assert torch.allclose(one[:3], other[:3], atol=1e-6) == is_causal


def test_a_broken_promise_names_the_model_the_situation_and_the_back_end(llama):
    implementation = llama.config._attn_implementation
    with pytest.raises(
        CausalityError,
        match=rf"toy: attention is causal, not bidirectional \(situation: one text, .*{implementation}\)",
    ):
        check_attention(llama, "bidirectional", name="toy")
    check_attention(llama, "causal", name="toy")


def test_attention_that_is_causal_in_one_situation_only_is_found(llama, monkeypatch):
    forward = type(llama).forward

    def causal_without_a_mask(self, input_ids, attention_mask):
        self.config.is_causal = attention_mask is None
        return forward(self, input_ids=input_ids, attention_mask=attention_mask)

    monkeypatch.setattr(type(llama), "forward", causal_without_a_mask)
    with pytest.raises(CausalityError, match="situation: one text without mask"):
        check_attention(llama, "bidirectional", name="toy")


def test_the_probe_looks_past_dropout_and_leaves_the_mode_as_it_was(llama):
    llama.train()
    assert set(measure_attention(llama).values()) == {"causal"}
    assert llama.training


def test_a_change_too_small_to_be_attention_is_rounding(llama, monkeypatch):
    """Another kernel may round the last bits otherwise when the input changes."""
    forward = type(llama).forward

    def noisy(self, input_ids, attention_mask):
        output = forward(self, input_ids=input_ids, attention_mask=attention_mask)
        output.last_hidden_state += 1e-6 * torch.randn_like(output.last_hidden_state)
        return output

    monkeypatch.setattr(type(llama), "forward", noisy)
    assert set(measure_attention(llama).values()) == {"causal"}

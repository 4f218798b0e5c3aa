"""What the libraries do not promise to keep is there, and is what we take it for."""

import inspect

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.model import BaseModel
from sentence_transformers.sentence_transformer.modules import Transformer
from transformers import AutoTokenizer, BertConfig, BertModel, configuration_utils

from embedsmith.models import compat


def parameters(function):
    return list(inspect.signature(function).parameters)


@pytest.fixture(scope="module")
def bert():
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    return BertModel(BertConfig(vocab_size=20, **sizes))


def test_the_kernels_take_what_they_are_given():
    flash = str(torch.ops.aten._flash_attention_forward.default._schema)
    wanted = "query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal, return_debug_mask, scale"
    said = [part.split("=")[0].split()[-1] for part in flash.split(") ->")[0].split(", ") if part != "*"]
    assert said[:11] == wanted.split(", ")
    if compat.has_onednn_linear():
        schema = str(torch.ops.mkldnn._linear_pointwise.default._schema)
        assert "(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) -> Tensor" in schema


def test_onednn_multiplies_as_torch_does():
    if not (compat.has_onednn_linear() and torch.backends.mkldnn.is_available()):
        pytest.skip("no oneDNN")
    states, weight, bias = torch.randn(3, 5), torch.randn(4, 5), torch.randn(4)
    found = compat.onednn_linear(states, weight, bias, "relu", "")
    torch.testing.assert_close(found, (states @ weight.T + bias).relu())


def test_onednn_multiplies_whole_numbers_exactly():
    if not (compat.has_onednn_int8() and torch.backends.mkldnn.is_available()):
        pytest.skip("no oneDNN")
    states = torch.randint(0, 256, (3, 64), dtype=torch.uint8)
    weight, steps = torch.randint(-63, 64, (32, 64), dtype=torch.int8), torch.rand(32)
    found = compat.onednn_int8_linear(states, compat.onednn_int8_pack(weight), steps)
    torch.testing.assert_close(found, states.float() @ weight.float().T * steps)


def test_a_layer_that_is_compiled_has_a_call_that_can_be_replaced():
    layer = torch.nn.Linear(2, 2)
    assert compat.compiled_call(layer) is None
    layer.compile(backend="eager")
    assert callable(compat.compiled_call(layer))
    compat.set_compiled_call(layer, lambda states: "other")
    assert layer(torch.ones(1, 2)) == "other"


def test_more_kinds_of_calls_are_compiled_within_a_block():
    config = torch._dynamo.config
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    before = getattr(config, name)
    with compat.recompiling(before + 7):
        assert getattr(config, name) == before + 7
    with compat.recompiling(1):
        assert getattr(config, name) == before
    assert getattr(config, name) == before


def test_buffers_hooks_and_versions_are_told():
    module = torch.nn.Linear(2, 2)
    module.register_buffer("built", torch.ones(1), persistent=False)
    module.register_buffer("kept", torch.ones(1))
    assert compat.unsaved_buffers(module) == {"built"}

    def hook(*_):
        return None

    handle = module.register_forward_hook(hook)
    assert compat.hooks(module) == [hook]
    handle.remove()
    assert compat.hooks(module) == []
    tensor = torch.ones(2)
    before = compat.version(tensor)
    tensor.add_(1)
    assert compat.version(tensor) == before + 1
    with torch.inference_mode():
        assert compat.version(torch.ones(2)) == 0


def test_every_tensor_among_arguments_is_found():
    one, other = torch.ones(1), torch.ones(2)
    assert [id(leaf) for leaf in compat.tree_leaves(([one], {"a": (other,)}))] == [id(one), id(other)]
    assert parameters(compat.has_triton) == []


def test_attention_is_named_by_the_configuration_and_looked_up_in_the_table(bert):
    assert compat.attention_name(bert.config) == "sdpa"
    assert compat.attention_name(object()) is None
    seen = []

    def attention(module, query, key, value, attention_mask, **others):
        seen.append(set(others))
        return compat.sdpa_attention(module, query, key, value, attention_mask, **others)

    tokens = {"input_ids": torch.tensor([[1, 2, 3]]), "attention_mask": torch.tensor([[1, 1, 0]])}
    wanted = bert.eval()(**tokens).last_hidden_state
    table = compat.attention_functions()
    table["ours"] = attention
    compat.set_attention_name(bert.config, "ours")
    try:
        bert(**tokens)
    finally:
        compat.set_attention_name(bert.config, "sdpa")
        del table["ours"]
    assert len(seen) == 2 and all({"dropout", "scaling"} <= names for names in seen)
    assert torch.equal(bert(**tokens).last_hidden_state, wanted)
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    wanted = ["module", "query", "key", "value", "attention_mask", "dropout", "scaling", "is_causal"]
    assert parameters(sdpa_attention_forward)[:8] == wanted


def test_layers_are_of_one_class(bert):
    assert len([module for module in bert.modules() if isinstance(module, compat.layer_class())]) == 2


def test_adapters_can_be_told_to_read_what_they_get():
    helpers = pytest.importorskip("peft.helpers")
    assert parameters(helpers.disable_input_dtype_casting)[0] == "model"


def test_the_tensors_of_a_gguf_file_have_names(tiny_llama):
    pytest.importorskip("gguf")
    from transformers import AutoModel

    names = compat.gguf_names(AutoModel.from_pretrained(tiny_llama))
    assert names["token_embd.weight"] == "embed_tokens.weight"


def test_sentence_transformers_opens_modules_of_ours_by_a_private_attribute():
    assert all(name in vars(BaseModel) for name in compat.OVERRIDDEN)
    assert "self._module_classes.get(" in inspect.getsource(BaseModel)
    assert SentenceTransformer.__mro__[1] is BaseModel


def test_a_configuration_says_where_it_came_from_and_what_computes_attention(bert):
    assert all(hasattr(bert.config, name) for name in (*compat.ATTENTION_FIELDS[1:], compat.ORIGIN_FIELDS[0]))
    assert all(f'"{name}"' in inspect.getsource(configuration_utils) for name in compat.ORIGIN_FIELDS)


def test_torch_knows_the_cpu_or_says_nothing():
    known = compat.cpu_capabilities()
    assert known == {} or {"cpu_name", "avx512_bf16"} & known.keys()
    assert isinstance(known, dict)


def test_state_is_shared_with_an_object_of_another_class():
    class Other(torch.nn.Linear):
        pass

    layer = torch.nn.Linear(2, 2)
    other = compat.share_state(layer, Other)
    assert type(other) is Other and type(layer) is torch.nn.Linear
    assert other.weight is layer.weight
    other.extra = 1
    assert not hasattr(layer, "extra")
    tokens = torch.ones(1, 2)
    assert torch.equal(other(tokens), layer(tokens))


def test_a_transformer_says_what_it_reads_and_what_its_pooling_gets(tiny_bert):
    transformer = Transformer(str(tiny_bert))
    assert compat.modalities(transformer) == {"text"}
    assert compat.modalities(torch.nn.Linear(1, 1)) == set()
    assert compat.pools_last_states(transformer)
    transformer.module_output_name = "all_layer_embeddings"
    assert not compat.pools_last_states(transformer)
    transformer.module_output_name = "token_embeddings"
    transformer.modality_config["text"] = {**transformer.modality_config["text"], "method_output_name": "pooler_output"}
    assert not compat.pools_last_states(transformer)


def test_a_tokenizer_keeps_the_arguments_it_was_made_with(tiny_bert):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert, split_special_tokens=True, anything=3)
    arguments = compat.creation_arguments(tokenizer)
    assert (arguments["split_special_tokens"], arguments["anything"]) == (True, 3)
    assert compat.creation_arguments(tokenizer) is arguments


def test_adapters_say_which_are_applied_at_which_scale_and_whether_they_are_off(bert):
    peft = pytest.importorskip("peft")
    assert compat.adapter_settings(bert) is None
    assert compat.adapter_state(bert.pooler.dense) is None
    adapted = peft.get_peft_model(BertModel(bert.config), peft.LoraConfig(r=2, lora_alpha=6, target_modules=["query"]))
    assert compat.adapter_settings(adapted)["default"]["lora_alpha"] == 6
    layer = next(module for module in adapted.modules() if compat.adapter_state(module))
    applied = {"active_adapters": ["default"], "merged_adapters": [], "scaling": {"default": 3.0}}
    assert compat.adapter_state(layer) == (applied, False)
    with adapted.disable_adapter():
        assert compat.adapter_state(layer) == (applied, True)
    adapted.merge_adapter()
    assert compat.adapter_state(layer) == ({**applied, "merged_adapters": ["default"]}, False)


def test_the_bars_of_transformers_are_put_away_and_shown_again():
    from transformers.utils import logging

    before = compat.show_bars(False)
    try:
        assert not logging.is_progress_bar_enabled()
        assert compat.show_bars(True) is False and logging.is_progress_bar_enabled()
    finally:
        compat.show_bars(before)

"""What the libraries do not promise to keep is there, and is what we take it for."""

import ast
import inspect
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

import embedsmith.models
from embedsmith.models import compat

FOLDER = Path(embedsmith.models.__file__).parent
DEEP = (
    *("torch._", "torch.utils._", "peft.helpers", "transformers.integrations"),
    *("transformers.modeling_utils", "transformers.modeling_layers", "transformers.modeling_gguf_pytorch_utils"),
)


def parameters(function):
    return list(inspect.signature(function).parameters)


@pytest.fixture(scope="module")
def bert():
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    return BertModel(BertConfig(vocab_size=20, **sizes))


def unpromised(source: str) -> list[str]:
    """Private attributes of other objects than a module's own, and modules of libraries that are nobody's to import."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found += [node.module] if (node.module or "").startswith(DEEP) else []
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            found += [] if own else [ast.unparse(node)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr"):
            name = node.args[1]
            said = name.value if isinstance(name, ast.Constant) else ""
            found += [said] if str(said).startswith("_") else []
    return found


def test_every_name_that_is_not_promised_is_in_one_module():
    # `modeling_embedsmith` travels with saved models and imports nothing of ours.
    others = [path for path in FOLDER.rglob("*.py") if path.stem not in ("compat", "modeling_embedsmith")]
    ours = {"self._remembered.short_copies", "self._remembered.copies", "ours._remembered"}
    assert {path.name: found for path in others if (found := set(unpromised(path.read_text())) - ours)} == {}


@pytest.mark.parametrize(
    "source",
    [
        "tensor._version",
        "torch.ops.mkldnn._linear_pointwise",
        "getattr(config, '_attn_implementation', None)",
        "from torch.utils._pytree import tree_leaves",
        "from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS",
    ],
)
def test_a_name_that_is_not_promised_is_seen(source):
    assert len(unpromised(source)) == 1


def test_the_kernels_take_what_they_are_given():
    flash = str(torch.ops.aten._flash_attention_forward.default._schema)
    wanted = "query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal, return_debug_mask, scale"
    said = [part.split("=")[0].split()[-1] for part in flash.split(") ->")[0].split(", ") if part != "*"]
    assert said[:11] == wanted.split(", ")
    if compat.has_onednn_product():
        schema = str(torch.ops.mkldnn._linear_pointwise.default._schema)
        assert "(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) -> Tensor" in schema


def test_onednn_multiplies_as_torch_does():
    if not (compat.has_onednn_product() and torch.backends.mkldnn.is_available()):
        pytest.skip("no oneDNN")
    states, weight, bias = torch.randn(3, 5), torch.randn(4, 5), torch.randn(4)
    found = compat.onednn_product(states, weight, bias, "relu", "")
    torch.testing.assert_close(found, (states @ weight.T + bias).relu())


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

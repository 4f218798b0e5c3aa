"""The contract: whatever changes a vector changes it, field by field, and where the model lies does not."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Router, WordEmbeddings
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from tokenizers import Tokenizer
from transformers import (
    BertConfig,
    BertModel,
    ByT5Tokenizer,
    Gemma3TextConfig,
    Gemma3TextModel,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
)

from embedsmith.models import contract
from embedsmith.models.contract import WITHOUT_EFFECT
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings

TEXTS = ["where is the parser of the file", "the dog", "How to Sort 10 numbers, or 100 <s> of them: " * 2]

SMALL = {
    "vocab_size": 400,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}
DECODER = {**SMALL, "num_key_value_heads": 2, "head_dim": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WINDOWED = ["sliding_attention", "full_attention"]
ARCHITECTURES = {
    "llama": (LlamaModel, LlamaConfig, DECODER),
    "mistral": (MistralModel, MistralConfig, {**DECODER, "sliding_window": 4}),
    "qwen3": (
        Qwen3Model,
        Qwen3Config,
        {**DECODER, "sliding_window": 4, "use_sliding_window": True, "layer_types": WINDOWED},
    ),
    "gemma3": (Gemma3TextModel, Gemma3TextConfig, {**DECODER, "sliding_window": 4, "layer_types": WINDOWED}),
    "bert": (BertModel, BertConfig, SMALL),
    "roberta": (RobertaModel, RobertaConfig, {**SMALL, "max_position_embeddings": 140, "pad_token_id": 1}),
}


ROPE = {"rope_parameters", "rms_norm_eps"}
MATTER = {
    "llama": {*ROPE, "hidden_act"},
    "mistral": {*ROPE, "hidden_act", "sliding_window"},
    "qwen3": {*ROPE, "hidden_act", "sliding_window", "layer_types"},
    "gemma3": {*ROPE, "hidden_activation", "sliding_window", "layer_types", "query_pre_attn_scalar"},
    "bert": {"hidden_act", "layer_norm_eps", "num_attention_heads", "is_decoder"},
    "roberta": {"hidden_act", "layer_norm_eps", "pad_token_id"},
}
"""Fields that the walk must have found to change a vector: without them it would prove nothing."""
IMPLAUSIBLE = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
"""No model can have such a value, or not with these weights."""


def others(value):
    """Values that might stand in place of one."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value * 2]
    if isinstance(value, float):
        return [value * 3 + 0.01]
    if isinstance(value, str):
        return ["relu"]
    if isinstance(value, list):
        return [value[::-1]]
    if isinstance(value, dict):
        changed = [{**value, key: other} for key, inner in value.items() for other in others(inner)]
        return [*changed, {**value, "rope_type": "linear", "factor": 4.0}]
    return [True, 4]


def embedder(folder, backbone) -> EmbeddingModel:
    """Return a model with the tokenizer of a folder around a backbone."""
    model = build_student(StudentSettings(name=str(folder), attention="auto", pooling="mean"), device="cpu")
    model[0].model = backbone.eval()
    return model


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_field_of_a_configuration_is_in_the_contract_or_changes_no_vector(kind, tiny_bert):
    model_class, config_class, values = ARCHITECTURES[kind]
    torch.manual_seed(0)
    base = model_class(config_class(**values))
    weights, fields = base.state_dict(), base.config.to_dict()
    model = embedder(tiny_bert, base)
    right, known = model.embed(TEXTS, "query"), model.contract("query")
    tried, matter = set(), set()
    for field, value in fields.items():
        for other in others(value):
            try:
                changed = model_class(config_class(**{**fields, field: other}))
                changed.load_state_dict(weights)
                model[0].model = changed.eval()
                moved = np.abs(model.embed(TEXTS, "query") - right).max()
            except IMPLAUSIBLE:
                continue
            tried.add(field)
            if moved > 1e-6:
                assert model.contract("query") != known, f"{field}: {value} or {other}"
                matter.add(field)
            elif field in WITHOUT_EFFECT:
                assert model.contract("query") == known, f"{field}: {value} or {other}"
    assert not matter & WITHOUT_EFFECT
    assert MATTER[kind] <= matter
    assert len(tried) > 0.7 * len(fields)


@pytest.fixture(scope="module")
def encoder_folder(tiny_bert, tmp_path_factory) -> Path:
    """An embedding model whose vectors depend on every kind of module."""
    model = build_student(StudentSettings(name=str(tiny_bert)), device="cpu")
    torch.manual_seed(1)
    dense = Dense(32, 16, activation_function=torch.nn.Tanh())
    folder = tmp_path_factory.mktemp("contract") / "model"
    EmbeddingModel(modules=[model[0], model[1], dense, Normalize()]).save(str(folder), create_model_card=False)
    return folder


@pytest.fixture
def model(encoder_folder) -> EmbeddingModel:
    """A model of its own for a test to change."""
    made = load(str(encoder_folder), device="cpu")
    made.set_prompt("query", "find the passage: ")
    return made


def rules(tokenizer, **changes) -> None:
    """Put other rules into a tokenizer, as its file would have them."""
    backend = tokenizer.backend_tokenizer
    changed = Tokenizer.from_str(json.dumps({**json.loads(backend.to_str()), **changes}))
    backend.normalizer, backend.post_processor = changed.normalizer, changed.post_processor


CHANGES = {
    "pooling": lambda model: setattr(model[1], "pooling_mode", "cls"),
    "prompt in the pool": lambda model: setattr(model[1], "include_prompt", False),
    "activation of a module": lambda model: setattr(model[2], "activation_function", torch.nn.Identity()),
    "module": lambda model: model.__delitem__(2),
    "upper case": lambda model: rules(model.tokenizer, normalizer=None),
    "no separators": lambda model: rules(model.tokenizer, post_processor=None),
    "added token": lambda model: model.tokenizer.add_tokens(["c"]),
    "side of padding": lambda model: setattr(model.tokenizer, "padding_side", "left"),
    "side of truncation": lambda model: (
        model.set_max_tokens(query=9, passage=9),
        setattr(model.tokenizer, "truncation_side", "left"),
    ),
    "length": lambda model: model.set_max_tokens(query=9, passage=128),
    "prompt": lambda model: model.set_prompt("query", "the "),
    "dimensions": lambda model: setattr(model, "truncate_dim", 8),
    "precision": lambda model: model.to(torch.bfloat16),
    "int8": lambda model: model.use_dtype("int8"),
    "weight": lambda model: model[2].linear.weight.data[0, 0].add_(1.0),
    "epsilon of a norm": lambda model: setattr(model.backbone.encoder.layer[0].output.LayerNorm, "eps", 1.0),
    "activation of a layer": lambda model: setattr(
        model.backbone.encoder.layer[0].intermediate, "intermediate_act_fn", torch.nn.ReLU()
    ),
    "layers": lambda model: model.backbone.encoder.layer.__delitem__(1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_part_of_a_model_that_changes_a_vector_is_in_the_contract(change, model):
    texts = ["The cat sat on the mat", "a dog", "how to sort a list of numbers in 2024, 10 or 100 times"]
    if change == "side of truncation":
        model.set_max_tokens(query=9, passage=9)
    right, known = model.embed(texts, "query"), model.contract("query")
    CHANGES[change](model)
    vectors = model.embed(texts, "query")
    assert vectors.shape != right.shape or np.abs(vectors - right).max() > 1e-4
    assert model.contract("query") != known


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_what_computes_attention_is_in_the_contract(backend, encoder_folder):
    known = load(str(encoder_folder), device="cpu", attention_backend="sdpa").contract("query")
    assert (load(str(encoder_folder), device="cpu", attention_backend=backend).contract("query") == known) is (
        backend == "sdpa"
    )


def test_adapters_are_in_the_contract_with_their_scale_and_whether_they_are_used(encoder_folder):
    pytest.importorskip("peft")
    from embedsmith.models.adapters import add_adapters

    model = load(str(encoder_folder), device="cpu")
    add_adapters(model, rank=2)
    layers = [module for module in model.modules() if hasattr(module, "lora_B")]
    for layer in layers:
        torch.nn.init.normal_(layer.lora_B["default"].weight)
    contracts, vectors = [], []

    def note() -> None:
        contracts.append(json.dumps(model.contract("query")))
        vectors.append(model.embed(TEXTS, "query"))

    note()
    for layer in layers:
        layer.set_scale("default", 0.5)
    note()
    with model.backbone.disable_adapter():
        note()
    model.backbone.merge_adapter()
    note()
    assert len(set(contracts)) == 4
    assert all(np.abs(one - other).max() > 1e-4 for one, other in pairwise(vectors[:3]))
    np.testing.assert_allclose(vectors[3], vectors[1], atol=1e-5)


def test_a_model_in_another_folder_under_another_name_shares_what_is_stored(encoder_folder, tmp_path):
    shutil.copytree(encoder_folder, tmp_path / "elsewhere" / "model")
    one, other = (load(str(path), device="cpu") for path in (encoder_folder, tmp_path / "elsewhere" / "model"))
    assert one.contracts() == other.contracts()
    other.save(str(tmp_path / "again"))
    assert load(str(tmp_path / "again"), device="cpu").contracts() == one.contracts()
    assert str(tmp_path) not in json.dumps(other.contracts())


def test_a_tokenizer_without_fast_rules_is_in_the_contract_by_all_that_it_is_made_of(model):
    contracts = []
    for tokenizer in (ByT5Tokenizer(), ByT5Tokenizer(), ByT5Tokenizer(extra_ids=3), ByT5Tokenizer(eos_token="<end>")):
        model[0].processor = tokenizer
        contracts.append(model.contract("query")["tokenizer"])
    assert contracts[0] == contracts[1] and len(set(contracts)) == 3


def test_a_model_of_words_has_its_words_and_stop_words_in_the_contract():
    def contract_of(words, **settings):
        embedding = WordEmbeddings(WhitespaceTokenizer(words, **settings), np.eye(3, dtype=np.float32))
        return EmbeddingModel(modules=[embedding, Pooling(3)], device="cpu").contract("query")

    words = ["the", "cat", "sat"]
    known = contract_of(words)
    assert contract_of(words) == known
    assert contract_of(words[::-1]) != known != contract_of(words, stop_words=["sat"])
    assert contract_of(words, do_lower_case=True) != known


def test_both_sides_of_a_model_with_two_are_in_the_contract(tiny_bert):
    def contract_of(mode, eps):
        sides = [build_student(StudentSettings(name=str(tiny_bert)), device="cpu")[0] for _ in range(2)]
        sides[1].model.config.layer_norm_eps = eps
        router = Router.for_query_document([sides[0], Pooling(32)], [sides[1], Pooling(32, mode)])
        return EmbeddingModel(modules=[router], device="cpu").contract("passage")

    known = contract_of("mean", 1e-12)
    assert contract_of("mean", 1e-12) == known
    assert contract_of("cls", 1e-12) != known != contract_of("mean", 1e-5)


def test_the_version_of_our_arithmetic_is_in_the_contract(model, monkeypatch):
    known = model.contract("query")
    monkeypatch.setattr(contract, "ARITHMETIC", contract.ARITHMETIC + 1)
    assert model.contract("query") != known

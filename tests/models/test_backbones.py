"""Decoders of every family: bidirectional with each back end, and vectors that depend on the text alone."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2Model,
    Gemma3TextConfig,
    Gemma3TextModel,
    GemmaConfig,
    GemmaModel,
    MistralConfig,
    MistralModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
)
from transformers.utils import is_flash_attn_2_available

from embedsmith.errors import ModelError, SettingsError
from embedsmith.models.opening import build_student, load
from embedsmith.models.probe import measure_attention
from embedsmith.models.settings import NV_RETRIEVER_V1, StudentSettings

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
FAMILIES = {
    "mistral": (MistralModel, MistralConfig, {"sliding_window": 4}),
    "qwen2": (Qwen2Model, Qwen2Config, {}),
    "qwen2-window": (
        Qwen2Model,
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    ),
    "qwen3": (Qwen3Model, Qwen3Config, {"head_dim": 8}),
    "gemma": (GemmaModel, GemmaConfig, {"head_dim": 8}),
    "gemma2": (Gemma2Model, Gemma2Config, {"head_dim": 8, "sliding_window": 9}),
    "gemma3": (Gemma3TextModel, Gemma3TextConfig, {"head_dim": 8, "sliding_window": 9}),
}
TEXTS = ["where is the parser", "10 times 100", " the cat", "the dog sat on the log, " * 4, "s"]


@pytest.fixture(scope="module")
def folder(tiny_llama, tmp_path_factory):
    """A function that makes a folder with a tiny decoder of a family, and a tokenizer without a token to pad with."""

    def make(family):
        build, configure, own = FAMILIES[family]
        place = tmp_path_factory.mktemp(family)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_llama, pad_token=None)
        tokenizer.save_pretrained(place)
        torch.manual_seed(0)
        ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
        build(configure(vocab_size=len(tokenizer), **SIZES, **ids, **own)).save_pretrained(place)
        return place

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoder_of_any_family_becomes_an_embedding_model(folder, family, tmp_path):
    place = folder(family)
    settings = {"pooling": "mean", "instruction": "find the code"}
    student = build_student(StudentSettings(name=str(place), **settings), device="cpu")
    vectors = {}
    # Gemma 2 caps its scores, which the fused kernels do not.
    for backend in ["eager"] if family == "gemma2" else ["eager", "sdpa"]:
        student.backbone.set_attn_implementation(backend)
        assert set(measure_attention(student.backbone).values()) == {"bidirectional"}
        for side in ("right", "left"):
            student.tokenizer.padding_side = side
            vectors[backend, side] = student.embed(TEXTS, "query")
            np.testing.assert_allclose(vectors[backend, side], vectors["eager", "right"], atol=1e-5)
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(student.embed([text], "query")[0], vectors["eager", "right"][row], atol=1e-5)
    student.save(str(tmp_path / "model"))
    again = load(str(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(again.embed(TEXTS, "query"), vectors["eager", "right"], atol=1e-5)


def test_a_bidirectional_mistral_looks_beyond_its_window(folder, tmp_path):
    student = build_student(StudentSettings(name=str(folder("mistral")), pooling="mean"), device="cpu")
    student.save(str(tmp_path / "model"))
    assert json.loads((tmp_path / "model" / "config.json").read_text())["sliding_window"] is None
    student.backbone.layers = student.backbone.layers[:1]
    ids = torch.arange(20, 60)[None]
    other = ids.clone()
    other[0, -1] += 1
    with torch.no_grad():
        first, second = (student.backbone(input_ids=x).last_hidden_state[0, 0] for x in (ids, other))
    assert (first - second).abs().max() > 1e-4


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_a_back_end_can_be_chosen_when_building_and_when_opening(tiny_llama, tmp_path, backend):
    settings = {"attention": "bidirectional", "pooling": "mean", "attention_backend": backend}
    student = build_student(StudentSettings(name=str(tiny_llama), **settings), device="cpu")
    assert student.backbone.config._attn_implementation == backend
    student.save(str(tmp_path / "model"))
    opened = load(str(tmp_path / "model"), device="cpu", attention_backend=backend)
    assert opened.backbone.config._attn_implementation == backend
    np.testing.assert_allclose(opened.embed(TEXTS, "query"), student.embed(TEXTS, "query"), atol=1e-5)


@pytest.mark.skipif(is_flash_attn_2_available(), reason="flash attention is installed here")
def test_a_back_end_that_is_not_installed_is_one_clear_error(tiny_llama):
    with pytest.raises(ModelError, match="no attention with flash_attention_2"):
        build_student(StudentSettings(name=str(tiny_llama), attention_backend="flash_attention_2"))


def test_nv_retriever_is_a_mean_under_its_own_template(folder):
    student = build_student(
        NV_RETRIEVER_V1.model_copy(
            update={"name": str(folder("mistral")), "passage_max_tokens": 99, "query_max_tokens": 99}
        ),
        device="cpu",
    )
    web = "Given a web search query, retrieve relevant passages that answer the query: "
    assert student.prompts == {"query": web, "document": ""}
    assert [type(module).__name__ for module in student] == ["InstructedTransformer", "Pooling", "Normalize"]
    encoding = student.tokenizer([web + "cat"], return_tensors="pt")
    with torch.no_grad():
        states = student.backbone(**encoding).last_hidden_state[0]
    own = [place for place in range(len(states)) if encoding.token_to_chars(0, place).end > len(web)]
    mean = states[own].mean(0)
    np.testing.assert_allclose(student.embed(["cat"], "query")[0], (mean / mean.norm()).numpy(), atol=1e-5)


@pytest.fixture(scope="module")
def saved(tiny_bert, tmp_path_factory):
    place = tmp_path_factory.mktemp("bert") / "model"
    build_student(StudentSettings(name=str(tiny_bert)), device="cpu").save(str(place))
    return str(place)


class TestDimensions:
    def test_the_first_ones_are_kept_and_brought_back_to_length_one(self, saved):
        whole = load(saved, device="cpu").embed(TEXTS, "query")
        model = load(saved, device="cpu", dimensions=8)
        expected = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
        np.testing.assert_allclose(model.embed(TEXTS, "query"), expected, atol=1e-6)
        assert model.embed([], "query").shape == (0, 8)

    def test_they_are_part_of_what_a_vector_depends_on(self, saved):
        whole, short = (load(saved, device="cpu", dimensions=d).contract("query") for d in (None, 8))
        assert whole != short
        assert "dimensions" not in whole

    @pytest.mark.parametrize("dimensions", [0, 33])
    def test_more_than_there_are_is_an_error(self, saved, dimensions):
        with pytest.raises(SettingsError, match=f"{dimensions} dimensions wanted, it has 32"):
            load(saved, dimensions=dimensions)

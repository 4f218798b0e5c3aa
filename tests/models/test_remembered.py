"""What is remembered about a model is forgotten when anything changes that it depends on."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoTokenizer, MistralConfig, MistralModel

from embedsmith.models import packed
from embedsmith.models.cpu import matmul
from embedsmith.models.opening import build_student
from embedsmith.models.precision import SHORT_TEXT, onednn_multiplies
from embedsmith.models.remembered import Remembered
from embedsmith.models.settings import StudentSettings

LONG = [" ".join("abcdefgh"[(n * step) % 8] for n in range(SHORT_TEXT["passage"])) for step in (1, 2, 3, 5)]
WINDOW = 12


class TestWhetherTextsArePacked:
    """With the flash kernel's work done slowly on a CPU."""

    @pytest.fixture(autouse=True)
    def kernel(self, monkeypatch):
        def flash(query, key, value, ends, longest, *, causal, dropout, scale):
            found = []
            for start, end in pairwise(ends):
                rows = [states[start:end].transpose(0, 1)[None] for states in (query, key, value)]
                found.append(scaled_dot_product_attention(*rows, is_causal=causal, scale=scale, enable_gqa=True))
            return torch.cat([states[0].transpose(0, 1) for states in found])

        monkeypatch.setattr(packed, "_has_kernel", lambda device: True)
        monkeypatch.setattr(packed, "_SHORT_TYPES", (torch.float32,))
        monkeypatch.setattr(packed, "flash_attention", flash)

    @pytest.fixture
    def windowed(self, tiny_llama, tmp_path):
        """A decoder whose tokens attend to a few tokens before them, of texts that are no longer."""
        AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path / "mistral")
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        config = MistralConfig(
            vocab_size=400, intermediate_size=64, initializer_range=0.2, sliding_window=WINDOW, **sizes
        )
        MistralModel(config).save_pretrained(tmp_path / "mistral")
        settings = {"pooling": "mean", "attention": "causal", "query_max_tokens": WINDOW, "passage_max_tokens": WINDOW}
        return build_student(StudentSettings(name=str(tmp_path / "mistral"), **settings), device="cpu")

    def test_longer_texts_than_the_window_are_not_packed_any_more(self, windowed):
        np.testing.assert_allclose(windowed.embed(LONG, "passage"), windowed.encode_document(LONG), atol=1e-5)
        assert windowed.packs(torch.float32)
        windowed.set_max_tokens(query=WINDOW, passage=64)
        np.testing.assert_allclose(windowed.embed(LONG, "passage"), windowed.encode_document(LONG), atol=1e-5)
        windowed.set_max_tokens(query=WINDOW, passage=WINDOW)
        assert windowed.packs(torch.float32)

    @pytest.mark.parametrize(
        "change",
        [
            lambda model: model.set_max_tokens(query=WINDOW + 1, passage=WINDOW),
            lambda model: model.set_max_tokens(query=WINDOW, passage=WINDOW + 1),
            lambda model: setattr(model[0], "document_length", WINDOW + 1),
            lambda model: setattr(model, "max_seq_length", WINDOW + 1),
            lambda model: setattr(model, "max_seq_length", None),
            lambda model: setattr(model.backbone.config, "sliding_window", WINDOW - 1),
            lambda model: setattr(model.backbone.config, "attention_chunk_size", WINDOW - 1),
            lambda model: setattr(model.backbone.config, "output_hidden_states", True),
            lambda model: model.backbone.set_attn_implementation("eager"),
            lambda model: setattr(model[0], "module_output_name", "all_layer_embeddings"),
            lambda model: model.to(torch.float64),
        ],
        ids=[
            "query",
            "passage",
            "by hand",
            "both",
            "never cut",
            "window",
            "chunks",
            "states",
            "kernel",
            "output",
            "type",
        ],
    )
    def test_it_is_asked_again(self, windowed, change):
        assert windowed.packs(torch.float32)
        change(windowed)
        known, windowed._remembered = windowed.packs(torch.float32), Remembered()
        assert windowed.packs(torch.float32) == known
        assert not known or windowed.dtype == torch.float64

    def test_a_backbone_that_takes_another_ones_place_is_tried(self, windowed, monkeypatch):
        assert windowed.packs(torch.float32)
        tried = []
        monkeypatch.setattr(packed, "_same_states", lambda transformer, device: tried.append(transformer) or False)
        assert windowed.packs(torch.float32) and not tried
        windowed[0].model = copy.deepcopy(windowed[0].model)
        assert not windowed.packs(torch.float32) and len(tried) == 1
        windowed.backbone.config.is_causal = False
        assert not windowed.packs(torch.float32) and len(tried) == 2


def weight_of(model):
    return model.backbone.layers[0].mlp.down_proj.weight


def through_data_twice(model):
    """The memory of the first is free when the second is made."""
    weight = weight_of(model)
    weight.data = weight.data * 3
    weight.data = weight.data * 2


CHANGES = {
    "in place": lambda model: weight_of(model).requires_grad_(False).mul_(3),
    "through data": lambda model: weight_of(model).data.mul_(3),
    "new data": through_data_twice,
    "a new parameter": lambda model: setattr(
        model.backbone.layers[0].mlp.down_proj, "weight", torch.nn.Parameter(weight_of(model).detach() * 3)
    ),
    "a state": lambda model: model.load_state_dict({name: 2 * value for name, value in model.state_dict().items()}),
    "an activation": lambda model: setattr(model.backbone.layers[0].mlp, "act_fn", torch.nn.ReLU()),
    "what is no activation": lambda model: setattr(model.backbone.layers[0].mlp, "act_fn", torch.nn.Tanh()),
    "a layer": lambda model: setattr(model.backbone.layers[0].mlp, "up_proj", torch.nn.Linear(32, 64)),
    "another type": lambda model: model.to(torch.bfloat16),
    "there and back": lambda model: model.to(torch.bfloat16).to(torch.float32),
    "no bfloat16": lambda model: model.use_dtype("float32"),
    "all bfloat16": lambda model: model.use_dtype("bfloat16"),
    "int8": lambda model: model.use_dtype("int8"),
}


@pytest.mark.usefixtures("with_bfloat16")
class TestCopiesAndActivations:
    """Of a model that has its matmuls by oneDNN, in bfloat16 where texts are long."""

    @pytest.fixture
    def model(self, tiny_llama, monkeypatch):
        monkeypatch.setattr(matmul, "multiplies_wide", lambda device: onednn_multiplies(torch.float32))
        model = build_student(StudentSettings(name=str(tiny_llama), pooling="mean"), device="cpu")
        return model.use_dtype("auto")

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_vectors_are_those_of_a_model_that_remembers_nothing(self, model, change):
        texts = [*LONG, "a"]
        before = model.embed(texts, "passage")
        assert model._remembered.copies
        change(model)
        other = copy.deepcopy(model)
        other._remembered = Remembered()
        np.testing.assert_array_equal(model.embed(texts, "passage"), other.embed(texts, "passage"))
        assert np.abs(model.embed(texts, "passage") - before).max() > 1e-4
        for role in SHORT_TEXT:
            assert model.contract(role)["dtype"] == other.contract(role)["dtype"]

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_vectors_in_int8_are_those_of_a_model_that_remembers_nothing(self, model, change):
        model.use_dtype("int8").embed(LONG, "passage")
        assert model._remembered.small
        change(model)
        other = copy.deepcopy(model)
        assert other._remembered.small is None
        np.testing.assert_array_equal(model.embed(LONG, "passage"), other.embed(LONG, "passage"))
        assert model.contract("query")["dtype"] == other.contract("query")["dtype"]

    def test_the_precision_is_that_of_the_weights_as_they_are(self, model):
        assert model.is_mixed and model.shortens
        assert "the rest" in model.contract("query")["dtype"]
        model.to(torch.bfloat16)
        assert not model.is_mixed and not model.shortens
        assert model.contract("query")["dtype"] == "torch.bfloat16"

    def test_a_hook_reads_the_product_and_not_what_follows_it(self, model):
        model.embed(LONG, "passage")
        found = []
        layer = model.backbone.layers[0].mlp.gate_proj
        with layer.register_forward_hook(lambda module, read, made: found.append(made.clone())):
            model.use_dtype("float32").embed(["a text"], "query")
        assert (found[0] < -0.5).any()  # silu has no such numbers

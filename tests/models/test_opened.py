"""Open models are used as they stand, are left as they were, and are known by what they compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from embedsmith.errors import ModelError
from embedsmith.models.names import find_model
from embedsmith.models.opened import borrowed, name_of_open
from embedsmith.models.opening import load

TEXTS = ["the cat sat on the mat", "a list of numbers", "where is the parser?"]


@pytest.fixture
def plain(tiny_bert: Path) -> SentenceTransformer:
    """A SentenceTransformer as a user of that library opens one."""
    transformer = Transformer(str(tiny_bert))
    return SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension())], device="cpu")


def name_of(model: SentenceTransformer) -> str:
    with borrowed(model) as ours:
        return name_of_open(ours)


def test_a_borrowed_model_makes_the_vectors_of_its_owner(plain: SentenceTransformer):
    with borrowed(plain) as ours:
        vectors = ours.embed(TEXTS, "query")
    np.testing.assert_allclose(vectors, plain.encode_query(TEXTS, normalize_embeddings=True), atol=1e-6)


def test_a_borrowed_model_is_left_as_it_was(tiny_llama: Path):
    transformer = Transformer(str(tiny_llama))
    model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension())], device="cpu")
    model.train()
    model[1].eval()
    model[0].model.config.use_cache = True
    prompts, state = dict(model.prompts), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with borrowed(model) as ours:
        ours.embed(TEXTS, "query")
        assert not ours[0].training
    assert (model.training, model[0].training, model[1].training) == (True, True, False)
    assert model[0].model.config.use_cache is True
    assert model.prompts == prompts
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_a_name_is_the_same_for_the_same_vectors(plain: SentenceTransformer, tiny_bert: Path, tmp_path: Path):
    plain.save(str(tmp_path / "model"))
    again = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert name_of(plain) == name_of(again) == name_of(load(str(tmp_path / "model"), device="cpu"))
    assert name_of(plain).startswith("open:")


@pytest.mark.parametrize("change", ["weights", "prompt", "length", "pooling", "dimensions"])
def test_a_name_is_another_one_for_other_vectors(plain: SentenceTransformer, change: str):
    before = name_of(plain)
    if change == "weights":
        with torch.no_grad():
            next(plain.parameters())[0, 0] += 1e-3
    elif change == "prompt":
        plain.prompts = {**plain.prompts, "query": "query: "}
    elif change == "length":
        plain.max_seq_length = 7
    elif change == "dimensions":
        plain.truncate_dim = 8
    else:
        plain[1] = Pooling(32, pooling_mode="cls")
    assert name_of(plain) != before


@pytest.mark.parametrize("thing", ["a name", None, torch.nn.Linear(2, 2)], ids=["text", "None", "module"])
def test_what_is_no_embedding_model_is_a_type_error(thing: object):
    with pytest.raises(TypeError, match=r"^model: .*, wanted a name or an open SentenceTransformer$"), borrowed(thing):
        pass


def test_a_model_whose_weights_cannot_be_hashed_is_refused(plain: SentenceTransformer):
    plain.backend = "onnx"
    with pytest.raises(ModelError, match=r"^an open model of onnx: its weights cannot be identified$"):
        name_of(plain)


def test_the_name_of_an_open_model_opens_nothing():
    with pytest.raises(ModelError, match=r"^open:0123: a model that was open in Python") as caught:
        find_model("open:0123")
    assert "hand it over" in caught.value.hint

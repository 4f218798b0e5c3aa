"""Golden vectors are those of the model, travel in its folder and change nothing there; a bad file is named."""

import base64
import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from embedsmith.errors import InputError
from embedsmith.models.golden import GOLDEN, golden_of, read_golden
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings

LATENT = {"pooling": "latent", "latents": 4, "heads": 2, "head_width": 8, "instruction": "Find the code"}


@pytest.fixture(scope="module")
def plain(tiny_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "model"
    settings = StudentSettings(name=str(tiny_bert), query_max_tokens=32, passage_max_tokens=64)
    build_student(settings, device="cpu").save(str(folder))
    return folder


@pytest.fixture(scope="module")
def instructed(tiny_llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("instructed") / "model"
    settings = StudentSettings(name=str(tiny_llama), **LATENT, query_max_tokens=64, passage_max_tokens=100)
    build_student(settings, device="cpu").save(str(folder))
    return folder


def test_golden_vectors_are_what_plain_sentence_transformers_gives(plain):
    golden, model = read_golden(plain), SentenceTransformer(str(plain), device="cpu")
    for role, encode in (("query", model.encode_query), ("passage", model.encode_document)):
        texts = golden.of(role)
        assert len(texts) >= 20
        np.testing.assert_allclose(
            encode([text.text for text in texts]), np.stack([text.vector for text in texts]), atol=1e-5
        )
        for text in texts:
            tokens = model.tokenizer(text.text, truncation=True, max_length=golden.roles[role].max_tokens)["input_ids"]
            assert text.tokens == len(tokens)
        assert max(text.tokens for text in texts) == {"query": 32, "passage": 64}[role]


def test_the_instruction_is_in_the_file_and_in_the_vectors_of_queries(instructed):
    golden, model = read_golden(instructed), load(str(instructed), device="cpu")
    assert golden.roles["query"].prompt == model.prompt_of("query") != ""
    assert golden.roles["passage"].prompt == ""
    alike = np.stack([text.vector for text in golden.of("query")])
    np.testing.assert_allclose(model.embed([text.text for text in golden.of("query")], "query"), alike, atol=1e-5)
    bare = model.embed([text.text for text in golden.of("query")], "passage")
    assert (np.abs(bare - alike).max(axis=1) > 1e-3).all()


@pytest.mark.parametrize("kind", ["plain", "instructed"])
def test_the_fingerprint_is_that_of_the_opened_folder_with_and_without_the_file(kind, request, tmp_path):
    folder = request.getfixturevalue(kind)
    opened = load(str(folder), device="cpu")
    with_file = opened.contracts()
    assert golden_of(opened).fingerprint == read_golden(folder).fingerprint
    (folder / GOLDEN).rename(tmp_path / "aside")
    try:
        assert load(str(folder), device="cpu").contracts() == with_file
    finally:
        (tmp_path / "aside").rename(folder / GOLDEN)


def test_vectors_without_a_normalisation_keep_their_lengths(plain, tmp_path):
    model = load(str(plain), device="cpu")
    del model[2]
    model.save(str(tmp_path / "model"))
    lengths = [np.linalg.norm(text.vector) for text in read_golden(tmp_path / "model").texts]
    assert min(lengths) > 1.5 or max(lengths) < 0.5


def test_the_file_has_all_dimensions_whatever_the_caller_keeps(plain, tmp_path):
    model = load(str(plain), device="cpu", dimensions=8)
    model.save(str(tmp_path / "model"))
    assert read_golden(tmp_path / "model").dimensions == 32
    assert model.truncate_dim == 8


def test_saving_leaves_training_as_it_was(plain, tmp_path):
    model = load(str(plain), device="cpu").train()
    state = torch.get_rng_state()
    model.save(str(tmp_path / "model"))
    assert all(module.training for module in model.modules())
    assert torch.equal(state, torch.get_rng_state())


def test_a_wide_model_gets_fewer_texts(plain, monkeypatch):
    model = load(str(plain), device="cpu")
    model[1] = Pooling(32, pooling_mode=["mean", "cls", "max"])
    monkeypatch.setattr("embedsmith.models.golden._VECTOR_BYTES", 10 * 4 * 96)
    golden = golden_of(model)
    assert golden.dimensions == 96
    assert len(golden.of("query")) == len(golden.of("passage")) == 10
    assert {"a question", "the longest"} <= {text.name for text in golden.texts}


def changed(plain, tmp_path, change):
    document = json.loads((plain / GOLDEN).read_text())
    change(document)
    (tmp_path / GOLDEN).write_text(json.dumps(document))
    return tmp_path


def set_text(**values):
    return lambda document: document["texts"][2].update(values)


def vector(*numbers):
    return base64.b64encode(np.array([*numbers, *[0.5] * 31], "<f4").tobytes()).decode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.update(format="other"), "not golden vectors"),
        (lambda document: document.update(version=2), "version 2, wanted 1"),
        (lambda document: document.update(version=True), "version True, wanted 1"),
        (lambda document: document.update(dimensions=10**9), "dimensions is 1000000000"),
        (lambda document: document.update(texts=[]), "texts is not a list of 1 to 200"),
        (lambda document: document.update(texts=document["texts"] * 10), "texts is not a list of 1 to 200"),
        (lambda document: document["roles"].pop("query"), "no prompt of role query"),
        (lambda document: document["roles"]["query"].update(max_tokens=0), "max_tokens of role query is 0"),
        (set_text(role="chat"), "text 3: no role query or passage"),
        (set_text(text=""), "text 3: not a text of 1 to 100,000 characters"),
        (set_text(text="a" * 100_001), "text 3: not a text of 1 to 100,000 characters"),
        (set_text(tokens=-1), "text 3: tokens is -1"),
        (set_text(name=["x"]), "text 3: name: .* wanted a short text"),
        (set_text(vector="!!!"), "text 3: vector is not base64 of 32 float32 numbers"),
        (set_text(vector="AAAA"), "text 3: vector is not base64 of 32 float32 numbers"),
        (set_text(vector=[0.5] * 32), "text 3: vector is not base64 of 32 float32 numbers"),
        (set_text(vector=vector(float("nan"))), "text 3: vector is zero or not finite"),
        (set_text(vector=base64.b64encode(bytes(128)).decode()), "text 3: vector is zero or not finite"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(plain, tmp_path, change, message):
    with pytest.raises(InputError, match=message) as caught:
        read_golden(changed(plain, tmp_path, change))
    assert "\n" not in str(caught.value) and caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "not JSON"),
        ("{", "not JSON"),
        ("[]", "not golden vectors"),
        (" " * (2**24 + 1), "bytes, wanted"),
    ],
)
def test_a_hostile_file_is_refused(tmp_path, text, message):
    (tmp_path / GOLDEN).write_text(text)
    with pytest.raises(InputError, match=message):
        read_golden(tmp_path)


def test_a_folder_without_the_file_says_so(tmp_path):
    with pytest.raises(InputError, match=r"golden\.json: no such file"):
        read_golden(tmp_path)

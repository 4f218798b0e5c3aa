"""What is made of a model before training: layers, attention, pooling, instruction and lengths."""

import numpy as np
import pytest
import torch

from embedsmith.errors import CausalityError, ModelError, SettingsError
from embedsmith.models.embedder import describe
from embedsmith.models.opening import build_student, load
from embedsmith.models.probe import measure_attention
from embedsmith.models.settings import StudentSettings

TEXTS = ["where is the parser", "10 times 100", " the cat"]
SMALL = {"latents": 4, "heads": 2, "head_width": 8}


def build(folder, *, seed=0, **settings):
    return build_student(StudentSettings(name=str(folder), **SMALL, **settings), seed=seed, device="cpu")


def pooling_names(student):
    return [type(module).__name__ for module in student][1:]


def test_a_bare_decoder_becomes_bidirectional_with_latent_attention(tiny_llama):
    student = build(tiny_llama)
    assert set(measure_attention(student.backbone).values()) == {"bidirectional"}
    assert pooling_names(student) == ["LatentAttentionPooling", "Normalize"]


def test_a_bare_encoder_gets_the_mean(tiny_bert):
    student = build(tiny_bert)
    assert pooling_names(student) == ["Pooling", "Normalize"]
    encoding = student.tokenizer(TEXTS[:1], return_tensors="pt")
    with torch.no_grad():
        mean = student.backbone(**encoding).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(student.embed(TEXTS[:1], "query")[0], (mean / mean.norm()).numpy(), atol=1e-6)


def test_last_pooling_takes_the_last_tokens_state(tiny_llama_bos_eos):
    student = build(tiny_llama_bos_eos, pooling="last", attention="causal")
    for padding_side in ("right", "left"):
        student.tokenizer.padding_side = padding_side
        vectors = student.embed(TEXTS, "query")
        for text, vector in zip(TEXTS, vectors, strict=True):
            encoding = student.tokenizer([text], return_tensors="pt")
            with torch.no_grad():
                last = student.backbone(**encoding).last_hidden_state[0, -1]
            np.testing.assert_allclose(vector, (last / last.norm()).numpy(), atol=1e-5)


def test_an_embedding_model_keeps_what_it_has(tiny_llama, tmp_path):
    before = build(tiny_llama, instruction="Find the code", query_max_tokens=40, passage_max_tokens=50)
    before.save(str(tmp_path / "model"))
    after = build(tmp_path / "model", query_max_tokens=40, passage_max_tokens=50)
    assert after.prompts == before.prompts
    for role in ("query", "passage"):
        assert after.contract(role) == before.contract(role)
        np.testing.assert_allclose(after.embed(TEXTS, role), before.embed(TEXTS, role), atol=1e-6)


def test_an_instruction_of_its_own_is_masked_in_an_embedding_model_that_had_none(tiny_bert, tmp_path):
    plain = build(tiny_bert)
    plain.save(str(tmp_path / "model"))
    student = build(tmp_path / "model", instruction="find the code")
    features = student.preprocess(["the cat"], prompt=student.prompts["query"], task="query")
    tokens = student.tokenizer.convert_ids_to_tokens(features["input_ids"][0][features["pooling_mask"][0].bool()])
    assert tokens[0].startswith("t") and tokens[-1] == "[SEP]"
    assert len(tokens) < 12
    np.testing.assert_allclose(student.embed(TEXTS, "passage"), plain.embed(TEXTS, "passage"), atol=1e-6)
    student.save(str(tmp_path / "again"))
    again = load(str(tmp_path / "again"), device="cpu")
    np.testing.assert_allclose(again.embed(TEXTS, "query"), student.embed(TEXTS, "query"), atol=1e-6)


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_bert"])
def test_a_student_of_fewer_layers_is_the_first_of_them(request, tmp_path, model):
    folder = request.getfixturevalue(model)
    whole, cut = build(folder, pooling="mean"), build(folder, pooling="mean", layers=1)
    assert describe(cut)["layers"] == 1
    assert describe(cut)["parameters"] < describe(whole)["parameters"]
    encoding = whole.tokenizer(TEXTS[:1], return_tensors="pt")
    with torch.no_grad():
        states = whole.backbone(**encoding, output_hidden_states=True).hidden_states[1]
        if model == "tiny_llama":  # a decoder's last norm stays
            states = whole.backbone.norm(states)
        assert torch.allclose(cut.backbone(**encoding).last_hidden_state, states, atol=1e-6)
    cut.save(str(tmp_path / "cut"))
    again = load(str(tmp_path / "cut"), device="cpu")
    np.testing.assert_allclose(again.embed(TEXTS, "query"), cut.embed(TEXTS, "query"), atol=1e-6)


def test_more_layers_than_there_are_is_an_error(tiny_llama):
    with pytest.raises(SettingsError, match="layers 4, but the model has 3"):
        build(tiny_llama, layers=4)


def test_new_weights_depend_on_the_seed_and_on_nothing_else(tiny_llama):
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    one = build(tiny_llama, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(6)
    assert build(tiny_llama, seed=1).weights_hash() == one.weights_hash()
    assert build(tiny_llama, seed=2).weights_hash() != one.weights_hash()


def test_an_encoder_cannot_be_made_causal(tiny_bert):
    with pytest.raises(CausalityError, match="attention is bidirectional, not causal"):
        build(tiny_bert, attention="causal")


def test_a_decoder_asked_to_stay_causal_does(tiny_llama):
    assert set(measure_attention(build(tiny_llama, attention="causal").backbone).values()) == {"causal"}


def test_an_instruction_longer_than_a_query_may_be_is_an_error(tiny_llama):
    with pytest.raises(SettingsError, match=r"query_max_tokens: 16, but the instruction alone takes \d+ tokens"):
        build(tiny_llama, instruction="Find the code that does this", query_max_tokens=16)


def test_without_an_instruction_a_query_may_be_short(tiny_llama):
    assert build(tiny_llama, query_max_tokens=4)[0].query_length == 4


@pytest.mark.parametrize("role", ["query", "passage"])
def test_a_length_above_the_models_positions_is_an_error(tiny_llama, role):
    with pytest.raises(SettingsError, match=f"{role}_max_tokens: 129 tokens, but .* ends at 128"):
        build(tiny_llama, **{f"{role}_max_tokens": 129})


def test_queries_and_passages_are_cut_at_lengths_of_their_own(tiny_llama):
    student = build(tiny_llama, query_max_tokens=10, passage_max_tokens=20)
    text = "the cat sat on the mat and the dog sat on the log, " * 3
    assert student.preprocess([text], task="query")["input_ids"].shape[1] == 10
    assert student.preprocess([text], task="document")["input_ids"].shape[1] == 20


def test_a_folder_that_transformers_cannot_open_is_one_clear_error(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
    with pytest.raises(ModelError, match="cannot be opened"):
        build(tmp_path)


def test_sizes_are_counted(tiny_llama):
    student = build(tiny_llama)
    in_pooling = sum(parameter.numel() for parameter in student[1].parameters())
    in_all = in_pooling + sum(parameter.numel() for parameter in student.backbone.parameters())
    assert describe(student) == {
        "parameters": in_all,
        "pooling_parameters": in_pooling,
        "layers": 3,
        "dimensions": 32,
    }

"""NV-Embed's released layout: against an oracle that shares no code with the package, and back again."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embedsmith.errors import ModelError
from embedsmith.models.nv_embed import parse_config, read_nv_embed, write_nv_embed
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings
from tests.models import nv_embed_oracle as oracle
from tests.tiny_models import SENTENCES

INSTRUCTION = "Instruct: find the passage that answers the question\nQuery: "
TEXTS = ["where is the parser", "10 times 100", " the cat", "s", "", "the dog sat on the mat, " * 30]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return oracle.write(tmp_path_factory.mktemp("nv-embed") / "whole", SENTENCES)


@pytest.fixture
def copy(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="module")
def model(checkpoint):
    return load(str(checkpoint), device="cpu")


def expected(folder, instruction="", texts=TEXTS):
    # 96 positions: the last text is cut off, and its </s> with it.
    return torch.stack([oracle.embed(folder, text, instruction, max_length=96) for text in texts]).numpy()


def close(vectors, right):
    np.testing.assert_allclose(vectors, right, rtol=0, atol=1e-5)


def test_passages_and_instructed_queries_equal_the_oracle(model, checkpoint):
    close(model.embed(TEXTS, "passage"), expected(checkpoint))
    model.set_prompt("query", INSTRUCTION)
    close(model.embed(TEXTS, "query"), expected(checkpoint, INSTRUCTION))
    close(model.embed(TEXTS, "query", tokens=1), expected(checkpoint, INSTRUCTION))
    model.set_prompt("query", "")


def test_plain_encode_of_an_instruction_equals_the_oracle_on_either_side_of_the_padding(model, checkpoint, monkeypatch):
    for side in ("right", "left"):
        monkeypatch.setattr(model.tokenizer, "padding_side", side)
        close(model.encode(TEXTS, prompt=INSTRUCTION), expected(checkpoint, INSTRUCTION))


def test_shards_with_an_index_are_read_like_one_file(model, tmp_path):
    sharded = load(str(oracle.write(tmp_path / "sharded", SENTENCES, shards=3)), device="cpu")
    assert sharded.weights_hash() == model.weights_hash()
    close(sharded.embed(TEXTS, "passage"), model.embed(TEXTS, "passage"))


def test_exact_masks_are_one_attribute_away(model, checkpoint):
    """The released mask leaves a lone space in the pool before a digit; offsets do not."""
    right = expected(checkpoint, INSTRUCTION, ["9 times 100", "the cat"])
    model[0].instruction_mask = "offsets"
    exact = model.encode(["9 times 100", "the cat"], prompt=INSTRUCTION)
    model[0].instruction_mask = "length"
    assert np.abs(exact[0] - right[0]).max() > 1e-3
    close(exact[1], right[1])


def test_the_released_size_has_its_parameters_and_names():
    released = parse_config(
        {
            "model_type": "nvembed",
            "text_config": {"model_type": "bidir_mistral", "rms_norm_eps": 1e-5, "max_position_embeddings": 32768},
            "latent_attention_config": {"model_type": "latent_attention"},
        },
        where="config.json",
    )
    backbone, pooling = released.skeleton()
    parameters = [*backbone.parameters(), *pooling.parameters()]
    assert {parameter.device.type for parameter in parameters} == {"meta"}
    assert sum(parameter.numel() for parameter in parameters) == 7_851_016_192
    layer = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj"]
    layer += ["mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm"]
    names = ["embed_tokens.weight", "norm.weight", *(f"layers.{n}.{part}.weight" for n in range(32) for part in layer)]
    assert sorted(backbone.state_dict()) == sorted(names)
    latent = [name for name in oracle.random_tensors() if name.startswith("latent_attention_model.")]
    assert sorted(f"latent_attention_model.{name}" for name in pooling.state_dict()) == sorted(latent)
    assert len(names) + len(latent) == 304


@pytest.mark.parametrize("max_shard_bytes", [10**9, 20_000])
def test_what_was_read_is_written_back_tensor_for_tensor(model, checkpoint, tmp_path, max_shard_bytes):
    write_nv_embed(model, tmp_path, max_shard_bytes=max_shard_bytes)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert (len(files) > 1) == (max_shard_bytes < 10**9)
    written = {name: tensor for file in files for name, tensor in load_file(file).items()}
    original = load_file(checkpoint / "model.safetensors")
    assert written.keys() == original.keys()
    assert all(torch.equal(written[name], original[name]) for name in original)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["latent_attention_config"] == oracle.LATENT
    flags = (
        "model_type",
        "add_eos",
        "add_pad_token",
        "is_mask_instruction",
        "mask_type",
        "padding_side",
        "hidden_size",
    )
    assert {key: config[key] for key in flags} == {key: oracle.CONFIG[key] for key in flags}
    assert oracle.TEXT.items() - {("sliding_window", 3)} <= config["text_config"].items()
    again = load(str(tmp_path), device="cpu")
    assert again.contract("query") == model.contract("query")
    close(expected(tmp_path, INSTRUCTION), expected(checkpoint, INSTRUCTION))


def test_saved_as_sentence_transformers_it_keeps_the_released_habits(model, checkpoint, tmp_path):
    model.save(str(tmp_path / "model"))
    again = load(str(tmp_path / "model"), device="cpu")
    close(again.encode(TEXTS, prompt=INSTRUCTION), expected(checkpoint, INSTRUCTION))


def test_a_checkpoint_can_be_fine_tuned_and_keeps_its_habits(model, checkpoint):
    student = build_student(
        StudentSettings(name=str(checkpoint), query_max_tokens=90, passage_max_tokens=90, instruction="find it")
    )
    assert student.prompts["query"] == "Instruct: find it\nQuery: "
    close(student.embed(TEXTS[:5], "passage"), expected(checkpoint)[:5])
    assert all(parameter.requires_grad for parameter in student.parameters())


@pytest.mark.parametrize("folder", ["tiny_llama", "tiny_llama_bos_eos"])
def test_a_student_of_ours_written_in_the_layout_has_the_same_vectors(request, folder, tmp_path):
    settings = {"pooling": "latent", "latents": 4, "heads": 2, "head_width": 8, "instruction": "find the code"}
    student = build_student(
        StudentSettings(
            name=str(request.getfixturevalue(folder)), query_max_tokens=50, passage_max_tokens=60, **settings
        )
    )
    write_nv_embed(student, tmp_path)
    again = load(str(tmp_path))
    assert again.prompts == student.prompts
    for role in ("query", "passage"):
        assert again.contract(role)["max_tokens"] == student.contract(role)["max_tokens"]
        close(again.embed(TEXTS, role), student.embed(TEXTS, role))


def test_a_checkpoint_on_the_hub_is_fetched_whole(checkpoint, model, tmp_path, monkeypatch):
    from huggingface_hub import constants

    commit = "0" * 40
    repository = tmp_path / "models--someone--nv-embed"
    shutil.copytree(checkpoint, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    close(load("someone/nv-embed", device="cpu").embed(TEXTS, "passage"), model.embed(TEXTS, "passage"))


class TestRefusals:
    def change(self, folder, **config):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))

    def tensors(self, folder, change):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    def test_a_missing_tensor_is_named(self, copy):
        self.tensors(copy, lambda tensors: tensors.pop("latent_attention_model.latents"))
        with pytest.raises(ModelError, match=r"copy: no tensor 'latent_attention_model\.latents'"):
            load(str(copy))

    def test_an_unknown_tensor_is_named_with_the_nearest(self, copy):
        self.tensors(copy, lambda tensors: tensors.update({"embedding_model.norm.wieght": torch.ones(2)}))
        with pytest.raises(
            ModelError, match=r'unknown tensor .*norm\.wieght.*did you mean "embedding_model\.norm\.weight"'
        ):
            load(str(copy))

    def test_a_tensor_of_another_shape_is_named(self, copy):
        self.tensors(copy, lambda tensors: tensors.update({"latent_attention_model.latents": torch.ones(4, 32)}))
        with pytest.raises(ModelError, match=r"latents has shape \(4, 32\), config\.json says \(5, 32\)"):
            load(str(copy))

    def test_a_missing_shard_is_named(self, tmp_path):
        folder = oracle.write(tmp_path / "sharded", SENTENCES, shards=2)
        (folder / "model-00002-of-00002.safetensors").unlink()
        with pytest.raises(ModelError, match=r"sharded: no model-00002-of-00002\.safetensors"):
            load(str(folder))

    def test_an_index_does_not_lead_out_of_the_folder(self, tmp_path):
        folder = oracle.write(tmp_path / "sharded", SENTENCES, shards=2)
        index = folder / "model.safetensors.index.json"
        (folder / "model-00001-of-00002.safetensors").rename(tmp_path / "model-00001-of-00002.safetensors")
        index.write_text(index.read_text().replace("model-00001", "../model-00001"))
        with pytest.raises(ModelError, match=r"names the file .\.\./model-00001-of-00002\.safetensors."):
            load(str(folder))

    def test_a_broken_file_is_named(self, copy):
        (copy / "model.safetensors").write_bytes(b"nothing of the kind")
        with pytest.raises(ModelError, match=r"model\.safetensors is broken"):
            load(str(copy))

    def test_pickled_weights_are_not_opened(self, copy):
        (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
        with pytest.raises(ModelError, match=r"pickled weights only \(pytorch_model\.bin\)"):
            load(str(copy))

    def test_another_backbone_is_named(self, copy):
        self.change(copy, text_config={**oracle.TEXT, "model_type": "gpt2"})
        with pytest.raises(ModelError, match="text_config has model_type 'gpt2', wanted 'bidir_mistral'"):
            load(str(copy))

    def test_widths_that_differ_are_named(self, copy):
        self.change(copy, latent_attention_config={**oracle.LATENT, "latent_dim": 16})
        with pytest.raises(ModelError, match="latent_dim is 16, but hidden_dim is 32"):
            load(str(copy))

    def test_a_tokenizer_without_an_end_of_text_is_refused(self, copy):
        path = copy / "tokenizer_config.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "eos_token"}))
        with pytest.raises(ModelError, match="its tokenizer has no end-of-text token"):
            load(str(copy))

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"pooling": "mean"}, "holds latent attention, this model has Pooling, Normalize"),
            ({"pooling": "latent", "latents": 4, "attention": "causal"}, "this model has causal attention"),
        ],
    )
    def test_what_the_layout_cannot_hold_is_not_written(self, tiny_llama, tmp_path, settings, reason):
        student = build_student(StudentSettings(name=str(tiny_llama), **settings))
        with pytest.raises(ModelError, match=reason):
            write_nv_embed(student, tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_modules_are_read_without_normalising_where_the_configuration_says_so(copy):
    path = copy / "config.json"
    config = json.loads(path.read_text())
    config["latent_attention_config"]["output_normalize"] = False
    path.write_text(json.dumps(config))
    modules, _ = read_nv_embed(copy, name="copy", dtype=torch.float32)
    assert [type(module).__name__ for module in modules] == ["InstructedTransformer", "LatentAttentionPooling"]

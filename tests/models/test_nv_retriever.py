"""NV-Retriever-v1's folder against transformers alone: a Mistral, a mask that hides nothing, and the card's mean.

Nobody here has seen the released files: what is proved is that the reader does what the card and the paper say.
"""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MistralConfig, MistralModel, PreTrainedTokenizerFast

from embedsmith.errors import ModelError
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings
from tests.models.nv_embed_oracle import tokenizer
from tests.tiny_models import SENTENCES

# As the card has them, and as it joins them to a text.
PREFIXES = {
    "query": "Given a web search query, retrieve relevant passages that answer the query: ",
    "passage": "passage: ",
}
TOKENS = {"query": 192, "passage": 512}
TEXTS = ["where is the parser", "10 times 100", "s", "the dog sat on the mat", "the cat and 2 dogs " * 90]


def write(folder, *, prefix="", positions=1024):
    """Write a random Mistral as transformers writes one, under NVIDIA's names for model and code."""
    tokenizer(SENTENCES).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = MistralConfig(
        **sizes,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        initializer_range=0.3,
        sliding_window=3,
    )
    MistralModel(config).save_pretrained(folder)
    names = {"model_type": "nvretriever", "architectures": ["NVRetrieverModel"]}
    written = {**json.loads((folder / "config.json").read_text()), **names}
    written["auto_map"] = {"AutoModel": "modeling_nvretriever.NVRetrieverModel"}
    (folder / "config.json").write_text(json.dumps(written))
    (folder / "modeling_nvretriever.py").write_text("raise SystemExit('code from a folder was run')\n")
    tensors = load_file(folder / "model.safetensors")
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


@torch.no_grad()
def by_transformers(folder, role, text, *, positions=1024):
    """Return the mean of the last states after the prefix, of length 1; every token sees every other one."""
    config = MistralConfig(**{**json.loads((folder / "config.json").read_text()), "model_type": "mistral"})
    model = MistralModel(config).eval()
    tensors = load_file(folder / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in tensors.items()})
    words = PreTrainedTokenizerFast.from_pretrained(folder)
    whole = f"{PREFIXES[role]} {text}"
    read = words(whole, return_offsets_mapping=True, truncation=True, max_length=min(TOKENS[role], positions))
    count = len(read["input_ids"])
    unmasked = torch.zeros(1, 1, count, count)  # is added to the scores of attention: nothing is hidden
    states = model(input_ids=torch.tensor([read["input_ids"]]), attention_mask=unmasked).last_hidden_state[0]
    begins = len(f"{PREFIXES[role]} ")
    mean = states[[place for place, (_, end) in enumerate(read["offset_mapping"]) if end > begins]].mean(0)
    return (mean / mean.norm()).numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("nv-retriever"))


@pytest.mark.parametrize("role", ["query", "passage"])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_vectors_are_the_means_that_transformers_alone_gives(prefix, role, tmp_path):
    place = write(tmp_path / "model", prefix=prefix)
    model = load(str(place), device="cpu", dtype="float32")
    right = np.stack([by_transformers(place, role, text) for text in TEXTS])
    np.testing.assert_allclose(model.embed(TEXTS, role), right, rtol=0, atol=1e-5)
    # The last text is cut where the card's training cut it.
    assert len(model.tokenizer(TEXTS[-1])["input_ids"]) > TOKENS[role] == model.contract_length(role)


def test_a_model_of_fewer_positions_is_cut_where_they_end(tmp_path):
    place = write(tmp_path / "model", positions=256)
    model = load(str(place), device="cpu", dtype="float32")
    assert (model.contract_length("query"), model.contract_length("passage")) == (192, 256)
    right = by_transformers(place, "passage", TEXTS[-1], positions=256)
    np.testing.assert_allclose(model.embed(TEXTS[-1:], "passage")[0], right, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("role", "change"),
    [("query", "prefix"), ("passage", "prefix"), ("query", "mask"), ("passage", "length")],
)
def test_the_oracle_sees_a_prefix_a_mask_and_a_length_that_are_wrong(role, change, folder):
    model = load(str(folder), device="cpu", dtype="float32")
    if change == "prefix":
        model.set_prompt(role, PREFIXES[role])
    elif change == "mask":
        model.backbone.config.is_causal = True
    else:
        model.set_max_tokens(query=192, passage=500)
    right = np.stack([by_transformers(folder, role, text) for text in TEXTS])
    assert np.abs(model.embed(TEXTS, role) - right).max() > 1e-3


def test_it_is_saved_as_any_model_and_can_be_fine_tuned(folder, tmp_path):
    model = load(str(folder), device="cpu")
    model.save(str(tmp_path / "model"))
    again = load(str(tmp_path / "model"), device="cpu")
    student = build_student(StudentSettings(name=str(folder), query_max_tokens=192, passage_max_tokens=512))
    for other in (again, student):
        for role in ("query", "passage"):
            np.testing.assert_allclose(other.embed(TEXTS, role), model.embed(TEXTS, role), rtol=0, atol=1e-5)
    assert all(parameter.requires_grad for parameter in student.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("layers.1.mlp.up_proj.weight"), "no tensor 'layers.1.mlp.up_proj.weight'"),
        (lambda tensors: tensors.update(head=torch.ones(1)), "unknown tensor 'head'"),
        (lambda tensors: tensors.update({"norm.weight": torch.ones(3)}), "cannot be opened"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, message):
    place = write(tmp_path / "model")
    tensors = load_file(place / "model.safetensors")
    change(tensors)
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=message) as caught:
        load(str(place), device="cpu")
    assert "unverified" in caught.value.hint

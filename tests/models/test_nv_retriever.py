"""NV-Retriever-v1's folder: against the oracle of NV-Embed's backbone and the mean that its card describes."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embedsmith.errors import ModelError
from embedsmith.models.embedder import load
from embedsmith.models.settings import StudentSettings
from embedsmith.models.student import build_student
from tests.models import nv_embed_oracle as oracle
from tests.tiny_models import SENTENCES

QUERY = "Given a web search query, retrieve relevant passages that answer the query:  "
PASSAGE = "passage:  "
TEXTS = ["where is the parser", "10 times 100", "s", "the dog sat on the mat"]


def write(folder, *, prefix=""):
    """Write a random model as it would lie on the hub."""
    folder.mkdir(parents=True)
    oracle.tokenizer(SENTENCES).save_pretrained(folder)
    names = {"model_type": "nvretriever", "architectures": ["NVRetrieverModel"]}
    config = {**oracle.TEXT, **names, "auto_map": {"AutoModel": "modeling_nvretriever.NVRetrieverModel"}}
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 256}))
    (folder / "modeling_nvretriever.py").write_text("raise SystemExit('code from a folder was run')\n")
    start = "embedding_model."
    tensors = {prefix + n.removeprefix(start): t for n, t in oracle.random_tensors().items() if n.startswith(start)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def expected(prompt, text):
    """Return the mean of the states after the prefix, of length 1."""
    words = oracle.tokenizer(SENTENCES)(prompt + text, return_offsets_mapping=True)
    states = oracle.decoder(oracle.random_tensors(), torch.tensor(words["input_ids"]))
    own = [place for place, (_, end) in enumerate(words["offset_mapping"]) if end > len(prompt)]
    mean = states[own].mean(0)
    return (mean / mean.norm()).numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("nv-retriever") / "whole")


@pytest.mark.parametrize("prefix", ["", "model."])
def test_queries_and_passages_equal_the_oracle_under_the_cards_prefixes(tmp_path, prefix):
    model = load(str(write(tmp_path / "model", prefix=prefix)), device="cpu")
    for role, prompt in (("query", QUERY), ("passage", PASSAGE)):
        right = np.stack([expected(prompt, text) for text in TEXTS])
        np.testing.assert_allclose(model.embed(TEXTS, role), right, rtol=0, atol=1e-5)
    assert (model.contract_length("query"), model.contract_length("passage")) == (192, 256)


def test_it_is_saved_as_any_model_and_can_be_fine_tuned(folder, tmp_path):
    model = load(str(folder), device="cpu")
    model.save(str(tmp_path / "model"))
    again = load(str(tmp_path / "model"), device="cpu")
    student = build_student(StudentSettings(name=str(folder), query_max_tokens=192, passage_max_tokens=256))
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
    with pytest.raises(ModelError, match=message):
        load(str(place), device="cpu")

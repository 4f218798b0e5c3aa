"""Weights that do not belong to a folder's configuration, or are not whole, are errors that name them."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ByT5Tokenizer

from embedsmith.errors import ModelError
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings

POOLING = "1_LatentAttentionPooling/model.safetensors"


@pytest.fixture(scope="module")
def saved(tiny_llama, tmp_path_factory):
    """A folder with a trained pooling and an instruction."""
    place = tmp_path_factory.mktemp("saved") / "model"
    settings = {"pooling": "latent", "latents": 4, "heads": 2, "head_width": 8, "instruction": "Find it"}
    build_student(StudentSettings(name=str(tiny_llama), **settings), device="cpu").save(str(place))
    return place


def changed(folder, tmp_path, change, file="model.safetensors"):
    """Return a copy of a folder in which one file of weights is another."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    tensors = load_file(copy / file)
    change(tensors)
    save_file(tensors, copy / file, metadata={"format": "pt"})
    return str(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("layers.1.mlp.up_proj.weight"), r"no tensor 'layers\.1\.mlp\.up_proj\.weight'"),
        (lambda tensors: tensors.clear() or tensors.update(x=torch.ones(1)), r"no tensor '.*' and \d+ more"),
        (lambda tensors: tensors.update({"norm.weight": torch.ones(2)}), r"another shape .*'norm\.weight'"),
        (
            lambda tensors: tensors.update({"layers.9.mlp.up_proj.weight": torch.ones(2)}),
            r"unknown tensor 'layers\.9\.mlp\.up_proj\.weight'",
        ),
    ],
)
def test_a_backbone_with_other_tensors_than_its_configuration_has_is_refused(
    saved, tiny_llama, tmp_path, change, message
):
    with pytest.raises(ModelError, match=message):
        load(changed(saved, tmp_path / "embedder", change), device="cpu")
    with pytest.raises(ModelError, match=message):
        build_student(StudentSettings(name=changed(tiny_llama, tmp_path / "bare", change)), device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("latents"), 'Missing key.*"latents"'),
        (lambda tensors: tensors.update(extra=torch.ones(1)), 'Unexpected key.*"extra"'),
        (lambda tensors: tensors.update(latents=torch.ones(2, 2)), "size mismatch for latents"),
    ],
)
def test_a_pooling_with_other_tensors_is_refused_in_one_line(saved, tmp_path, change, message):
    with pytest.raises(ModelError, match=message) as caught:
        load(changed(saved, tmp_path, change, POOLING), device="cpu")
    assert "\n" not in str(caught.value)


def test_a_head_too_many_and_an_unused_pool_too_few_do_not_matter(tiny_bert, tmp_path):
    def as_trained_on_words(tensors):
        for name in [name for name in tensors if name.startswith("pooler.")]:
            del tensors[name]
        for name in list(tensors):
            tensors[f"bert.{name}"] = tensors.pop(name)
        tensors["cls.predictions.bias"] = torch.ones(3)

    right = build_student(StudentSettings(name=str(tiny_bert)), device="cpu").embed(["the cat"], "query")
    found = build_student(StudentSettings(name=changed(tiny_bert, tmp_path, as_trained_on_words)), device="cpu")
    np.testing.assert_allclose(found.embed(["the cat"], "query"), right, atol=1e-6)


@pytest.mark.parametrize("file", ["model.safetensors", POOLING])
def test_a_file_that_is_cut_off_is_named(saved, tmp_path, file):
    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    whole = (copy / file).read_bytes()
    (copy / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors is broken"):
        load(str(copy), device="cpu")


def test_a_tokenizer_without_offsets_cannot_serve_an_instruction(saved, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    for path in copy.glob("tokenizer*"):
        path.unlink()
    ByT5Tokenizer().save_pretrained(copy)
    with pytest.raises(ModelError, match="its tokenizer gives no character offsets"):
        load(str(copy), device="cpu")


def test_a_pickle_is_refused_however_deep_a_part_lies(saved, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    modules = json.loads((copy / "modules.json").read_text())
    modules[1]["path"] = "parts/pooling"
    (copy / "modules.json").write_text(json.dumps(modules))
    (copy / "parts").mkdir()
    (copy / "1_LatentAttentionPooling").rename(copy / "parts" / "pooling")
    weights = copy / "parts" / "pooling" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(ModelError, match=r"pickled weights only \(parts/pooling/pytorch_model\.bin\)"):
        load(str(copy), device="cpu")

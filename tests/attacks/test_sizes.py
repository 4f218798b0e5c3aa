"""Configurations that ask for more than the weights hold: hours of making layers, or all of the memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import save_file
from transformers import AlbertConfig, AlbertModel

from embedsmith.errors import ModelError
from embedsmith.models.sizes import check_sizes
from tests.attacks.model_readers import MODEL_READERS, tiny_bert_in

READERS = ["model-json", "cross-encoder", "nv-embed", "nv-retriever"]
HUGE = {
    "layers": ({"num_hidden_layers": 900}, r"num_hidden_layers is 900, and its files have \d+ tensors"),
    "a million layers": ({"num_hidden_layers": 10**6}, r"num_hidden_layers is 1000000, wanted a number of layers"),
    "tokens": ({"vocab_size": 2**28}, r"asks for [\d,]+ numbers, and its weights have [\d,]+ bytes"),
    "a wide layer": ({"intermediate_size": 2**27}, r"asks for [\d,]+ numbers, and its weights have [\d,]+ bytes"),
    "labels": ({"num_labels": 2**31}, r"num_labels is 2147483648, wanted a number of labels"),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a reader, written once."""
    folders: dict[str, Path] = {}

    def write(reader: str) -> Path:
        if reader not in folders:
            folders[reader] = tmp_path_factory.mktemp(reader)
            base = MODEL_READERS[reader].base
            assert base is not None
            base(folders[reader])
        return folders[reader]

    return write


def forbid_making(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no model be made."""
    from sentence_transformers.base.modules import Transformer
    from transformers import MistralModel

    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("a model is made")

    monkeypatch.setattr(Transformer, "__init__", read)
    monkeypatch.setattr(MistralModel, "from_pretrained", read)
    monkeypatch.setattr("embedsmith.models.nv_embed.Checkpoint.skeleton", read)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", HUGE)
def test_a_configuration_that_asks_for_too_much_is_refused_before_anything_is_made(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, reader: str, name: str
):
    folder = written(reader)
    forbid_making(monkeypatch)
    path = folder / "model" / "config.json"
    kept = path.read_text()
    changes, refused = HUGE[name]
    config = json.loads(kept)
    (config.get("text_config") or config).update(changes)
    path.write_text(json.dumps(config))
    try:
        with pytest.raises(ModelError, match=refused):
            MODEL_READERS[reader].read(folder)
    finally:
        path.write_text(kept)


@pytest.mark.parametrize(
    ("field", "value", "refused"),
    [
        ("add_block_count", 10**6, r"llama\.block_count is 1,000,000, and it has 20 tensors"),
        ("add_feed_forward_length", 2**28, r"asks for [\d,]+ numbers, and its weights have [\d,]+ bytes"),
    ],
)
def test_a_gguf_header_that_asks_for_too_much_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: int, refused: str
):
    write = getattr(gguf.GGUFWriter, field)
    monkeypatch.setattr(gguf.GGUFWriter, field, lambda self, _: write(self, value))
    reader = MODEL_READERS["gguf"]
    assert reader.base is not None
    reader.base(tmp_path)
    forbid_making(monkeypatch)
    with pytest.raises(ModelError, match=refused):
        reader.read(tmp_path)


@pytest.mark.parametrize("place", ["vocab", "added_tokens"])
def test_an_id_far_beyond_the_number_of_tokens_is_refused(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, place: str
):
    path = written("model-json") / "model" / "tokenizer.json"
    forbid_making(monkeypatch)
    kept = path.read_text()
    rules = json.loads(kept)
    if place == "vocab":
        rules["model"]["vocab"]["a"] = 2**31
    else:
        rules["added_tokens"][0]["id"] = 2**31
    path.write_text(json.dumps(rules))
    try:
        with pytest.raises(ModelError, match=r"json: the id 2,147,483,648 of a token, and there are \d+ tokens"):
            MODEL_READERS["model-json"].read(written("model-json"))
    finally:
        path.write_text(kept)


def test_a_configuration_that_fits_its_weights_passes(tmp_path: Path):
    tiny_bert_in(tmp_path)
    check_sizes(tmp_path, json.loads((tmp_path / "config.json").read_text()), name="toy")


def test_a_part_with_a_weight_for_each_layer_of_another_passes(tmp_path: Path):
    save_file({"layer_weights": torch.ones(13)}, tmp_path / "model.safetensors")
    check_sizes(tmp_path, {"word_embedding_dimension": 8, "num_hidden_layers": 12}, name="toy")


def test_layers_that_share_their_tensors_pass(tmp_path: Path):
    sizes = {"hidden_size": 8, "embedding_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    model = AlbertModel(AlbertConfig(vocab_size=10, num_hidden_layers=48, max_position_embeddings=16, **sizes))
    assert len(model.state_dict()) < 48
    model.save_pretrained(tmp_path)
    check_sizes(tmp_path, json.loads((tmp_path / "config.json").read_text()), name="toy")

"""Configurations that ask for more than the weights hold: hours of making layers, or all of the memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AlbertConfig, AlbertModel, MistralModel

from embedsmith.errors import ModelError
from embedsmith.models import sizes
from embedsmith.models.nv_embed import parse_config
from embedsmith.models.sizes import check_sizes
from tests.attacks.model_readers import MODEL_READERS, tiny_bert_in, write_gguf

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
        ("add_feed_forward_length", 2**28, r"asks for [\d,]+ numbers, and its tensors have [\d,]+"),
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
    widths = {"hidden_size": 8, "embedding_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    model = AlbertModel(AlbertConfig(vocab_size=10, num_hidden_layers=48, max_position_embeddings=16, **widths))
    assert len(model.state_dict()) < 48
    model.save_pretrained(tmp_path)
    check_sizes(tmp_path, json.loads((tmp_path / "config.json").read_text()), name="toy")


REAL: dict[str, tuple[dict[str, Any], int, int]] = {
    "mistralai/Mistral-7B-v0.1": (
        {"model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336}
        | {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
        | {"max_position_embeddings": 32768, "sliding_window": 4096, "rms_norm_eps": 1e-5},
        291,
        14_483_464_192,
    ),
    "Qwen/Qwen3-8B": (
        {"model_type": "qwen3", "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288}
        | {"num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
        | {"max_position_embeddings": 40960, "tie_word_embeddings": False},
        399,
        16_381_470_720,
    ),
    "google/gemma-7b": (
        {"model_type": "gemma", "vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576}
        | {"num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256},
        254,
        17_075_361_792,
    ),
    "meta-llama/Llama-3.1-70B": (
        {"model_type": "llama", "vocab_size": 128256, "hidden_size": 8192, "intermediate_size": 28672}
        | {"num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8},
        723,
        141_107_412_992,
    ),
    "Llama-2-7B with 4 bits a weight": (
        {"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008}
        | {"num_hidden_layers": 32, "num_attention_heads": 32}
        | {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
        739,
        3_896_726_528,
    ),
    "BAAI/bge-m3": (
        {"model_type": "xlm-roberta", "vocab_size": 250002, "hidden_size": 1024, "intermediate_size": 4096}
        | {"num_hidden_layers": 24, "num_attention_heads": 16, "max_position_embeddings": 8194, "type_vocab_size": 1},
        391,
        2_271_064_456,
    ),
    "answerdotai/ModernBERT-base": (
        {"model_type": "modernbert", "vocab_size": 50368, "hidden_size": 768, "intermediate_size": 1152}
        | {"num_hidden_layers": 22, "num_attention_heads": 12, "max_position_embeddings": 8192, "pad_token_id": 50283}
        | {"cls_token_id": 50281, "bos_token_id": 50281, "eos_token_id": 50282, "sep_token_id": 50282},
        138,
        598_635_032,
    ),
    "sentence-transformers/all-MiniLM-L6-v2": (
        {"model_type": "bert", "vocab_size": 30522, "hidden_size": 384, "intermediate_size": 1536}
        | {"num_hidden_layers": 6, "num_attention_heads": 12, "max_position_embeddings": 512},
        103,
        90_868_376,
    ),
}
"""Configurations as they are published, with the number of tensors and bytes of the weights."""


def _weights_of(path: Path, *, tensors: int, size: int) -> None:
    """Write a file of weights with many tensors and no numbers, which takes no room on the disk."""
    ends = [*range(1, tensors), size]
    header = {
        f"layers.{number}.weight": {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}
        for number, (start, end) in enumerate(pairwise([0, *ends]))
    }
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + size)


@pytest.mark.parametrize("reader", ["bare-bert", "model-json", "cross-encoder", "static", "nv-embed", "nv-retriever"])
def test_a_file_that_stands_for_more_than_can_be_mapped_is_refused(written: Callable[[str], Path], reader: str):
    """A hole in a file takes no room on the disk, and none in an archive."""
    folder = written(reader)
    path = folder / "model" / "model.safetensors"
    kept = path.read_bytes()
    try:
        _weights_of(path, tensors=3, size=2**42)
    except OSError:
        pytest.skip("the file system has no files so large")
    try:
        with pytest.raises(ModelError) as refused:
            MODEL_READERS[reader].read(folder)
    finally:
        path.write_bytes(kept)
    assert len(str(refused.value).splitlines()) == 1
    assert refused.value.hint


@pytest.mark.parametrize("name", REAL)
def test_a_real_model_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    config, tensors, size = REAL[name]
    shards = 1 + size // (5 * 10**9)
    for shard in range(shards):
        _weights_of(tmp_path / f"model-{shard}.safetensors", tensors=tensors // shards + 1, size=size // shards + 1)
    (tmp_path / "config.json").write_text(json.dumps(config))
    counted: list[int] = []
    numbers_of = sizes._numbers_of
    monkeypatch.setattr(sizes, "_numbers_of", lambda model: counted.append(numbers_of(model)) or counted[-1])
    sizes.check_sizes(tmp_path, config, name=name)
    # It was made, and has about a number for each one of its weights: the limit was asked.
    assert 0.02 * size < counted[0] < 2 * size
    monkeypatch.setattr(sizes, "_SPARE", 0)
    for shard in range(shards):
        _weights_of(tmp_path / f"model-{shard}.safetensors", tensors=tensors, size=size // shards // 20)
    with pytest.raises(ModelError, match="numbers, and its weights have"):
        sizes.check_sizes(tmp_path, config, name=name)


def test_the_numbers_of_a_configuration_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = {**REAL["mistralai/Mistral-7B-v0.1"][0], "num_hidden_layers": 1}
    _weights_of(tmp_path / "model.safetensors", tensors=20, size=10**9)
    counted: list[int] = []
    numbers_of = sizes._numbers_of
    monkeypatch.setattr(sizes, "_numbers_of", lambda model: counted.append(numbers_of(model)) or counted[-1])
    monkeypatch.setattr(sizes, "_COUNTED", {})
    for vocab_size in (1000, 1000, 2000, 1000):
        (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": vocab_size}))
        sizes.check_sizes(tmp_path, {**config, "vocab_size": vocab_size}, name="one layer")
    assert len(counted) == 2
    assert counted[0] < counted[1]


def test_an_nv_embed_of_its_real_sizes_passes(tmp_path: Path):
    text = {**REAL["mistralai/Mistral-7B-v0.1"][0], "tie_word_embeddings": False}
    latent = {"num_latents_value": 512, "num_cross_heads": 8, "output_normalize": True, "hidden_dim": 4096}
    latent |= {"latent_dim": 4096, "cross_dim_head": 4096, "model_type": "latent_attention"}
    config = {"model_type": "nvembed", "text_config": text, "latent_attention_config": latent}
    path = tmp_path / "model.safetensors"
    _weights_of(path, tensors=302, size=15_702_032_384)
    (tmp_path / "config.json").write_text(json.dumps(config))
    sizes.check_sizes(tmp_path, config, name="nv-embed")
    checkpoint = parse_config(config, where="config.json")
    sizes.check_numbers([path], lambda: MistralModel(checkpoint.text), name="nv-embed")


def test_a_gguf_of_two_bits_a_weight_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The smallest that transformers reads: 84 bytes for 256 weights."""
    monkeypatch.setattr(sizes, "_SPARE", 1000)
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q2_K]
    add = gguf.GGUFWriter.add_tensor

    def add_quantised(self: Any, name: str, tensor: Any) -> None:
        if tensor.ndim == 1:
            add(self, name, tensor)
            return
        raw = np.zeros((tensor.shape[0], tensor.shape[1] // block * size), np.uint8)
        add(self, name, raw, raw_dtype=gguf.GGMLQuantizationType.Q2_K)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", add_quantised)
    path = tmp_path / "model.gguf"
    write_gguf(path, width=256)
    assert path.stat().st_size * 2 < sizes._numbers_of(lambda: sizes._model_of(tmp_path, gguf_file=path.name))
    sizes.check_gguf_sizes(path, name="toy")
    monkeypatch.setattr(sizes, "_numbers_of", lambda model: 10**7)
    with pytest.raises(ModelError, match=r"its header asks for 10,000,000 numbers, and its tensors have [\d,]+$"):
        sizes.check_gguf_sizes(path, name="toy")

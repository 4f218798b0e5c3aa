"""A model in int8 reads texts, says so in its contract, and does nothing else."""

import copy
import pickle

import numpy as np
import pytest
import torch

import embedsmith
from embedsmith.errors import SettingsError
from embedsmith.models import precision
from embedsmith.models.adapters import add_adapters, merge_adapters, temporarily_merged
from embedsmith.models.opening import build_student, load
from embedsmith.models.precision import int8_bits
from embedsmith.models.settings import StudentSettings
from embedsmith.teachers.dense import DenseTeacher
from embedsmith.training.settings import StageSettings

TEXTS = ["where is the parser", "s", "the cat sat on the mat and the dog sat on the log, " * 3, ""]

PAIRS = [{"query": f"what is {word}", "positive": f"{word} is", "negative": "no"} for word in ("a cat", "a dog")]

pytestmark = pytest.mark.skipif(not int8_bits(), reason="nothing multiplies int8 here")


@pytest.fixture
def folder(tiny_llama, tmp_path):
    model = build_student(StudentSettings(name=str(tiny_llama), pooling="mean"), device="cpu")
    model.save(str(tmp_path / "model"))
    return str(tmp_path / "model")


@pytest.fixture
def small(folder):
    return load(folder, dtype="int8", device="cpu")


def test_vectors_are_near_those_of_float32(small, folder):
    exact = load(folder, device="cpu")
    for role in ("query", "passage"):
        found, right = small.embed(TEXTS, role), exact.embed(TEXTS, role)
        cosines = (found * right).sum(1)[:-1]  # the last text is empty, and so is its vector
        assert (cosines > 0.99).all()
        assert (cosines < 1 - 1e-6).all()
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 1, 1, 0], atol=1e-5)


def test_methods_of_sentence_transformers_compute_the_same(small):
    np.testing.assert_allclose(small.encode_query(TEXTS), small.embed(TEXTS, "query"), rtol=0, atol=2e-3)
    np.testing.assert_allclose(small.encode_document(TEXTS), small.embed(TEXTS, "passage"), rtol=0, atol=2e-3)


def test_the_contract_names_the_arithmetic(small, folder, monkeypatch):
    exact = load(folder, device="cpu")
    weights = [module.weight for module in small.modules() if isinstance(module, torch.nn.Linear)]
    matmuls = sum(min(weight.shape) >= 32 for weight in weights)
    assert 0 < matmuls < len(weights)
    for role in ("query", "passage"):
        contract = small.contract(role)
        said = f"float32, {matmuls} matmuls int8 with weights of {int8_bits()} bits"
        assert contract == {**exact.contract(role), "dtype": said}
    monkeypatch.setattr(precision, "int8_bits", lambda: 15 - int8_bits())
    assert small.contract("query")["dtype"] != said


def test_vectors_are_not_taken_from_a_store_of_float32(small, folder, tmp_path):
    teachers = [DenseTeacher(model, TEXTS, name="t", folder=tmp_path) for model in (load(folder, device="cpu"), small)]
    exact, rounded = (teacher.store.matrix() for teacher in teachers)
    assert teachers[0].store.folder != teachers[1].store.folder
    assert np.abs(exact - rounded).max() > 1e-5


def test_a_copy_and_one_in_another_process_compute_the_same(small):
    vectors = small.embed(TEXTS, "passage")
    for other in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        np.testing.assert_array_equal(other.embed(TEXTS, "passage"), vectors)


def test_a_model_goes_back_to_float32_bit_for_bit(small, folder):
    small.embed(TEXTS, "passage")
    exact = load(folder, device="cpu")
    np.testing.assert_array_equal(small.use_dtype("float32").embed(TEXTS, "passage"), exact.embed(TEXTS, "passage"))
    assert small.contract("query") == exact.contract("query")


def test_it_is_not_saved(small, tmp_path):
    with pytest.raises(SettingsError, match=r"computes in int8, in which a model reads texts and is not saved"):
        small.save(str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_it_is_not_trained(small, tmp_path):
    with pytest.raises(SettingsError, match="computes in int8"):
        embedsmith.train(PAIRS, student=small, out=tmp_path / "run", stage=StageSettings(steps=1), progress=False)
    with pytest.raises(SettingsError, match=r"is not trained"):
        small(small.preprocess(["a text"]))
    with pytest.raises(ValueError, match="dtype"):
        StageSettings(dtype="int8")


def test_its_adapters_are_not_merged(folder, tmp_path):
    pytest.importorskip("peft")
    model = load(folder, device="cpu")
    add_adapters(model, rank=4, dropout=0.0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight += 0.05
    model.save(str(tmp_path / "adapted"))
    small = load(str(tmp_path / "adapted"), dtype="int8", device="cpu")
    before = {name: weight.clone() for name, weight in small.state_dict().items()}
    with pytest.raises(SettingsError, match=r"computes in int8, in which a model reads texts and is not merged"):
        merge_adapters(small)
    with pytest.raises(SettingsError, match=r"is not merged"), temporarily_merged(small):
        pass
    assert small.has_adapters
    assert all(torch.equal(weight, before[name]) for name, weight in small.state_dict().items())
    merge_adapters(small.use_dtype("float32"))
    np.testing.assert_allclose(small.embed(TEXTS, "passage"), model.eval().embed(TEXTS, "passage"), rtol=0, atol=1e-4)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_it_is_for_a_cpu(folder, monkeypatch, device):
    with pytest.raises(SettingsError, match=rf"^dtype: int8 is for a CPU, not for {device[:4].rstrip(':')}"):
        load(folder, dtype="int8", device=device)
    monkeypatch.setattr("sentence_transformers.util.get_device_name", lambda: device)
    with pytest.raises(SettingsError, match="int8 is for a CPU"):
        load(folder, dtype="int8")


def test_a_cpu_that_does_not_multiply_it_is_named(folder, monkeypatch):
    monkeypatch.setattr(precision, "int8_bits", lambda: 0)
    with pytest.raises(SettingsError, match="multiplies no int8 on this CPU"):
        load(folder, dtype="int8", device="cpu")

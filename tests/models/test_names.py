"""Where a model lies, found by name and without opening or importing anything."""

import sys

import pytest

from embedsmith.errors import ModelError
from embedsmith.models.names import find_model


def make_model(folder, *files):
    folder.mkdir(parents=True, exist_ok=True)
    for name in files or ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that cannot be imported, with a model inside."""
    make_model(tmp_path / "site" / "toy_weights" / "model")
    (tmp_path / "site" / "toy_weights" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site" / "toy_weights"


def test_a_folder_in_a_package_is_found_without_importing_the_package(package):
    source = find_model("package:toy_weights/model")
    assert (source.kind, source.local, source.name) == ("folder", package / "model", "package:toy_weights/model")
    assert "toy_weights" not in sys.modules


def test_a_gguf_file_in_a_package_is_found(package):
    (package / "small.gguf").write_bytes(b"GGUF")
    source = find_model("package:toy_weights/small.gguf")
    assert (source.kind, source.local) == ("gguf", package / "small.gguf")


def test_any_other_file_in_a_package_is_no_model(package):
    (package / "model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="a file that is not a GGUF model"):
        find_model("package:toy_weights/model.bin")


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(ModelError, match="the Python package 'no_such_package' is not installed here"):
        find_model("package:no_such_package/model")


@pytest.mark.parametrize("name", ["package:", "package:../evil/model", "package:a.b/model"])
def test_what_is_no_package_name_is_not_looked_up(name):
    with pytest.raises(ModelError, match="is not installed here"):
        find_model(name)


def test_a_missing_path_in_a_package_names_the_nearest_one(package):
    with pytest.raises(ModelError, match=r"has no 'modle' \(did you mean \"model\"\?\)") as caught:
        find_model("package:toy_weights/modle")
    assert "model" in caught.value.hint


def test_a_folder_is_found_relative_absolute_and_from_home(tmp_path, monkeypatch):
    make_model(tmp_path / "toy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("toy", "./toy", str(tmp_path / "toy"), "~/toy"):
        source = find_model(name)
        assert source.kind == "folder"
        assert source.local.resolve() == tmp_path / "toy"


def test_a_missing_folder_names_the_nearest_one(tmp_path):
    make_model(tmp_path / "student")
    with pytest.raises(ModelError, match=r'no such model folder \(did you mean "student"\?\)'):
        find_model(str(tmp_path / "studnet"))


@pytest.mark.parametrize("name", ["./bge", "models/bge/small", "/models/bge", "bge small", "a/b/c", ""])
def test_what_has_not_the_shape_of_a_hub_id_is_a_missing_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"no such model folder|neither config\.json nor"):
        find_model(name)


@pytest.mark.parametrize("name", ["intfloat/e5-small-v2", "gpt2", "BAAI/bge-small-en-v1.5", "a.b/c_d"])
def test_a_hub_id_is_not_looked_up(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = find_model(name)
    assert (source.kind, source.path, source.local) == ("hub", name, None)


def test_a_run_folder_stands_for_the_model_that_it_trained(tmp_path):
    make_model(tmp_path / "run", "manifest.json")
    make_model(tmp_path / "run" / "model")
    source = find_model(str(tmp_path / "run"))
    assert (source.kind, source.local, source.name) == ("folder", tmp_path / "run" / "model", str(tmp_path / "run"))


def test_a_run_that_trained_nothing_is_no_model(tmp_path):
    make_model(tmp_path / "run", "manifest.json")
    with pytest.raises(ModelError, match="a run folder without a trained model"):
        find_model(str(tmp_path / "run"))


def test_a_folder_without_a_configuration_is_no_model(tmp_path):
    make_model(tmp_path / "texts", "corpus.jsonl")
    with pytest.raises(ModelError, match=r"neither config\.json nor modules\.json in it"):
        find_model(str(tmp_path / "texts"))


@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "model.pt", "model.pth", "model.pkl", "model.ckpt"])
def test_pickled_weights_are_refused_unless_there_are_safetensors(tmp_path, pickle):
    folder = make_model(tmp_path / "toy", "config.json", pickle)
    with pytest.raises(ModelError, match=rf"pickled weights only \({pickle}\), which can run code"):
        find_model(str(folder))
    make_model(folder, "model.safetensors")
    assert find_model(str(folder)).kind == "folder"


def test_a_gguf_file_is_found_and_a_missing_one_is_not(tmp_path):
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    assert find_model(str(tmp_path / "small.gguf")).kind == "gguf"
    with pytest.raises(ModelError, match="no such GGUF file"):
        find_model(str(tmp_path / "large.gguf"))


def test_a_file_of_another_kind_is_no_model(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="a file that is not a GGUF model"):
        find_model(str(tmp_path / "model.safetensors"))


def test_a_part_with_pickled_weights_only_is_refused(tmp_path):
    """A dense layer in a folder of its own: sentence-transformers would open the pickle."""
    folder = make_model(tmp_path / "toy")
    make_model(folder / "2_Dense", "config.json", "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled weights only \(2_Dense/pytorch_model\.bin\)"):
        find_model(str(folder))
    make_model(folder / "2_Dense", "model.safetensors")
    assert find_model(str(folder)).kind == "folder"


def test_a_pickle_in_a_folder_that_is_no_part_of_the_model_does_not_matter(tmp_path):
    folder = make_model(tmp_path / "toy")
    make_model(folder / "onnx", "extra.bin")
    assert find_model(str(folder)).kind == "folder"


def test_a_folder_of_adapters_is_a_model(tmp_path):
    assert find_model(str(make_model(tmp_path / "toy", "adapters.json"))).kind == "folder"

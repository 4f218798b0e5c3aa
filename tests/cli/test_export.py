"""`embedsmith export`: one JSON object, or two lines that say what was written and how to open it."""

import pytest

from embedsmith.models.opening import build_student
from embedsmith.models.settings import StudentSettings


@pytest.fixture(scope="module")
def model(tiny_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("student") / "model"
    build_student(StudentSettings(name=str(tiny_bert)), device="cpu").save(str(folder))
    return folder


def test_json_says_what_was_written(embedsmith_command, model, tmp_path):
    done = embedsmith_command("export", model, "--out", tmp_path / "out", "--json")
    assert done.code == 0
    keys = {"folder", "layout", "merged", "adapters", "needs_code", "parameters", "bytes", "largest_difference"}
    assert done.json.keys() == keys
    assert (done.json["folder"], done.json["layout"]) == (str(tmp_path / "out"), "sentence-transformers")


def test_in_words_it_says_how_to_open_the_folder(embedsmith_command, model, tmp_path):
    done = embedsmith_command("export", model, "--out", tmp_path / "out")
    assert done.code == 0
    assert f'SentenceTransformer("{tmp_path}/out")' in done.out.replace("\n", "")


def test_mistakes_are_one_line(embedsmith_command, model, tmp_path):
    done = embedsmith_command("export", model, "--out", tmp_path / "out", "--layout", "nv-embed")
    assert (done.code, "latent attention" in done.error) == (2, True)
    done = embedsmith_command("export", tmp_path / "none", "--out", tmp_path / "out")
    assert (done.code, "no such model folder" in done.error) == (2, True)
    assert embedsmith_command("export", model, "--out", tmp_path / "out", "--layout", "onnx").code == 2

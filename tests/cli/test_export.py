"""`embedsmith export`: one JSON object, or two lines that say what was written and how to open it."""

import json
import shutil

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


def test_a_model_that_is_there_is_removed_when_that_is_confirmed(embedsmith_command, model, tmp_path):
    words = ["export-model", model, "--out", tmp_path / "out"]
    assert embedsmith_command(*words).code == 0
    assert "--overwrite" in embedsmith_command(*words).err
    done = embedsmith_command(*words, "--overwrite")
    assert done.error == f"{tmp_path / 'out'}: remove this exported model? There is no terminal to ask on"
    assert embedsmith_command(*words, "--dtype", "bfloat16", "--overwrite", "--yes", "--json").json["bytes"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_was_not_exported_stays_whole(embedsmith_command, model, tmp_path):
    words = ["--overwrite", "--yes"]
    downloaded = tmp_path / "downloaded"
    shutil.copytree(model, downloaded)
    (downloaded / "README.md").write_text("# A model\n")
    done = embedsmith_command("export-model", model, "--out", downloaded, *words)
    assert done.error == f"{downloaded}: not a model that `export-model` wrote, and not removed"
    out = tmp_path / "out"
    assert embedsmith_command("export-model", model, "--out", out).code == 0
    for own in (out / "notes.json", out / "1_Pooling" / "thesis.txt"):
        own.write_text("years of work")
        done = embedsmith_command("export-model", model, "--out", out, *words)
        name = own.relative_to(out)
        assert done.error == f"{out}: not removed, for {name} is no part of the model"
        own.unlink()
    assert (downloaded / "modules.json").is_file() and (out / "modules.json").is_file()


def test_the_model_that_is_exported_is_not_removed_for_it(embedsmith_command, model, tmp_path):
    out = tmp_path / "out"
    assert embedsmith_command("export-model", model, "--out", out).code == 0
    done = embedsmith_command("export-model", out, "--out", out, "--overwrite", "--yes")
    assert done.error == f"--overwrite would remove {out}, which is read"
    run = tmp_path / "run"
    shutil.copytree(model, run / "model")
    settings = {"student": {"name": str(out)}}  # of adapters, which are opened over it
    manifest = {"command": "train", "status": "finished", "settings": settings, "inputs": {}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    done = embedsmith_command("export-model", run, "--out", out, "--overwrite", "--yes")
    assert done.error == f"--overwrite would remove {out}, which is read"
    assert (out / "model.safetensors").is_file()

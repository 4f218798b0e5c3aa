"""The command verify: a line for each mistake, exit codes, and one JSON object."""

import json

import pytest
from sentence_transformers.sentence_transformer.modules import Pooling

from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings


@pytest.fixture(scope="module")
def model(tiny_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    build_student(StudentSettings(name=str(tiny_bert)), device="cpu").save(str(folder))
    return folder


@pytest.fixture(scope="module")
def changed(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("changed") / "model"
    other = load(str(model), device="cpu")
    other[1] = Pooling(32, "cls")
    other.save(str(folder))
    return folder


def test_right_vectors_are_a_table_and_exit_code_0(embedsmith_command, model):
    done = embedsmith_command("verify", model)
    assert done.code == 0
    assert "right" in done.out and "wrong" not in done.out


def test_a_mistake_is_a_line_and_exit_code_2(embedsmith_command, model, changed):
    done = embedsmith_command("verify", changed, "--model", model)
    assert done.code == 2
    lines = [line for line in done.out.splitlines() if line.startswith("wrong: ")]
    assert len(lines) == 2
    assert all("pools the first token (the model: the mean of the tokens); cosine 0." in line for line in lines)


def test_json_is_one_object_with_every_cosine(embedsmith_command, model, changed):
    done = embedsmith_command("verify", changed, "--model", model, "--json")
    assert done.code == 2
    found = json.loads(done.out)
    assert found["is_right"] is False and found["prompts"] == "server"
    assert set(found["roles"]) == {"query", "passage"}
    (finding,) = found["roles"]["query"]["findings"]
    assert finding["is_wrong"] and finding["cosine"] < 0.99 < finding["explained"]


def test_a_server_that_is_not_there_is_exit_code_1(embedsmith_command, model):
    done = embedsmith_command("verify", "http://127.0.0.1:9/v1#m", "--model", model)
    assert done.code == 1
    assert "cannot be reached" in done.error

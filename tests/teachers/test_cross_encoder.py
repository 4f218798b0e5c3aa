"""The cross-encoder against pairs scored one at a time by transformers alone."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from embedsmith.errors import ModelError, SettingsError
from embedsmith.teachers import cross_encoder
from embedsmith.teachers.cross_encoder import CrossEncoderTeacher
from embedsmith.teachers.named import Teacher, open_teacher
from embedsmith.teachers.settings import TeacherSettings

PASSAGES = ["the cat sat on the mat", "a red apple", "the dog", "how to sort a list of numbers", "a red apple", ""]
QUERIES = ["who sat on the mat", "red", "sort 10 numbers"]
ROWS = np.array([[0, 3, 2, 1], [4, 1, 5, 1], [3, 0, 0, 2]])
FLOAT32 = TeacherSettings(dtype="float32")


def save_bert(folder, tiny_bert, labels):
    shutil.copytree(tiny_bert, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    config = BertConfig.from_pretrained(tiny_bert, num_labels=labels)
    torch.manual_seed(3)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tiny_bert, tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("cross") / "model", tiny_bert, labels=1)


def open_one(folder, tmp_path, settings=FLOAT32) -> Teacher:
    return open_teacher(f"cross-encoder:{folder}", tuple(PASSAGES), vectors=tmp_path, settings=settings, device="cpu")


def one_at_a_time(folder, max_tokens=128, query_prompt="", passage_prompt="") -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = BertForSequenceClassification.from_pretrained(folder).eval()

    @torch.no_grad()
    def score(query, passage):
        pair = [query_prompt + query], [passage_prompt + passage]
        tokens = tokenizer(*pair, return_tensors="pt", truncation="longest_first", max_length=max_tokens)
        return torch.sigmoid(model(**tokens).logits[0, 0]).item()

    return np.array([[score(query, PASSAGES[row]) for row in rows] for query, rows in zip(QUERIES, ROWS, strict=True)])


@pytest.mark.parametrize("block", [1, 5, 16_384])
def test_scores_equal_those_of_pairs_one_at_a_time(folder, tmp_path, monkeypatch, block):
    monkeypatch.setattr(cross_encoder, "_BLOCK", block)
    teacher = open_one(folder, tmp_path)
    scores = teacher.scores(QUERIES, ROWS)
    np.testing.assert_allclose(scores, one_at_a_time(folder), atol=1e-5)
    assert np.ptp(scores) > 0.01
    assert scores[1, 0] == scores[1, 1] == scores[1, 3]  # the same text
    assert not list(tmp_path.iterdir())


def test_int8_is_float32(folder, tmp_path):
    exact, small = (open_one(folder, tmp_path, TeacherSettings(dtype=dtype)) for dtype in ("float32", "int8"))
    assert small.contract == exact.contract
    np.testing.assert_array_equal(small.scores(QUERIES, ROWS), exact.scores(QUERIES, ROWS))


def test_prompts_and_max_tokens_change_what_is_read(folder, tmp_path):
    settings = TeacherSettings(dtype="float32", query_prompt="find ", passage_prompt="text ", max_tokens=9)
    scores = open_one(folder, tmp_path, settings).scores(QUERIES, ROWS)
    np.testing.assert_allclose(scores, one_at_a_time(folder, 9, "find ", "text "), atol=1e-5)
    assert np.abs(scores - one_at_a_time(folder)).max() > 1e-4


def test_pairs_of_all_queries_are_batched_together(folder, monkeypatch):
    notes, sizes = [], []
    teacher = CrossEncoderTeacher(
        str(folder), PASSAGES, dtype="float32", device="cpu", on_progress=lambda *what: notes.append(what)
    )
    predict = type(teacher._model).predict

    def counting(self, pairs, **arguments):
        sizes.append(len(pairs))
        return predict(self, pairs, **arguments)

    monkeypatch.setattr(type(teacher._model), "predict", counting)
    teacher.scores(QUERIES, ROWS)
    assert sizes == [9]  # of 12 pairs three are the same texts again
    assert notes == [(f"score queries with cross-encoder:{folder}", 3, 3)]


def test_it_rescores_and_does_not_search(folder, tmp_path):
    teacher = open_one(folder, tmp_path)
    assert isinstance(teacher, Teacher) and not teacher.proposes
    with pytest.raises(SettingsError, match="rescores what another teacher found; it cannot search"):
        teacher.search(QUERIES, 3)
    with pytest.raises(SettingsError, match="it cannot score a whole corpus"):
        teacher.moments(QUERIES)
    assert teacher.similarities(np.array([0]), np.array([[1]])) is None
    assert teacher.vectors_of(QUERIES) is None


def test_a_score_that_is_not_finite_is_an_error(folder, tmp_path):
    teacher = open_one(folder, tmp_path)
    with torch.no_grad():
        teacher._model.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match=r"the score of 'who sat on the mat' with 'the cat .*' is not finite"):
        teacher.scores(QUERIES, ROWS)


def test_a_classifier_is_refused(tiny_bert, tmp_path):
    folder = save_bert(tmp_path / "model", tiny_bert, labels=3)
    with pytest.raises(ModelError, match="has 3 outputs, a cross-encoder that ranks has 1"):
        open_one(folder, tmp_path)


def test_a_model_without_a_head_for_scores_is_refused(tiny_bert, tmp_path):
    with pytest.raises(ModelError, match="no cross-encoder: BertModel has no head for scores"):
        open_one(tiny_bert, tmp_path)


def test_code_and_pickles_of_a_folder_are_refused(folder, tmp_path):
    foreign = shutil.copytree(folder, tmp_path / "foreign")
    modules = [{"idx": 0, "name": "0", "path": "", "type": "evil.Module"}]
    (foreign / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=r"needs the code of module 'evil\.Module'"):
        open_one(foreign, tmp_path)
    own_code = shutil.copytree(folder, tmp_path / "own_code")
    config = json.loads((own_code / "config.json").read_text())
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}
    (own_code / "config.json").write_text(json.dumps(config | {"model_type": "evil", "auto_map": auto_map}))
    (own_code / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="cannot be opened"):
        open_one(own_code, tmp_path)
    assert not (tmp_path / "ran").exists()
    pickled = shutil.copytree(folder, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled weights only"):
        open_one(pickled, tmp_path)


@pytest.mark.parametrize("name", ["nowhere/at/all", "static:."])
def test_what_is_no_folder_of_a_cross_encoder_is_refused(name, tmp_path):
    with pytest.raises(ModelError, match=r"no such model folder|not the folder or hub id of a cross-encoder"):
        open_one(name, tmp_path)


def test_more_tokens_than_the_model_has_positions_is_an_error(folder, tmp_path):
    with pytest.raises(SettingsError, match=r"129 tokens, but cross-encoder:.* ends at 128"):
        open_one(folder, tmp_path, TeacherSettings(max_tokens=129))

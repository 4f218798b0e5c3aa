"""What every teacher's scores are stored and compared under: whatever changes a score changes it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification

from embedsmith.evaluation.contender import Contender
from embedsmith.models.opening import build_student
from embedsmith.models.settings import StudentSettings
from embedsmith.services.endpoint import endpoint
from embedsmith.teachers import bm25, chance, joined, remote
from embedsmith.teachers.bm25 import BM25, BM25Settings, contract_of_words
from embedsmith.teachers.chance import Chance
from embedsmith.teachers.joined import JoinedTeacher
from embedsmith.teachers.kept import KeptScores
from embedsmith.teachers.named import open_teacher
from embedsmith.teachers.remote import RemoteModel
from embedsmith.teachers.settings import TeacherSettings

PASSAGES = ["the cat sat on the mat", "a red apple", "the wings of getZipFile", "how to sort a list of numbers", "mat"]
QUERIES = ["the Cat on a MAT", "red red apples", "zip file wing"]
ROWS = np.tile(np.arange(len(PASSAGES)), (len(QUERIES), 1))
FLOAT32 = TeacherSettings(dtype="float32")

OTHERS = {
    "dtype": "bfloat16",
    "compile": True,
    "max_tokens": 5,
    "query_prompt": "find the ",
    "passage_prompt": "a red ",
    "batch_tokens": 7,
    "batch_size": 1,
    "bm25_stemmer": "english",
    "bm25_stop_words": "none",
    "memory_gib": 0.5,
    "seed": 7,
    "request_texts": 1,
    "request_concurrency": 1,
    "request_timeout_s": 5.0,
    "request_retries": 1,
}
"""Another value of every setting."""
MATTER = {
    "bm25": {"bm25_stemmer", "bm25_stop_words"},
    "random": {"seed"},
    "static": {"max_tokens", "query_prompt", "passage_prompt"},
    "dense": {"max_tokens", "query_prompt", "passage_prompt"},
    "cross-encoder": {"max_tokens", "query_prompt", "passage_prompt"},
}
"""The settings that are known to change a teacher's scores."""


def cross_encoder(folder: Path, tiny_bert: Path, **config) -> Path:
    """Write a cross-encoder with the same weights, whatever its configuration."""
    shutil.copytree(tiny_bert, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    torch.manual_seed(3)
    BertForSequenceClassification(BertConfig.from_pretrained(tiny_bert, num_labels=1, **config)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def names(tiny_bert, tmp_path_factory) -> dict[str, str]:
    """A name of every kind of teacher on this machine."""
    folder = tmp_path_factory.mktemp("teachers")
    words = sorted({word for text in PASSAGES for word in text.lower().split()})
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(["?", *words])}, unk_token="?"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    (folder / "static").mkdir()
    tokenizer.save(str(folder / "static" / "tokenizer.json"))
    rows = torch.randn(len(words) + 1, 6, generator=torch.Generator().manual_seed(0))
    save_file({"embeddings": rows}, folder / "static" / "model.safetensors")
    build_student(StudentSettings(name=str(tiny_bert)), device="cpu").save(str(folder / "dense"))
    return {
        "bm25": "bm25",
        "random": "random",
        "static": f"static:{folder / 'static'}",
        "dense": str(folder / "dense"),
        "cross-encoder": f"cross-encoder:{cross_encoder(folder / 'cross', tiny_bert)}",
    }


def scores_and_contract(name: str, folder: Path, settings: TeacherSettings = FLOAT32) -> tuple[np.ndarray, str]:
    """Return a teacher's scores, none of them from a store of another test, and its contract."""
    teacher = open_teacher(name, PASSAGES, vectors=folder, settings=settings, device="cpu")
    return teacher.scores(QUERIES, ROWS), json.dumps(teacher.contract)


@pytest.mark.parametrize("kind", MATTER)
def test_every_setting_of_a_teacher_is_in_its_contract_or_changes_no_score(kind, names, tmp_path):
    assert OTHERS.keys() | {"search"} == TeacherSettings.model_fields.keys()
    right, known = scores_and_contract(names[kind], tmp_path / "right")
    matter = set()
    for setting, value in OTHERS.items():
        settings = FLOAT32.model_copy(update={setting: value})
        scores, contract = scores_and_contract(names[kind], tmp_path / setting, settings)
        if np.abs(scores - right).max() > 1e-6:
            assert contract != known, setting
            matter.add(setting)
    assert MATTER[kind] <= matter
    assert scores_and_contract(names[kind], tmp_path / "again")[1] == known


@pytest.mark.parametrize(
    "change",
    [
        {"k1": 0.5},
        {"b": 0.1},
        {"method": "robertson"},
        {"method": "atire"},
        {"lower_case": False},
        {"split_identifiers": False},
        {"stop_words": "none"},
        {"stemmer": "english"},
    ],
)
def test_every_setting_of_bm25_is_in_its_contract(change):
    if "stemmer" in change:
        pytest.importorskip("Stemmer")
    usual, other = (BM25(PASSAGES, settings) for settings in (BM25Settings(), BM25Settings(**change)))
    assert np.abs(usual.scores(QUERIES, ROWS) - other.scores(QUERIES, ROWS)).max() > 1e-4
    assert usual.contract != other.contract


def test_what_cuts_and_weighs_words_is_in_bm25s_contract(monkeypatch):
    pytest.importorskip("Stemmer")
    plain, stemmed = BM25Settings(), BM25Settings(stemmer="english")
    before = contract_of_words(plain), contract_of_words(stemmed)
    monkeypatch.setattr(bm25, "version", lambda package: f"another {package}")
    assert contract_of_words(plain) != before[0] and contract_of_words(stemmed) != before[1]
    assert contract_of_words(plain)["PyStemmer"] is None
    monkeypatch.setattr(bm25, "unidata_version", "another")
    assert contract_of_words(plain)["unicode"] == "another"


def activation(folder: Path, name: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sentence_transformers": {"activation_fn": name}}))


def case(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "normalizer": None}))


def template(folder: Path) -> None:
    path = folder / "tokenizer.json"
    rules = json.loads(path.read_text())
    rules["post_processor"]["pair"] = [*rules["post_processor"]["single"], *rules["post_processor"]["pair"][1:]]
    path.write_text(json.dumps(rules))


def own_prompt(folder: Path) -> None:
    prompts = {"query": "find the red apple: "}
    CrossEncoder(str(folder), device="cpu", prompts=prompts, default_prompt_name="query").save_pretrained(str(folder))


CROSS_ENCODERS = {
    "activation of the head": ({}, lambda folder: activation(folder, "torch.nn.modules.linear.Identity")),
    "activation of the layers": ({"hidden_act": "relu"}, None),
    "epsilon": ({"layer_norm_eps": 0.5}, None),
    "heads": ({"num_attention_heads": 2}, None),
    "case": ({}, case),
    "separators": ({}, template),
    "a prompt of its own": ({}, own_prompt),
}


@pytest.mark.parametrize("change", CROSS_ENCODERS)
def test_cross_encoders_of_the_same_weights_never_share_scores(change, names, tiny_bert, tmp_path):
    config, edit = CROSS_ENCODERS[change]
    changed = cross_encoder(tmp_path / "changed", tiny_bert, **config)
    if edit:
        edit(changed)
    found = []
    for name in (names["cross-encoder"], f"cross-encoder:{changed}"):
        teacher = open_teacher(name, PASSAGES, vectors=tmp_path, settings=FLOAT32, device="cpu")
        kept = KeptScores(teacher, PASSAGES, contract=teacher.contract, folder=tmp_path / "kept")
        found.append((teacher.contract["weights"], kept.scores(QUERIES, ROWS), teacher.scores(QUERIES, ROWS)))
    (weights, usual, _), (same_weights, stored, own) = found
    assert weights == same_weights
    assert np.abs(own - usual).max() > 1e-5
    np.testing.assert_array_equal(stored, own)


def test_a_cross_encoder_in_another_folder_has_the_same_contract(names, tiny_bert, tmp_path):
    copy = cross_encoder(tmp_path / "elsewhere", tiny_bert)
    contracts = [
        open_teacher(name, PASSAGES, vectors=tmp_path, settings=FLOAT32, device="cpu").contract
        for name in (names["cross-encoder"], f"cross-encoder:{copy}")
    ]
    assert contracts[0] == contracts[1]


def test_a_remote_model_is_told_by_its_url_name_and_prompts():
    def contracts(name="https://example.org/v1#one", **settings):
        return RemoteModel(endpoint(name), **settings).contracts()

    known = contracts()
    for other in (
        contracts("https://example.org/v2#one"),
        contracts("https://example.org/v1#two"),
        contracts(query_prompt="query: "),
    ):
        assert other["query"] != known["query"]
    assert contracts(passage_prompt="passage: ")["passage"] != known["passage"]
    assert known["query"] != known["passage"]
    assert contracts(texts=1, concurrency=1, timeout_s=1.0, retries=1, key="secret") == known


def test_a_joined_teacher_is_told_by_its_teachers_and_the_variance_it_keeps(names, tmp_path):
    def joined_of(folder, variance=0.9, **settings):
        reading = FLOAT32.model_copy(update=settings)
        teachers = [
            open_teacher(names[kind], PASSAGES, vectors=tmp_path / folder, settings=reading, device="cpu")
            for kind in ("dense", "static")
        ]
        made = JoinedTeacher(teachers, name="pca", variance=variance, folder=tmp_path / folder)
        return made.scores(QUERIES, ROWS), json.dumps(made.contract), sorted((tmp_path / folder).glob("joined-*"))

    right, known, files = joined_of("right")
    for change in ({"variance": 0.5}, {"query_prompt": "the "}, {"passage_prompt": "the "}):
        scores, contract, _ = joined_of("_".join(change), **change)
        assert np.abs(scores[:, :3] - right[:, :3]).max() > 1e-4
        assert contract != known
    assert joined_of("right", variance=0.5)[2] != files


def test_the_version_of_our_arithmetic_is_in_every_contract(monkeypatch):
    def contracts() -> list[str]:
        words, random = BM25(PASSAGES, BM25Settings()), Chance(3, seed=0)
        url = RemoteModel(endpoint("https://example.org/v1#one")).contracts()
        return [json.dumps(contract) for contract in (words.contract, random.contract, url)]

    before = contracts()
    for module in (bm25, chance, remote, joined):
        monkeypatch.setattr(module, "ARITHMETIC", 99)
    assert not set(before) & set(contracts())


@pytest.mark.parametrize("kind", MATTER)
def test_the_fingerprint_of_what_is_scored_follows_its_contract(kind, names, tmp_path):
    def fingerprint(**settings):
        return Contender(names[kind], reading=FLOAT32.model_copy(update=settings), vectors=tmp_path).fingerprint

    known = fingerprint()
    assert fingerprint() == known
    for setting in MATTER[kind]:
        assert fingerprint(**{setting: OTHERS[setting]}) != known

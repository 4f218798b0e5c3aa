"""Static embeddings against the mean of a matrix's rows, from two files and as a sentence-transformers folder."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from embedsmith.errors import ModelError, SettingsError
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings
from embedsmith.teachers.named import open_teacher
from embedsmith.teachers.settings import TeacherSettings

WORDS = ["[UNK]", "the", "cat", "dog", "sat", "on", "mat", "red"]
TEXTS = ["the cat sat on the mat", "The DOG", "a red log", "red red cat", "on", ""]


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


@pytest.fixture
def matrix() -> torch.Tensor:
    return torch.randn(len(WORDS), 5, generator=torch.Generator().manual_seed(0)).half()


@pytest.fixture
def folder(matrix, tmp_path):
    """A folder as a package has it: the files apart, under names of their own."""
    made = tmp_path / "package"
    (made / "weights").mkdir(parents=True)
    (made / "tokenizers").mkdir()
    save_file({"embedding.weight": matrix}, made / "weights" / "toy_5.safetensors")
    tokenizer().save(str(made / "tokenizers" / "toy_tokenizer_config.json"))
    (made / "tokenizers" / "other.json").write_text('{"model": "toy"}')
    return made


def slow_mean(texts: list[str], rows: np.ndarray, max_tokens: int | None = None) -> np.ndarray:
    vectors = []
    for text in texts:
        ids = [WORDS.index(word) if word in WORDS else 0 for word in text.lower().split()][:max_tokens]
        mean = sum((rows[i].astype(np.float64) for i in ids), np.zeros(rows.shape[1])) / max(1, len(ids))
        vectors.append(mean / (np.linalg.norm(mean) or 1))
    return np.array(vectors)


def test_a_text_is_the_mean_of_its_tokens_rows(folder, matrix):
    model = load(f"static:{folder}", device="cpu")
    np.testing.assert_allclose(model.embed(TEXTS, "query"), slow_mean(TEXTS, matrix.numpy()), atol=1e-6)
    assert not model.embed([""], "passage").any()


def test_a_sentence_transformers_folder_opens_like_any_other_model(matrix, tmp_path):
    module = StaticEmbedding(tokenizer(), embedding_weights=matrix.float())
    SentenceTransformer(modules=[module], prompts={"query": "red ", "passage": "the "}, device="cpu").save(
        str(tmp_path / "model")
    )
    model = load(str(tmp_path / "model"), device="cpu")
    for role, prompt in (("query", "red "), ("passage", "the ")):
        expected = slow_mean([prompt + text for text in TEXTS], matrix.numpy())
        np.testing.assert_allclose(model.embed(TEXTS, role), expected, atol=1e-6)
        assert model.contract(role)["prompt"] == prompt
    model.save(str(tmp_path / "again"))
    again = load(str(tmp_path / "again"), device="cpu")
    assert again.contract("query") == model.contract("query")
    np.testing.assert_array_equal(again.embed(TEXTS, "query"), model.embed(TEXTS, "query"))


def test_a_folder_of_model2vec_shares_and_weighs_rows(folder, matrix):
    mapping = torch.tensor([0, 1, 2, 2, 3, 4, 5, 6])
    weights = torch.linspace(0.5, 2, len(WORDS))
    file = folder / "weights" / "toy_5.safetensors"
    save_file({"embeddings": matrix[:7].contiguous(), "mapping": mapping, "weights": weights}, file)
    rows = matrix.float().numpy()[mapping] * weights.numpy()[:, None]
    model = load(f"static:{folder}", device="cpu")
    np.testing.assert_allclose(model.embed(TEXTS, "query"), slow_mean(TEXTS, rows), atol=1e-6)


def test_a_static_teacher_ranks_by_the_cosine_of_means(folder, matrix, tmp_path):
    settings = TeacherSettings(dtype="float32", max_tokens=2)
    teacher = open_teacher(f"static:{folder}", TEXTS, vectors=tmp_path / "vectors", settings=settings, device="cpu")
    vectors = slow_mean(TEXTS, matrix.numpy(), max_tokens=2)
    cosines = vectors @ vectors.T
    every = np.tile(np.arange(len(TEXTS)), (len(TEXTS), 1))
    np.testing.assert_allclose(teacher.scores(TEXTS, every), cosines, atol=1e-6)
    np.testing.assert_allclose(teacher.moments(TEXTS)[0], cosines.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(teacher.moments(TEXTS)[1], cosines.std(axis=1), atol=1e-6)


def test_static_embeddings_have_one_length(folder, tmp_path):
    model = load(f"static:{folder}", device="cpu")
    assert model.contract("query")["max_tokens"] is None
    model.set_max_tokens(query=3, passage=3)
    assert model.contract("query")["max_tokens"] == 3
    model.save(str(tmp_path / "model"))
    assert load(str(tmp_path / "model"), device="cpu").contract("passage")["max_tokens"] == 3
    with pytest.raises(SettingsError, match="query_max_tokens is 2, passage_max_tokens 3, but static embeddings"):
        model.set_max_tokens(query=2, passage=3)


def test_a_folder_with_two_matrices_or_none_is_refused(folder, matrix, tmp_path):
    save_file({"embeddings": matrix}, folder / "another.safetensors")
    with pytest.raises(ModelError, match=r"wanted one token matrix, found 2: another\.safetensors, weights/toy_5"):
        load(f"static:{folder}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="wanted one token matrix, found 0"):
        load(f"static:{tmp_path / 'empty'}")


def test_the_tokenizer_beside_the_matrix_comes_first(folder, matrix):
    lower = tokenizer()
    lower.normalizer = normalizers.Sequence([])
    lower.save(str(folder / "weights" / "tokenizer.json"))
    model = load(f"static:{folder}", device="cpu")
    np.testing.assert_allclose(model.embed(["The cat"], "query"), slow_mean(["? cat"], matrix.numpy()), atol=1e-6)


def test_a_tokenizer_of_another_matrix_is_refused(folder, matrix):
    save_file({"embedding.weight": matrix[:6].contiguous()}, folder / "weights" / "toy_5.safetensors")
    with pytest.raises(ModelError, match=r"6 rows, the tokenizer's highest id is 7"):
        load(f"static:{folder}")


def test_a_whole_model_is_not_static(tiny_bert):
    with pytest.raises(ModelError, match="wanted one token matrix, found 0"):
        load(f"static:{tiny_bert}")


def test_a_static_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ModelError, match="nowhere is no folder"):
        load(f"static:{tmp_path / 'nowhere'}")
    with pytest.raises(ModelError, match="the Python package 'not_there' is not installed here"):
        load("static:package:not_there")


def test_static_embeddings_are_no_student(folder):
    with pytest.raises(ModelError, match="static embeddings cannot be trained here"):
        build_student(StudentSettings(name=f"static:{folder}"))

"""Passages found by their chunks, against every chunk scored by itself."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from embedsmith.errors import SettingsError
from embedsmith.models.chunks import chunks_of, token_counter
from embedsmith.models.late import LateModel, contexts_of
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import ChunkSettings, StudentSettings
from embedsmith.teachers.chunked import open_chunked
from embedsmith.teachers.named import open_teacher
from embedsmith.teachers.settings import TeacherSettings

WORDS = "the cat sat on a mat and read lists of files with parsers".split()  # noqa: SIM905
PASSAGES = [
    " ".join(
        " ".join(WORDS[(7 * n + 3 * m + k) % len(WORDS)] for k in range(6)).title() + "." for m in range(1 + n % 5)
    )
    for n in range(30)
]
QUERIES = ["where is the cat", "lists of files", "a parser"]
CHUNKS = ChunkSettings(chunk=True, chunk_tokens=16)
READING = TeacherSettings(dtype="float32", max_tokens=16)


@pytest.fixture
def model(tiny_bert):
    found = load(str(tiny_bert), dtype="float32", device="cpu") if (tiny_bert / "modules.json").is_file() else None
    found = found or build_student(StudentSettings(name=str(tiny_bert)), device="cpu")
    found.set_max_tokens(query=16, passage=16)
    return found


def opened(model, folder: Path, chunks: ChunkSettings = CHUNKS, **how):
    return open_chunked("tiny", model, PASSAGES, vectors=folder, settings=READING, chunks=chunks, **how)


def every_score(model, made: str) -> np.ndarray:
    """Return the score of each query with each passage, chunk by chunk."""
    cut = chunks_of(model, PASSAGES, CHUNKS)
    queries, chunks = model.embed(QUERIES, "query"), model.embed(list(cut.texts), "passage")
    scores = queries.astype(np.float64) @ chunks.T
    own = [scores[:, cut.owners == row] for row in range(len(PASSAGES))]
    of = {"max": lambda one: one.max(1), "mean": lambda one: one.mean(1), "first": lambda one: one[:, 0]}
    return np.array([of[made](one) for one in own]).T


def test_chunks_are_whole_sentences_that_the_model_reads(model):
    cut = chunks_of(model, PASSAGES, CHUNKS)
    assert len(cut.texts) > len(PASSAGES)
    assert cut.owners[cut.firsts].tolist() == list(range(len(PASSAGES)))
    tokens, added = token_counter(model.tokenizer)
    for text, row, (start, end) in zip(cut.texts, cut.owners, cut.spans, strict=True):
        assert text == PASSAGES[row][start:end]
        assert tokens(text) + added <= 16
        assert text.endswith(".")
    joined = [" ".join(text for text, row in zip(cut.texts, cut.owners, strict=True) if row == n) for n in range(30)]
    assert joined == PASSAGES


def test_chunks_overlap_in_whole_sentences(model):
    model.set_max_tokens(query=32, passage=32)
    cut = chunks_of(model, PASSAGES[4:5], ChunkSettings(chunk=True, chunk_tokens=26, chunk_overlap=10))
    spans = cut.spans.tolist()
    assert any(before[1] > after[0] for before, after in pairwise(spans))


@pytest.mark.parametrize("made", ["max", "mean", "first"])
@pytest.mark.parametrize("k", [1, 5, 30, 99])
def test_a_passage_is_ranked_by_its_chunks(model, tmp_path, made, k):
    teacher = opened(model, tmp_path, score=made)
    rows, scores = teacher.search(QUERIES, k)
    wanted = every_score(model, made)
    assert rows.shape == (len(QUERIES), min(k, len(PASSAGES)))
    np.testing.assert_allclose(scores, np.take_along_axis(wanted, rows, axis=1), atol=1e-6)
    np.testing.assert_allclose(scores, -np.sort(-wanted, axis=1)[:, :k], atol=1e-6)
    np.testing.assert_allclose(teacher.scores(QUERIES, rows), scores, atol=1e-6)
    assert all(len(set(row)) == len(row) for row in rows.tolist())


def test_a_passage_of_many_chunks_leaves_room_for_others(model, tmp_path):
    """All of the best chunks are one passage's: the search goes on until there are k passages."""
    long = " ".join(["The cat sat on a mat."] * 200)
    passages = [long, *PASSAGES[:5]]
    teacher = open_chunked("tiny", model, passages, vectors=tmp_path, settings=READING, chunks=CHUNKS)
    rows, _ = teacher.search(["the cat sat on a mat"], 4)
    assert len(set(rows[0].tolist())) == 4
    assert rows[0][0] == 0


def test_passages_of_one_chunk_are_those_without_chunks(model, tmp_path):
    short = [text.split(".")[0] for text in PASSAGES]
    of_chunks = open_chunked("tiny", model, short, vectors=tmp_path, settings=READING, chunks=CHUNKS)
    whole = open_teacher("tiny", short, vectors=tmp_path, settings=READING, encoder=model)
    for one, other in zip(of_chunks.search(QUERIES, 7), whole.search(QUERIES, 7), strict=True):
        assert np.array_equal(one, other)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2  # of passages and of queries: shared


def test_what_does_not_fit_is_refused(model, tmp_path):
    with pytest.raises(SettingsError, match="bm25 is no embedding model on this machine"):
        open_chunked("bm25", None, PASSAGES, vectors=tmp_path, settings=READING, chunks=CHUNKS)
    with pytest.raises(SettingsError, match="64 tokens, but the model reads 16 of a passage"):
        opened(model, tmp_path, ChunkSettings(chunk=True, chunk_tokens=64))
    with pytest.raises(SettingsError, match="of which prompt and special tokens take 2 and the overlap 14"):
        opened(model, tmp_path, ChunkSettings(chunk=True, chunk_tokens=16, chunk_overlap=14))
    with pytest.raises(SettingsError, match="chunks are searched exactly"):
        open_chunked("tiny", model, PASSAGES, vectors=tmp_path, settings=TeacherSettings(search="ivf"), chunks=CHUNKS)
    with pytest.raises(SettingsError, match="the model reads 128 tokens at once, two chunks have"):
        opened(model, tmp_path, ChunkSettings(chunk=True, chunk_tokens=100, late_chunks=True))
    with pytest.raises(SettingsError, match="chunk_overlap needs chunk"):
        ChunkSettings.parse({"chunk_overlap": 3}, where="options")


class TestLate:
    """Late chunking: token states of a whole context, pooled chunk by chunk."""

    CHUNKS = ChunkSettings(chunk=True, chunk_tokens=16, late_chunks=True)

    def test_a_chunk_is_the_mean_of_its_tokens_states_in_their_context(self, model, tmp_path):
        import torch

        text = PASSAGES[4]
        cut = chunks_of(model, [text], self.CHUNKS)
        vectors = LateModel(model).embed_each(iter([contexts_of(model, [text], cut, self.CHUNKS)]), "passage")
        (found,) = vectors
        tokens = model.tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
        offsets = tokens.pop("offset_mapping")[0]
        with torch.no_grad():
            states = model.backbone(**tokens).last_hidden_state[0]
        for vector, (start, end) in zip(found, cut.spans.tolist(), strict=True):
            inside = [n for n, (a, b) in enumerate(offsets.tolist()) if start <= a < b <= end]
            mean = states[inside].mean(0)
            np.testing.assert_allclose(vector, mean / mean.norm(), atol=1e-5)

    def test_the_same_words_in_other_company_are_another_vector(self, model):
        texts = [f"{first}. The cat sat on a mat." for first in ("files with parsers and lists of lists", "a mat")]
        settings = ChunkSettings(chunk=True, chunk_tokens=10, late_chunks=True)
        cut = chunks_of(model, texts, settings)
        same = [n for n, text in enumerate(cut.texts) if text == "The cat sat on a mat."]
        assert len(same) == 2
        (found,) = LateModel(model).embed_each(iter([contexts_of(model, texts, cut, settings)]), "passage")
        assert np.abs(found[same[0]] - found[same[1]]).max() > 1e-3
        alone = model.embed(["The cat sat on a mat."], "passage")[0]
        assert np.abs(found[same[0]] - alone).max() > 1e-3

    def test_a_context_holds_as_many_chunks_as_the_model_reads(self, model):
        text = " ".join(["The cat sat on a mat."] * 100)
        cut = chunks_of(model, [text], self.CHUNKS)
        contexts = contexts_of(model, [text], cut, self.CHUNKS)
        assert len(contexts) == len(cut.texts)
        tokens, added = token_counter(model.tokenizer)
        import json

        lengths = {tokens(json.loads(one)[2]) + added for one in contexts}
        assert max(lengths) <= 128
        assert max(lengths) > 100

    def test_order_and_company_of_chunks_change_no_vector(self, model):
        cut = chunks_of(model, PASSAGES, self.CHUNKS)
        contexts = contexts_of(model, PASSAGES, cut, self.CHUNKS)
        late = LateModel(model)
        (whole,) = late.embed_each(iter([contexts]), "passage")
        for chunk, vector in zip(contexts[::7], whole[::7], strict=True):
            (single,) = late.embed_each(iter([[chunk]]), "passage")
            np.testing.assert_allclose(single[0], vector, atol=1e-5)

    def test_passages_are_found_by_them(self, model, tmp_path):
        teacher = opened(model, tmp_path, self.CHUNKS)
        rows, scores = teacher.search(QUERIES, 5)
        assert np.isfinite(scores).all()
        assert rows.shape == (3, 5)
        assert not np.allclose(scores, opened(model, tmp_path).search(QUERIES, 5)[1], atol=1e-4)

"""What `docs/coming-from.md` says of sentence-transformers' `mine_hard_negatives`, and of its files."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from sentence_transformers.util import mine_hard_negatives

import embedsmith
from embedsmith.mining.dialects import DIALECTS
from tests.tiny_models import SENTENCES

PAGE = Path(__file__).parent.parent.parent / "docs" / "coming-from.md"
WORDS = sorted({word for sentence in SENTENCES for word in re.findall(r"[a-z]{2,}", sentence.lower())})
"""Words that the tiny model tells apart."""


def pairs_of(count: int) -> list[tuple[str, str]]:
    """Return queries, and answers that hold their words."""
    draw = random.Random(1)
    drawn = (draw.sample(WORDS, 7) for _ in range(count))
    return [(" ".join(words[:3]), " ".join(draw.sample(words, 7))) for words in drawn]


PAIRS = pairs_of(72)
Pairs = Sequence[tuple[str, str]]
Negatives = dict[str, list[str]]


@pytest.fixture(scope="module")
def model(tiny_bert: Path) -> SentenceTransformer:
    """A tiny model whose scores are spread as a trained one's: what all texts have in common is taken away."""
    bare = SentenceTransformer(modules=[Transformer(str(tiny_bert)), Pooling(32)], device="cpu")
    common = bare.encode([text for pair in PAIRS for text in pair], convert_to_tensor=True).mean(0)
    shift = Dense(32, 32, activation_function=torch.nn.Identity(), init_weight=torch.eye(32), init_bias=-common)
    return SentenceTransformer(modules=[*bare, shift, Normalize()], device="cpu")


def dataset(pairs: Pairs) -> Dataset:
    return Dataset.from_list([{"query": query, "positive": positive} for query, positive in pairs])


def theirs(pairs: Pairs, model: SentenceTransformer, *, corpus: Sequence[str] = (), **options) -> Negatives:
    """Return the negatives of each query, best first, that sentence-transformers mines."""
    asked = {"relative_margin": 0.05, "num_negatives": 4, "sampling_strategy": "top"} | options
    found = mine_hard_negatives(dataset(pairs), model, corpus=list(corpus) or None, verbose=False, **asked)
    negatives: Negatives = {}
    for row in found:
        negatives.setdefault(row["query"], []).append(row["negative"])
    return negatives


def ours(
    pairs: Pairs, model: SentenceTransformer, tmp_path: Path, *, corpus: Sequence[str] = (), **options
) -> Negatives:
    """Return the negatives of each query, best first, that we mine; queries without any are left out as theirs are."""
    source = None
    if corpus:
        file = tmp_path / "corpus.jsonl"
        file.write_text("".join(f'{{"text": "{text}"}}\n' for text in corpus))
        source = embedsmith.SourceSettings(corpus=str(file))
    settings = embedsmith.MiningSettings(**{"method": "percpos", "ratio": 0.95, "negatives": 4} | options)
    run = embedsmith.mine(dataset(pairs), teacher=model, settings=settings, source=source, progress=False)
    return {
        example.query: [negative.text for negative in example.negatives]
        for example in run.negatives
        if example.negatives
    }


def test_the_negatives_are_the_same(model, tmp_path):
    pairs = PAIRS[:36]
    found = theirs(pairs, model)
    assert len({tuple(negatives) for negatives in found.values()}) > 10
    assert found != theirs(pairs, model, relative_margin=None)
    assert ours(pairs, model, tmp_path) == found


@pytest.mark.parametrize(
    ("their", "our"),
    [
        ({"absolute_margin": 0.02, "relative_margin": None}, {"method": "marginpos", "margin": 0.02}),
        ({"max_score": 0.97, "relative_margin": None}, {"method": "abs", "threshold": 0.97}),
        ({"min_score": 0.2}, {"floor": 0.2}),
        ({"range_min": 3, "relative_margin": None}, {"method": "shifted", "shift": 3}),
    ],
    ids=["margin", "max_score", "min_score", "range_min"],
)
def test_each_word_of_theirs_has_one_of_ours(their, our, model, tmp_path):
    pairs = PAIRS[:36]
    found = theirs(pairs, model, **their)
    assert found
    assert found != theirs(pairs, model)
    assert ours(pairs, model, tmp_path, **our) == found


TWINS = [("find the cat", "the list 7"), ("sort the log", "the list 8")]
"""Two passages that are one to a vocabulary without these digits."""


def test_a_candidate_at_the_ceiling_is_kept_there_and_dropped_here(model, tmp_path, monkeypatch):
    # Vectors whose inner products are exact: they compute those of positives and of candidates in different orders.
    query, twin = torch.tensor([0.5, 0.5, 0.5, 0.5]), torch.tensor([0.5, 0.5, -0.5, 0.5])

    def encode(texts, **_):
        return torch.stack([query if text == TWINS[0][0] else twin for text in texts])

    with monkeypatch.context() as patched:
        for name in ("encode", "encode_query", "encode_document"):
            patched.setattr(model, name, encode)
        assert theirs(TWINS, model, relative_margin=0.0)["find the cat"] == ["the list 8"]
    assert ours(TWINS, model, tmp_path, ratio=1.0) == {}


def test_the_querys_own_words_are_a_negative_there_and_none_here(model, tmp_path):
    pairs, query = PAIRS[:6], PAIRS[0][0]
    assert query in theirs(pairs, model, corpus=[query], relative_margin=None)[query]
    assert query not in ours(pairs, model, tmp_path, corpus=[query], method="naive")[query]


def test_the_positive_in_another_case_is_a_negative_there_and_none_here(model, tmp_path):
    pairs = PAIRS[:6]
    query, copy = pairs[0][0], pairs[0][1].upper()
    assert copy in theirs(pairs, model, corpus=[copy], relative_margin=None)[query]
    assert copy not in ours(pairs, model, tmp_path, corpus=[copy], method="naive")[query]


def test_two_copies_are_two_negatives_there_and_one_here(model, tmp_path):
    pairs = PAIRS[:6]
    copy = pairs[1][1].upper()
    of_theirs = theirs(pairs, model, corpus=[copy], relative_margin=None, num_negatives=6)[pairs[0][0]]
    of_ours = ours(pairs, model, tmp_path, corpus=[copy], method="naive", negatives=6)[pairs[0][0]]
    assert {copy, pairs[1][1]} <= set(of_theirs)
    assert len({copy, pairs[1][1]} & set(of_ours)) == 1


def test_they_look_at_ten_candidates_for_each_negative_and_we_at_a_hundred(model, tmp_path):
    shallow, wide = theirs(PAIRS, model, num_negatives=1), theirs(PAIRS, model, num_negatives=1, range_max=72)
    assert len(shallow) < len(wide)
    assert ours(PAIRS, model, tmp_path, negatives=1) == wide
    assert ours(PAIRS, model, tmp_path, negatives=1, depth=12) == shallow


def test_a_query_with_too_few_is_left_out_of_their_tuples_and_kept_here(model, tmp_path):
    pairs = PAIRS[:5]
    tuples = mine_hard_negatives(
        dataset(pairs), model, relative_margin=0.05, num_negatives=4, output_format="n-tuple", verbose=False
    )
    kept = ours(pairs, model, tmp_path)
    assert len(tuples) < len(kept)
    assert len(ours(pairs, model, tmp_path, short="drop")) == len(tuples)


@pytest.mark.parametrize("form", ["triplet", "n-tuple", "labeled-pair", "labeled-list"])
def test_each_of_their_forms_is_data_for_us(form, model, tmp_path):
    pairs = PAIRS[:24]
    found = mine_hard_negatives(
        dataset(pairs), model, num_negatives=3, relative_margin=None, output_format=form, verbose=False
    )
    found.save_to_disk(str(tmp_path / "theirs"))
    settings = embedsmith.MiningSettings(keep_negatives=True)
    run = embedsmith.mine(tmp_path / "theirs", teacher="bm25", settings=settings, progress=False)
    kept = {
        example.query: sorted(negative.text for negative in example.negatives if negative.teacher == "given")
        for example in run.negatives
    }
    mined = theirs(pairs, model, num_negatives=3, relative_margin=None)
    assert kept == {query: sorted(negatives) for query, negatives in mined.items()}
    assert {(example.query, example.positives[0].text) for example in run.negatives} == set(pairs)


def test_the_page_names_every_dialect_of_another_library():
    named = set(re.findall(r"`([a-z-]+)`|dialect ([a-z-]+)", PAGE.read_text()))
    assert {name for name in DIALECTS if name not in ("jsonl", "parquet")} <= {a or b for a, b in named}

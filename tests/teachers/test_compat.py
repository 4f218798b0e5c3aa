"""What the teacher `bm25` takes from bm25s without its documentation is there, and is what we take it for."""

import inspect
from typing import get_args

import bm25s
import numpy as np
import pytest

from embedsmith.teachers import compat
from embedsmith.teachers.bm25 import StopWords


@pytest.mark.parametrize("language", sorted({*get_args(StopWords)} - {"none"}))
def test_there_are_stop_words_of_every_language_that_is_offered(language):
    words = compat.stop_words_of(language)
    assert len(set(words)) > 30 and all(isinstance(word, str) and word == word.lower() for word in words)


def test_english_has_the_stop_words_of_lucene():
    assert len(compat.stop_words_of("english")) == 33


def test_the_index_takes_what_it_is_given():
    assert {"k1", "b", "method"} <= inspect.signature(bm25s.BM25.__init__).parameters.keys()
    assert {"corpus", "create_empty_token", "show_progress"} <= inspect.signature(bm25s.BM25.index).parameters.keys()


def test_postings_are_the_weights_of_lucenes_formula():
    ids, k1, b = [[0, 1, 1], [2], [0, 2, 2, 2]], 1.2, 0.6
    rows, weights, starts = compat.postings_of(ids, {"a": 0, "b": 1, "c": 2}, k1=k1, b=b, method="lucene")
    assert starts.tolist() == [0, 2, 3, 5]
    mean = np.mean([len(passage) for passage in ids])
    for token, passages in enumerate([[0, 2], [0], [1, 2]]):
        some = slice(starts[token], starts[token + 1])
        assert sorted(rows[some].tolist()) == passages
        idf = np.log(1 + (3 - len(passages) + 0.5) / (len(passages) + 0.5))
        for row, weight in zip(rows[some], weights[some], strict=True):
            count, length = ids[row].count(token), len(ids[row])
            assert weight == pytest.approx(idf * count / (count + k1 * (1 - b + b * length / mean)), rel=1e-6)

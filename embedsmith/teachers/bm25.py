"""BM25: the teacher that counts words, for prose, source code and scripts without spaces.

Shapes: Q queries, K candidates, N passages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal
from unicodedata import normalize

import numpy as np
from jaxtyping import Float32, Int64
from pydantic import Field

from embedsmith.errors import InputError
from embedsmith.settings import Settings

# Scripts that put no space between words: Thai, Lao, Myanmar, Hangul jamo, Khmer, kana, Han, Hangul. (Modern Korean has
# spaces, but glues its particles to the nouns.)
_SPACELESS = (
    r"\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    r"\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
# Vowel signs and accents that `\w` leaves out; without them Hindi, Arabic or Hebrew words fall to pieces.
_MARKS = (
    r"\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed"
    r"\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963\u0981-\u0983\u09bc-\u09cd\u09d7\u0a01-\u0a03\u0a3c-\u0a51"
    r"\u0a70-\u0a75\u0a81-\u0a83\u0abc-\u0acd\u0b01-\u0b03\u0b3c-\u0b57\u0b82\u0bbe-\u0bcd\u0bd7\u0c00-\u0c04"
    r"\u0c3c-\u0c56\u0c81-\u0c83\u0cbc-\u0cd6\u0d00-\u0d03\u0d3b-\u0d4d\u0d57\u0d81-\u0d83\u0dca-\u0df3"
)
_RUN = re.compile(rf"[{_SPACELESS}]+|(?:(?![{_SPACELESS}])[\w{_MARKS}])+")
_IS_SPACELESS = re.compile(rf"[{_SPACELESS}]")
# HTTP|Server, get|Zip, é|cole, 42: a letter that is no ASCII capital goes with its neighbours.
_PART = re.compile(r"[A-Z]+(?=[A-Z][^\dA-Z_])|[A-Z]?[^\dA-Z_]+|[A-Z]+|\d+")


class BM25Settings(Settings):
    """How BM25 sees words, and how it weighs them."""

    k1: float = Field(1.5, ge=0)
    """How slowly the weight of a repeated word saturates. 1.5 is the default of bm25s (Lucene's is 1.2)."""

    b: float = Field(0.75, ge=0, le=1)
    """How much a long passage is held against it: 0 not at all, 1 in full. 0.75 is the default of bm25s and Lucene."""

    method: Literal["lucene", "robertson", "atire"] = "lucene"
    """The variant of the formula (Kamphuis et al., 2020)."""

    lower_case: bool = True
    """Ignore case."""

    split_identifiers: bool = True
    """Add the parts of camelCase, snake_case and letters2digits to the word itself."""

    stop_words: bool = True
    """Drop Lucene's 33 English stop words."""


def tokenize(text: str, settings: BM25Settings) -> list[str]:
    """Return the words of a text.

    An identifier gives itself and its parts: a query may name it or describe it. Where docstrings search for functions,
    both retrieve better than either alone. Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese, whose words show no
    borders, give pairs of neighbouring characters, as in Lucene's CJKAnalyzer.

    >>> tokenize("getZipFile_names2", BM25Settings())
    ['getzipfile_names2', 'get', 'zip', 'file', 'names', '2']
    >>> tokenize("The cat's HTTPServer", BM25Settings())
    ['cat', 's', 'httpserver', 'http', 'server']
    >>> tokenize("BERTで検索する", BM25Settings())
    ['bert', 'で検', '検索', '索す', 'する']
    """
    options = settings.split_identifiers, settings.lower_case, settings.stop_words
    tokens: list[str] = []
    # NFKC: full-width letters and half-width kana are the same words.
    for run in _RUN.findall(normalize("NFKC", text)):
        tokens += _bigrams(run) if _IS_SPACELESS.match(run) else _words(run, *options)
    return tokens


def _bigrams(run: str) -> list[str]:
    """Return each pair of neighbouring characters, or the only character."""
    return [run[i : i + 2] for i in range(max(1, len(run) - 1))]


@lru_cache(maxsize=1 << 17)  # a corpus repeats its words
def _words(run: str, split_identifiers: bool, lower_case: bool, stop_words: bool) -> tuple[str, ...]:
    """Return the tokens of a run of letters, digits and underscores."""
    words = [run]
    if split_identifiers:
        parts = _PART.findall(run)
        words = [run, *parts] if len(parts) > 1 else parts
    if stop_words:
        words = [word for word in words if word.lower() not in _stop_words()]
    return tuple(word.lower() if lower_case else word for word in words)


@lru_cache(maxsize=1)
def _stop_words() -> frozenset[str]:
    """Return Lucene's English stop words."""
    from bm25s.stopwords import STOPWORDS_EN

    return frozenset(STOPWORDS_EN)


class BM25:
    """An index of passages that scores queries by the words they share.

    A word counts as often as the query holds it. A query without a known word scores 0 everywhere.

    Source: Lù, BM25S, https://arxiv.org/abs/2407.03618; Kamphuis et al., Which BM25 Do You Mean?, ECIR 2020.

    >>> rows, scores = BM25(["a red cat", "a dog", "a cat"], BM25Settings()).search(["cats or a cat"], k=2)
    >>> rows
    array([[2, 0]])
    """

    def __init__(self, passages: Sequence[str], settings: BM25Settings) -> None:
        """Index passages.

        Raises:
            InputError: there is no passage.
        """
        import bm25s

        if not passages:
            raise InputError("BM25 got no passages", hint="give it at least one")
        self.settings = settings
        self._count = len(passages)
        self._vocabulary: dict[str, int] = {}
        # Our own ids: bm25s numbers the words of a set, whose order changes with every process.
        ids = [
            [self._vocabulary.setdefault(token, len(self._vocabulary)) for token in tokenize(passage, settings)]
            for passage in passages
        ]
        self._index = bm25s.BM25(k1=settings.k1, b=settings.b, method=settings.method)
        if self._vocabulary:  # bm25s cannot index a corpus without a word
            self._index.index((ids, self._vocabulary), create_empty_token=False, show_progress=False)

    def search(
        self, queries: Sequence[str], k: int, *, on_progress: Callable[[int, int], None] | None = None
    ) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
        """Return the rows and the scores of the k best passages of each query, best first.

        Ties go to the lower row. With k > N, K is N. Passages that share no word with the query (score 0) fill up.

        Args:
            on_progress: called with (queries done, queries) after each query.
        """
        assert k >= 1, f"k is {k}"
        k = min(k, self._count)
        rows = np.empty((len(queries), k), np.int64)
        scores = np.empty((len(queries), k), np.float32)
        for i, query in enumerate(queries):
            all_scores = self._all_scores(query)
            rows[i] = _stable_top(all_scores, k)
            scores[i] = all_scores[rows[i]]
            if on_progress:
                on_progress(i + 1, len(queries))
        return rows, scores

    def scores(self, query: str, rows: Int64[np.ndarray, " K"] | Sequence[int]) -> Float32[np.ndarray, " K"]:
        """Return the scores of given passages, such as candidates that another teacher found."""
        return self._all_scores(query)[np.asarray(rows, np.int64)]

    def _all_scores(self, query: str) -> Float32[np.ndarray, " N"]:
        """Return the score of every passage."""
        tokens = tokenize(query, self.settings)
        known = [self._vocabulary[token] for token in tokens if token in self._vocabulary]
        if not known:
            return np.zeros(self._count, np.float32)
        scores: Float32[np.ndarray, " N"] = self._index.get_scores_from_ids(known)
        return scores


def _stable_top(scores: Float32[np.ndarray, " N"], k: int) -> Int64[np.ndarray, " K"]:
    """Return the rows of the k highest scores, best first; ties go to the lower row.

    >>> _stable_top(np.array([1, 3, 3, 1, 3], np.float32), 4)
    array([1, 2, 4, 0])
    """
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > kth)
    # argpartition alone would take any of the passages that tie for the last place.
    top = np.concatenate([above, np.flatnonzero(scores == kth)[: k - len(above)]])
    return top[np.lexsort((top, -scores[top]))]

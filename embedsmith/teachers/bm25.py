"""BM25: the teacher that counts words, for prose, source code and scripts without spaces.

Shapes: Q queries, K candidates, N passages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Literal
from unicodedata import unidata_version

import numpy as np
from jaxtyping import Float32, Int64
from pydantic import Field

from embedsmith.data.normalised import composed
from embedsmith.data.ties import NO_PASSAGE, Ties
from embedsmith.errors import InputError, SettingsError
from embedsmith.models.arithmetic import ARITHMETIC
from embedsmith.progress import Progress, silent
from embedsmith.settings import Settings
from embedsmith.teachers.compat import postings_of, stop_words_of
from embedsmith.teachers.ranking import drawn_top

Stemmer = Literal[
    "arabic", "armenian", "basque", "catalan", "czech", "danish", "dutch", "english", "esperanto", "estonian",
    "finnish", "french", "german", "greek", "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian",
    "nepali", "norwegian", "persian", "polish", "porter", "portuguese", "romanian", "russian", "serbian", "spanish",
    "swedish", "tamil", "turkish", "yiddish",
]  # fmt: skip
"""Languages of Snowball."""

StopWords = Literal[
    "none", "english", "danish", "dutch", "french", "german", "italian", "norwegian", "portuguese", "russian",
    "spanish", "swedish", "turkish",
]  # fmt: skip
"""Lists of bm25s, those of languages whose words we tell apart. `english` is Lucene's 33 words."""

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

    stop_words: StopWords = "english"
    """Language of the words that are dropped; `english` is Lucene's 33 words, `none` keeps all."""

    stemmer: Stemmer | None = None
    """Language of the Snowball stemmer that makes one word of `wing` and `wings`; needs the extra `stemming`."""


def contract_of_words(settings: BM25Settings) -> dict[str, Any]:
    """Return everything besides the texts that determines BM25's scores, as plain values.

    bm25s brings the stop words and the formula, PyStemmer the stems, and Python's tables say what is a letter.

    Raises:
        SettingsError: the stemmer is not installed.
    """
    if settings.stemmer:
        _snowball(settings.stemmer)
    return {
        "settings": settings.model_dump(mode="json"),
        "bm25s": version("bm25s"),
        "PyStemmer": version("PyStemmer") if settings.stemmer else None,
        "unicode": unidata_version,
        "arithmetic": ARITHMETIC,
    }


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
    options = settings.split_identifiers, settings.lower_case, settings.stop_words, settings.stemmer
    tokens: list[str] = []
    # NFKC: full-width letters and half-width kana are the same words.
    for run in _RUN.findall(composed(text)):
        tokens += _bigrams(run) if _IS_SPACELESS.match(run) else _words(run, *options)
    return tokens


def _bigrams(run: str) -> list[str]:
    """Return each pair of neighbouring characters, or the only character."""
    return [run[i : i + 2] for i in range(max(1, len(run) - 1))]


@lru_cache(maxsize=1 << 17)  # a corpus repeats its words
def _words(
    run: str, split_identifiers: bool, lower_case: bool, stop_words: StopWords, stemmer: Stemmer | None
) -> tuple[str, ...]:
    """Return the tokens of a run of letters, digits and underscores."""
    words = [run]
    if split_identifiers:
        parts = _PART.findall(run)
        words = [run, *parts] if len(parts) > 1 else parts
    words = [word for word in words if word.lower() not in _stop_words(stop_words)]
    if lower_case:
        words = [word.lower() for word in words]
    return tuple(_snowball(stemmer).stemWords(words) if stemmer else words)


@lru_cache
def _stop_words(language: StopWords) -> frozenset[str]:
    """Return the stop words of a language."""
    return frozenset() if language == "none" else frozenset(stop_words_of(language))


@lru_cache
def _snowball(language: Stemmer) -> Any:
    """Return the stemmer of a language.

    Raises:
        SettingsError: PyStemmer is missing, or older than the language.
    """
    try:
        from Stemmer import Stemmer as Snowball

        return Snowball(language)
    except ImportError:
        raise SettingsError(
            "stemming needs the package PyStemmer, which is not installed",
            hint='install it: pip install "embedsmith[stemming]"',
        ) from None
    except KeyError:
        raise SettingsError(
            f"the installed PyStemmer has no stemmer for {language}", hint="upgrade it: pip install -U PyStemmer"
        ) from None


class BM25:
    """An index of passages that scores queries by the words they share; the teacher `bm25`.

    A word counts as often as the query holds it. A passage that shares no word with the query scores 0
    and is not found.

    Source: Lù, BM25S, https://arxiv.org/abs/2407.03618; Kamphuis et al., Which BM25 Do You Mean?, ECIR 2020.

    >>> rows, scores = BM25(["a red cat", "a dog", "a cat"], BM25Settings()).search(["cats or a cat"], k=3)
    >>> rows, bool(scores[0, 2] == -np.inf)
    (array([[ 2,  0, -1]]), True)
    """

    name = "bm25"
    proposes = True

    def __init__(
        self,
        passages: Sequence[str],
        settings: BM25Settings,
        *,
        ties: Ties | None = None,
        on_progress: Progress = silent,
    ) -> None:
        """Index passages.

        Args:
            ties: the draws among passages that score alike; by default by their texts.

        Raises:
            InputError: there is no passage.
            SettingsError: the stemmer is not installed.
        """
        if not len(passages):
            raise InputError("BM25 got no passages", hint="give it at least one")
        self.settings = settings
        self.contract = contract_of_words(settings)
        """Everything besides the texts that determines the scores, as plain values."""
        self._on_progress = on_progress
        self._count = len(passages)
        self._ties = ties or Ties(passages)
        self._vocabulary: dict[str, int] = {}
        # Our own ids: bm25s numbers the words of a set, whose order changes with every process.
        ids = [
            [self._vocabulary.setdefault(token, len(self._vocabulary)) for token in tokenize(passage, settings)]
            for passage in passages
        ]
        if self._vocabulary:  # bm25s cannot index a corpus without a word
            postings = postings_of(ids, self._vocabulary, k1=settings.k1, b=settings.b, method=settings.method)
            self._rows, self._weights, self._starts = postings
        self._moments: dict[str, tuple[float, float]] = {}

    def search(self, queries: Sequence[str], k: int) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
        """Return the rows and the scores of the k best passages of each query, best first, ties by draw.

        With k > N, K is N. Where fewer passages share a word with the query, `NO_PASSAGE` and -inf fill up.
        """
        assert k >= 1, f"k is {k}"
        k = min(k, self._count)
        rows = np.full((len(queries), k), NO_PASSAGE, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        all_scores = np.zeros(self._count, np.float32)
        for i, query in enumerate(queries):
            found, its_scores = self._found(query, all_scores)

            def draw(places: Int64[np.ndarray, " m"], query: str = query, found: np.ndarray = found) -> np.ndarray:
                return self._ties.draw(query, found[places])

            best = drawn_top(its_scores, min(k, len(found)), draw)
            rows[i, : len(best)], scores[i, : len(best)] = found[best], its_scores[best]
            if (i + 1) % _STRIDE == 0 or i + 1 == len(queries):
                self._on_progress("search with bm25", i + 1, len(queries))
        return rows, scores

    def scores(self, queries: Sequence[str], rows: Int64[np.ndarray, "Q P"]) -> Float32[np.ndarray, "Q P"]:
        """Return the scores of given passages, such as candidates that another teacher found."""
        scores = np.empty(rows.shape, np.float32)
        all_scores = np.zeros(self._count, np.float32)
        for i, query in enumerate(queries):
            postings = self._add(query, all_scores)
            scores[i] = all_scores[rows[i]]
            _clear(all_scores, postings)
        return scores

    def moments(self, queries: Sequence[str]) -> tuple[Float32[np.ndarray, " Q"], Float32[np.ndarray, " Q"]]:
        """Return the mean and the standard deviation of each query's scores over all passages."""
        all_scores = np.zeros(self._count, np.float32)
        for query in queries:
            if query not in self._moments:
                self._found(query, all_scores)
        moments = np.array([self._moments[query] for query in queries], np.float32).reshape(-1, 2)
        return moments[:, 0], moments[:, 1]

    def similarities(self, rows: Int64[np.ndarray, " S"], others: Int64[np.ndarray, "S K"]) -> None:
        """Return None: there are no vectors."""

    def vectors_of(self, queries: Sequence[str]) -> None:
        """Return None: there are no vectors."""

    def _found(
        self, query: str, all_scores: Float32[np.ndarray, " N"]
    ) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
        """Return the rows and the scores of the passages that score above 0, in no order; take note of the moments.

        Args:
            all_scores: zeros, and zeros again afterwards.
        """
        postings = self._add(query, all_scores)
        # A passage is taken, and cleared, at the first of its words.
        found = [np.empty(0, np.int64)]
        scores = [np.empty(0, np.float32)]
        for rows, _ in postings:
            its_scores = all_scores[rows]
            here = its_scores > 0
            found.append(rows[here].astype(np.int64))
            scores.append(its_scores[here])
            all_scores[rows] = 0
        values = np.concatenate(scores)
        mean = values.sum(dtype=np.float64) / self._count
        # The squares of the distances from the mean, those of the zeros added at once.
        squares = np.square(values - mean).sum() + (self._count - len(values)) * mean**2
        self._moments[query] = float(mean), float(np.sqrt(squares / self._count))
        return np.concatenate(found), values

    def _add(self, query: str, all_scores: Float32[np.ndarray, " N"]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Add a query's scores to `all_scores`; return the (rows, weights) of its words.

        It costs what the words' postings cost, however many passages hold none of them.
        """
        postings = []
        for token in tokenize(query, self.settings):
            word = self._vocabulary.get(token)
            if word is not None:
                some = slice(self._starts[word], self._starts[word + 1])
                postings.append((self._rows[some], self._weights[some]))
        for rows, weights in postings:
            all_scores[rows] += weights  # a word's rows are all different
        return postings


_STRIDE = 256
"""Queries between two reports of progress."""


def _clear(all_scores: Float32[np.ndarray, " N"], postings: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Set what a query's words have changed back to zero."""
    for rows, _ in postings:
        all_scores[rows] = 0

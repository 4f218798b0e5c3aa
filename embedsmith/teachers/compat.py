"""Undocumented names of bm25s that the teacher `bm25` uses; `tests/teachers/test_compat.py` checks each.

Importing this module does not load bm25s.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Integer


def stop_words_of(language: str) -> Collection[str]:
    """Return a stop word list of bm25s; `english` is Lucene's."""
    from bm25s import stopwords

    words: Collection[str] = getattr(
        stopwords, "STOPWORDS_EN" if language == "english" else f"STOPWORDS_{language.upper()}"
    )
    return words


def postings_of(
    ids: Sequence[Sequence[int]], vocabulary: Mapping[str, int], *, k1: float, b: float, method: str
) -> tuple[Integer[np.ndarray, " n"], Float32[np.ndarray, " n"], Integer[np.ndarray, " s"]]:
    """Return the inverted index of passages, which bm25s keeps as a sparse matrix in `BM25.scores`.

    Args:
        ids: the token ids of each passage.
        vocabulary: the id of each token, from 0.

    Returns:
        rows, weights and starts: token t occurs in the passages rows[starts[t] : starts[t + 1]], and adds the same
        slice of weights to their scores.
    """
    import bm25s

    index = bm25s.BM25(k1=k1, b=b, method=method)
    index.index((ids, vocabulary), create_empty_token=False, show_progress=False)
    return index.scores["indices"], index.scores["data"], index.scores["indptr"]

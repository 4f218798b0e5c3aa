"""Near-duplicates: which candidates share most of their words with a positive?

Two texts are compared by the Jaccard share of their shingles: of all runs of three words in either, the share that is
in both. MinHash estimates it from a signature of 256 numbers a text, as the share of them that are equal: an unbiased
estimate with a standard error of sqrt(share · (1 - share) / 256), 0.03 at most and 0.025 at a share of 0.8.

Source: Broder, On the resemblance and containment of documents, 1997; the signatures are made by datasketch.
Shapes: Q queries, K candidates, S pairs of a query and its positive, U passages, H numbers of a signature.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64, UInt32

from embedsmith.data.texts import Texts
from embedsmith.mining.candidates import NO_PASSAGE, Candidates
from embedsmith.progress import Progress, silent
from embedsmith.teachers.bm25 import BM25Settings, tokenize

SIGNATURE = 256
"""Numbers of a signature: permutations of MinHash."""
_WORDS = 3
"""Words of a shingle."""
_EVERY_WORD = BM25Settings(stop_words="none", split_identifiers=False)
_TEXTS = 4096
"""Texts whose signatures are made at once."""
_CHUNK = 1 << 24
"""Numbers that are compared at once."""


def near_duplicates(
    candidates: Candidates, passages: Texts, limit: float, *, seed: int = 0, on_progress: Progress = silent
) -> Bool[np.ndarray, "S K"]:
    """Return which candidates of a pair's query have a share of shingles with the pair's positive of at least a limit.

    By pair, not by query: the audit hides positives, and what is near to a hidden one must not be excluded.

    Args:
        passages: the texts of the corpus; those that are no candidate and no positive are not read.
        limit: in (0, 1].
        seed: of MinHash.
    """
    used, place = np.unique(np.append(candidates.pair_passage, candidates.rows), return_inverse=True)
    pairs, width = len(candidates.pair_passage), candidates.rows.shape[1]
    positives, others = place[:pairs], place[pairs:].reshape(-1, width)
    # An absent candidate comes first, with a signature that is never looked at.
    table = signatures(passages, np.maximum(used, 0), seed=seed, on_progress=on_progress)
    near = np.zeros((pairs, width), bool)
    # Rounded against the error of floats: 0.7 · 10 is a little more than 7.
    wanted = math.ceil(round(limit * SIGNATURE, 6))
    # Who differs in all of the first numbers has too few left to reach the limit: nearly everyone.
    first = SIGNATURE - wanted + 1
    step = max(1, _CHUNK // (width * first))
    for start in range(0, pairs, step):
        some = slice(start, start + step)
        own, theirs = positives[some], others[candidates.pair_query[some]]
        equal = np.zeros(theirs.shape, bool)
        for column in range(first):
            equal |= table[theirs, column] == table[own, column][:, None]
        pair, candidate = np.nonzero(equal)
        for begin in range(0, len(pair), _CHUNK // SIGNATURE):
            part = slice(begin, begin + _CHUNK // SIGNATURE)
            alike = (table[own[pair[part]]] == table[theirs[pair[part], candidate[part]]]).sum(axis=1) >= wanted
            near[start + pair[part][alike], candidate[part][alike]] = True
    return near & (candidates.rows != NO_PASSAGE)[candidates.pair_query]


def signatures(
    passages: Texts, rows: Int64[np.ndarray, " U"], *, seed: int, on_progress: Progress = silent
) -> UInt32[np.ndarray, "U H"]:
    """Return the MinHash signatures of some passages."""
    from datasketch import MinHash

    table = np.empty((len(rows), SIGNATURE), np.uint32)
    for start in range(0, len(rows), _TEXTS):
        sets = (shingles(text) for text in passages.take(rows[start : start + _TEXTS]))
        made = MinHash.generator(sets, num_perm=SIGNATURE, seed=seed + 1)  # datasketch has no seed 0
        for row, signature in enumerate(made, start=start):
            table[row] = signature.hashvalues
        on_progress("read words for near-duplicates", min(start + _TEXTS, len(rows)), len(rows))
    return table


def shingles(text: str) -> Sequence[bytes]:
    """Return the distinct runs of three words of a text; a shorter text is one run, and one without words itself.

    >>> shingles("The cat sat down.")
    [b'the cat sat', b'cat sat down']
    >>> shingles("A cat!"), shingles("?!")
    ([b'a cat'], [b'?!'])
    """
    words = tokenize(text, _EVERY_WORD)
    if not words:
        return [text.strip().encode()]
    runs = (" ".join(words[i : i + _WORDS]).encode() for i in range(max(1, len(words) - _WORDS + 1)))
    return list(dict.fromkeys(runs))

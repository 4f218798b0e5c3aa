"""Pairs: a JSON lines file where each row holds a query and its positives.

The columns are found by their conventional names:

    query       `query`, `anchor` or `question`: a string
    positives   `positive`, `passage`, `document` or `answer`: a string, or a list of strings;
                `pos` or `positives`: a list of strings
    negatives   optional: `negative`, `negative_1`, `negative_2`...: a string, or a list of strings;
                `neg` or `negatives`: a list of strings

So FlagEmbedding's `{"query", "pos", "neg"}` and sentence-transformers' `(anchor, positive, negative_1, ...)` both fit.
The corpus is every text on the side of the passages: negatives that a file brings along join it, so that they can be
mined; they are not judgements. Other columns are ignored, and a null counts as no column.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from embedsmith.data.collection import Collection, normalised
from embedsmith.data.files import read_jsonl
from embedsmith.errors import InputError, did_you_mean

_QUERY = ("query", "anchor", "question")
_POSITIVE = ("positive", "passage", "document", "answer", "pos", "positives")
_NEGATIVE = ("negative", "neg", "negatives")
_NUMBERED_NEGATIVE = re.compile(r"negative_[0-9]+")
_ONLY_LISTS = ("pos", "positives", "neg", "negatives")


def read_pairs(path: Path) -> Collection:
    """Return the collection of a file of pairs; ids are `q0`, `q1`... and `p0`, `p1`... in order of first appearance.

    Queries that are the same text after `normalised` are one query with the positives of all of them. Passages are
    one only if they are equal to the character: `ls -a` and `ls -A` are two commands.

    Raises:
        InputError: the file is missing or empty, or a row cannot be used; names file and line.
    """
    queries: dict[str, str] = {}
    query_ids: dict[str, str] = {}
    passage_ids: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for number, row in read_jsonl(path):
        where = f"{path}:{number}"
        query, positives, negatives = _parse_row(row, where)
        query_id = query_ids.setdefault(normalised(query), f"q{len(query_ids)}")
        queries.setdefault(query_id, query)
        for text in positives:
            passage_id = passage_ids.setdefault(text, f"p{len(passage_ids)}")
            qrels.setdefault(query_id, {})[passage_id] = 1
        for text in negatives:
            passage_ids.setdefault(text, f"p{len(passage_ids)}")
    if not queries:
        raise InputError(
            f"{path}: no pairs, the file is empty", hint='write {"query": "...", "positive": "..."} a line'
        )
    return Collection.of(
        name=path.stem,
        passage_ids=list(passage_ids.values()),
        passages=list(passage_ids),
        query_ids=list(queries),
        queries=list(queries.values()),
        qrels=qrels,
    )


def _parse_row(row: dict[str, Any], where: str) -> tuple[str, list[str], list[str]]:
    """Return the query, the positives and the negatives of a row.

    >>> _parse_row({"anchor": "cat?", "positive": "a cat", "negative_1": "a dog", "negative_2": None}, "pairs.jsonl:1")
    ('cat?', ['a cat'], ['a dog'])
    """
    row = {key: value for key, value in row.items() if value is not None}
    query_key = _key_of("query", _QUERY, row, where)
    positive_key = _key_of("positive", _POSITIVE, row, where)
    query = row[query_key]
    if not isinstance(query, str) or not query.strip():
        got = "is empty" if isinstance(query, str) else f"is a JSON {type(query).__name__}, wanted a string"
        raise InputError(f'{where}: "{query_key}" {got}', hint="every row needs one query with a text")
    positives = _texts(row, positive_key, where)
    if not positives:
        raise InputError(
            f'{where}: "{positive_key}" is an empty list', hint="every query needs a positive; remove the row"
        )
    negatives = [text for key in row if _is_negative(key, where) for text in _texts(row, key, where)]
    return query, positives, negatives


def _key_of(side: str, known: Sequence[str], row: dict[str, Any], where: str) -> str:
    """Return the one key of a row that is among the known names of a side."""
    found = [key for key in known if key in row]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{where}: {_quoted(found)} could each be the {side}", hint="keep one of them, rename or remove the others"
        )
    near = next((near for key in row if (near := did_you_mean(key, known))), "")
    raise InputError(
        f"{where}: no {side}; the row has {_quoted(row) if row else 'no values'}{near}",
        hint=f"name the {side} one of {', '.join(known)}",
    )


def _texts(row: dict[str, Any], key: str, where: str) -> list[str]:
    """Return the texts under a key: a string stands for a list of one where the key is not a plural."""
    value = row[key]
    if isinstance(value, str) and key not in _ONLY_LISTS:
        value = [value]
    if not isinstance(value, list):
        # A string in place of a list would otherwise become a list of characters.
        wanted = "a list of strings" if key in _ONLY_LISTS else "a string or a list of strings"
        raise InputError(
            f'{where}: "{key}" is a JSON {type(value).__name__}, wanted {wanted}', hint=f'write "{key}": ["..."]'
        )
    for text in value:
        if not isinstance(text, str):
            raise InputError(
                f'{where}: "{key}" holds a JSON {type(text).__name__}, wanted strings', hint=f'write "{key}": ["..."]'
            )
        if not text.strip():
            raise InputError(f'{where}: "{key}" holds an empty text', hint="remove it")
    return value


def _is_negative(key: str, where: str) -> bool:
    """Return whether a key names negatives.

    Raises:
        InputError: it nearly does; its texts would be lost in silence.
    """
    if key in _NEGATIVE or _NUMBERED_NEGATIVE.fullmatch(key):
        return True
    if near := _nearly_negative(key):
        raise InputError(
            f'{where}: unknown key "{key}" (did you mean "{near}"?)',
            hint=f"rename it; negatives are under {', '.join(_NEGATIVE)} or negative_1, negative_2...",
        )
    return False


@cache
def _nearly_negative(key: str) -> str:
    """Return the name that a key misses by a letter or so, or nothing.

    >>> _nearly_negative("negativs"), _nearly_negative("neg_scores")
    ('negatives', '')
    """
    return next(iter(difflib.get_close_matches(key, _NEGATIVE, n=1, cutoff=0.85)), "")


def _quoted(names: Sequence[str] | dict[str, Any]) -> str:
    """Return names in quotes.

    >>> _quoted(["positive", "passage"])
    '"positive", "passage"'
    """
    return ", ".join(f'"{name}"' for name in names)

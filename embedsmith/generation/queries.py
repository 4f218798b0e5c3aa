"""Queries that a chat model writes for passages, and which of them a search would have brought here.

Source of the round-trip filter: Dai et al., Promptagator, https://arxiv.org/abs/2209.11755, section 3.2, with k = 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from embedsmith.data.normalised import normalised
from embedsmith.generation.answers import SAID_TWICE, Rejects, is_copy, lines, said
from embedsmith.services.chat import Answer

_LONGEST = 400
"""Characters of a query."""
_COPIED_WORDS = 8
"""Words in a row from the passage that are no query any more."""
_SPEAKS_OF_IT = re.compile(
    r"\b(?:this|the|that|given|above|following)\s+(?:passage|text|document|article|excerpt|paragraph|snippet)s?\b",
    re.IGNORECASE,
)


def queries_in(
    answer: Answer, passage: str, *, wanted: int, prompt: str, rejects: Rejects, passage_id: str
) -> Iterator[str]:
    """Yield the queries of an answer that can be used; tell why the others cannot.

    Args:
        passage: what they were written for.
        wanted: queries that were asked for.
        prompt: what they were asked for with, before the passage was put in.
    """
    found = lines(said(answer.text))
    if answer.cut_off and found:
        # The last one was cut off: how it would have ended is not known.
        rejects.add("cut off", query=found.pop(), passage_id=passage_id)
    elif not found:
        rejects.add("no query in the answer", query=answer.text[:_LONGEST], passage_id=passage_id)
    known = set()
    for number, query in enumerate(found):
        same = normalised(query)
        reason = SAID_TWICE if same in known else _flaw(query, passage)
        if not reason and is_copy(query, prompt):
            reason = "copied from the prompt"
        elif not reason and number >= wanted:
            reason = "more than were asked for"
        known.add(same)
        if reason:
            rejects.add(reason, query=query, passage_id=passage_id)
        else:
            yield query


def _flaw(query: str, passage: str) -> str:
    """Return what makes a query useless, or nothing.

    >>> _flaw("What does the passage say?", ""), _flaw("?!", ""), _flaw("do cats purr", "Cats purr.")
    ('speaks of the passage', 'no words', '')
    """
    if not re.search(r"\w", query):
        return "no words"
    if len(query) > _LONGEST:
        return "too long"
    if _SPEAKS_OF_IT.search(query):
        return "speaks of the passage"
    words = normalised(query).split()
    if len(words) >= _COPIED_WORDS and " ".join(words) in normalised(passage):
        return "copied from the passage"
    return ""

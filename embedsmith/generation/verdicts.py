"""A judge's verdict: does a passage answer a query?"""

from __future__ import annotations

import re
from typing import Literal

from embedsmith.generation.answers import said
from embedsmith.services.chat import Answer

Verdict = Literal["yes", "no", "unclear"]

_FIRST = re.compile(r"^\W*(yes|no)\b", re.IGNORECASE)
_LAST = re.compile(r".*\b(yes|no)\b", re.IGNORECASE | re.DOTALL)


def verdict_of(answer: Answer) -> Verdict:
    """Return what an answer says: its first word, else the last yes or no of an answer that was not cut off.

    >>> [verdict_of(Answer(text, False, 1, 1)) for text in ("**No**, not at all", "Answer: yes", "I do not know")]
    ['no', 'yes', 'unclear']
    >>> verdict_of(Answer("<think>Yes? It says that no", True, 1, 1))
    'unclear'
    """
    text = said(answer.text)
    found = _FIRST.match(text) or (None if answer.cut_off else _LAST.match(text))
    if not found:
        return "unclear"
    return "yes" if found[1].lower() == "yes" else "no"

"""Questions of a FAQ as headings, so that each stands over its answer and not in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from embedsmith.prepare.documents.blocks import Block

LEVEL = 9
"""Of a question: below every heading."""

_QUESTION = re.compile(r"^(?:Q(?:uestion)?|Frage|質問|問)\s*\d{0,3}\s*[:：.]\s*", re.IGNORECASE)
_ANSWER = re.compile(r"(?:^|(?<=[?？])\s*)(?:A(?:nswer)?|Antwort|回答|答)\s*\d{0,3}\s*[:：.]\s*", re.IGNORECASE)
_LONGEST = 200


def questions_as_headings(blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield blocks with `Q: …` and paragraphs that are nothing but a question as headings, and answers without `A:`.

    >>> blocks = [Block("paragraph", "Q: Do cats purr? A: They do.")]
    >>> [(block.kind, block.text) for block in questions_as_headings(blocks)]
    [('heading', 'Do cats purr?'), ('paragraph', 'They do.')]
    """
    is_asked = False
    for block in blocks:
        if block.kind not in ("paragraph", "item"):
            is_asked = False
            yield block
            continue
        marked = _QUESTION.match(block.text)
        if marked:
            asked, answer = _halves(block.text[marked.end() :])
            yield Block("heading", asked, LEVEL, block.page, anchors=block.anchors)
            if answer:
                yield replace(block, text=answer, label="")
            is_asked = not answer
        elif block.kind == "paragraph" and is_question(block.text):
            yield Block("heading", block.text, LEVEL, block.page, links=block.links, anchors=block.anchors)
        else:
            begins = _ANSWER.match(block.text) if is_asked else None
            yield replace(block, text=block.text[begins.end() :]) if begins else block
            is_asked = False


def is_question(text: str) -> bool:
    """Tell whether a text is one question and nothing else."""
    return len(text) <= _LONGEST and text.endswith(("?", "？")) and not re.search(r"[.?!？。]\s", text)


def _halves(text: str) -> tuple[str, str]:
    """Return a question and the answer behind it, if it is there."""
    answer = _ANSWER.search(text)
    if answer and answer.start() > 0:
        return text[: answer.start()].strip(), text[answer.end() :].strip()
    return text.strip(), ""

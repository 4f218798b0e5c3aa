"""The first sentence of a docstring, as somebody would type it who searches."""

from __future__ import annotations

import re

_HEADS = (
    "args|arguments|attributes|examples?|keyword (?:args|arguments)|notes?|parameters|params|raises|references"
    "|returns?|see also|todo|usage|warnings?|yields?"
)
_FIELDS = (
    "arg|exception|except|ivar|key|keyword|kwarg|param|parameter|raise|raises|return|returns|rtype|type|var|yields?"
)
_MARKUP_LINE = re.compile(rf"(?:{_HEADS})\s*:(?:\s|$)|@(?:{_FIELDS})\b|\.\. |```|[-*+] |\|", re.IGNORECASE)
_INLINE_MARKUP = re.compile(rf">>>|(?:^|(?<=\s)):(?:{_FIELDS})\b[^:\n]*:")
_UNDERLINE = re.compile(r"([-=~^#*])\1{2,}\s*$")
# Not after a dot, which is an ellipsis, and not after a space, which is a sign spoken of: "the . in a name".
_SENTENCE_END = re.compile(r"(?<=[^\s.])[.!?][\"'`)\]]*(?=\s|$)")
_ABBREVIATION = re.compile(r"(?:^|[\s(\[,;])(?:e\.g|i\.e|eg|ie|cf|vs|resp|approx|incl|esp)\.$", re.IGNORECASE)
_DOCSTRING_CHARS = 10_000
"""Characters of a docstring that are looked at for its first sentence."""

_ET_CETERA = re.compile(r"\betc\.\s+[^A-Z]")
MAX_QUERY_CHARS = 300
MIN_QUERY_WORDS = 3


def first_sentence(docstring: str, *, name: str = "") -> str:
    """Return the first sentence of a docstring's first paragraph, without markup and without its full stop.

    The signature of `name` at the beginning is passed over, and so is a bullet. At most 300 characters, cut at a word.

    >>> first_sentence("Return the names,\\n   e.g. of os.path, sorted. More follows.\\n\\nArgs:\\n    x: no")
    'Return the names, e.g. of os.path, sorted'
    >>> first_sentence("get(key) -> value\\n\\nIs it there?  Who knows.", name="get")
    'Is it there?'
    >>> first_sentence("Double a number :param x: the number")
    'Double a number'
    """
    lines = [line.strip() for line in docstring.strip()[:_DOCSTRING_CHARS].split("\n")]
    # `get(key) -> value` says nothing more; `S.add(x) -- add an element` does, after the dashes.
    bare = re.escape(name.strip("_"))
    signature = re.compile(rf"(?:\w+\.)*_*{bare}_*\(.*?\)(?:\s*<?[-=]+>.*$|\s+--?\s+|:\s+|:?$)")
    while bare and (match := signature.match(lines[0])):
        lines = "\n".join([lines[0][match.end() :], *lines[1:]]).strip().split("\n")
    lines[0] = re.sub(r"^[-*+]\s+", "", lines[0])
    text = " ".join(" ".join(_first_paragraph(lines)).split())
    end = len(text)
    for match in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text[max(0, match.end() - 20) : match.end()]) and not _ET_CETERA.match(
            text, match.end() - 4
        ):
            end = match.end()
            break
    return _shortened(text[:end]).rstrip(" .:;,")


def _first_paragraph(lines: list[str]) -> list[str]:
    """Return the stripped lines up to the first blank one or the first markup."""
    taken: list[str] = []
    for line in lines:
        if _UNDERLINE.match(line):
            return taken[:1] if len(taken) == 1 else taken[:-1]  # of a title, or of the section that begins here
        if not line or _MARKUP_LINE.match(line):
            break
        markup = _INLINE_MARKUP.search(line)
        if markup:
            return [*taken, line[: markup.start()]]
        taken.append(line)
    return taken


def _shortened(text: str) -> str:
    if len(text) <= MAX_QUERY_CHARS:
        return text
    head = text[: MAX_QUERY_CHARS + 1].rpartition(" ")[0]
    return head or text[:MAX_QUERY_CHARS]


def _is_query(text: str) -> bool:
    """Tell whether a text has enough words to search for, and can be written as UTF-8.

    >>> _is_query("Return x + 1"), _is_query("Return the sum")
    (False, True)
    """
    words = [word for word in text.split() if any(char.isalpha() for char in word)]
    # A docstring may spell half a character: "\ud800".
    return len(words) >= MIN_QUERY_WORDS and not any("\ud800" <= char <= "\udfff" for char in text)

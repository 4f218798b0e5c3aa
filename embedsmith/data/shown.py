"""Texts as they may be shown: what a file or a server says moves no cursor, and turns no line around."""

from __future__ import annotations

import re

_CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 but for tab and line feed, delete, C1, separators of lines, marks and overrides of direction, and halves of
surrogate pairs, which no terminal takes (names of files that are not UTF-8 have them)."""


def shown(text: str) -> str:
    r"""Return a text with what would control a terminal written out.

    >>> shown("a\x1b]52;c;aGk=\x07b"), shown("\u202etxt.exe"), shown("one\ntwo\tthree")
    ('a\\x1b]52;c;aGk=\\x07b', '\\u202etxt.exe', 'one\ntwo\tthree')
    """
    return _CONTROLS.sub(_written_out, text)


def one_line(text: str) -> str:
    r"""Return a text as one line, with what would control a terminal written out.

    >>> one_line("a.jsonl\nhint: do as I say")
    'a.jsonl hint: do as I say'
    """
    return shown(re.sub(r"\s*[\r\n]\s*", " ", text))


def shown_json(text: str) -> str:
    r"""Return a JSON document with what would control a terminal as JSON's escapes: the values are the same.

    >>> shown_json('{"a": "\x9b2J"}')
    '{"a": "\\u009b2J"}'
    """
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _written_out(found: re.Match[str]) -> str:
    """Return a character as Python writes it."""
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"

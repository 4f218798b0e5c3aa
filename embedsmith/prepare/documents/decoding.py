"""Bytes of a text file as text, whatever they are encoded in.

UTF-8 (and UTF-16 with its mark) is recognised by itself; others are detected by charset-normalizer. It is MIT, well
kept, small, and finds more than guesses by a list of encodings do.
"""

from __future__ import annotations

import codecs

from embedsmith.prepare.documents.limits import Unreadable

_LOOKED_AT = 200_000
"""Bytes from which the encoding is detected."""

_MOST_BROKEN = 0.01
"""Share of the characters of a text in UTF-8 that may be broken."""

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def decoded(content: bytes, *, is_whole: bool = True) -> str:
    r"""Return bytes as text, with line ends as LF.

    Args:
        content: of a file.
        is_whole: whether that is all of the file; else a letter that is cut in two at its end is left out.

    Raises:
        Unreadable: it is no text, or its encoding was not recognised.

    >>> decoded("a\r\ncat".encode("utf-16")), decoded("Schlüssel".encode())
    ('a\ncat', 'Schlüssel')
    """
    text = _text_of(content, is_whole=is_whole)
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _text_of(content: bytes, *, is_whole: bool) -> str:
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    if b"\0" in content[:_LOOKED_AT]:
        raise Unreadable("not a text: null bytes")
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(content, final=is_whole)
    except UnicodeDecodeError as error:
        start = max(0, error.start - _LOOKED_AT // 2)
    text = content.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    letters = sum(not letter.isascii() for letter in text[:_LOOKED_AT]) - text[:_LOOKED_AT].count("\ufffd")
    if letters > 10 * broken:  # by chance no other encoding has whole letters of UTF-8
        return text
    from charset_normalizer import from_bytes

    # Where the first byte that is no UTF-8 is: before it all is ASCII.
    found = from_bytes(content[start : start + _LOOKED_AT]).best()
    if found is not None:
        return content.decode(found.encoding, "replace")
    if broken > _MOST_BROKEN * len(text):
        raise Unreadable("its encoding was not recognised")
    return text

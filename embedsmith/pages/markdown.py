"""Names and texts of users in Markdown: they stay what they are, whatever marks, tags and lines they hold."""

from __future__ import annotations

import re

from embedsmith.data.shown import one_line, shown


def inline(text: str) -> str:
    r"""Return a text that stands in a line of Markdown, a cell of a table too.

    >>> inline("a|b <script>"), inline("x\n# not a title"), inline("![i](http://x)")
    ('a\\|b &lt;script&gt;', 'x # not a title', '!\\[i\\](http://x)')
    """
    marked = re.sub(r"([\\`*\[\]|])", r"\\\1", one_line(text).replace("&", "&amp;"))
    return marked.replace("<", "&lt;").replace(">", "&gt;")


def code(text: str) -> str:
    """Return a text as code within a line.

    >>> code("d1"), code("a`b")
    ('`d1`', '`` a`b ``')
    """
    marks = _longer_than_in(text, 1)
    space = " " if "`" in text else ""
    return f"{marks}{space}{one_line(text)}{space}{marks}"


def block(text: str, language: str = "") -> str:
    """Return a text as lines of code, which end where the text ends.

    >>> block("a: 1", "yaml")
    '```yaml\\na: 1\\n```'
    """
    marks = _longer_than_in(text, 3)
    return f"{marks}{language}\n{shown(text)}\n{marks}"


def _longer_than_in(text: str, least: int) -> str:
    """Return more backticks than a text has in a row."""
    return "`" * max(least, *(len(run) + 1 for run in re.findall("`+", text)), 0)

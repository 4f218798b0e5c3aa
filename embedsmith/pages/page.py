"""Pages that open anywhere, without a network and without scripts: one style sheet, one way to fill a template."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from embedsmith.data.shown import shown

_SHORT, _LONG = 220, 4000
"""Characters of a text that are shown at once, and on demand."""


def render(template: Path, **values: Any) -> str:
    """Return a page, with everything escaped that is put into it.

    Args:
        template: its path; it may extend and include the templates that lie here.
        values: what it shows, by name.
    """
    return _environment(template.parent).get_template(template.name).render(**values).lstrip()


@cache
def _environment(folder: Path) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = "{:,}".format
    environment.filters["percent"] = percent
    return environment


def _harmless(value: Any) -> Any:
    """Return what is put into a page: texts with their control characters written out, whoever wrote them."""
    # A drawing is a `str` of its own kind, which is not escaped again.
    return type(value)(shown(value)) if isinstance(value, str) else value


def shortened(text: str) -> tuple[str, str]:
    """Return a text's beginning, and the rest that is shown on demand; cut at a space where one is near.

    >>> shortened("a cat")
    ('a cat', '')
    >>> [len(part) for part in shortened("word " * 100)]
    [219, 280]
    """
    text = " ".join(text.split())
    if len(text) <= _SHORT + 20:
        return text, ""
    cut = max(text.rfind(" ", _SHORT - 30, _SHORT), 0) or _SHORT
    rest = text[cut:]
    missing = len(rest) - _LONG
    return text[:cut], rest if missing <= 0 else f"{rest[:_LONG]} … ({missing:,} more characters)"


def percent(share: float) -> str:
    """Return a share in per cent, never rounded to 0 or 100 where it is not.

    >>> percent(0.0004), percent(0.5), percent(1.0), percent(0.99999)
    ('0.04%', '50.0%', '100%', '>99.9%')
    """
    if share in (0, 1):
        return f"{share:.0%}"
    if share > 0.999:
        return ">99.9%"
    return f"{share:.1%}" if share >= 0.001 else f"{share:.2g}" if share < 1e-6 else f"{share * 100:.1g}%"

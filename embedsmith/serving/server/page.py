"""The page at `/`, where people try a query: its policy allows the script in it, and requests to this server only."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from embedsmith.pages.page import render
from embedsmith.version import __version__

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)


@cache
def page() -> str:
    """Return the page; all that it shows it fetches from the server's own paths."""
    return render(Path(__file__).parent / "try.html", policy=POLICY, version=__version__)

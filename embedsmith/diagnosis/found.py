"""What one look at the machine finds: facts for programs, lines for people, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Problem(NamedTuple):
    """Something that the core needs, and that is missing or broken."""

    what: str
    remedy: str


class Found(NamedTuple):
    """What a look finds."""

    facts: Mapping[str, Any]
    """Under the same keys on every machine, as JSON; sizes in bytes."""
    lines: Sequence[str]
    problems: Sequence[Problem] = ()


def gib(count: float) -> str:
    """Return a number of bytes in the unit that suits it.

    >>> gib(3 * 2**30), gib(12_500_000)
    ('3.0 GiB', '12 MiB')
    """
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def short(path: str | Path) -> str:
    """Return a path with `~` in the place of the user's home, whose name need not stand in a report.

    >>> short(Path.home() / "runs"), short("/tmp/runs")
    ('~/runs', '/tmp/runs')
    """
    home = Path.home()
    return f"~/{Path(path).relative_to(home).as_posix()}" if Path(path).is_relative_to(home) else str(path)

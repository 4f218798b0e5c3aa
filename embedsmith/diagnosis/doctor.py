"""One page on what is installed and found here: for a user who wonders, and for a report of a mistake.

Each look stands alone. One that fails is a line of the page; the others go on.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any

from embedsmith.data.reachable import PATIENCE_S
from embedsmith.data.shown import one_line
from embedsmith.diagnosis import machine, software, surroundings
from embedsmith.diagnosis.found import Found, Problem
from embedsmith.pages.tables import Figures, Tabular
from embedsmith.settings import without_passwords
from embedsmith.version import __version__

Look = Callable[[], Found]

LOOKS: Mapping[str, Look] = {
    "processor": machine.processor,
    "arithmetic": machine.arithmetic,
    "accelerators": machine.accelerators,
    "memory": machine.memory,
    "disk": machine.disk,
    "versions": software.versions,
    "extras": software.extras,
    "caches": surroundings.caches,
    "variables": surroundings.variables,
    "hub": surroundings.hub,
    "models": surroundings.models,
}
"""Key of the facts -> who finds them, in the order of the page."""

_SHORTEST_SECRET = 6
"""Shorter values of variables, such as `1`, are no secrets, and stand in many texts."""


@dataclass(frozen=True)
class Diagnosis(Tabular):
    """What was found; `print` shows it as a page."""

    facts: Mapping[str, Any]
    """As `embedsmith doctor --json` prints them."""
    lines: Mapping[str, Sequence[str]]
    problems: Sequence[Problem]
    """What the core needs, and is missing or broken."""

    @property
    def ok(self) -> bool:
        """Whether all is there that the core needs."""
        return not self.problems

    def figures(self) -> Figures:
        """Return the page as a table."""
        rows = [[name if not n else "", line] for name, lines in self.lines.items() for n, line in enumerate(lines)]
        return Figures(f"embedsmith {__version__} on {platform.platform()}", ["", "found"], rows)

    def __str__(self) -> str:
        title, _, rows = self.figures()
        width = max(len(name) for name in self.lines) + 2
        said = [one_line(f"{name:{width}}{line}") for name, line in rows]
        wrong = [one_line(f"{what} (hint: {remedy})") for what, remedy in self.problems]
        end = ["not all is there that the core needs:", *wrong] if wrong else ["all is there that the core needs"]
        return "\n".join([title, "", *said, "", *end])


def doctor() -> Diagnosis:
    """Return what is installed and found on this machine; no look that fails is an error.

    It imports the model libraries, and asks the hub whether it answers: a few seconds.
    """
    found = _all_found()
    clean = _Cleaner()
    problems = [Problem(*map(clean.text, problem)) for one in found.values() for problem in one.problems]
    facts = {
        "embedsmith": __version__,
        "platform": platform.platform(),
        "ok": not problems,
        "problems": [problem._asdict() for problem in problems],
        **{name: clean.value(one.facts) for name, one in found.items()},
    }
    lines = {name: [clean.text(line) for line in one.lines] for name, one in found.items()}
    return Diagnosis(facts, lines, problems)


def _all_found() -> dict[str, Found]:
    """Return what every look finds. The hub is asked meanwhile: without a network it takes seconds to find out."""
    found = {}
    # Imports the hub's library, before another thread does.
    found["caches"] = _found(LOOKS["caches"])
    hub = Thread(target=lambda: found.update(hub=_found(LOOKS["hub"])), daemon=True)
    hub.start()
    for name, look in LOOKS.items():
        if name not in ("caches", "hub"):
            found[name] = _found(look)
    # To look up a name may take longer than a connection may.
    hub.join(timeout=PATIENCE_S)
    silent = Found({"failed": "no answer"}, ["the hub has not answered in time"])
    return {name: found.get(name, silent) for name in LOOKS}


def _found(look: Look) -> Found:
    """Return what a look finds; what goes wrong in it is what it finds."""
    try:
        return look()
    # Whatever a library, a driver or a system may raise: this is the page that tells of it.
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
        return Found({"failed": wrong}, [f"could not be looked at: {wrong}"])


class _Cleaner:
    """Takes out of texts what is nobody's business: passwords of URLs, and the values of secret variables."""

    def __init__(self) -> None:
        self._secrets = [
            value
            for name, value in os.environ.items()
            if surroundings.is_secret(name) and len(value) >= _SHORTEST_SECRET
        ]

    def text(self, text: str) -> str:
        """Return a text without them."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return without_passwords(text)

    def value(self, value: Any) -> Any:
        """Return nested values without them."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.value(inner) for key, inner in value.items()}
        return [self.value(inner) for inner in value] if isinstance(value, list) else value

"""Every error that a caller can cause, in one tree.

    EmbedsmithError            exit code 2, one line on stderr, a `hint:` line with the remedy
    ├── InputError             a file, a line or a value that cannot be used
    ├── SettingsError          an option or a recipe key that does not exist or does not fit
    ├── ModelError             a model that cannot be found, opened or trusted
    │   └── CausalityError     a model that promises bidirectional attention and is causal, or the other way round
    └── RunError               a run folder that is finished, foreign or incomplete

What is nobody's mistake (a full disk, an unreachable host) stays an `OSError`; the command line turns it into exit
code 1. Our own mistakes are `assert`s and keep their traceback.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable

_LONGEST_NAME, _MOST_NAMES = 100, 1000
"""What is compared for the nearest name: each comparison takes the product of two lengths."""


_ESCAPES = {code: repr(chr(code))[1:-1] for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}


_LONGEST_MESSAGE = 4000
"""Characters of a message: what it quotes of a file may be as long as the file."""


def _shortened(text: str) -> str:
    """Return a text whose middle is left out where it is too long to be read."""
    half = _LONGEST_MESSAGE // 2
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:half]} … {text[-half:]}"


class EmbedsmithError(Exception):
    """A caller's mistake: what is wrong, and what to do about it.

    Both are one line: where they quote a file, its control characters are shown as escapes.

    >>> str(InputError("queries.jsonl:3: no text", hint="give every query a text"))
    'queries.jsonl:3: no text'
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(_shortened(message).translate(_ESCAPES))
        self.hint = _shortened(hint).translate(_ESCAPES)

    def within(self, place: str) -> EmbedsmithError:
        """Return the same mistake with the place where it was met before its message.

        >>> str(InputError("no text", hint="").within("data nq"))
        'data nq: no text'
        """
        # A subclass elsewhere may be made of other things than a message.
        kind = next(kind for kind in type(self).__mro__ if kind.__module__ == __name__)
        found: EmbedsmithError = kind(f"{place}: {self}", hint=self.hint)
        return found


class InputError(EmbedsmithError):
    """A file, a line or a value that cannot be used."""


class SettingsError(EmbedsmithError):
    """An option or a recipe key that does not exist or does not fit."""


class ModelError(EmbedsmithError):
    """A model that cannot be found, opened or trusted."""


class CausalityError(ModelError):
    """A model whose attention is not what its configuration promises."""


class RunError(EmbedsmithError):
    """A run folder that is finished, foreign or incomplete."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return a parenthesis with the nearest known name, or nothing.

    >>> did_you_mean("ratoi", ["ratio", "margin"])
    ' (did you mean "ratio"?)'
    >>> did_you_mean("x", ["ratio"])
    ''
    """
    if len(wrong) > _LONGEST_NAME:
        return ""
    short = (name for name in known if len(name) <= _LONGEST_NAME)
    near = difflib.get_close_matches(wrong, list(itertools.islice(short, _MOST_NAMES)), n=1)
    return f' (did you mean "{near[0]}"?)' if near else ""

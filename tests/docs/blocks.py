"""The code blocks of a page, and the commands in them.

    ```sh          lines that begin with `embedsmith` are run, one after the other; others (pip, git, make) are checked
    ```python      run in one namespace for the page
    ```yaml        read as a recipe where it has `stages`

`<!-- not run: REASON -->` on the line before a block leaves it out, and must give the reason.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^( *)```\s*([\w-]*)(.*)$")
NOT_RUN = re.compile(r"^\s*<!-- not run: (\S.*) -->$")
LANGUAGES = {"sh", "python", "yaml", "json", "text", "toml", "js", ""}
"""What a block may be; `text` is what a program printed."""


@dataclass(frozen=True)
class Block:
    """A code block."""

    page: str
    line: int
    """Of its first line of code."""
    language: str
    text: str
    not_run: str = ""
    """Why it is not run; empty where it is."""

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.page}:{self.line}"

    def commands(self) -> list[list[str]]:
        """Return the command lines of a block of shell, in words; comments are left out."""
        joined = self.text.replace("\\\n", " ")
        # A comment begins a word, as in a shell: `URL#MODEL` holds none.
        lines = (shlex.split(re.sub(r"(^|\s)#.*", "", line)) for line in joined.splitlines())
        return [words for words in lines if words]


def blocks_of(page: str, text: str) -> Iterator[Block]:
    """Yield the code blocks of a page."""
    before, open_fence, rows = "", None, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        found = FENCE.match(line)
        if open_fence is None:
            if found:
                open_fence = (number, len(found[1]), found[2], NOT_RUN.match(before))
                rows = []
            elif line.strip():
                before = line
            continue
        first, indent, language, marked = open_fence
        if found and not found[2]:
            yield Block(page, first + 1, language, "\n".join(rows) + "\n", marked[1] if marked else "")
            open_fence, before = None, ""
        else:
            rows.append(line[indent:])
    assert open_fence is None, f"{page}:{open_fence and open_fence[0]}: a code block without an end"


def few_steps(text: str) -> str:
    """Return a block that trains as it says, for three steps at most: what it shows is how, not how well.

    >>> few_steps("train --steps 50 --save-steps 100; StageSettings(steps=2); steps: 100")
    'train --steps 3 --save-steps 100; StageSettings(steps=2); steps: 3'
    """
    return _STEPS.sub(lambda found: f"{found[1]}{min(3, int(found[2]))}", text)


_STEPS = re.compile(r"((?<!save.)(?<!eval.)\bsteps[ =:] ?)(\d+)")


def blocks_in(path: Path, root: Path) -> list[Block]:
    """Return the code blocks of a file."""
    return list(blocks_of(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")))

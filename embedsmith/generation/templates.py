"""Prompts in text files that a user can read and change.

{{passage}}               what is put in
{{long | short | odd}}    one of these, drawn at random for each prompt
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedsmith.data.files import atomic_write, visible
from embedsmith.errors import InputError, did_you_mean

_OWN = Path(__file__).parent / "prompts"
# None within another one: what is opened again and again and never closed is looked at once.
_HOLE = re.compile(r"\{\{((?:(?!\{\{|\}\}).)*)\}\}", re.DOTALL)


@dataclass(frozen=True)
class Template:
    """A prompt with holes in it."""

    text: str

    def filled(self, values: Mapping[str, str], rng: random.Random) -> str:
        """Return the prompt; what is put in is never taken for a hole.

        >>> Template("Ask {{a short | a long}} question about {{topic}}.").filled({"topic": "{{x}}"}, random.Random(0))
        'Ask a long question about {{x}}.'
        """

        def fill(hole: re.Match[str]) -> str:
            choices = [choice.strip() for choice in hole[1].split("|")]
            return rng.choice(choices) if len(choices) > 1 else values[choices[0]]

        return _HOLE.sub(fill, self.text)


def read_templates(names: Mapping[str, Sequence[str]], folder: str | Path | None) -> dict[str, Template]:
    """Return the prompts of a command: a user's where the folder has one, else the package's.

    Args:
        names: of each prompt, with what is put into it.
        folder: of files `NAME.txt`.

    Raises:
        InputError: the folder is not there, a file in it is no prompt of ours, or a prompt cannot be used.
    """
    own = None if folder is None else Path(folder)
    if own is not None:
        _check_folder(own)
    return {name: read_template(name, values, own) for name, values in names.items()}


def write_templates(folder: Path, templates: Mapping[str, Template]) -> None:
    """Write prompts where they can be read and copied."""
    for name, template in templates.items():
        with atomic_write(folder / f"{name}.txt") as file:
            file.write(template.text + "\n")


def read_template(name: str, names: Sequence[str], folder: Path | None = None) -> Template:
    """Return the prompt of a name: a user's where the folder has one, else the package's.

    Args:
        names: what is put in; each must have its hole.
        folder: of files `NAME.txt`.

    Raises:
        InputError: a prompt asks for what there is not, or lacks what is put in.
    """
    own = _OWN / f"{name}.txt"
    path = own if folder is None or not (folder / own.name).is_file() else folder / own.name
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8", hint="save the file as UTF-8") from None
    found = set()
    for hole in _HOLE.finditer(text):
        words = hole[1].strip()
        if "|" in words:
            continue
        if words not in names:
            raise InputError(
                f"{path}:{text.count(chr(10), 0, hole.start()) + 1}: {{{{{words}}}}} is not known"
                f"{did_you_mean(words, names)}",
                hint=f"known: {', '.join(names)}; {{{{one | another}}}} draws one of them",
            )
        found.add(words)
    if missing := [name for name in names if name not in found]:
        raise InputError(f"{path}: no {{{{{missing[0]}}}}}", hint="say where it is to stand")
    return Template(text)


def _check_folder(folder: Path) -> None:
    """Refuse a folder without prompts, or with one that none of ours is called like: nobody would read it.

    Raises:
        InputError: it is such a folder, or there is none.
    """
    known = sorted(path.name for path in _OWN.glob("*.txt"))
    names = [path.name for path in visible(folder, "*.txt")]
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        what = f'no prompt is called "{wrong[0]}"{did_you_mean(wrong[0], known)}' if wrong else "no prompt is in it"
        what = what if folder.is_dir() else "no such folder"
        raise InputError(f"{folder}: {what}", hint=f"copy what is to be changed from {_OWN}: {', '.join(known)}")

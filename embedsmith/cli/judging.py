"""Judging at the terminal: `search --judge`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from embedsmith.cli import console
from embedsmith.cli.app import typed
from embedsmith.cli.places import place_of

if TYPE_CHECKING:
    from embedsmith.serving.search import Hit

_SHOWN = 300
"""Characters of a passage."""
_STOP = ("q", "quit")
_SKIP = ("s", "skip")


def judge_queries(run: Path, query: str | None, queries: Path | None, *, data: Path | None, each: int) -> None:
    """Ask which of the passages found answer each query, keep what is said, and write it as an evaluation set.

    Args:
        run: a run with a trained model.
        query: the only one to judge.
        queries: a file of them; without both, each line that is typed is one.
        data: corpus to search; by default what the run was made of.
        each: passages of each finder to judge.

    Raises:
        InputError, RunError: see `embedsmith.serving.judging.Judging` and `embedsmith.recipes.own_queries`.
    """
    from embedsmith.recipes.own_queries import read_own_queries
    from embedsmith.serving.judging import Judging
    from embedsmith.serving.search import refuse_empty

    if query is not None:
        refuse_empty(query)
    asked = [one.text for one in read_own_queries(queries)] if queries else [query] if query is not None else None
    with console.progress(show=False) as tell:
        judging = Judging(run, data=data, each=each, on_progress=tell)
    total = f" of {len(asked)}" if asked else ""
    known = 0
    for number, text in enumerate(asked if asked is not None else console.lines("query> "), start=1):
        if judging.is_judged(text):
            known += 1
            continue
        console.line(f"query {number}{total}: {text}")
        pool = judging.pool(text)
        _show(pool)
        said = _answer(len(pool))
        if said == "stop":
            break
        if said != "skip":
            judging.note(text, pool, [pool[place - 1].id for place in said])
    if known:
        console.line(f"{known:,} queries were judged before, and not asked again")
    count = judging.write()
    console.line(f"{count:,} queries with an answer are in {judging.folder}")
    if count:
        folder = shlex.quote(str(judging.folder))
        console.next_steps(f"{typed()} evaluate {shlex.quote(str(run))} {folder} --before-and-after")


def _show(pool: Iterable[Hit]) -> None:
    """Show what is to be judged, with numbers."""
    for number, hit in enumerate(pool, start=1):
        console.line(f"{number:3}  {place_of(hit)}")
        console.line(f"     {' '.join(hit.text.split())[:_SHOWN]}")


def _answer(count: int) -> list[int] | Literal["skip", "stop"]:
    """Return the numbers that the user says, or that the query is left for later, or all of the rest."""
    for line in console.lines(f"which answer it? 1 to {count}, 0 for none, s to skip, q to stop> "):
        words = line.replace(",", " ").lower().split()
        if words[0] in _STOP:
            return "stop"
        if words[0] in _SKIP:
            return "skip"
        if all(word.isdecimal() and int(word) <= count for word in words):
            return sorted({int(word) for word in words if int(word)})
        console.line(f"numbers of 0 to {count}, s or q")
    return "stop"

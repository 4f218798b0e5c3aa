"""Names, ids and texts that would do something where they are printed, and all kinds of output with one in it."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from embedsmith.cli import console, judging, recipes, scoring, searching
from embedsmith.runs.scores import MODEL, Score, Scoreboard, ScoredData

CONTROLLING = {
    "clears the screen": "a\x1b[31337Jb",
    "writes the clipboard": "a\x1b]52;c;aGk=\x07b",
    "moves up, in C1": "a\x9b9Ab",
    "links": "a\x1b]8;;http://evil\x1b\\b",
    "turns around": "a\u202egnp.exe\u202cb",
    "isolates": "a\u2066\u2067\u2068\u2069b",
    "goes back": "a\x08\x08\x08b",
    "overwrites": "a\rb",
    "rings": "a\x07b",
    "is deleted": "a\x7fb",
    "is half of a pair": "a\udcffb",
    "separates": "a\u2028\u2029\x85\x0b\x0cb",
    "is nothing": "a\0b",
}
"""They would control a terminal."""
FORGED = "error: forged"
"""A line of its own, if what stands before it could end a line."""
BREAKING = {
    "a line": f"a\n{FORGED}\nb",
    "a line of Windows": f"a\r\n{FORGED}\r\nb",
    "an old line": f"a\r{FORGED}\rb",
    "lines of Unicode": f"a\u2028{FORGED}\u2029{FORGED}\x85{FORGED}\x0b{FORGED}\x0c{FORGED}\x1c{FORGED}",
}
"""They would begin a line."""
MARKED_UP = [
    "[bold]",
    "[/]",
    "[red]x",
    "a[/bold]",
    "[link=http://x]y[/link]",
    "back\\slash[b]",
    "\\[i]",
    "[1,2]",
    "[@click=x]",
]
"""They would be rich's markup."""


@pytest.fixture(params=[False, True], ids=["plain", "terminal"])
def printed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What both consoles print, as they are set up but for where they print to."""
    file = io.StringIO()
    for name in ("out", "err"):
        own: Console = getattr(console, name)
        monkeypatch.setattr(own, "_file", file)
        monkeypatch.setattr(own, "_width", 900)
        if request.param:
            monkeypatch.setattr(own, "_force_terminal", True)
            monkeypatch.setattr(own, "_color_system", None)
    return file


def say_everywhere(name: str) -> dict[str, int]:
    """Print a name in every kind of output; return how often it is in what was printed, at least."""
    console.out.print(console.scores_table(name, {name: {name: 0.5}}, [name]))
    console.out.print(console.figures_table(name, {name: [name]}, [name]))
    console.print_error(name, name)
    console.note(name)
    console.line(name)
    console.line_beside(name)
    work = SimpleNamespace(teacher=name, texts=1, tokens=1, seconds=1.0, vector_bytes=1)
    console.print_plan(SimpleNamespace(queries=1, passages=1, teachers=[name], encodings=[work], memory_bytes=1))
    score = Score(model="m", metrics={"ndcg@10": 0.5})
    scoring._show_scores(name, Scoreboard().with_score(name, MODEL, ScoredData(task="retrieval"), score), ["ndcg@10"])
    row = {"task": "sts", "metric": name, "before": 0.1, "after": 0.2}
    scoring._show_before_and_after(name, {name: row}, as_json=False)
    code = {"file": name, "line": 1, "name": name}
    hits = [SimpleNamespace(score=0.5, id=name, text="a text", metadata=where) for where in ({}, code)]
    searching._show_hits(name, hits, as_json=False)
    judging._show(hits)
    part = SimpleNamespace(data=name, examples=1, negatives=1.0, weight=1.0, queries=1, share=1.0, passes=1.0)
    trained = SimpleNamespace(backbone=1, pooling=0, adapters=0)
    stage = SimpleNamespace(name=name, steps=1, queries_a_step=1, tokens_a_step=1, trained_parameters=1, seconds=1.0)
    stage = SimpleNamespace(**vars(stage), trained=trained, memory_gib=1.0, blend=[part])
    data = SimpleNamespace(name=name, queries=1, passages=1, negatives=1, to_be_mined=True, removed=1, labels=name)
    plan = SimpleNamespace(data=[data], stages=[stage], parameters=1, free_gib=1.0, opening_gib=1.0, device=name)
    recipes.show_plan(plan, as_json=False)
    return {
        "tables": 3 + 4,
        "lines": 2 + 1 + 1 + 1,
        "plan": 2,
        "scores": 2 + 3,
        "hits": 1 + 2,
        "judged": 1 + 2,
        "training": 5,
    }

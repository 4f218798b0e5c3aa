"""What users name is printed to the letter: brackets are no markup of rich's, wherever a name stands."""

from __future__ import annotations

import ast
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import embedsmith.cli
from embedsmith.cli import console, recipes
from tests.hostile import MARKED_UP, say_everywhere
from tests.hostile import printed as printed


@pytest.mark.parametrize("name", MARKED_UP)
def test_a_name_is_printed_to_the_letter_in_every_kind_of_output(name: str, printed: io.StringIO):
    times = sum(say_everywhere(name).values())
    assert printed.getvalue().count(name) >= times, printed.getvalue()
    printed.seek(0)
    printed.truncate()
    with console.progress() as tell:
        tell(name, 0, 2, name)
        tell(name, 2, 2, name)
    assert printed.getvalue().count(name) >= 2


def test_a_recipe_s_scores_name_its_data(tmp_path: Path, printed: io.StringIO):
    scores = {name: {"before": {"ndcg@10": 0.5}, f"after {name}": {"ndcg@10": 0.5}} for name in MARKED_UP}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    recipes.show_run(SimpleNamespace(folder=tmp_path, seconds=1.0), as_json=False, search_hint=MARKED_UP[0])
    for name in MARKED_UP:
        assert f"Scores on {name}" in printed.getvalue()
        assert f"after {name}" in printed.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with brackets in its name, and pairs in it."""
    folder = tmp_path_factory.mktemp("brackets") / "[bold]a [red]b\\[i] [1]"
    folder.mkdir()
    rows = [{"query": f"find the cat {n}", "positive": [f"the cat {n} is here", f"a cat {n}"]} for n in range(12)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labelled = [{"text": f"my cat {n}", "label": f"[red]{n % 2}"} for n in range(12)]
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    return folder


def test_every_command_that_needs_no_model_prints_paths_to_the_letter(
    embedsmith_command, place: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(console.out, "_width", 400)

    def runs(*words: object) -> str:
        done = embedsmith_command(*words)
        assert done.code == 0, done.err
        assert "Traceback" not in done.err
        return done.out + done.err

    pairs, mined = place / "pairs.jsonl", place / "mined"
    assert str(mined) in runs("mine", pairs, "--out", mined, "--teacher", "bm25", "--method", "naive", "--depth", 8)
    assert f"Hold-out audit of {mined}" in runs("audit", mined)
    assert str(place / "again") in runs("select", mined, "--out", place / "again", "--negatives", 1)
    assert str(place / "w.jsonl") in runs("write", mined, "--out", place / "w.jsonl")
    assert str(mined / "report.html") in runs("report", mined)
    assert str(pairs) in runs("evaluate", "bm25", pairs)
    out = place / "examples.jsonl"
    words = ["convert", place / "labelled.jsonl", "--task", "classification", "--out", out, "--negatives", 1]
    assert str(out) in runs(*words)
    words = ["decontaminate", place / "labelled.jsonl", "--against", pairs, "--out", place / "clean.jsonl"]
    assert str(place / "clean.jsonl") in runs(*words, "--near-duplicates", 0)
    for name in ("one", "two"):
        runs("evaluate", "bm25" if name == "one" else "random", pairs, "--out", place / name)
    notes = runs("compare", place / "one", place / "two")
    assert str(place / "one") in notes
    assert str(place / "two") in notes
    assert "find the cat" in notes
    gone = place / "gone.jsonl"
    failed = embedsmith_command("evaluate", "bm25", gone)
    assert failed.code == 2
    assert failed.error.startswith(str(gone))


def test_a_chat_model_s_judgement_names_the_run_and_the_judge(
    embedsmith_command, place: Path, monkeypatch: pytest.MonkeyPatch
):
    @dataclass
    class Row:
        share: float | None = None
        yes: int = 1
        no: int = 2
        unclear: int = 0
        unanswered: int = 0

    found: Any = SimpleNamespace(
        failures=["[red]failed[/]"], budget_spent=True, cannot_tell=True, judge="http://x#[bold]m", tokens=1,
        negatives=Row(), first=Row(), positives=Row(),
    )  # fmt: skip
    monkeypatch.setattr("embedsmith.mining.judge.judge", lambda *_, **__: found)
    run = place / "judged"
    settings = embedsmith.MiningSettings(teachers=["bm25"], method="naive", depth=8)
    embedsmith.mine(place / "pairs.jsonl", out=run, settings=settings)
    done = embedsmith_command("judge", run, "--url", "http://localhost/v1#m")
    assert done.code == 0
    assert f"http://x#[bold]m on {run}" in done.out
    assert "[red]failed[/]" in done.err
    assert str(run) in done.err


def test_only_one_module_makes_consoles_and_nobody_else_prints():
    for path in sorted(Path(embedsmith.cli.__file__).parent.glob("*.py")):
        called = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {one.id for one in called if isinstance(one, ast.Name)}
        assert "print" not in names, path
        assert "Console" not in names or path.name == "console.py"
        attributes = {(ast.unparse(one.value), one.attr) for one in called if isinstance(one, ast.Attribute)}
        assert not {("typer", "echo"), ("rich", "print"), ("typer", "secho")} & attributes, path


def test_what_is_no_table_is_printed_a_line_at_a_time():
    """A name with a line break in it would begin a line of its own otherwise."""
    for path in sorted(Path(embedsmith.cli.__file__).parent.glob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for call in calls if path.name != "console.py" else ():
            if re.fullmatch(r"(console\.)?(out|err)\.print", ast.unparse(call.func)):
                assert re.match(r"console\.(scores|figures)_table\(", ast.unparse(call.args[0])), ast.unparse(call)

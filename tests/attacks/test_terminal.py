"""Texts that would control a terminal or a page: names, ids and passages with escape sequences, overrides and tags."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from rich.text import Text

from embedsmith.cli import console
from embedsmith.data.shown import shown, shown_json
from embedsmith.mining.mine import mine
from embedsmith.mining.page import mining_report
from embedsmith.mining.settings import MiningSettings
from embedsmith.models.settings import StudentSettings
from embedsmith.pages.markdown import block, code, inline
from embedsmith.pages.page import _environment
from embedsmith.recipes import report
from embedsmith.recipes.recipe import Recipe
from embedsmith.runs.run import Run
from embedsmith.training import card
from embedsmith.training.batches import Source
from embedsmith.training.settings import StageSettings
from tests.cli.conftest import embedsmith_command as embedsmith_command
from tests.hostile import BREAKING, CONTROLLING, FORGED, say_everywhere
from tests.hostile import printed as printed

ALL = "".join(CONTROLLING.values())
OF_RICH = re.compile(r"\x1b\[(?:\?25[lh]|[0-9;]{0,3}[mAK]|2K|1A)|\r")
"""What the progress bar sends to a terminal."""
CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def is_harmless(text: str, *, rich: bool = False) -> bool:
    """Return whether nothing in a text controls a terminal."""
    left = OF_RICH.sub("", text) if rich else text
    assert not CONTROLS.search(left), (CONTROLS.search(left), left)
    return True


@pytest.mark.parametrize("name", [*CONTROLLING.values(), ALL], ids=[*CONTROLLING, "all"])
def test_nothing_that_is_printed_controls_the_terminal(name: str, printed: io.StringIO):
    say_everywhere(name)
    console.out.print(name, Text(name))
    assert "a" in printed.getvalue()
    assert is_harmless(printed.getvalue())
    with console.progress() as tell:
        tell(name, 0, 2, name)
        tell(name, 2, 2, name)
    assert is_harmless(printed.getvalue(), rich=True)
    assert not any(hostile in printed.getvalue() for hostile in CONTROLLING.values())


@pytest.mark.parametrize("name", BREAKING.values(), ids=BREAKING)
def test_nothing_that_is_printed_begins_a_line(name: str, printed: io.StringIO):
    times = sum(say_everywhere(name).values())
    with console.progress() as tell:
        tell(name, 0, 2, name)
        tell(name, 2, 2, name)
    text = OF_RICH.sub("", printed.getvalue())
    assert text.count(FORGED) >= times
    assert not re.search(rf"(?m)^\s*{FORGED}", "\n".join(text.splitlines()))


def test_tables_are_straight_whatever_their_cells_hold(printed: io.StringIO):
    console.out.print(console.figures_table("t", {name: [name] for name in CONTROLLING.values()}, ["a\nb"]))
    _, *lines = printed.getvalue().splitlines()
    assert len({len(line) for line in lines}) == 1


def test_an_error_and_a_note_are_one_line(printed: io.StringIO):
    console.print_error("a.jsonl\nhint: do as I say\r\n\nerror: x", "a\nb")
    console.note("a\nerror: b")
    with console.progress(show=True) as tell:
        pass
    del tell
    text = [line for line in OF_RICH.sub("", printed.getvalue()).splitlines() if line]
    assert text == ["error: a.jsonl hint: do as I say error: x", "hint: a b", "note: a error: b"]


def test_json_keeps_every_letter_and_sends_no_control(capsys: pytest.CaptureFixture[str]):
    console.print_json({ALL: [ALL]})
    text = capsys.readouterr().out
    assert json.loads(text) == {ALL: [ALL]}
    assert is_harmless(text)
    assert shown_json('{"a": "é\\n"}') == '{"a": "é\\n"}'


def test_what_people_write_is_left_as_it_is():
    text = "naïve 東京 🙂 👩\u200d👩\u200d👧 עברית العربية\tx\ny e\u0301"
    assert shown(text) == text


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder whose name, texts, ids and labels are hostile."""
    name = ALL.replace("\0", "").replace("/", "").replace("\udcff", "") + f"\n{FORGED}"
    folder = tmp_path_factory.mktemp("hostile") / name
    folder.mkdir()
    rows = [
        {"query": f"find the cat {n} {ALL[:-15]}", "positive": [f"the cat {n} {ALL[:-15]}", f"a cat {n}"]}
        for n in range(12)
    ]
    texts = [{"text": f"my cat {n} \x1b[31337J", "label": f"\x1b[31337J{n % 2}"} for n in range(12)]
    for file, lines in (("pairs", rows), ("labelled", texts)):
        whole = "".join(json.dumps(line) + "\n" for line in lines).replace("\\udcff", "")
        (folder / f"{file}.jsonl").write_text(whole)
    return folder


def test_no_command_prints_what_controls_a_terminal(embedsmith_command, place: Path):
    pairs, mined, clean = place / "pairs.jsonl", place / "mined", place / "clean.jsonl"
    convert = ["convert", place / "labelled.jsonl", "--task", "classification", "--negatives", 1]
    decontaminate = ["decontaminate", place / "labelled.jsonl", "--against", pairs, "--near-duplicates", 0]
    commands = [
        ["mine", pairs, "--out", mined, "--teacher", "bm25", "--method", "naive", "--depth", 8],
        ["audit", mined],
        ["select", mined, "--out", place / "again", "--negatives", 1],
        ["write", mined, "--out", place / "w.jsonl"],
        ["report", mined],
        ["evaluate", "bm25", pairs],
        ["evaluate", "bm25", pairs, "--json"],
        [*convert, "--out", place / "examples.jsonl"],
        [*decontaminate, "--out", clean],
        ["evaluate", "bm25", pairs, "--out", place / "one"],
        ["evaluate", "random", pairs, "--out", place / "two"],
        ["compare", place / "one", place / "two"],
        ["compare", place / "one", place / "two", "--json"],
    ]
    for words in commands:
        done = embedsmith_command(*words)
        assert done.code == 0, (words, done.err)
        assert is_harmless(done.out + done.err)
        assert not re.search(rf"(?m)^\s*{FORGED}", done.out + done.err)
    assert is_harmless((mined / "report.html").read_text())
    for words in (["evaluate", "bm25", place / "gone"], ["evaluate", place / "x", pairs], ["train", place / "r.yaml"]):
        failed = embedsmith_command(*words)
        assert failed.code == 2
        assert is_harmless(failed.err)
        assert not re.search(rf"(?m)^\s*{FORGED}", failed.err)
        assert failed.error


MARKS = "x\n# Title\n\n<script>alert(1)</script> | `code` ```\n```\n![i](http://x) [l](http://y) **b** \x1b[2J"


def test_names_and_texts_stay_what_they_are_in_markdown():
    line = inline(MARKS)
    assert "\n" not in line
    assert not re.search(r"<|>|(?<!\\)[|`*\[\]]", line)
    assert code(MARKS).startswith("```` ")
    fences = [found for found in block(MARKS).splitlines() if re.fullmatch("`{3,}", found)]
    assert fences == ["````", "```", "````"]
    assert all(is_harmless(text) for text in (line, code(MARKS), block(MARKS)))


def test_a_model_card_has_its_own_titles_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(card, "licence_of", lambda _: "other")
    monkeypatch.setattr(card, "find_model", lambda _: None)
    source = Source(MARKS, [])
    run = Run(Path(), {"versions": {"torch": "2"}}, lock=None)
    student = StudentSettings(name=MARKS, instruction=MARKS)
    lines = card.card_of(run, student, [StageSettings()], [source]).text().splitlines()
    _, front, *_ = "\n".join(lines).split("---\n")
    assert yaml.safe_load(front)["license"] == "other"
    assert [line for line in lines if line.startswith("#")] == [
        "# An embedding model, trained with embedsmith",
        *("## Data", "## Recipe", "## Use"),
    ]
    assert "<script>alert" not in re.sub("````.*````", "", "\n".join(lines).partition("## Recipe")[0])
    assert is_harmless("\n".join(lines))


def test_a_report_has_its_own_titles_only(tmp_path: Path):
    passage = {"id": MARKS, "text": MARKS, "score": 0.5}
    example = {"query": MARKS, "positives": [passage], "negatives": [passage]}
    (tmp_path / "e.jsonl").write_text(json.dumps(example) + "\n")
    step = dict.fromkeys(
        ("loss", "accuracy", "gradient_norm", "pooling_gradient_norm", "learning_rate", "seconds"), 1.0
    )
    counts = dict.fromkeys(("step", "steps", "queries", "tokens"), 1)
    (tmp_path / "steps.jsonl").write_text(json.dumps({"stage": "train", **counts, **step}) + "\n")
    (tmp_path / "scores.json").write_text(json.dumps({MARKS: {MARKS: {MARKS: 0.5}}}))
    recipe = Recipe.parse({"data": {"a": {"path": str(tmp_path / "e.jsonl"), "format": "examples"}}}, where="")
    manifest = {
        "versions": {"a": "1"},
        "counts": {MARKS: {MARKS: 1, "labels": {MARKS: {"means": MARKS, "rows": 1}}}},
        "seconds": {"train": 1.0},
    }
    run = SimpleNamespace(folder=tmp_path, seconds=1.0, manifest=manifest)
    text = "\n".join(report._lines(run, recipe))
    outside = re.sub(r"(?ms)^(`{3,})$.*?^\1$", "", text)
    assert len([line for line in outside.splitlines() if line.startswith("#")]) == 6
    assert "<script>" not in re.sub("````.*````", "", outside)
    assert is_harmless(text)


def test_a_page_shows_controls_as_escapes():
    template = "<b>{{ plain }}</b>{{ drawn | safe }}{% set x = plain %}{{ x | upper }}{{ 1.5 }}"
    page = _environment(Path()).from_string(template)
    text = page.render(plain=f"<i>{ALL}", drawn=f"<svg>{ALL}</svg>")
    assert is_harmless(text)
    assert text.encode()
    assert "<b>&lt;i&gt;a\\x1b[31337Jb" in text
    assert "<svg>a\\x1b[31337Jb" in text
    assert text.endswith("1.5")


def test_a_report_of_mining_shows_hostile_ids_and_texts_as_escapes(tmp_path: Path):
    """Of a BEIR folder: its ids are the user's."""
    name = ALL.replace("\0", "").replace("\udcff", "").replace("\r", "") + "<script>"
    name = "".join(name.replace("\x85", "").split())
    rows = {
        "corpus": [{"_id": f"d{n}{name}", "text": f"the cat {n} {name}"} for n in range(12)],
        "queries": [{"_id": f"q{n}{name}", "text": f"find the cat {n} {name}"} for n in range(12)],
    }
    (tmp_path / "beir/qrels").mkdir(parents=True)
    for file, lines in rows.items():
        (tmp_path / f"beir/{file}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judged = "".join(f"q{n}{name}\td{n}{name}\t1\n" for n in range(12))
    (tmp_path / "beir/qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    mine(tmp_path / "beir", out=tmp_path / "run", settings=MiningSettings(teachers=["bm25"], method="naive", depth=8))
    page = mining_report(tmp_path / "run").read_text()
    assert is_harmless(page)
    assert "d1a\\x1b[31337Jb" in page
    assert "<script>" not in page


@dataclass
class Asked:
    """What a judge said of some passages."""

    share: float | None = None
    yes: int = 1
    no: int = 2
    unclear: int = 0
    unanswered: int = 0


@pytest.mark.parametrize("name", [ALL, *BREAKING.values()], ids=["controls", *BREAKING])
def test_what_chat_models_say_is_printed_without_effect(name: str, embedsmith_command, tmp_path: Path, monkeypatch):
    found: Any = SimpleNamespace(
        failures=[name], budget_spent=True, cannot_tell=True, judge=name, tokens=1,
        negatives=Asked(), first=Asked(), positives=Asked(),
    )  # fmt: skip
    counts = {
        **dict.fromkeys(("queries", "passages_with_queries", "asked", "kept", "written", "tokens", "answered"), 1),
        "tasks": 1,
        "examples": 1,
        "tasks_rejected": {name: 1},
        "rejected": {name: 1},
        "not_answered": [name],
        "budget_spent": True,
    }
    manifest = {"counts": {"queries": counts, "tasks": counts}}
    # No path on the command line has these two.
    folder = tmp_path / name.replace("\0", "").replace("\udcff", "")
    run = SimpleNamespace(folder=folder, seconds=1.0, manifest=manifest)
    monkeypatch.setattr("embedsmith.mining.judge.judge", lambda *_, **__: found)
    monkeypatch.setattr("embedsmith.mining.verdicts.judge_folder", lambda folder: folder / "judge")
    monkeypatch.setattr("embedsmith.prepare.synthesize.synthesize_queries", lambda *_, **__: run)
    monkeypatch.setattr("embedsmith.prepare.synthesize_tasks.synthesize_tasks", lambda *_, **__: run)
    url = ["--url", "http://localhost/v1#m"]
    for words in (
        ["judge", run.folder, *url],
        ["synthesize", "queries", tmp_path / "corpus", "--out", run.folder, *url],
        ["synthesize", "tasks", "--out", run.folder, *url],
    ):
        done = embedsmith_command(*words)
        assert done.code == 0, done.err
        assert is_harmless(done.out + done.err)
        assert not re.search(rf"(?m)^\s*{FORGED}", done.out + done.err)
        assert name not in BREAKING.values() or FORGED in done.out + done.err

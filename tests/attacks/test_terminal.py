"""Texts that would control a terminal or a page: names, ids and passages with escape sequences, overrides and tags."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console
from rich.text import Text

from embedsmith.cli import console, scoring, training
from embedsmith.data.shown import shown, shown_json
from embedsmith.models.settings import StudentSettings
from embedsmith.pipeline import card, report
from embedsmith.pipeline.markdown import block, code, inline
from embedsmith.pipeline.recipe import Recipe
from embedsmith.training.batches import Source
from embedsmith.training.settings import StageSettings
from tests.cli.conftest import embedsmith_command as embedsmith_command

HOSTILE = {
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
ALL = "".join(HOSTILE.values())
OF_RICH = re.compile(r"\x1b\[(?:\?25[lh]|[0-9;]{0,3}[mAK]|2K|1A)|\r")
"""What the progress bar sends to a terminal."""
CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture(params=[False, True], ids=["plain", "terminal"])
def printed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What both consoles print."""
    file = io.StringIO()
    for name in ("out", "err"):
        own: Console = getattr(console, name)
        monkeypatch.setattr(own, "_file", file)
        monkeypatch.setattr(own, "_width", 900)
        if request.param:
            monkeypatch.setattr(own, "_force_terminal", True)
            monkeypatch.setattr(own, "_color_system", None)
    return file


def is_harmless(text: str, *, rich: bool = False) -> bool:
    """Return whether nothing in a text controls a terminal."""
    left = OF_RICH.sub("", text) if rich else text
    assert not CONTROLS.search(left), (CONTROLS.search(left), left)
    return True


@pytest.mark.parametrize("name", [*HOSTILE.values(), ALL], ids=[*HOSTILE, "all"])
def test_nothing_that_is_printed_controls_the_terminal(name: str, printed: io.StringIO):
    console.out.print(console.scores_table(name, {name: {name: 0.5}}, [name]))
    console.out.print(console.figures_table(name, {name: [name]}, [name]))
    console.out.print(name, Text(name))
    console.print_error(name, name)
    console.note(name)
    work = SimpleNamespace(teacher=name, texts=1, tokens=1, seconds=1.0, vector_bytes=1)
    console.print_plan(SimpleNamespace(queries=1, passages=1, teachers=[name], encodings=[work], memory_bytes=1))
    scoring._show_scores(name, {"scores": {name: {"ndcg@10": 0.5}}, "data": {name: {"task": "retrieval"}}}, ["ndcg@10"])
    row = {"task": "sts", "metric": name, "before": 0.1, "after": 0.2}
    scoring._show_before_and_after(name, {name: row}, as_json=False)
    part = SimpleNamespace(data=name, examples=1, negatives=1.0, weight=1.0, queries=1, share=1.0, passes=1.0)
    trained = SimpleNamespace(backbone=1, pooling=0, adapters=0)
    stage = SimpleNamespace(name=name, steps=1, queries_a_step=1, tokens_a_step=1, trained_parameters=1, seconds=1.0)
    stage = SimpleNamespace(**vars(stage), trained=trained, memory_gib=1.0, blend=[part])
    data = SimpleNamespace(name=name, queries=1, passages=1, negatives=1, to_be_mined=True, removed=1, labels=name)
    plan = SimpleNamespace(data=[data], stages=[stage], parameters=1, free_gib=1.0, device=name)
    training._show_plan(plan, as_json=False)
    assert "a" in printed.getvalue()
    assert is_harmless(printed.getvalue())
    with console.progress() as tell:
        tell(name, 0, 2, name)
        tell(name, 2, 2, name)
    assert is_harmless(printed.getvalue(), rich=True)
    assert not any(hostile in printed.getvalue() for hostile in HOSTILE.values())


def test_tables_are_straight_whatever_their_cells_hold(printed: io.StringIO):
    console.out.print(console.figures_table("t", {name: [name] for name in HOSTILE.values()}, ["a\nb"]))
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
    name = ALL.replace("\0", "").replace("/", "").replace("\udcff", "") + "\nerror: x"
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
    for words in (["evaluate", "bm25", place / "gone"], ["evaluate", place / "x", pairs], ["train", place / "r.yaml"]):
        failed = embedsmith_command(*words)
        assert failed.code == 2
        assert is_harmless(failed.err)
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
    run = SimpleNamespace(manifest={"versions": {"torch": "2"}})
    student = StudentSettings(name=MARKS, instruction=MARKS)
    lines = "\n".join(card._lines(run, student, [StageSettings()], [source])).splitlines()
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
    step = dict.fromkeys(("loss", "accuracy", "gradient_norm", "pooling_gradient_norm", "seconds"), 1.0)
    (tmp_path / "steps.jsonl").write_text(json.dumps({"stage": "train", "step": 1, **step}) + "\n")
    (tmp_path / "scores.json").write_text(json.dumps({MARKS: {MARKS: {MARKS: 0.5}}}))
    recipe = Recipe.parse({"data": {"a": {"path": str(tmp_path / "e.jsonl"), "format": "examples"}}}, where="")
    manifest = {"versions": {"a": "1"}, "counts": {MARKS: {MARKS: 1}}, "seconds": {"train": 1.0}}
    run = SimpleNamespace(folder=tmp_path, seconds=1.0, manifest=manifest)
    text = "\n".join(report._lines(run, recipe))
    outside = re.sub(r"(?ms)^(`{3,})$.*?^\1$", "", text)
    assert len([line for line in outside.splitlines() if line.startswith("#")]) == 6
    assert "<script>" not in re.sub("````.*````", "", outside)
    assert is_harmless(text)

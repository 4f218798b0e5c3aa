"""`embedsmith convert`: from rows in a file to a file of examples, with counts that add up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedsmith.data.examples import read_examples
from embedsmith.errors import InputError
from embedsmith.mining.settings import MiningSettings
from embedsmith.prepare import convert as converting
from embedsmith.prepare.convert import Conversion, convert
from embedsmith.prepare.converters.settings import ConvertSettings
from tests.cli.conftest import embedsmith_command as embedsmith_command

INTENTS = {
    "lost_card": ["I lost my card", "my card is lost", "the card is gone", "where is my card gone"],
    "card_arrival": ["my card has not arrived", "when will my card arrive", "card still not here"],
    "change_pin": ["how to change my pin", "I want a new pin", "pin change please", "set another pin"],
}


@pytest.fixture
def intents(tmp_path: Path) -> Path:
    folder = tmp_path / "intents"
    folder.mkdir()
    rows = [{"text": text, "label": label} for label, texts in INTENTS.items() for text in texts]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    (folder / "test.jsonl").write_text(json.dumps({"text": "never read", "label": "lost_card"}) + "\n")
    return folder


def adds_up(found: Conversion) -> bool:
    return found.rows == found.positives + found.negatives + sum(found.dropped.values())


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_folder_of_splits_gives_the_examples_of_train(intents: Path, tmp_path: Path, suffix: str):
    settings = ConvertSettings(task="classification", instruction_for="banking77", negatives=2)
    found = convert(intents, out=tmp_path / f"examples.{suffix}", settings=settings)
    examples = read_examples(tmp_path / f"examples.{suffix}")
    assert adds_up(found)
    assert (found.examples, found.rows, found.dropped) == (11, 12, {"the same text and label again": 1})
    assert (found.by, found.labels, found.negatives_by, found.short) == ("example", 3, {"random": 22}, 0)
    assert [example.query for example in examples] == [text for texts in INTENTS.values() for text in texts]
    assert {(e.instruction, e.symmetric) for e in examples} == {
        ("Given a online banking query, find the corresponding intents", True)
    }
    assert examples[0].query_id == "train:1"


def test_a_teacher_mines_the_nearest_texts_of_other_classes(intents: Path, tmp_path: Path):
    settings = ConvertSettings(task="classification", negatives=3)
    out = tmp_path / "examples.jsonl"
    found = convert(intents, out=out, settings=settings, mining=MiningSettings(teachers=["bm25"], floor=0.01))
    label_of = {text: label for label, texts in INTENTS.items() for text in texts}
    examples = {example.query: example for example in read_examples(out)}
    for query, example in examples.items():
        assert all(label_of[passage.text] != label_of[query] for passage in example.negatives)
        mined = [passage.score for passage in example.negatives if passage.teacher == "bm25"]
        assert mined == sorted(mined, reverse=True)
        assert len(example.negatives) == 3
    # Four texts of lost_card are nearer to it than any other; they are no negatives.
    assert "card" in examples["my card is lost"].negatives[0].text
    assert examples["my card is lost"].negatives[0].teacher == "bm25"
    assert found.negatives_by["mined"] > 10
    assert found.negatives_by["mined"] + found.negatives_by["random"] == 33
    assert sorted(path.name for path in tmp_path.iterdir()) == ["examples.jsonl", "intents"]


def test_settings_say_the_same_when_they_are_written_out_and_read_again(intents: Path, tmp_path: Path):
    mining = MiningSettings(teachers=["bm25"])
    written = MiningSettings.parse(mining.model_dump(mode="json"), where="recipe")
    settings = ConvertSettings(task="classification", negatives=3)
    for name, how in (("as", mining), ("written", written)):
        convert(intents, out=tmp_path / name, settings=settings, mining=how)
    assert (tmp_path / "as").read_bytes() == (tmp_path / "written").read_bytes()


def test_labels_that_are_not_trusted_leave_it_to_the_method(intents: Path, tmp_path: Path):
    mining = MiningSettings(teachers=["bm25"], method="abs", threshold=-1.0)
    mined = {}
    for trust in (None, True, False):
        settings = ConvertSettings(task="classification", negatives=2, trust_labels=trust)
        mined[trust] = convert(intents, out=tmp_path / f"{trust}.jsonl", settings=settings, mining=mining).negatives_by
    # Some texts share no word with two texts of other classes: BM25 does not find the others.
    assert mined[None] == mined[True] == {"mined": 17, "random": 5}
    assert mined[False] == {"random": 22}  # no score lies under the threshold


def test_a_method_that_is_named_on_the_command_line_counts(embedsmith_command, intents: Path, tmp_path: Path):
    words = ["convert", intents, "--task", "classification", "--negatives", 2, "--teacher", "bm25", "--json"]
    abs_ = ["--method", "abs", "--mining-threshold", -1, "--out", tmp_path / "abs.jsonl"]
    assert embedsmith_command(*words, *abs_).json["negatives_by"] == {"random": 22}
    done = embedsmith_command(*words, "--out", tmp_path / "naive.jsonl", "--mining-threshold", -1)
    assert done.json["negatives_by"] == {"mined": 17, "random": 5}


def test_the_data_s_own_negatives_come_first_and_mined_ones_fill_up(tmp_path: Path):
    rows = [
        {"query": "where do cats sleep", "positive": ["cats sleep on mats"], "negative": ["cats eat mice"]},
        {"query": "where do dogs sleep", "positive": ["dogs sleep on logs"], "negative": ["dogs eat bones"] * 2},
        {"query": "who eats mice", "positive": ["owls eat mice"], "negative": []},
    ]
    data, out = tmp_path / "rerank.jsonl", tmp_path / "examples.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ConvertSettings(task="reranking", negatives=2)
    mining = MiningSettings(teachers=["bm25"], method="naive", floor=0.01)
    found = convert(data, out=out, settings=settings, mining=mining)
    first, _, third = read_examples(out)
    assert [(passage.text, passage.teacher) for passage in first.negatives] == [
        ("cats eat mice", "given"),
        ("dogs sleep on logs", "bm25"),
    ]
    assert third.negatives[0].text == "cats eat mice"
    assert first.positives[0].score is not None
    assert first.symmetric is False
    assert adds_up(found)


def test_a_conversion_that_was_cut_short_goes_on_and_gives_the_same_file(intents: Path, tmp_path: Path, monkeypatch):
    settings, mining = ConvertSettings(task="clustering"), MiningSettings(teachers=["bm25"])
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    convert(intents, out=whole, settings=settings, mining=mining)
    with monkeypatch.context() as patch:
        patch.setattr(converting, "iter_examples", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            convert(intents, out=cut, settings=settings, mining=mining)
    assert (tmp_path / "cut.jsonl.mining" / "candidates").is_dir()
    assert not cut.exists()
    with monkeypatch.context() as patch:
        patch.setattr("embedsmith.mining.mine.mine_candidates", lambda *_, **__: 1 / 0)
        convert(intents, out=cut, settings=settings, mining=mining)
    assert cut.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "cut.jsonl.mining").exists()


def test_bad_rows_are_counted_with_the_others(intents: Path, tmp_path: Path):
    with (intents / "train.jsonl").open("a") as file:
        file.write('{"text": "", "label": "lost_card"}\n{"text": "no label"}\n')
    settings = ConvertSettings(task="clustering")
    with pytest.raises(InputError, match=r"train\.jsonl:13: the text is empty"):
        convert(intents, out=tmp_path / "examples.jsonl", settings=settings)
    notes: list[str] = []
    found = convert(intents, out=tmp_path / "examples.jsonl", settings=settings, skip_bad=True, on_skip=notes.append)
    assert found.dropped == {"the same text and label again": 1, "empty text": 1, "no label": 1}
    assert adds_up(found)
    assert len(notes) == 2


def test_rows_that_make_no_example_are_an_error_with_the_reasons(tmp_path: Path):
    data = tmp_path / "nli.jsonl"
    data.write_text('{"premise": "a", "hypothesis": "b", "label": "neutral"}\n')
    with pytest.raises(InputError, match=r"nli\.jsonl: 1 rows make no example \(neutral: 1\)"):
        convert(data, out=tmp_path / "examples.jsonl", settings=ConvertSettings(task="nli"))


def test_the_command_says_what_it_made(embedsmith_command, intents: Path, tmp_path: Path):
    out = tmp_path / "examples.jsonl"
    words = ["convert", intents, "--task", "classification", "--style", "label", "--out", out, "--negatives", 2]
    done = embedsmith_command(*words, "--json")
    assert done.code == 0
    assert (done.json["examples"], done.json["rows"], done.json["by"]) == (11, 12, "label")
    assert done.json["path"] == str(out)
    assert read_examples(out)[0].positives[0].text == "lost card"
    done = embedsmith_command(*words)
    assert "12 rows: 11 made examples" in done.out
    assert "1 dropped: the same text and label again" in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "clasification"], "options: task"),
        (["--task", "sts", "--style", "label"], "style is for classification"),
        (["--task", "clustering", "--depth", 5], "--depth is for mined negatives"),
        (
            ["--task", "clustering", "--instruction-for", "bank77"],
            'no instruction for "bank77" (did you mean "banking77"?',
        ),
        (["--task", "clustering", "--split", "trian"], 'no split "trian" (did you mean "train"?)'),
    ],
)
def test_a_mistake_is_told_in_one_line(embedsmith_command, intents: Path, tmp_path: Path, words: list, message: str):
    done = embedsmith_command("convert", intents, *words, "--out", tmp_path / "examples.jsonl")
    assert done.code == 2
    assert message in done.error
    assert not (tmp_path / "examples.jsonl").exists()

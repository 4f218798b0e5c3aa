"""Selecting and auditing what was mined, and what a run must be for that."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embedsmith.data.files import read_json, write_json
from embedsmith.data.locks import Lock
from embedsmith.data.source import SourceSettings
from embedsmith.errors import InputError, RunError, SettingsError
from embedsmith.generation.settings import JudgeSettings
from embedsmith.mining.judge import judge
from embedsmith.mining.mine import mine
from embedsmith.mining.page import write_mining_report
from embedsmith.mining.select import audit_run, read_mined, select_again, write
from embedsmith.mining.settings import MiningSettings
from embedsmith.models.settings import StudentSettings
from embedsmith.runs.mined import content_of_candidates
from embedsmith.training.settings import StageSettings
from embedsmith.training.train import train

NAIVE = MiningSettings(teachers=["bm25", "random"], method="naive", depth=8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """16 queries with two positives each, and a negative that the data brings along."""
    path = tmp_path / "pairs.jsonl"
    names = ["apple", "pear", "plum", "fig"]
    rows = [
        {
            "query": f"where is the {a} of the {b}",
            "positive": [f"the {a} is on the {b}", f"a {b} holds the {a}"],
            "negative": [f"the {b} is on the {names[0]}"],
        }
        for a in ["cat", "dog", "owl", "bat"]
        for b in names
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def mined(data: Path, tmp_path: Path) -> Path:
    return mine(data, out=tmp_path / "mined", settings=NAIVE).folder


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "negatives.jsonl").read_text().splitlines()]


def test_selecting_again_gives_what_mining_so_gives(data: Path, mined: Path, tmp_path: Path):
    changes = {"method": "percpos", "ratio": 1.5, "negatives": 3, "sampler": "uniform", "keep_negatives": True}
    one = select_again(mined, out=tmp_path / "again", changes=changes).folder
    other = mine(data, out=tmp_path / "other", settings=NAIVE.model_copy(update=changes)).folder
    assert (one / "negatives.jsonl").read_bytes() == (other / "negatives.jsonl").read_bytes()
    third = select_again(one, out=tmp_path / "third", changes={"keep_negatives": False, "method": "naive"})
    assert {**third.manifest["settings"], "method": "percpos"} == {
        **read_json(one / "manifest.json")["settings"],
        "keep_negatives": False,
    }


def test_negatives_of_the_data_come_first_and_once(mined: Path, tmp_path: Path):
    rows = rows_of(select_again(mined, out=tmp_path / "kept", changes={"keep_negatives": True}).folder)
    for row in rows:
        given = [passage["text"] for passage in row["negatives"] if passage["teacher"] == "given"]
        assert len(given) == 1
        assert [passage["text"] for passage in row["negatives"]].index(given[0]) == 0
        assert len({passage["text"] for passage in row["negatives"]}) == len(row["negatives"]) == 5


def test_the_target_of_the_audit_is_met_and_what_was_chosen_is_written(mined: Path, tmp_path: Path):
    run = select_again(mined, out=tmp_path / "aimed", changes={"method": "percpos"}, target_false_negatives=0.3)
    assert run.manifest["counts"]["calibration"]["false_negative_rate"] <= 0.3
    assert audit_run(run.folder)["this run"].false_negative_rate <= 0.3
    assert read_mined(run.folder).settings.ratio == run.manifest["settings"]["ratio"]


def test_only_a_finished_run_of_mine_or_select_is_read(mined: Path, tmp_path: Path):
    manifest = read_json(mined / "manifest.json")
    write_json(mined / "manifest.json", {**manifest, "status": "running"})
    with pytest.raises(RunError, match="a run that was cut short"):
        read_mined(mined)
    write_json(mined / "manifest.json", {**manifest, "command": "train"})
    with pytest.raises(RunError, match="made by `train`, wanted a run of `mine` or `select`"):
        select_again(mined, out=tmp_path / "again")
    with pytest.raises(RunError, match="no such run folder"):
        audit_run(tmp_path / "none")


def test_data_that_is_gone_or_changed_is_not_selected_from(data: Path, mined: Path, tmp_path: Path):
    text = data.read_text()
    data.write_text(text.replace("owl", "elk"))
    with pytest.raises(RunError, match="has changed since it was mined"):
        select_again(mined, out=tmp_path / "again")
    data.unlink()
    with pytest.raises(InputError, match="the data it was mined from is gone"):
        audit_run(mined)
    data.write_text(text)
    shutil.rmtree(mined / "candidates")
    with pytest.raises(InputError, match="candidates: no candidates"):
        audit_run(mined)


def test_a_passage_that_a_file_lists_is_nobodys_negative(data: Path, mined: Path, tmp_path: Path):
    taken = rows_of(mined)[0]["negatives"][0]["id"]
    (tmp_path / "ids.txt").write_text(f"{taken}\n")
    source = SourceSettings(exclude_ids=str(tmp_path / "ids.txt"))
    run = mine(data, out=tmp_path / "without", settings=NAIVE, source=source).folder
    assert taken not in {passage["id"] for row in rows_of(run) for passage in row["negatives"]}
    again = select_again(run, out=tmp_path / "again", changes={"negatives": 6}).folder
    assert taken not in {passage["id"] for row in rows_of(again) for passage in row["negatives"]}


@pytest.mark.parametrize("rate", [math.nan, -0.1, 1.1])
def test_a_rate_that_is_none_is_refused(mined: Path, tmp_path: Path, rate: float):
    with pytest.raises(SettingsError, match=f"target_false_negatives: {rate:g}, wanted a rate"):
        select_again(mined, out=tmp_path / "aimed", target_false_negatives=rate)
    assert not (tmp_path / "aimed").exists()


def readers(tmp_path: Path) -> dict[str, Callable[[Path], object]]:
    """What reads a run of `mine` or `select`, by the command's name."""
    stage, student = StageSettings(steps=1, report_to="none"), StudentSettings(name=str(tmp_path / "no-model"))
    judge_settings = JudgeSettings(url="http://127.0.0.1:9/v1#toy")
    return {
        "audit": lambda run: audit_run(run),
        "report": lambda run: write_mining_report(run),
        "select": lambda run: select_again(run, out=tmp_path / "selected"),
        "write": lambda run: write(run, out=tmp_path / "written.jsonl"),
        "judge": lambda run: judge(run, settings=judge_settings),
        "train": lambda run: train(run, out=tmp_path / "trained", student=student, stage=stage),
    }


@pytest.mark.parametrize("links", [1, 2])
def test_a_selection_whose_origin_was_mined_again_in_its_place_is_not_read(
    data: Path, mined: Path, tmp_path: Path, links: int
):
    run = mined
    for link in range(links):
        run = select_again(run, out=tmp_path / f"link-{link}", changes={"negatives": 2}).folder
    text = (run / "negatives.jsonl").read_bytes()
    shutil.rmtree(mined)
    mine(data, out=mined, settings=NAIVE.model_copy(update={"teachers": ["random"]}))
    for read in readers(tmp_path).values():
        with pytest.raises(RunError, match=r"link-. was mined again since|mined was mined again since") as raised:
            read(run)
        assert raised.value.hint.startswith("select again: embedsmith select")
    assert (run / "negatives.jsonl").read_bytes() == text
    assert not list(tmp_path.glob("selected")) + list(tmp_path.glob("trained")) + list(tmp_path.glob("written*"))


def test_an_origin_that_was_mined_again_with_the_same_candidates_is_the_same(data: Path, mined: Path, tmp_path: Path):
    run = select_again(mined, out=tmp_path / "selected", changes={"negatives": 2}).folder
    shutil.rmtree(mined)
    mine(data, out=mined, settings=NAIVE.model_copy(update={"negatives": 1, "method": "percpos"}))
    assert audit_run(run)
    # A selection holds its negatives by itself; one that an older version made knows nothing of its origin.
    shutil.rmtree(mined)
    assert write(run, out=tmp_path / "written.jsonl").rows == 16
    mine(data, out=mined, settings=NAIVE.model_copy(update={"teachers": ["random"]}))
    manifest = read_json(run / "manifest.json")
    del manifest["content"]["candidates"]
    write_json(run / "manifest.json", manifest)
    assert audit_run(run)


def test_an_origin_that_is_being_mined_again_is_named(data: Path, mined: Path, tmp_path: Path):
    run = select_again(mined, out=tmp_path / "selected", changes={"negatives": 2}).folder
    manifest = read_json(mined / "manifest.json")
    write_json(mined / "manifest.json", {**manifest, "status": "running"})
    with pytest.raises(RunError, match="mined: a run that was cut short"):
        write(run, out=tmp_path / "written.jsonl")
    lock = Lock.in_folder(mined)
    assert lock.take()
    with pytest.raises(RunError, match=f"mined: process {os.getpid()} on .* is still writing it"):
        write(run, out=tmp_path / "written.jsonl")
    lock.release()


@pytest.mark.parametrize("reads", [audit_run, read_mined])
def test_exclusions_that_changed_after_mining_are_told(data: Path, mined: Path, tmp_path: Path, reads):
    ids = [passage["id"] for passage in rows_of(mined)[0]["negatives"]]
    (tmp_path / "ids.txt").write_text(f"{ids[0]}\n")
    source = SourceSettings(exclude_ids=str(tmp_path / "ids.txt"))
    run = mine(data, out=tmp_path / "without", settings=NAIVE, source=source).folder
    assert reads(run)
    (tmp_path / "ids.txt").write_text(f"{ids[1]}\n")
    with pytest.raises(RunError, match=r"without: what .*ids.txt excludes has changed since it was mined"):
        reads(run)


def test_the_hash_of_candidates_is_that_of_their_arrays(mined: Path):
    noted = content_of_candidates(mined / "candidates")
    plain = read_json(mined / "candidates" / "teachers.json")
    assert plain.pop("content") == noted
    write_json(mined / "candidates" / "teachers.json", plain)  # as older versions wrote it
    assert content_of_candidates(mined / "candidates") == noted
    scores = np.load(mined / "candidates" / "scores.npy")
    scores[0, 0, 0] += 1
    np.save(mined / "candidates" / "scores.npy", scores)
    assert content_of_candidates(mined / "candidates") != noted

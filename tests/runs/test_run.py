"""Run folders: begun once, gone on with, never overwritten."""

import errno
import json
import os
import socket
from pathlib import Path

import pytest
import yaml

from embedsmith.errors import InputError, RunError
from embedsmith.mining.settings import MiningSettings
from embedsmith.runs import run as runs
from embedsmith.runs.run import Run, finished, read_manifest

SETTINGS = MiningSettings(negatives=3)


def open_run(folder: Path, *, command: str = "mine", settings: MiningSettings = SETTINGS, data: str = "a") -> Run:
    return Run.open(folder, command=command, settings=settings, inputs={"data": data})


def test_a_new_run_says_what_it_is(tmp_path: Path):
    with open_run(tmp_path / "deep" / "run"):
        pass
    manifest = read_manifest(tmp_path / "deep" / "run")
    assert (manifest["command"], manifest["status"], manifest["inputs"]) == ("mine", "running", {"data": "a"})
    assert manifest["settings"]["negatives"] == 3
    assert {"embedsmith", "torch", "transformers"} <= set(manifest["versions"])
    recipe = yaml.safe_load((tmp_path / "deep" / "run" / "recipe.yaml").read_text())
    assert MiningSettings.parse(recipe, where="recipe") == SETTINGS


def test_seconds_and_counts_add_up_over_all_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 2.0, 10.0, 13.5, 20.0, 21.0])
    monkeypatch.setattr(runs.time, "monotonic", lambda: next(clock))
    run = open_run(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt, match="now"), run.timed("mine"):
        raise KeyboardInterrupt("now")
    run.count("mining", {"queries": 7})
    del run  # and with it the lock
    with open_run(tmp_path / "run") as again:
        with again.timed("mine"):
            pass
        with again.timed("select"):
            pass
    assert again.manifest["seconds"] == {"mine": 5.5, "select": 1.0}
    assert again.seconds == 6.5
    assert read_manifest(tmp_path / "run")["counts"] == {"mining": {"queries": 7}}


def test_seconds_of_work_within_other_work_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 1.0, 4.0, 5.0, 7.0, 10.0])
    monkeypatch.setattr(runs.time, "monotonic", lambda: next(clock))
    run = open_run(tmp_path / "run")
    with run.timed("train"):
        with run.timed("mine"):
            pass
        with pytest.raises(KeyboardInterrupt, match="now"), run.timed("mine"):
            raise KeyboardInterrupt("now")
    assert run.manifest["seconds"] == {"mine": 5.0, "train": 5.0}
    assert run.seconds == 10.0


def test_a_finished_run_is_refused(tmp_path: Path):
    open_run(tmp_path / "run").finish()
    with pytest.raises(RunError, match="this run is finished already"):
        open_run(tmp_path / "run")


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_run_with_other_settings_is_refused_with_what_changed(tmp_path: Path, is_finished: bool):
    with open_run(tmp_path / "run") as run:
        if is_finished:
            run.finish()
    with pytest.raises(RunError, match=r"holds another run \(negatives 3, now 5\)"):
        open_run(tmp_path / "run", settings=MiningSettings(negatives=5))


def test_a_run_on_other_data_is_refused_with_what_changed(tmp_path: Path):
    open_run(tmp_path / "run")
    with pytest.raises(RunError, match=r"\(input.data 'a', now 'b'\)"):
        open_run(tmp_path / "run", data="b")


def test_another_commands_run_is_refused(tmp_path: Path):
    open_run(tmp_path / "run")
    with pytest.raises(RunError, match="it was made by `mine`"):
        open_run(tmp_path / "run", command="train")


def test_a_folder_that_is_not_a_run_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty and not a run folder"):
        open_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_empty_folder_becomes_a_run(tmp_path: Path):
    assert open_run(tmp_path).manifest["status"] == "running"


def test_a_file_is_refused_as_a_run(tmp_path: Path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match="a file, wanted a folder to write"):
        open_run(tmp_path / "run")


def test_a_run_whose_first_files_found_no_space_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for write in ("write_json", "atomic_write"):
        with monkeypatch.context() as patch:
            patch.setattr(runs, write, full)
            with pytest.raises(OSError, match="No space left"):
                open_run(tmp_path / "run")
    assert open_run(tmp_path / "run").manifest["status"] == "running"
    assert (tmp_path / "run" / "recipe.yaml").is_file()


def test_a_run_that_is_being_written_is_refused_whatever_is_asked_for(tmp_path: Path):
    me = f"process {os.getpid()} on {socket.gethostname()}"
    with open_run(tmp_path / "run") as run:
        (run.folder / ".a.0f.partial").write_text("of the process that writes")
        before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
        for other in ({}, {"command": "train"}, {"data": "b"}, {"settings": MiningSettings(negatives=5)}):
            with pytest.raises(RunError, match=f"run: {me} is writing it") as refused:
                open_run(tmp_path / "run", **other)
            assert "wait" in refused.value.hint
        with pytest.raises(RunError, match=f"run: {me} is still writing it"):
            finished(run.folder)
        assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before
        run.finish()
    assert finished(tmp_path / "run")["status"] == "finished"
    assert {path.name for path in run.folder.iterdir()} == before.keys() - {".lock"}


def test_the_early_mistake_of_a_second_process_leaves_the_first_ones_run_alone(tmp_path: Path):
    with open_run(tmp_path / "run") as first:
        with pytest.raises(RunError, match="is writing it"), open_run(tmp_path / "run"):
            pass
        first.count("mining", {"queries": 1})
        first.finish()
    assert read_manifest(tmp_path / "run")["counts"] == {"mining": {"queries": 1}}


def test_a_mistake_before_anything_is_made_leaves_no_folder(tmp_path: Path):
    with pytest.raises(RunError, match="has changed"), open_run(tmp_path / "run") as run:
        run.same_content("pairs", "aaaa")
        run.same_content("pairs", "bbbb")
    assert not list(tmp_path.iterdir())


def test_a_folder_with_nothing_but_what_a_killed_process_left_of_its_beginning_is_empty(tmp_path: Path):
    (tmp_path / "run").mkdir()
    for name in (".lock", ".manifest.json.0f.partial"):
        (tmp_path / "run" / name).write_text("")
    with open_run(tmp_path / "run"):
        pass
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"manifest.json", "recipe.yaml"}


def test_a_run_that_goes_on_removes_partial_files_where_nobody_else_writes(tmp_path: Path):
    with open_run(tmp_path / "run") as run:
        for place in ("mined", "vectors/store", "shared/stages", "cells/a"):
            (run.folder / place).mkdir(parents=True)
            (run.folder / place / ".a.0f.partial").write_text("")
    with open_run(tmp_path / "run"):
        pass
    left = {str(path.parent.relative_to(run.folder)) for path in run.folder.rglob("*.partial")}
    assert left == {"vectors/store", "shared/stages", "cells/a"}


def test_what_is_not_a_run_has_no_manifest(tmp_path: Path):
    with pytest.raises(RunError, match="no such run folder"):
        read_manifest(tmp_path / "none")
    with pytest.raises(RunError, match="not a run folder"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"manifest.json: not JSON"):
        read_manifest(tmp_path)


def test_a_manifest_is_json_that_people_read(tmp_path: Path):
    open_run(tmp_path / "run")
    text = (tmp_path / "run" / "manifest.json").read_text()
    assert json.loads(text)["status"] == "running"
    assert "\n" in text.strip()


def test_a_run_does_not_go_on_with_data_that_changed(tmp_path):
    def again():
        return Run.open(tmp_path / "run", command="mine", settings=MiningSettings(), inputs={})

    for _ in range(2):
        with again() as run:
            run.same_content("pairs", "aaaa")
            (run.folder / "work").mkdir(exist_ok=True)
    with pytest.raises(RunError, match="pairs has changed since this run began"), again() as run:
        run.same_content("pairs", "bbbb")

"""The shelf under several processes: each result is made once, by one of them; a killed one keeps nobody waiting."""

import os
import signal
import time
from pathlib import Path

import pytest

from embedsmith.data.files import write_json
from embedsmith.data.locks import Lock
from embedsmith.errors import RunError
from embedsmith.recipes.shelf import Shelf, once
from tests.vectors.test_store import in_processes

WHAT = {"data": "toy"}


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("kill", [False, True])
def test_processes_that_need_the_same_result_make_it_once(tmp_path: Path, kind: str, kill: bool):
    def work(number: int) -> None:
        target = tmp_path / f"run-{number}" / "result"
        with once(Shelf(tmp_path / "shelf"), "code", lambda: WHAT, target):
            if target.exists():
                return
            (tmp_path / f"made-{number}").touch()
            time.sleep(0.1)
            if kill and len(list(tmp_path.glob("made-*"))) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            write_json(target if kind == "file" else target / "part.json", {"of": "all"})

    ends = in_processes(*(lambda number=number: work(number) for number in range(4)))
    assert sorted(ends) == ([-signal.SIGKILL] if kill else [0]) + [0, 0, 0]
    assert len(list(tmp_path.glob("made-*"))) == (2 if kill else 1)
    whole = [number for number, end in enumerate(ends) if end == 0]
    results = {path for number in whole for path in (tmp_path / f"run-{number}").rglob("*") if path.is_file()}
    assert len(results) == len(whole)
    assert len({path.stat().st_ino for path in results}) == 1, "linked, not made again"
    (entry,) = (tmp_path / "shelf" / "code").iterdir()
    assert {path.name for path in entry.iterdir()} == {"about.json", "content"}


def test_what_is_on_the_shelf_is_taken_though_another_process_holds_the_lock(tmp_path: Path):
    shelf, source = Shelf(tmp_path / "shelf"), tmp_path / "source"
    write_json(source, 1)
    shelf.keep("code", WHAT, source)
    (entry,) = (tmp_path / "shelf" / "code").iterdir()
    lock = Lock.beside(entry)
    assert lock.take()
    with once(shelf, "code", lambda: WHAT, tmp_path / "target"):
        assert (tmp_path / "target").samefile(source)
    lock.release()


def test_who_waits_for_a_result_is_told_for_whom(tmp_path: Path):
    shelf = Shelf(tmp_path / "shelf")
    notes: list[str] = []

    def tell(what: str, done: int, total: int, note: str = "") -> None:
        notes.append(f"{what} {note}")
        lock.release()

    with shelf.making("code", WHAT, tell):
        (path,) = (tmp_path / "shelf" / "code").iterdir()
    lock = Lock(path)
    assert lock.take()
    with shelf.making("code", WHAT, tell):
        pass
    assert [note.split(" on ")[0] for note in notes] == [f"shared code waits for process {os.getpid()}"]


@pytest.mark.parametrize(
    ("kind", "noted", "wrong"),
    [
        ("candidates", {}, "guide"),
        ("candidates", {"guide": {"teacher": "bm25"}}, "guide"),
        ("stages", {"counts": {}}, "steps"),
        ("stages", {"steps": []}, "counts"),
        ("scores", {"model_hash": 5}, "model_hash"),
    ],
)
def test_a_note_that_lacks_what_is_read_of_it_is_refused(tmp_path: Path, kind: str, noted: dict, wrong: str):
    shelf = Shelf(tmp_path / "shelf")
    (tmp_path / "made").write_text("made")
    shelf.keep(kind, "identity", tmp_path / "made", about=noted)
    with pytest.raises(RunError, match=f"not what is known of {kind}: nothing fits under {wrong}"):
        shelf.about(kind, "identity")

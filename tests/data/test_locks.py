"""Locks: one holder at a time, who is named; a killed one is none."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from embedsmith import system
from embedsmith.data import locks
from embedsmith.data.locks import Lock, file_held, sole_writer, waiting
from embedsmith.errors import RunError

ME = f"process {os.getpid()} on {socket.gethostname()}"


def child(work) -> int:
    """Run a function in a process of its own; return its number."""
    number = os.fork()
    if number == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return number


def until(true) -> None:
    ends = time.monotonic() + 20
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.005)


def test_a_lock_has_one_holder_who_is_named_and_leaves_nothing_behind(tmp_path: Path):
    one, other = Lock.in_folder(tmp_path / "run"), Lock.in_folder(tmp_path / "run")
    assert one.take()
    assert (other.take(patience_s=0.0), other.holder, other.held_by) == (False, ME, ME)
    one.release()
    assert not list((tmp_path / "run").iterdir())
    assert (other.held_by, other.take(patience_s=0.0)) == (None, True)
    other.release()


def test_a_file_that_is_being_written_is_refused_in_one_line_that_names_the_writer(tmp_path: Path):
    with sole_writer(tmp_path / "out.npy"):
        with (
            pytest.raises(RunError, match=rf"out\.npy: {ME} is writing it") as refused,
            sole_writer(tmp_path / "out.npy"),
        ):
            pass
        assert "wait" in refused.value.hint
        assert [path.name for path in tmp_path.iterdir()] == [".out.npy.lock"]
    with sole_writer(tmp_path / "out.npy"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_a_killed_process_has_left_blocks_nobody(tmp_path: Path):
    lock = Lock.in_folder(tmp_path)
    killed = child(lambda: (lock.take(), time.sleep(60)))
    until(lambda: lock.held_by == f"process {killed} on {socket.gethostname()}")
    os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    assert lock.path.exists()
    assert (lock.held_by, lock.take(patience_s=0.0), lock.held_by is None) == (None, True, False)
    lock.release()
    assert not list(tmp_path.iterdir())


def test_a_child_that_was_forked_meanwhile_does_not_keep_the_lock(tmp_path: Path):
    lock = Lock.in_folder(tmp_path)
    assert lock.take()
    forked = child(lambda: time.sleep(60))
    lock.release()
    assert lock.take(patience_s=0.0)
    lock.release()
    os.kill(forked, signal.SIGKILL)
    os.waitpid(forked, 0)


def test_who_waits_is_told_for_whom_and_goes_on_when_that_one_ends(tmp_path: Path):
    lock = Lock.in_folder(tmp_path)
    assert lock.take()
    notes: list[str] = []

    def wait() -> None:
        with waiting(Lock.in_folder(tmp_path), notes.append):
            notes.append("held")

    waits = threading.Thread(target=wait)
    waits.start()
    until(lambda: notes)
    assert notes == [ME]
    lock.release()
    waits.join(20)
    assert notes == [ME, "held"]
    assert not list(tmp_path.iterdir())


def test_of_many_who_take_and_remove_it_no_two_ever_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locks, "_PAUSE_S", 0.001)
    # Each adds to a number by reading and writing it; the folder itself goes away in between.
    count = tmp_path / "count"
    count.write_text("0")

    def work() -> None:
        for _ in range(15):
            lock = Lock.in_folder(tmp_path / "run")
            lock.wait()
            number = int(count.read_text())
            time.sleep(0.0005)
            count.write_text(str(number + 1))
            lock.release()
            with suppress(OSError):
                (tmp_path / "run").rmdir()

    children = [child(work) for _ in range(4)]
    for number in children:
        assert os.waitpid(number, 0)[1] == 0
    assert count.read_text() == "60"


def test_a_file_system_without_locks_holds_nothing_and_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def flock(file: int, how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(system.fcntl, "flock", flock)
    with sole_writer(tmp_path / "a"), open(tmp_path / "b", "wb") as file, file_held(file):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_else_goes_wrong_with_a_lock_is_the_systems_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def flock(file: int, how: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(system.fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"), sole_writer(tmp_path / "a"):
        pass

"""The journal: nothing that was written is lost, and nothing that was half written is believed."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from embedsmith.data.locks import file_held
from embedsmith.errors import InputError
from embedsmith.services.journal import Journal


def test_entries_are_there_when_it_is_opened_again(tmp_path: Path):
    journal = Journal(tmp_path / "new" / "journal.jsonl")
    journal.add("a", {"text": "ünïcode 🙂\n", "tokens": 3})
    journal.add("b", {"text": ""})
    again = Journal(tmp_path / "new" / "journal.jsonl")
    assert again.get("a") == {"text": "ünïcode 🙂\n", "tokens": 3}
    assert (again.get("b"), again.get("c"), len(again)) == ({"text": ""}, None, 2)


def test_a_journal_cut_at_any_byte_holds_the_whole_lines_and_goes_on(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    for key in "abc":
        journal.add(key, {"text": f"answer {key} €"})
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        again = Journal(path)
        assert len(again) == whole[:cut].count(b"\n")
        again.add("d", {"text": "more"})
        assert path.read_bytes() == whole[: whole.rfind(b"\n", 0, cut) + 1] + b'{"key":"d","text":"more"}\n'


@pytest.mark.parametrize("line", [b"not json", b"[1]", b'{"text": "no key"}', b'"key"'])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"key":"a"}\n' + line + b"\n")
    with pytest.raises(InputError, match=r"journal\.jsonl:2: a damaged line"):
        Journal(path)


def test_threads_do_not_write_into_each_others_lines(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    threads = [
        threading.Thread(target=lambda t=t: [journal.add(f"{t}-{i}", {"text": "x" * 999}) for i in range(20)])
        for t in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Journal(path)) == 120


def test_a_line_that_another_process_is_writing_is_neither_believed_nor_cut(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    Journal(path).add("a", {"text": "whole"})
    with open(path, "ab", buffering=0) as writer, file_held(writer):
        writer.write(b'{"key":"b","te')
        journal = Journal(path)
        assert (len(journal), journal.get("b")) == (1, None)
        assert path.read_bytes().endswith(b'{"key":"b","te')
        # Who wants to add waits until the line is whole.
        adds = threading.Thread(target=journal.add, args=("c", {"text": "mine"}))
        adds.start()
        time.sleep(0.05)
        writer.write(b'xt":"paid"}\n')
    adds.join(20)
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["a", "b", "c"]
    assert journal.get("b") == {"text": "paid"}


def test_what_another_has_added_is_found_and_not_written_twice(tmp_path: Path):
    one, other = Journal(tmp_path / "journal.jsonl"), Journal(tmp_path / "journal.jsonl")
    one.add("a", {"text": "first"})
    assert other.get("a") is None
    other.add("a", {"text": "second"})
    assert other.get("a") == {"text": "first"}
    one.add("b", {"text": ""})
    other.refresh()
    assert len(other) == 2
    assert (tmp_path / "journal.jsonl").read_text().count("\n") == 2


def test_of_processes_that_are_killed_again_and_again_no_whole_line_is_lost_and_none_is_doubled(tmp_path: Path):
    # Six processes add the same answers, each from another one on; four of them are killed somewhere in between.
    path, notes = tmp_path / "journal.jsonl", tmp_path / "notes"
    notes.mkdir()
    children = []
    for number in range(6):
        if (child := os.fork()) == 0:
            journal = Journal(path)
            for step in range(60):
                key = str((step + 10 * number) % 60)
                journal.add(key, {"text": f"{key} €" * 200})
                (notes / f"{number}-{key}").touch()
            os._exit(0)
        children.append(child)
    for number, child in enumerate(children[:4]):
        while len(list(notes.glob(f"{number}-*"))) < 5 * (number + 1):
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
    ends = [os.waitpid(child, 0)[1] for child in children]
    assert ends[4:] == [0, 0]
    keys = [json.loads(line)["key"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert sorted(keys) == sorted(map(str, range(60)))
    assert len(Journal(path)) == 60

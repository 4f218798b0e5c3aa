"""The journal: nothing that was written is lost, and nothing that was half written is believed."""

import threading
from pathlib import Path

import pytest

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

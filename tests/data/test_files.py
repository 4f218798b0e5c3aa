"""Files that are whole or absent, and JSON lines with line numbers."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from embedsmith.data.files import (
    atomic_write,
    link_file,
    read_json,
    read_jsonl,
    remove_partials,
    remove_partials_of,
    whole_folder,
    write_array,
    write_json,
    write_jsonl,
)
from embedsmith.errors import InputError


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_holds_the_text_and_nothing_else_is_left(tmp_path):
    with atomic_write(tmp_path / "a.txt") as file:
        file.write("Grüße\n")
    assert (tmp_path / "a.txt").read_bytes() == "Grüße\n".encode()
    assert names(tmp_path) == ["a.txt"]


def test_bytes_are_written_as_they_are(tmp_path):
    with atomic_write(tmp_path / "a.bin", "wb") as file:
        file.write(b"\r\n\x00")
    assert (tmp_path / "a.bin").read_bytes() == b"\r\n\x00"


def test_folders_on_the_way_are_made(tmp_path):
    write_json(tmp_path / "a" / "b" / "c.json", 1)
    assert read_json(tmp_path / "a" / "b" / "c.json") == 1


def test_until_the_end_a_reader_sees_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_write(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path, failure):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(failure, match="in the middle"), atomic_write(path) as file:
        file.write("half")
        raise failure("in the middle")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_two_writers_of_one_name_do_not_mix(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_write(path) as one, atomic_write(path) as other:
        one.write("one")
        other.write("other")
    assert path.read_text() == "one"  # the outer block ends last
    assert names(tmp_path) == ["a.txt"]


def test_json_comes_back_as_it_was(tmp_path):
    value = {"text": "猫 \u2028 \x85", "list": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "猫" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_a_missing_json_file_is_the_callers_mistake(tmp_path):
    with pytest.raises(InputError, match=r"a\.json: no such file"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("content", [b"{", b"", b"\xff"])
def test_a_file_that_is_not_json_is_the_callers_mistake(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json: not JSON"):
        read_json(tmp_path / "a.json")


def test_json_lines_come_back_with_their_numbers(tmp_path):
    # U+2028 and U+0085 break lines for str.splitlines, and do not end a line of JSON lines.
    rows = [{"text": "a\u2028b"}, {"text": "c\x85d"}, {"text": "e\nf"}]
    write_jsonl(tmp_path / "a.jsonl", iter(rows))
    assert list(read_jsonl(tmp_path / "a.jsonl")) == list(enumerate(rows, start=1))
    assert len((tmp_path / "a.jsonl").read_bytes().split(b"\n")) == 4


def test_blank_lines_are_skipped_and_counted(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\n{"a": 1}\r\n  \r\n{"a": 2}')
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [(2, {"a": 1}), (4, {"a": 2})]


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\n')
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [(1, {"a": 1})]


def test_an_empty_file_has_no_rows(tmp_path):
    (tmp_path / "a.jsonl").touch()
    assert list(read_jsonl(tmp_path / "a.jsonl")) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": \xff}', r"a\.jsonl:2: not UTF-8 \(byte 7 of the line\)"),
        (b'{"a": 1', r"a\.jsonl:2: broken JSON: "),
        (b'{"a": 1} {"a": 2}', r"a\.jsonl:2: broken JSON: Extra data"),
        (b"[1]", r"a\.jsonl:2: got a list, wanted an object"),
        (b'"text"', r"a\.jsonl:2: got a string, wanted an object"),
    ],
)
def test_a_line_that_is_no_object_is_named(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(InputError, match=message) as caught:
        list(read_jsonl(tmp_path / "a.jsonl"))
    assert caught.value.hint


def test_rows_before_a_broken_line_are_read(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{\n')
    rows = read_jsonl(tmp_path / "a.jsonl")
    assert next(rows) == (1, {"a": 1})
    with pytest.raises(InputError, match="broken JSON"):
        next(rows)


def test_missing_json_lines_are_the_callers_mistake(tmp_path):
    with pytest.raises(InputError, match=r"a\.jsonl: no such file"):
        list(read_jsonl(tmp_path / "a.jsonl"))


def test_a_row_that_is_not_json_leaves_no_file(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_jsonl(tmp_path / "a.jsonl", [{"a": 1}, {"a": object()}])
    assert names(tmp_path) == []


def test_each_row_is_one_line_of_json(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"b": 1, "a": "ä"}])
    assert (tmp_path / "a.jsonl").read_text(encoding="utf-8") == '{"b":1,"a":"ä"}\n'
    assert json.loads((tmp_path / "a.jsonl").read_text(encoding="utf-8")) == {"a": "ä", "b": 1}


def test_a_disk_that_is_full_names_the_file_and_leaves_none(tmp_path: Path):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*vectors\.npy'"):  # noqa: SIM117
        with atomic_write(tmp_path / "vectors.npy", "wb") as file:
            file.write(b"half")
            with open("/dev/full", "wb", buffering=0) as full:
                full.write(b"no")
    assert list(tmp_path.iterdir()) == []


def test_arrays_are_written_as_numpy_reads_them_and_partial_files_are_removed(tmp_path: Path):
    for name, array in {"a": np.arange(6).reshape(2, 3).T, "b": np.zeros((0, 4), np.float32)}.items():
        write_array(tmp_path / f"{name}.npy", array)
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), array)
    (tmp_path / "deep" / ".c.partial").mkdir(parents=True)
    (tmp_path / "deep" / ".c.partial" / "rows.npy").write_text("half")
    (tmp_path / ".d.npy.1234.partial").write_text("half")
    remove_partials(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.npy", "b.npy", "deep"]


def test_what_safetensors_says_of_a_full_disk_is_a_systems_error(tmp_path):
    (tmp_path / "model").mkdir()
    said = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(OSError, match="No space left on device") as caught, whole_folder(tmp_path / "model") as partial:
        (partial / "half").touch()
        raise SafetensorError(said)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "model")
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_what_says_nothing_of_the_system_stays_what_it_is(tmp_path):
    with pytest.raises(SafetensorError, match=r"^no shape$"), whole_folder(tmp_path / "model"):
        raise SafetensorError("no shape")


def test_two_writers_of_one_folder_do_not_mix(tmp_path):
    with whole_folder(tmp_path / "a") as one, whole_folder(tmp_path / "a") as other:
        for folder, text in ((one, "one"), (other, "other")):
            (folder / "text").write_text(text)
            (folder / text).write_text("")
    assert names(tmp_path) == ["a"]
    assert (names(tmp_path / "a"), (tmp_path / "a" / "text").read_text()) == (["one", "text"], "one")


def test_a_folder_that_another_writer_has_made_meanwhile_is_left_where_nothing_is_to_be_replaced(tmp_path):
    with (
        pytest.raises(InputError, match="a: is there already"),
        whole_folder(tmp_path / "a", replaces=False),
        whole_folder(tmp_path / "a", replaces=False) as other,
    ):
        (other / "text").write_text("other")
    with pytest.raises(InputError, match="a: is there already"), whole_folder(tmp_path / "a", replaces=False):
        raise AssertionError("notes before the work")
    assert (names(tmp_path), names(tmp_path / "a")) == (["a"], ["text"])


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "a").mkdir()
    with whole_folder(tmp_path / "a", replaces=False) as partial:
        (partial / "text").write_text("")
    assert names(tmp_path / "a") == ["text"]


def test_partial_files_go_but_those_in_folders_with_a_lock_of_their_own(tmp_path):
    for place in ("run", "run/vectors/store", "run/mined"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / ".a.0f.partial").write_text("")
        (tmp_path / place / "a.partial").write_text("")
    remove_partials(tmp_path / "run", but=["vectors"])
    left = sorted(str(path.relative_to(tmp_path / "run")) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["a.partial", "mined/a.partial", "vectors/store/.a.0f.partial", "vectors/store/a.partial"]


def test_what_is_left_of_one_file_goes_and_nothing_else(tmp_path):
    for name in (".a.txt.0f.partial", ".ab.txt.0f.partial", ".a.txt", "a.txt"):
        (tmp_path / name).write_text("")
    remove_partials_of(tmp_path / "a.txt")
    assert names(tmp_path) == [".a.txt", ".ab.txt.0f.partial", "a.txt"]


def test_a_linked_file_is_the_same_file_under_a_name_that_may_be_taken(tmp_path):
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    for _ in range(2):
        link_file(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "a").samefile(tmp_path / "b")
    assert names(tmp_path) == ["a", "b"]

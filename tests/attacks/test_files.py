"""What lies beside or behind the place that a command writes: links, files of the user's, rights of others."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from embedsmith.data.files import atomic_write, link_file, remove_partials_of, whole_folder, write_array, write_tensors
from embedsmith.data.locks import Lock
from embedsmith.errors import InputError
from embedsmith.pipeline.encode import encode
from embedsmith.pipeline.runs import Run
from embedsmith.services.journal import Journal
from embedsmith.training.settings import StageSettings


@pytest.mark.parametrize("replaces", [True, False])
@pytest.mark.parametrize("leads_to", ["full", "empty", "nowhere", "file", "itself"])
def test_a_folder_is_not_written_in_the_place_of_a_link(tmp_path: Path, leads_to: str, replaces: bool):
    for name in ("full", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "full/precious").write_text("mine")
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "itself"
    out.symlink_to(tmp_path / leads_to)
    with pytest.raises(InputError, match="a link to"), whole_folder(out, replaces=replaces) as partial:
        (partial / "made").write_text("ours")
    assert out.is_symlink()
    assert (tmp_path / "full/precious").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full", "itself"]


def test_what_a_caller_does_wrong_is_told_when_the_run_folder_is_a_link(tmp_path: Path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with (
        pytest.raises(InputError, match="a mistake"),
        Run.open(tmp_path / "run", command="train", settings=StageSettings(), inputs={}),
    ):
        raise InputError("a mistake")
    assert list((tmp_path / "disk").iterdir()) == []
    assert (tmp_path / "run").is_symlink()


BESIDE = [
    ".out.old",
    ".out.bak",
    ".out.tmp",
    ".out.partial",
    ".out.mine.partial",
    ".out.npy.0a1b2c3d.partial",
    "out.old",
]


@pytest.mark.parametrize("replaces", [True, False])
def test_what_the_user_has_beside_the_target_stays(tmp_path: Path, replaces: bool):
    for name in BESIDE:
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").write_text("mine")
    if replaces:
        (tmp_path / "out").mkdir()
    remove_partials_of(tmp_path / "out")
    with whole_folder(tmp_path / "out", replaces=replaces) as partial:
        (partial / "made").write_text("ours")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*BESIDE, "out"])
    assert all((tmp_path / name / "precious").read_text() == "mine" for name in BESIDE)


def test_encoding_removes_its_own_vectors_beside_the_file_and_nothing_else(tiny_bert: Path, tmp_path: Path):
    (tmp_path / "texts.jsonl").write_text('{"text": "a cat"}\n')
    (tmp_path / ".a.npy.vectors").mkdir()
    (tmp_path / ".a.npy.vectors/precious").write_text("mine")
    for name in ("a.npy", "b.npy"):
        encode(str(tiny_bert), texts=tmp_path / "texts.jsonl", out=tmp_path / name)
    hidden = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if ".vectors" in str(path))
    assert hidden == [".a.npy.vectors", ".a.npy.vectors/precious"]


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("mask", [0o077, 0o027, 0o022, 0o002])
def test_what_is_written_has_the_rights_that_the_umask_leaves(tmp_path: Path, mask: int):
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "deep" / "text") as file:
            file.write("x")
        write_array(tmp_path / "array.npy", np.zeros(2, np.float32))
        write_tensors(tmp_path / "tensors.safetensors", {"a": torch.zeros(2)})
        link_file(tmp_path / "array.npy", tmp_path / "linked.npy")
        for _ in range(2):
            with whole_folder(tmp_path / "folder") as partial:
                (partial / "inner").mkdir()
                write_array(partial / "inner" / "array.npy", np.zeros(2, np.float32))
                save_file({"a": torch.zeros(2)}, partial / "by-a-library.safetensors")
        with Run.open(tmp_path / "run", command="train", settings=StageSettings(), inputs={}):
            pass
        lock = Lock.in_folder(tmp_path / "locked")
        assert lock.take()
        journal = Journal(tmp_path / "answers.jsonl")
        journal.add("key", {"answer": "yes"})
        found = {path: rights(path) for path in tmp_path.rglob("*")}
        lock.release()
    finally:
        os.umask(before)
    assert found.pop(tmp_path / "answers.jsonl") == 0o600 & ~mask
    assert len(found) >= 12
    for path, mode in found.items():
        assert mode == (0o777 if path.is_dir() else 0o666) & ~mask, path


def test_a_journal_that_is_there_keeps_the_rights_that_its_owner_gave_it(tmp_path: Path):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"key": "a"}) + "\n")
    path.chmod(0o640)
    Journal(path).add("b", {})
    assert rights(path) == 0o640

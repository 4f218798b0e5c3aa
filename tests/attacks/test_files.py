"""What lies beside or behind the place that a command writes: links, files of the user's, rights of others."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import save_file

from embedsmith.cli.main import app
from embedsmith.data.examples import Example, Passage, write_examples_parquet
from embedsmith.data.files import atomic_write, link_file, remove_partials_of, whole_folder, write_array, write_tensors
from embedsmith.data.locks import Lock, sole_writer
from embedsmith.errors import InputError
from embedsmith.mining.mine import mine
from embedsmith.mining.settings import MiningSettings
from embedsmith.runs.run import Run
from embedsmith.services.journal import Journal
from embedsmith.serving.encode import encode
from embedsmith.training.settings import StageSettings
from tests.cli.conftest import embedsmith_command as embedsmith_command


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


FOLDERS = {
    "mine",
    "select",
    "train",
    "run",
    "ablate",
    "quickstart",
    "build",
    "evaluate",
    "synthesize queries",
    "synthesize tasks",
}
"""Commands whose --out is a run folder, which may lie behind a link."""
TARGETS = {
    "convert": ["out.jsonl", "out.parquet"],
    "decontaminate": ["out.jsonl"],
    "encode": ["out.npy", "out.parquet"],
    "export-model": ["out"],
    "export-negatives": ["out.jsonl"],
}
"""Commands whose --out is put in its place as a whole, and names that it may have."""
EACH_TARGET = [(command, name) for command, names in TARGETS.items() for name in names]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """What the commands read."""
    folder = tmp_path_factory.mktemp("place")
    pairs = [{"query": f"find the cat {n}", "positive": f"the cat {n}"} for n in range(8)]
    texts = [{"text": f"my cat {n}", "label": n % 2} for n in range(8)]
    for name, rows in (("pairs", pairs), ("texts", texts), ("held-out", pairs[:1])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mine(folder / "pairs.jsonl", out=folder / "mined", settings=MiningSettings(teachers=["bm25"], method="naive"))
    return folder


@pytest.fixture
def line_of(place: Path, tiny_bert: Path):
    """A function that returns how a command is given, but for its --out."""
    lines: dict[str, list[object]] = {
        "convert": [place / "texts.jsonl", "--task", "classification", "--negatives", 1],
        "decontaminate": [place / "pairs.jsonl", "--against", place / "held-out.jsonl", "--near-duplicates", 0],
        "encode": [tiny_bert, place / "texts.jsonl"],
        "export-model": [tiny_bert],
        "export-negatives": [place / "mined"],
    }
    return lambda command: [command, *lines[command], "--out"]


def with_out(command: Any, name: str = "") -> Iterator[str]:
    """Yield the names of the commands that have an option --out."""
    for inner, one in getattr(command, "commands", {}).items():
        yield from with_out(one, f"{name} {inner}".strip())
    if any("--out" in parameter.opts for parameter in command.params):
        yield name


def test_every_command_that_writes_to_a_named_place_is_known():
    assert set(with_out(typer.main.get_command(app))) == FOLDERS | TARGETS.keys()


@pytest.mark.parametrize("leads_to", ["file", "folder", "nowhere"])
@pytest.mark.parametrize(("command", "name"), EACH_TARGET)
def test_no_command_writes_in_the_place_of_a_link_or_behind_it(
    command: str, name: str, leads_to: str, line_of, tmp_path: Path, embedsmith_command
):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / name).symlink_to(tmp_path / leads_to)
    before = sorted(tmp_path.rglob("*"))
    done = embedsmith_command(*line_of(command), tmp_path / name)
    assert done.code == 2
    assert done.error == f"{tmp_path / name}: a link to {tmp_path / leads_to}"
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("command", "target"),
    [
        ("convert", "texts.jsonl"),
        ("decontaminate", "pairs.jsonl"),
        ("decontaminate", "held-out.jsonl"),
        ("encode", "texts.parquet"),
        ("export", "model"),
        ("write", "mined"),
        ("write", "mined/negatives.jsonl"),
    ],
)
def test_no_command_writes_over_what_it_reads(
    command: str, target: str, place: Path, tiny_bert: Path, tmp_path: Path, embedsmith_command
):
    shutil.copytree(place, tmp_path / "place")
    shutil.copytree(tiny_bert, tmp_path / "place" / "model")
    write_examples_parquet(
        tmp_path / "place" / "texts.parquet",
        [Example("e", "a cat", [Passage("p", "the cat")], [Passage("n", "a dog")])],
    )
    words: dict[str, list[object]] = {
        "convert": ["texts.jsonl", "--task", "classification", "--negatives", 1],
        "decontaminate": ["pairs.jsonl", "--against", "held-out.jsonl", "--near-duplicates", 0],
        "encode": ["model", "texts.parquet"],
        "export": ["model"],
        "write": ["mined"],
    }
    here = [tmp_path / "place" / word if (tmp_path / "place" / str(word)).exists() else word for word in words[command]]
    before = found_in(tmp_path / "place")
    done = embedsmith_command(command, *here, "--out", tmp_path / "place" / target)
    assert done.code == 2
    assert "reads" in done.error or "is read by" in done.error
    assert done.error.startswith(f"{tmp_path / 'place' / target}: ")
    assert found_in(tmp_path / "place") == before


SIDECARS = [
    ("decontaminate", "out.jsonl", "out.jsonl.removed.jsonl"),
    ("encode", "out.npy", "out.ids.json"),
    ("encode", "out.npy", ".out.npy.vectors"),
    ("encode", "out.parquet", ".out.parquet.vectors"),
    ("convert --teacher bm25", "out.jsonl", "out.jsonl.mining"),
    *((command, name, f".{name}.lock") for command, name in EACH_TARGET),
]
"""Command, target, and what the command writes beside it."""
NOT_OURS = {
    "text": lambda path: path.write_text("mine\n"),
    "rows": lambda path: path.write_text('{"place": "here", "id": "mine"}\n'),
    "ids": lambda path: path.write_text('["mine"]\n'),
    "a link to a file": lambda path: path.symlink_to(path.with_name("file")),
    "a link to a folder": lambda path: path.symlink_to(path.with_name("folder")),
    "a link to nowhere": lambda path: path.symlink_to(path.with_name("nowhere")),
    "a folder": lambda path: (path.mkdir(), (path / "precious").write_text("mine")),
}


def found_in(folder: Path) -> dict[str, str]:
    """Return the names below a folder, with what each file holds and each link names."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_text("latin-1")
        if path.is_file()
        else ""
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("what", NOT_OURS)
@pytest.mark.parametrize(("command", "name", "beside"), SIDECARS)
def test_what_the_user_has_where_a_command_writes_beside_its_target_stays(
    command: str, name: str, beside: str, what: str, line_of, tmp_path: Path, embedsmith_command
):
    word, *more = command.split()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    NOT_OURS[what](tmp_path / beside)
    before = found_in(tmp_path)
    done = embedsmith_command(*line_of(word)[:-1], *more, "--out", tmp_path / name)
    if what == "a folder" and beside.endswith(".vectors"):
        assert done.code == 0  # where its own are put beside the user's
        assert before.items() <= found_in(tmp_path).items()
        return
    assert done.code in (1, 2)
    assert done.error
    assert beside in done.err
    assert found_in(tmp_path) == before


@pytest.mark.parametrize(("command", "name", "beside"), SIDECARS[:2])
def test_what_the_same_command_has_written_beside_its_target_is_written_again(
    command: str, name: str, beside: str, line_of, tmp_path: Path, embedsmith_command
):
    """As it is left by a process that was killed before the target was whole."""
    assert embedsmith_command(*line_of(command), tmp_path / name).code == 0
    first = found_in(tmp_path)
    assert beside in first
    (tmp_path / name).unlink()
    assert embedsmith_command(*line_of(command), tmp_path / name).code == 0
    assert found_in(tmp_path) == first


@pytest.mark.parametrize("left", ["", "4711 gpu-3\n", "4711 gpu-3\nger-name\n"])
def test_a_lock_that_a_killed_process_left_stops_nobody(left: str, tmp_path: Path):
    (tmp_path / ".out.lock").write_text(left)
    with sole_writer(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []

"""Options of how a command runs: the device, what is removed before it begins, and how much it says."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from embedsmith.cli.devices import use_device
from embedsmith.data.locks import Lock
from embedsmith.errors import RunError, SettingsError
from embedsmith.runs import clearing
from embedsmith.runs.run import read_manifest

BM25 = ["--teacher", "bm25", "--method", "naive"]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = [{"query": f"find the {a} of {b}", "positive": f"the {a} in {b}"} for a in ("cat", "owl") for b in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def mined(embedsmith_command, pairs: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "mined"
    assert embedsmith_command("mine", pairs, "--out", folder, *BM25).code == 0
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def negatives_of(folder: Path) -> int:
    return int(read_manifest(folder)["settings"]["negatives"])


class Terminal(io.StringIO):
    """What somebody types who sits at a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_run_is_removed_and_made_anew_when_that_is_confirmed(embedsmith_command, pairs, mined, monkeypatch):
    words = ["mine", pairs, "--out", mined, *BM25, "--negatives", 2, "--overwrite"]
    before = files_of(mined)
    done = embedsmith_command(*words)
    assert (done.code, done.error) == (
        2,
        f"{mined}: remove this finished run of `mine`? There is no terminal to ask on",
    )
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    done = embedsmith_command(*words)
    assert done.code == 2
    assert f"{mined}: remove this finished run of `mine`? [y/N]" in done.err
    assert f"error: {mined}: not removed" in done.err
    assert files_of(mined) == before
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert embedsmith_command(*words).code == 0
    assert negatives_of(mined) == 2
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert embedsmith_command(*words[:-1], "--overwrite", "--yes", "--negatives", 3).code == 0
    assert negatives_of(mined) == 3


def test_where_nothing_is_nothing_is_asked(embedsmith_command, pairs: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        assert embedsmith_command("mine", pairs, "--out", tmp_path / name, *BM25, "--overwrite").code == 0


def test_a_folder_that_embedsmith_has_not_written_is_never_removed(embedsmith_command, pairs: Path, tmp_path: Path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "thesis.txt").write_text("years of work")
    words = ["mine", pairs, "--out", own, *BM25, "--overwrite", "--yes"]
    assert embedsmith_command(*words).error == f"{own}: not a run folder (no manifest.json)"
    # Of another program: a browser's extension has such a file.
    (own / "manifest.json").write_text('{"name": "an extension", "command": "x", "status": "finished"}')
    assert embedsmith_command(*words).error == f"{own}: not a run of embedsmith, and not removed"
    assert embedsmith_command(*words[:3], pairs, *words[4:]).error == f"{pairs}: no such run folder"
    assert (own / "thesis.txt").read_text() == "years of work"


def test_a_run_with_a_file_of_somebodys_in_it_stays_whole(embedsmith_command, pairs: Path, mined: Path):
    (mined / "notes.md").write_text("what I saw")
    before = files_of(mined)
    done = embedsmith_command("mine", pairs, "--out", mined, *BM25, "--overwrite", "--yes")
    assert (done.code, done.error) == (2, f"{mined}: not removed, for notes.md is no part of the run")
    assert files_of(mined) == before


def test_what_the_command_reads_is_not_removed(embedsmith_command, pairs: Path, mined: Path, tmp_path: Path):
    selected = tmp_path / "selected"
    assert embedsmith_command("select", mined, "--out", selected, "--method", "shifted").code == 0
    inside = mined / "data" / "pairs.jsonl"
    inside.parent.mkdir()
    shutil.copy(pairs, inside)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: {{a: {{path: {inside}}}}}\n")
    before = files_of(mined)
    for words in (
        ["select", mined, "--out", mined],
        ["mine", inside, "--out", mined, *BM25],
        ["mine", pairs, "--out", mined, *BM25, "--teacher", mined / "candidates"],
        # The run that was selected from is read again where its selection is.
        ["select", selected, "--out", mined],
        ["run", recipe, "--out", mined],
    ):
        done = embedsmith_command(*words, "--overwrite", "--yes")
        assert done.code == 2
        assert "--overwrite would remove " in done.error, words
    assert files_of(mined) == before


def test_a_run_behind_a_link_is_emptied_and_the_link_stays(embedsmith_command, pairs: Path, mined: Path, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(mined)
    words = ["mine", pairs, "--out", link, *BM25, "--negatives", 2, "--overwrite", "--yes"]
    assert embedsmith_command(*words).code == 0
    assert link.is_symlink()
    assert negatives_of(mined) == 2


def test_a_run_that_is_being_written_is_not_removed(mined: Path):
    before = files_of(mined)
    lock = Lock.in_folder(mined)
    assert lock.take()
    try:
        with pytest.raises(RunError, match="is writing"):
            clearing.clear(mined)
    finally:
        lock.release()
    assert files_of(mined) == before


def test_a_removal_that_is_cut_short_leaves_a_run_that_can_be_removed(mined: Path, monkeypatch: pytest.MonkeyPatch):
    removed: list[Path] = []

    def once(folder: Path, path: Path) -> None:
        if removed:
            raise KeyboardInterrupt
        removed.append(path)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(clearing, "remove_below", once)
        clearing.clear(mined)
    assert clearing.what_is_in(mined) == "finished run of `mine`"
    clearing.clear(mined)
    assert list(mined.iterdir()) == []


def test_only_the_first_of_several_processes_removes(embedsmith_command, pairs, mined, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    before = files_of(mined)
    assert embedsmith_command("mine", pairs, "--out", mined, *BM25, "--overwrite", "--yes").code == 2
    assert files_of(mined) == before


@pytest.mark.slow
def test_every_command_writes_only_what_overwrite_knows(embedsmith_command, pairs, mined, tiny_bert, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    for name in ("corpus", "queries"):
        rows = [{"_id": f"{n}", "text": f"the {name} of {n}"} for n in range(8)]
        (beir / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split in ("train", "test"):
        judged = "".join(f"{n}\t{n}\t1\n" for n in range(8))
        (beir / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    recipe.write_text(
        f"data: {{a: {{path: {beir}}}}}\nmining: {{teachers: [bm25], method: naive}}\n"
        f"student: {{name: {tiny_bert}}}\nstages: [{{name: a, steps: 1, batch_size: 4}}, {{steps: 1, batch_size: 4}}]\n"
    )
    other = tmp_path / "other.jsonl"
    shutil.copy(pairs, other)
    stage = ["--student", tiny_bert, "--steps", 2, "--save-steps", 1, "--batch-size", 4]
    for name, words in {
        "selected": ["select", mined, "--method", "shifted"],
        "trained": ["train", mined, *stage],
        "recipe-run": ["run", recipe],
        "scored": ["evaluate", "bm25", pairs],
        "scored-two": ["evaluate", "bm25", pairs, other],
        "ablated": ["ablate", recipe, "--vary", "stages.0.steps=1,2", "--seeds", 1],
    }.items():
        done = embedsmith_command(*words, "--out", tmp_path / name)
        assert done.code == 0, done.err
        assert clearing.what_is_in(tmp_path / name).startswith("finished run of")
        assert embedsmith_command(*words, "--out", tmp_path / name, "--overwrite", "--yes").code == 0


def test_a_quiet_command_prints_its_result_and_nothing_else(embedsmith_command, pairs: Path, tmp_path: Path):
    done = embedsmith_command("mine", pairs, "--out", tmp_path / "one", *BM25)
    assert "plan: " in done.err
    assert "next: " in done.out
    done = embedsmith_command("mine", pairs, "--out", tmp_path / "two", *BM25, "--quiet")
    assert done.err == ""
    assert done.out.startswith("48 negatives for 12 queries") and "next: " not in done.out
    done = embedsmith_command("mine", pairs, "--out", tmp_path / "two", *BM25, "-q")
    assert done.error == f"{tmp_path / 'two'}: this run is finished already"
    # And it is not remembered.
    assert "plan: " in embedsmith_command("mine", pairs, "--out", tmp_path / "three", *BM25).err


def test_a_verbose_command_says_where_an_error_arose(embedsmith_command, mined: Path):
    assert "Traceback" not in embedsmith_command("train", mined, "--out", mined).err
    done = embedsmith_command("train", mined, "--out", mined, "-v")
    assert done.code == 2
    assert "Traceback" in done.err and "RunError" in done.err
    assert done.err.splitlines()[-2].startswith(f"error: {mined}: holds another run")


@pytest.mark.skipif(sys.platform == "darwin", reason="there torch chooses")
class TestDevice:
    """`--device`."""

    def test_a_cpu_hides_every_gpu(self, embedsmith_command, pairs: Path, tmp_path: Path):
        done = embedsmith_command("mine", pairs, "--out", tmp_path / "run", *BM25, "--device", "cpu")
        assert done.code == 0
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""

    @pytest.mark.parametrize(
        ("seen", "name", "wanted"), [(None, "cuda:1", "1"), ("4,5", "cuda:1", "5"), ("4,5", "cuda:2", "-1")]
    )
    def test_a_number_is_that_of_a_gpu_that_is_seen(self, monkeypatch, seen: str | None, name: str, wanted: str):
        import torch

        monkeypatch.setattr(os, "environ", os.environ.copy())
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if seen:
            os.environ["CUDA_VISIBLE_DEVICES"] = seen
        use_device(name)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == wanted

    def test_a_gpu_that_is_not_there_is_refused(self, monkeypatch):
        import torch

        monkeypatch.setattr(os, "environ", os.environ.copy())
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(SettingsError, match=r"--device cuda: torch .* finds no such GPU"):
            use_device("cuda")

    def test_a_launcher_gives_the_devices(self, monkeypatch):
        monkeypatch.setattr(os, "environ", {**os.environ, "WORLD_SIZE": "2"})
        with pytest.raises(SettingsError, match="the launcher gives each process a device"):
            use_device("cuda:1")

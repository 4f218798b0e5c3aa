"""What breaks while mining: one clear line, nothing lost, nothing stale used."""

import errno
import io
import json
import shutil
from pathlib import Path

import pytest

from embedsmith.data import files
from embedsmith.runs.run import read_manifest
from embedsmith.teachers import dense


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [{"query": f"find {a} {b}", "positive": f"the {a} on the {b}"} for a in "pqrs" for b in "wxyz"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def mine(embedsmith_command, pairs: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that mines into a folder, in shards of 8 texts; the model may change without its name."""
    model = tmp_path / "model"
    shutil.copytree(tiny_bert, model)
    monkeypatch.setattr(dense, "_SHARD", 8)

    def call(out: str):
        words = ["--teacher", model, "--teacher", "bm25", "--teacher-dtype", "float32", "--method", "naive"]
        return embedsmith_command("mine", pairs, "--out", tmp_path / out, *words, "--json")

    return call


@pytest.mark.slow
def test_a_disk_that_fills_up_anywhere_is_one_line_and_nothing_is_lost(
    mine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened, written, room = open, 0, 1 << 40

    class Disk(io.FileIO):
        def write(self, data):
            nonlocal written
            size = len(memoryview(data).cast("B"))
            if written + size > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            written += size
            return super().write(data)

    def on_disk(path, mode="r", **options):
        if "w" not in mode:
            return opened(path, mode, **options)
        raw = io.BufferedWriter(Disk(path, "wb"))
        return raw if "b" in mode else io.TextIOWrapper(raw, **options)

    monkeypatch.setattr(files, "open", on_disk, raising=False)
    assert mine("whole").code == 0
    total, named = written, []
    for part in range(6):
        written, room = 0, total * part // 6
        done = mine(f"cut-{part}")
        assert done.code == 1
        path, message = done.error.rsplit(": ", 1)
        assert message == "No space left on device"
        assert ".partial" not in Path(path).name
        assert "free some space; the same command goes on" in done.err
        named.append(Path(path).name)
        room = 1 << 40
        assert mine(f"cut-{part}").code == 0
        cut, whole = (tmp_path / run / "negatives.jsonl" for run in (f"cut-{part}", "whole"))
        assert cut.read_bytes() == whole.read_bytes()
    assert len(set(named)) >= 3, named


def test_a_truncated_shard_is_encoded_again_and_a_truncated_block_is_named(
    mine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: list[str]
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert mine("whole").code == 0
    with monkeypatch.context() as patch:
        patch.setattr("embedsmith.mining.mine.write_candidates", full)
        assert mine("cut").code == 1
    cut = tmp_path / "cut"
    shard = sorted(cut.glob("vectors/*/shard-00001.npy"))[0]
    shard.write_bytes(shard.read_bytes()[:-5])
    block = cut / "candidates-parts" / "block-00000" / "scores.npy"
    block.write_bytes(block.read_bytes()[:-5])
    done = mine("cut")
    assert done.code == 2
    assert done.error.startswith(f"{block}: damaged: ")
    assert f"hint: remove {block.parent} and" in done.err
    shutil.rmtree(block.parent)
    encoded.clear()
    assert mine("cut").code == 0
    assert len(encoded) == 8
    assert shard.read_bytes() == (tmp_path / "whole" / shard.relative_to(cut)).read_bytes()
    assert (cut / "negatives.jsonl").read_bytes() == (tmp_path / "whole" / "negatives.jsonl").read_bytes()


def test_a_model_that_changed_under_its_name_is_no_part_of_a_run_that_goes_on(
    mine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("embedsmith.mining.mine.write_candidates", full)
        assert mine("cut").code == 1
    weights = tmp_path / "model" / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    done = mine("cut")
    assert (done.code, done.error) == (
        2,
        f"{tmp_path / 'cut'}: teacher {tmp_path / 'model'} of pairs has changed since this run began",
    )
    assert read_manifest(tmp_path / "cut")["status"] == "running"
    assert mine("other").code == 0


def test_a_url_that_cannot_be_reached_is_one_line(embedsmith_command, pairs: Path, tmp_path: Path):
    url = "http://127.0.0.1:9/v1#model"
    done = embedsmith_command("mine", pairs, "--out", tmp_path / "run", "--teacher", url)
    assert done.code == 1
    assert done.error.startswith(f"{url}: cannot be reached: ")
    assert "hint: check the URL, the network and the server; the same command goes on" in done.err

"""`embedsmith encode`: vectors with their ids, from every kind of file, resumed where it was cut short."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsmith.data.files import write_array
from embedsmith.data.listed import read_listed
from embedsmith.errors import SettingsError
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import ChunkSettings, StudentSettings
from embedsmith.serving import encode as encoding
from embedsmith.serving.encode import encode

TEXTS = ["the cat sat on the mat", "red apple", "the cat sat on the mat", "10 times 100"]
IDS = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def model(tiny_llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("student") / "model"
    build_student(StudentSettings(name=str(tiny_llama), instruction="find", pooling="mean"), device="cpu").save(
        str(folder)
    )
    return folder


def jsonl(path):
    path.write_text("".join(json.dumps({"_id": i, "text": t}) + "\n" for i, t in zip(IDS, TEXTS, strict=True)))
    return path


def parquet(path):
    pq.write_table(pa.table({"id": IDS, "text": TEXTS}), path)
    return path


def lines(path):
    path.write_text(f"{TEXTS[0]}\n\n{TEXTS[1]}\n{TEXTS[2]}\n{TEXTS[3]}")
    return path


def read(path):
    if path.suffix == ".npy":
        return json.loads(path.with_suffix(".ids.json").read_text()), np.load(path)
    table = pq.read_table(path)
    return table["id"].to_pylist(), np.array(table["vector"].to_pylist(), np.float32)


@pytest.mark.parametrize(
    ("write", "name", "ids"),
    [(jsonl, "t.jsonl", IDS), (parquet, "t.parquet", IDS), (lines, "t.txt", ["1", "3", "4", "5"])],
)
@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_vectors_stand_in_the_files_order_with_their_ids(embedsmith_command, model, tmp_path, write, name, ids, suffix):
    out = tmp_path / f"out.{suffix}"
    done = embedsmith_command("encode", model, write(tmp_path / name), "--out", out, "--dtype", "float32", "--json")
    assert done.code == 0
    assert (done.json["texts"], done.json["dimensions"], done.json["file"]) == (4, 32, str(out))
    found, vectors = read(out)
    assert found == ids
    np.testing.assert_allclose(vectors, load(str(model), device="cpu").embed(TEXTS, "passage"), atol=1e-5)
    assert not list(tmp_path.glob(".*"))


def test_a_role_and_a_number_of_dimensions_are_the_models(embedsmith_command, model, tmp_path):
    words = ["--out", tmp_path / "q.npy", "--role", "query", "--dimensions", 8, "--dtype", "float32"]
    assert embedsmith_command("encode", model, lines(tmp_path / "t.txt"), *words).code == 0
    right = load(str(model), device="cpu", dimensions=8).embed(TEXTS, "query")
    np.testing.assert_allclose(np.load(tmp_path / "q.npy"), right, atol=1e-5)


def test_what_was_encoded_before_an_interruption_is_not_encoded_again(
    embedsmith_command, model, tmp_path, monkeypatch, encoded
):
    monkeypatch.setattr(encoding, "_SHARD", 1)
    written = []

    def interrupted(path, vectors):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(path)
        write_array(path, vectors)

    words = ["encode", model, jsonl(tmp_path / "t.jsonl"), "--out", tmp_path / "out.npy"]
    with monkeypatch.context() as patch:
        patch.setattr("embedsmith.vectors.store.write_array", interrupted)
        assert embedsmith_command(*words).code == 130
    assert not (tmp_path / "out.npy").exists()
    encoded.clear()
    assert embedsmith_command(*words).code == 0
    assert len(encoded) == 3
    assert np.load(tmp_path / "out.npy").shape == (4, 32)


def test_mistakes_are_one_line(embedsmith_command, model, tmp_path):
    good = lines(tmp_path / "t.txt")
    (tmp_path / "there.npy").touch()
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "bad.jsonl").write_text('{"_id": "a", "text": 7}\n')
    for texts, out, reason in [
        (good, "out.csv", "wanted .parquet or .npy"),
        (good, "there.npy", "there already"),
        (tmp_path / "none.txt", "out.npy", "none.txt"),
        (tmp_path / "empty.txt", "out.npy", "no texts"),
        (tmp_path / "bad.jsonl", "out.npy", 'bad.jsonl:1: "text" is a number, wanted a string'),
    ]:
        done = embedsmith_command("encode", model, texts, "--out", tmp_path / out)
        assert (done.code, reason in done.error) == (2, True), done.err


@pytest.mark.parametrize(
    ("own", "marks"),
    [
        ([None, None, None], ""),
        (["a", None, "b"], ""),
        (["2", None, "3"], "_"),
        ([None, "1", "2", "_1", "_2", None], "__"),
        (["3", "3", None, "4"], "_"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_text_without_an_id_never_gets_one_that_is_taken(tmp_path, own, marks, suffix):
    path = tmp_path / f"t.{suffix}"
    texts = [f"text {place}" for place in range(len(own))]
    if suffix == "parquet":
        pq.write_table(pa.table({"id": pa.array(own, pa.string()), "text": texts}), path)
    elif suffix == "csv":
        path.write_text("id,text\n" + "".join(f"{i or ''},{t}\n" for i, t in zip(own, texts, strict=True)))
    else:
        rows = [{"text": t} if i is None else {"_id": i, "text": t} for i, t in zip(own, texts, strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ids, listed = read_listed(path)
    first = 2 if suffix == "csv" else 1  # a table's header is its line 1
    assert ids == [f"{marks}{number}" if i is None else i for number, i in enumerate(own, first)]
    assert list(listed) == texts


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_vectors_that_are_there_are_removed_when_that_is_confirmed(embedsmith_command, model, tmp_path, suffix):
    texts, out = jsonl(tmp_path / "t.jsonl"), tmp_path / f"out.{suffix}"
    words = ["encode", model, texts, "--out", out, "--dtype", "float32"]
    assert embedsmith_command(*words).code == 0
    texts.write_text(json.dumps({"_id": "e", "text": "another"}) + "\n")
    done = embedsmith_command(*words, "--overwrite")
    assert done.error == f"{out}: remove this file of 4 vectors? There is no terminal to ask on"
    assert read(out)[0] == IDS
    assert embedsmith_command(*words, "--overwrite", "--yes").code == 0
    assert read(out)[0] == ["e"]


def test_a_file_that_encode_has_not_written_stays(embedsmith_command, model, tmp_path):
    texts = jsonl(tmp_path / "t.jsonl")
    np.save(tmp_path / "own.npy", np.eye(4))
    np.save(tmp_path / "other.npy", np.eye(4))
    (tmp_path / "other.ids.json").write_text('["a", "b"]')
    (tmp_path / "text.npy").write_text("not an array")
    parquet(tmp_path / "own.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "folder.npy" / "thesis.txt").write_text("years of work")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name in ("own.npy", "other.npy", "text.npy", "own.parquet", "text.parquet", "folder.npy"):
        out = tmp_path / name
        done = embedsmith_command("encode", model, texts, "--out", out, "--overwrite", "--yes")
        assert done.error == f"{out}: not vectors that `encode` wrote, and not removed"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["out.parquet", "out.ids.json"])
def test_vectors_or_ids_that_the_command_reads_are_not_removed(embedsmith_command, model, tmp_path, name):
    out = tmp_path / ("out.npy" if name.endswith(".json") else name)
    assert embedsmith_command("encode", model, jsonl(tmp_path / "t.jsonl"), "--out", out).code == 0
    done = embedsmith_command("encode", model, tmp_path / name, "--out", out, "--overwrite", "--yes")
    assert done.error == f"--overwrite would remove {tmp_path / name}, which is read"
    assert len(read(out)[0]) == 4


LONG = ["The cat sat on the mat. The dog sat on the log. Find the passage of the reader.", "The cat sat."]


@pytest.fixture
def long(tmp_path: Path) -> Path:
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps({"_id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(LONG)))
    return path


@pytest.mark.parametrize("late", [False, True])
def test_chunks_have_vectors_ids_and_places_of_their_own(tmp_path, tiny_bert, long, late):
    chunks = ChunkSettings(chunk=True, chunk_tokens=12, late_chunks=late)
    build_student(StudentSettings(name=str(tiny_bert)), device="cpu").save(str(tmp_path / "model"))
    out = tmp_path / "chunks.parquet"
    encode(str(tmp_path / "model"), long, out=out, dtype="float32", chunks=chunks)
    table = pq.read_table(out).to_pydict()
    assert table["id"] == ["d0#0", "d0#1", "d0#2", "d1#0"]
    said = [LONG[int(own[1])][a:b] for own, a, b in zip(table["id"], table["start"], table["end"], strict=True)]
    assert said == [*(part + "." for part in LONG[0].rstrip(".").split(". ")), LONG[1]]
    alone = load(str(tmp_path / "model"), device="cpu").embed(said, "passage")
    differs = np.abs(np.array(table["vector"]) - alone).max(axis=1)
    assert (differs[:3] > 1e-3).all() == late
    assert differs[3] < 1e-5 or late  # special tokens are seen, and not pooled


def test_queries_are_not_cut(tmp_path, tiny_bert, long):
    with pytest.raises(SettingsError, match="chunk: queries are not cut"):
        encode(str(tiny_bert), long, out=tmp_path / "a.npy", role="query", chunks=ChunkSettings(chunk=True))


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_jobs_that_share_a_file_out_leave_the_bytes_of_one(embedsmith_command, model, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(encoding, "_SHARD", 1)
    (tmp_path / "jobs").mkdir()
    alone, shared = tmp_path / f"out.{suffix}", tmp_path / "jobs" / f"out.{suffix}"
    words = ["encode", model, jsonl(tmp_path / "t.jsonl"), "--dtype", "float32", "--out"]
    assert embedsmith_command(*words, alone).code == 0
    first = embedsmith_command(*words, shared, "--shard", "3/3", "--json")
    assert (first.code, first.json["shards_left"], shared.exists()) == (0, 3, False)
    again = embedsmith_command(*words, shared, "--shard", "3/3")
    assert "3 shards of other parts are not" in again.out
    assert embedsmith_command(*words, shared, "--shard", "1/3", "--json").json["shards_left"] == 1
    last = embedsmith_command(*words, shared, "--shard", "2/3", "--json")
    assert (last.code, last.json["shards_left"]) == (0, 0)
    assert shared.read_bytes() == alone.read_bytes()
    assert not list((tmp_path / "jobs").glob(".*"))


def test_two_jobs_that_see_the_last_shard_both_end_well(model, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "_SHARD", 2)
    how = {"out": tmp_path / "out.npy", "dtype": "float32", "progress": False}
    texts = lines(tmp_path / "t.txt")
    assert encode(model, texts, shard="1/2", **how).shards_left == 1
    write, other = encoding._write_npy, []

    def slowly(*arguments):
        if not other:
            other.append("begun")
            other.append(encode(model, texts, shard="1/2", **how))  # which writes it, and removes the shards
            raise FileNotFoundError("a shard is gone")
        write(*arguments)

    monkeypatch.setattr(encoding, "_write_npy", slowly)
    done = encode(model, texts, shard="2/2", **how)
    assert done.shards_left == other[1].shards_left == 0
    right = load(str(model), device="cpu").embed(TEXTS, "passage")
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), right, atol=1e-5)


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_part_that_is_none_is_refused(embedsmith_command, model, tmp_path, shard):
    done = embedsmith_command("encode", model, lines(tmp_path / "t.txt"), "--out", tmp_path / "o.npy", "--shard", shard)
    assert done.code == 2
    assert done.error == f"shard {shard}: wanted K/N"

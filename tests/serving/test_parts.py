"""Vectors in a folder of Parquet files, here and in object storage: the same rows as in one file."""

import json
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pytest

from embedsmith.data.places import Place, is_stored
from embedsmith.errors import InputError, RunError, SettingsError
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opening import build_student
from embedsmith.models.settings import ChunkSettings, StudentSettings
from embedsmith.serving import encode as encoding
from embedsmith.serving.encode import encode

TEXTS = [f"the cat {n} sat on the mat and the dog {n * 7}" for n in range(10)]
BUCKET = "vectors"


@pytest.fixture(scope="module")
def model(tiny_llama, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("student") / "model"
    build_student(StudentSettings(name=str(tiny_llama), pooling="mean"), device="cpu").save(str(folder))
    return folder


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """An S3 of this machine, with an empty bucket."""
    server = pytest.importorskip("moto.server", reason="needs moto's server").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0
    )
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        pafs.S3FileSystem(endpoint_override=f"{host}:{port}", scheme="http", allow_bucket_creation=True).create_dir(
            BUCKET
        )
        yield f"s3://{BUCKET}"
    server.stop()


@pytest.fixture(params=["here", "stored"])
def place(request, tmp_path) -> str:
    """A folder that is not there yet, on this machine and in object storage."""
    if request.param == "here":
        return f"{tmp_path}/out/"
    return f"{request.getfixturevalue('storage')}/{tmp_path.name}"


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(encoding, "_SHARD", 3)


@pytest.fixture
def texts(tmp_path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"_id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(TEXTS)))
    return path


def rows(place: str) -> list[dict]:
    system, path = Place(place)._opened() if is_stored(place) else (pafs.LocalFileSystem(), place)
    return ds.dataset(path, filesystem=system, format="parquet").to_table().to_pylist()


def how(**more):
    return {"dtype": "float32", "progress": False, **more}


def test_a_folder_holds_the_rows_of_one_file(model, texts, place, tmp_path):
    alone = tmp_path / "alone.parquet"
    encode(model, texts, out=alone, **how())
    done = encode(model, texts, out=place, **how())
    assert (done.texts, done.shards_left, done.file) == (10, 0, place.rstrip("/"))
    assert rows(place) == rows(str(alone))
    about = json.loads(Place(place).read("_vectors.json"))
    assert (about["count"], about["dimensions"], len(about["files"])) == (10, 32, 4)
    assert Place(place).names() == {*about["files"], "_vectors.json"}


def test_what_was_written_before_an_interruption_is_not_encoded_again(model, texts, place, encoded, monkeypatch):
    write, written = Place.write, []

    def stops(self, name, content):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(name)
        write(self, name, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Place, "write", stops)
        encode(model, texts, out=place, **how())
    assert Place(place).names() == set(written)
    encoded.clear()
    encode(model, texts, out=place, **how())
    assert len(encoded) == 4
    assert [row["id"] for row in rows(place)] == [f"d{n}" for n in range(10)]
    with pytest.raises(RunError, match="there already"):
        encode(model, texts, out=place, **how())


def test_jobs_share_the_files_out_and_the_last_one_says_that_all_are_there(model, texts, place, monkeypatch):
    assert encode(model, texts, out=place, shard="2/2", **how()).shards_left == 2
    assert "_vectors.json" not in Place(place).names()
    assert encode(model, texts, out=place, shard="1/2", **how()).shards_left == 0
    assert len(rows(place)) == 10


def test_other_texts_and_another_model_are_never_put_beside(model, texts, place, tmp_path):
    encode(model, texts, out=place, shard="1/2", **how())
    before = Place(place).names()
    texts.write_text(texts.read_text() + json.dumps({"_id": "more", "text": "more"}) + "\n")
    with pytest.raises(RunError, match="holds vectors of another model or of other texts"):
        encode(model, texts, out=place, **how())
    assert Place(place).names() == before


def test_chunks_have_their_places(model, texts, place):
    encode(model, texts, out=place, chunks=ChunkSettings(chunk=True, chunk_tokens=8, chunk_overlap=0), **how())
    found = rows(place)
    assert len(found) > 10
    first = TEXTS[0]
    own = [row for row in found if row["id"].startswith("d0#")]
    assert first[own[0]["start"] : own[0]["end"]] == first[: own[0]["end"]]


def test_a_key_in_a_url_is_refused_and_not_shown(model, texts):
    with pytest.raises(InputError) as caught:
        encode(model, texts, out="s3://me:secret@bucket/folder", **how())
    assert "secret" not in str(caught.value)


def test_a_vector_that_is_not_finite_leaves_no_file(model, texts, place, monkeypatch):
    def broken(self, lists, role, **keywords):
        for some in lists:
            yield np.full((len(some), 32), np.nan, np.float32)

    monkeypatch.setattr(EmbeddingModel, "embed_each", broken)
    with pytest.raises(InputError, match=r"text 1 of 10 .* not finite"):
        encode(model, texts, out=place, **how())
    assert Place(place).names() == set()


def test_a_cluster_and_a_part_are_one_too_many(model, texts, place):
    with pytest.raises(SettingsError, match="shard and cluster"):
        encode(model, texts, out=place, shard="1/2", cluster="local", **how())

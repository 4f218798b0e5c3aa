"""A cluster of several machines, all of them this one: the same bytes as without it, whoever dies."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from embedsmith.cluster import driver
from embedsmith.cluster.running import on_cluster, running_cluster
from embedsmith.errors import ModelError, RunError
from embedsmith.mining import mine as mining
from embedsmith.mining.settings import MiningSettings
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings
from embedsmith.serving import encode as encoding
from embedsmith.serving.encode import encode
from embedsmith.teachers import dense
from embedsmith.teachers.settings import TeacherSettings
from embedsmith.topk.exact import top_k
from embedsmith.vectors.store import VectorStore

pytest.importorskip("ray", reason='needs the extra "ray"')

WORDS = ["cat", "dog", "log", "mat", "pear", "plum", "apple", "sat", "ate", "red", "green", "parser", "file", "list"]
PAIRS = [{"query": f"find {a} {b}", "positive": f"the {a} on the {b}"} for a in WORDS for b in WORDS[:11]]


@pytest.fixture(scope="module")
def machines():
    """A cluster whose head computes nothing, with one machine of one core; this process is connected to it."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
        cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def model(tiny_llama, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("student") / "model"
    student = build_student(StudentSettings(name=str(tiny_llama), instruction="find", pooling="mean"), device="cpu")
    student.save(str(folder))
    return folder


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(dense, "_SHARD", 8)
    monkeypatch.setattr(driver, "_WORTH", 0.0)


def mined(out: Path, model: Path, data: Path, **keywords) -> dict[str, bytes]:
    """Mine into a folder; return its files, but for the manifest, which tells the seconds."""
    settings = MiningSettings(
        teachers=[str(model)], negatives=3, depth=10, teacher_settings=TeacherSettings(dtype="float32")
    )
    mining.mine(data, out=out, settings=settings, progress=False, **keywords)
    files = (path for path in out.rglob("*") if path.is_file() and path.name not in ("manifest.json", "guide.json"))
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return path


@pytest.mark.slow
def test_a_command_that_was_killed_goes_on_where_it_was(machines, model, data, tmp_path):
    alone = mined(tmp_path / "alone", model, data)
    program = (
        "import sys; from embedsmith.teachers import dense; from embedsmith.cluster import driver; "
        "dense._SHARD, driver._WORTH = 8, 0.0; from embedsmith.cli.main import main; main()"
    )
    words = ["mine", data, "--out", tmp_path / "run", "--teacher", model, "--negatives", 3, "--depth", 10]
    words += ["--teacher-dtype", "float32", "--cluster", machines.address]
    command = [sys.executable, "-c", program, *map(str, words)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    running = subprocess.Popen(command, **quiet)
    ends = time.monotonic() + 120
    while len(written := list((tmp_path / "run").rglob("shard-*.npy"))) < 3:
        assert running.poll() is None, running.stderr.read().decode()
        assert time.monotonic() < ends
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    kept = {path: path.stat().st_ino for path in written}
    assert not (tmp_path / "run" / "negatives.jsonl").exists()
    found = mined(tmp_path / "run", model, data, cluster=machines.address)
    assert {name for name in found if found[name] != alone.get(name)} == set()
    assert found.keys() == alone.keys()
    assert {path: path.stat().st_ino for path in kept} == kept


@pytest.mark.slow
def test_one_two_and_three_workers_mine_the_bytes_of_one_process(machines, model, data, tmp_path):
    alone = mined(tmp_path / "alone", model, data)
    assert sum("shard-" in name for name in alone) > 20
    for workers in (1, 2, 3):
        if workers > 1:
            machines.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        found = mined(tmp_path / str(workers), model, data, cluster=machines.address)
        assert found == alone, f"{workers} workers"


def test_a_search_in_parts_is_the_search_of_one_process_ties_and_all(machines, tmp_path):
    vectors = np.random.default_rng(0).integers(-2, 3, (60, 4)).astype(np.float32)
    store = VectorStore.open_or_create(tmp_path, contract={}, texts=list(map(str, range(60))), shard_size=7)
    store.fill_each(lambda lists: (vectors[[int(text) for text in texts]] for texts in lists))
    queries = vectors[:5] + np.float32(0.25)
    with on_cluster(machines.address):
        for k in (1, 9, 100):
            found = running_cluster().top_k(queries, store, k=k)
            for got, right in zip(found, top_k(queries, vectors, k=k), strict=True):
                np.testing.assert_array_equal(got, right)


@pytest.mark.slow
def test_a_machine_that_dies_costs_nothing_but_what_it_had_not_finished(machines, model, data, tmp_path):
    alone = mined(tmp_path / "alone", model, data)
    doomed = machines.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    finished: dict[Path, int] = {}

    def kill(what, done, total, note=""):
        if what.startswith("encode passages") and done > total / 3 and not finished:
            finished.update({path: path.stat().st_ino for path in (tmp_path / "run").rglob("shard-*.npy")})
            machines.remove_node(doomed, allow_graceful=False)

    assert mined(tmp_path / "run", model, data, cluster=machines.address, on_progress=kill) == alone
    assert finished
    assert {path: path.stat().st_ino for path in finished} == finished


def store_of(folder: Path, model) -> VectorStore:
    return VectorStore.open_or_create(
        folder, contract=model.contract("passage"), texts=[f"{word} on the mat" for word in WORDS], shard_size=4
    )


def test_a_worker_of_another_version_is_refused_by_name(machines, model, tmp_path, monkeypatch):
    own = driver.versions()
    monkeypatch.setattr(driver, "versions", lambda: {**own, "torch": "1.0"})
    opened = load(str(model), device="cpu")
    with on_cluster(machines.address), pytest.raises(RunError, match=r"has torch .*, the command 1\.0"):
        running_cluster().fill(store_of(tmp_path, opened), opened, "passage")
    assert not list(tmp_path.rglob("shard-*"))


def test_a_worker_that_finds_another_model_in_the_folder_is_refused(machines, model, tiny_bert, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    opened = load(str(folder), device="cpu")
    shutil.rmtree(folder)
    build_student(StudentSettings(name=str(tiny_bert), pooling="mean"), device="cpu").save(str(folder))
    with on_cluster(machines.address), pytest.raises(ModelError, match=r"another model on .* weights"):
        running_cluster().fill(store_of(tmp_path / "vectors", opened), opened, "passage")
    assert not list(tmp_path.rglob("shard-*"))


@pytest.mark.slow
def test_workers_write_the_parts_of_a_folder_each_its_own(machines, model, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "_SHARD", 8)
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"the {word} on the {other}\n" for word in WORDS for other in WORDS[:5]))
    for name, cluster in (("alone", None), ("shared", machines.address)):
        encode(str(model), texts, out=f"{tmp_path / name}/", dtype="float32", cluster=cluster, progress=False)
    alone, shared = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("alone", "shared")
    )
    assert len(alone) == 10
    assert shared == alone


@pytest.mark.slow
def test_workers_that_a_command_starts_have_a_token_and_leave_nothing(model, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"the {word} on the {other}\n" for word in WORDS for other in WORDS[:5]))
    program = (
        "import os, sys; "
        "from embedsmith.serving import encode; encode._SHARD = 8; encode.encode("
        "sys.argv[1], sys.argv[2], out=sys.argv[3], dtype='float32', cluster=sys.argv[4] or None, progress=False); "
        "print(len(os.environ.get('RAY_AUTH_TOKEN', '')), os.environ.get('RAY_USAGE_STATS_ENABLED'))"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    before = set(Path(tempfile.gettempdir()).glob("embedsmith-*"))
    said = []
    for name, cluster in (("alone", ""), ("shared", "local:2")):
        done = subprocess.run(
            [sys.executable, "-c", program, str(model), str(texts), str(tmp_path / f"{name}.npy"), cluster],
            env={**environment, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        said.append(done.stdout.split())
    assert said == [["0", "None"], ["64", "0"]]
    assert set(Path(tempfile.gettempdir()).glob("embedsmith-*")) <= before
    assert (tmp_path / "shared.npy").read_bytes() == (tmp_path / "alone.npy").read_bytes()

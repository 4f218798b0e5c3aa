"""A server as a process: it begins, is reloaded, and ends without losing what it took."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException

import numpy as np
import psutil
import pytest

from embedsmith.models.opening import load
from embedsmith.serving.server import opening, running
from embedsmith.serving.server.named import Served
from embedsmith.serving.server.settings import ServeSettings

pytestmark = pytest.mark.slow


@contextmanager
def process(*words, **variables) -> Iterator[tuple[subprocess.Popen, int]]:
    """A server that is ready, and its port."""
    command = [sys.executable, "-m", "embedsmith", "serve", *map(str, words), "--port", "0"]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **variables})
    lines: list[str] = []
    reading = threading.Thread(target=lambda: lines.extend(iter(started.stderr.readline, "")))
    reading.start()
    try:
        while not (found := re.search(r"listening on http://127.0.0.1:(\d+)", "".join(lines))):
            assert started.poll() is None, "".join(lines)
            time.sleep(0.02)
        port = int(found[1])
        while status(port, "/ready") != 200:
            assert started.poll() is None, "".join(lines)
            time.sleep(0.02)
        started.lines = lines
        yield started, port
    finally:
        started.terminate()
        started.wait(30)
        reading.join()
        started.stderr.close()


def ask(port, method, path, body=None):
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def status(port, path):
    try:
        return ask(port, "GET", path)[0]
    except OSError:
        return 0


class Clients:
    """Threads that ask one after the other until they are stopped, and check every answer."""

    def __init__(self, port, model, count=4):
        self.port, self.wrong, self.answered, self.cut = port, [], 0, 0
        texts = [f"the {animal} sat" for animal in ("cat", "dog", "owl", "hen")]
        self.want = dict(zip(texts, load(str(model)).embed(texts, "passage"), strict=True))
        self.stops = threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(place,)) for place in range(count)]
        for thread in self.threads:
            thread.start()

    def work(self, place):
        texts = list(self.want)
        while not self.stops.is_set():
            text = texts[place % len(texts)]
            place += 1
            try:
                code, body = ask(self.port, "POST", "/v1/embeddings", {"input": text})
            except (OSError, HTTPException):
                self.cut += 1
                continue
            if code != 200 or np.abs(np.array(body["data"][0]["embedding"]) - self.want[text]).max() > 1e-6:
                self.wrong.append((code, body))
            self.answered += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stops.set()
        for thread in self.threads:
            thread.join()


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_sigterm_ends_it_when_what_it_took_is_answered(plain):
    with process(plain, "--dtype", "float32") as (server, port):
        with Clients(port, plain) as clients:
            until(lambda: clients.answered > 20)
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
            # From then on nobody listens; no answer that had begun was cut off.
            until(lambda: clients.cut > 10)
        assert not clients.wrong


def test_sighup_opens_the_models_again_without_a_lost_request(plain):
    with process(plain, "--dtype", "float32") as (server, port):
        with Clients(port, plain) as clients:
            until(lambda: clients.answered > 20)
            server.send_signal(signal.SIGHUP)
            until(lambda: "".join(server.lines).count("serving plain") == 2)
            before = clients.answered
            until(lambda: clients.answered > before + 20)
        assert (clients.wrong, clients.cut) == ([], 0)


@pytest.mark.parametrize("inherited", [signal.SIG_DFL, signal.SIG_IGN])
def test_ctrl_c_ends_it_with_its_code(plain, inherited):
    """Also what a script has started with `&`: there shells let programs ignore it."""
    before = signal.signal(signal.SIGINT, inherited)
    with process(plain) as (server, _):
        signal.signal(signal.SIGINT, before)
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 130


def test_several_processes_answer_and_a_killed_one_is_replaced(plain):
    with process(plain, "--dtype", "float32", "--workers", "2") as (server, port):
        with Clients(port, plain) as clients:
            until(lambda: clients.answered > 20)
            children = psutil.Process(server.pid).children()
            worker = next(child.pid for child in children if "spawn_main" in " ".join(child.cmdline()))
            os.kill(worker, signal.SIGKILL)
            before = clients.answered
            until(lambda: clients.answered > before + 50)
        assert not clients.wrong
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_model_that_cannot_be_opened_ends_it(embedsmith_process, tmp_path, tiny_bert, workers):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "config.json").write_text((tiny_bert / "config.json").read_text())
    done = embedsmith_process("serve", folder, "--port", 0, "--workers", workers)
    assert done.returncode == 2
    assert str(folder) in done.stderr


@pytest.fixture
def embedsmith_process():
    def run(*words):
        command = [sys.executable, "-m", "embedsmith", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    return run


def test_what_is_wrong_with_the_command_is_a_line(embedsmith_process, plain, tmp_path):
    lines = {
        ("serve", tmp_path / "none"): "no such model folder",
        ("serve", plain, plain): 'two models are called "plain"',
        ("serve", plain, "--name", "a", "--name", "b"): "2 names for 1 models",
        ("serve", plain, "--name", "a:query"): "wanted letters without a colon",
        ("serve", plain, "--host", "192.0.2.1"): "--host 192.0.2.1 --port 8000",
    }
    for words, line in lines.items():
        done = embedsmith_process(*words)
        assert (done.returncode, line in done.stderr) == (2, True), done.stderr
        assert "Traceback" not in done.stderr


def test_answers_are_sent_at_once():
    """Else the body of each waits 40 ms for the acknowledgement of its headers."""

    async def main():
        flags = []

        async def note(reader, writer):
            flags.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listening = running._listening("127.0.0.1", 0)
        async with await asyncio.start_server(note, sock=listening):
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            await reader.read()
            writer.close()
        return flags

    (is_at_once,) = asyncio.run(main())
    assert is_at_once


def test_a_wrong_name_is_refused_before_torch_is_imported(tmp_path, plain):
    program = "import sys; from embedsmith.cli.main import main\n"
    program += "try: main()\nfinally: print('torch' in sys.modules)"
    for words, line in (([str(tmp_path / "none")], "no such model folder"), ([str(plain)] * 2, "two models")):
        command = [sys.executable, "-c", program, "serve", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout.strip()) == (2, "False"), done.stderr
        assert line in done.stderr


def test_metrics_of_several_processes_are_their_sum_also_after_one_has_died(plain, tmp_path):
    kept = tmp_path / "temporary"
    kept.mkdir()
    counted = 'embedsmith_requests_total{path="/v1/embeddings",status="200"} '

    def metrics(port):
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    with process(plain, "--workers", "2", TMPDIR=str(kept)) as (server, port):
        (folder,) = kept.glob("embedsmith-serve-*")
        assert folder.stat().st_mode & 0o077 == 0
        # Which process answers is up to the system: until both have.
        asked = 0
        while len([*folder.glob("counter_*.db")]) < 2 or asked < 20:
            assert ask(port, "POST", "/v1/embeddings", {"input": "a cat"})[0] == 200
            asked += 1
            assert asked < 2000
        # A request is counted after its answer is sent, and another process may be asked before.
        until(lambda: f"{counted}{asked}.0" in metrics(port))
        assert all(f"{counted}{asked}.0" in metrics(port) for _ in range(10))
        until(lambda: "embedsmith_requests_in_flight 1.0" in metrics(port))
        children = psutil.Process(server.pid).children()
        worker = next(child.pid for child in children if "spawn_main" in " ".join(child.cmdline()))
        os.kill(worker, signal.SIGKILL)
        until(lambda: not [*folder.glob(f"gauge_*_{worker}.db")])
        assert all(f"{counted}{asked}.0" in metrics(port) for _ in range(10))
        server.terminate()
        assert server.wait(60) == 0
        assert not [*kept.glob("embedsmith-serve-*")]


def test_memory_goes_back_when_there_is_more_than_after_the_last_time(monkeypatch):
    mib, returned = [900], []

    def give_back():
        returned.append(mib[0])
        mib[0] -= 30

    monkeypatch.setattr(opening, "resident_bytes", lambda: mib[0] << 20)
    monkeypatch.setattr(opening, "return_memory", give_back)
    kept = opening.Kept()
    for now in (900, 880, 895, 880):
        mib[0] = now
        kept()
    assert returned == [900, 895]  # to 870 and 865; 880 and 880 are no more than 16 above


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    chosen = []
    monkeypatch.setattr(running, "kind_of", lambda device: "cuda")
    monkeypatch.setattr(running, "gpus", lambda: ["cuda:0", "cuda:1"])
    monkeypatch.setattr(running, "choose_device", chosen.append)
    monkeypatch.setattr(running, "_run", lambda app, listening: None)
    factory = running.Factory(Served(("model",), (), "float32"), ServeSettings(), "", is_local=True)
    for place in range(3):
        running.OneOfSeveral(factory)(None, None, place)
    assert chosen == ["cuda:0", "cuda:1", "cuda:0"]


@pytest.mark.parametrize("missing", ["prometheus_client", "starlette", "uvicorn"])
def test_without_the_extra_a_line_says_what_to_install(missing, plain):
    words = ["embedsmith", "serve", str(plain)]
    program = f"import sys; sys.modules[{missing!r}] = None; sys.argv = {words!r}\n"
    program += "from embedsmith.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == 'hint: pip install "embedsmith[serve]"', done.stderr

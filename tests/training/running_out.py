"""Train in an address space that is closed after two steps; print what is said when the memory runs out.

It is a program, because the limit would hold for every test that follows.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from embedsmith.data.examples import Example, Passage
from embedsmith.errors import SettingsError
from embedsmith.models.opening import build_student
from embedsmith.models.settings import StudentSettings
from embedsmith.training.batches import Source
from embedsmith.training.settings import StageSettings
from embedsmith.training.stage import train_stage

SPARE = 2**24
"""The bytes that may still be allocated after the second step."""


def close(report) -> None:
    """Close the address space after the second step, but for what is spare."""
    if report.step == 2:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGESIZE") + SPARE,) * 2)


if __name__ == "__main__":
    student, folder = sys.argv[1], Path(sys.argv[2])
    settings = StudentSettings(name=student, layers=1, attention="bidirectional", pooling="latent", latents=4, heads=2)
    long = [
        Example(f"q{i}", f"{i} " * 60, [Passage(f"p{i}", f"the cat {i} " * 60)], [Passage(f"n{i}", f"a dog {i} " * 60)])
        for i in range(400)
    ]
    stage = StageSettings(
        name="one", steps=4, batch_size=100, chunk_tokens=10**6, save_steps=1, dtype="float32", report_to="none"
    )
    model = build_student(settings, seed=1, device="cpu")
    try:
        train_stage(model, [Source("toy", long)], stage, folder=folder, seed=0, on_step=close)
    except SettingsError as error:
        print(error)

"""The machine: processor, arithmetic, GPUs, memory and disk."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Any

from embedsmith.diagnosis.found import Found, gib


def processor() -> Found:
    """Find the processor, the instruction sets that matter here, and how many threads compute."""
    import torch

    from embedsmith.models.precision import cpu_name, instructions

    name = cpu_name() or platform.processor() or platform.machine()
    # A process may be kept to fewer cores than there are; not every system tells.
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    has, threads = instructions(), torch.get_num_threads()
    of_others = {"AVX2", "AVX-512", "VNNI", "AMX"} if has["NEON"] else {"NEON"}
    sets = ", ".join(key if there else f"no {key}" for key, there in has.items() if key not in of_others)
    facts = {"name": name, "cores": ours, "threads": threads, "instructions": has}
    return Found(facts, [f"{name}; cores: {ours}, threads: {threads}", sets])


def arithmetic() -> Found:
    """Find in which precision models run here, and by which library."""
    import torch

    from embedsmith.models.cpu.switch import is_fast
    from embedsmith.models.measured import multiplies_wide, speeds
    from embedsmith.models.precision import cpu_has_bfloat16, mixes, onednn_multiplies, resolve_dtype

    device = _device()
    auto = str(resolve_dtype("auto", device)).removeprefix("torch.")
    wide = is_fast() and multiplies_wide(torch.device("cpu"))
    measured = speeds() if onednn_multiplies(torch.float32) else None
    facts = {
        "device": device,
        "auto": auto,
        "auto_mixes": mixes("auto", device),
        "cpu_float32": "oneDNN" if wide else "torch",
        "cpu_float32_gflops": measured._asdict() if measured else None,
        "cpu_bfloat16": cpu_has_bfloat16(),
        "cpu_kernels": is_fast(),
    }
    mixed = " for matmuls of longer texts, float32 for all else" if facts["auto_mixes"] else ""
    lines = [f"models run on {device}; `auto` is {auto}{mixed}"]
    has = "there are instructions for bfloat16" if facts["cpu_bfloat16"] else "no instructions for bfloat16"
    by = "oneDNN" if wide else "torch's default library"
    lines.append(f"on the CPU: float32 by {by}; {has}")
    if measured:
        lines.append(
            f"one core multiplies float32 at {measured.torch:.0f} GFLOP/s by torch's default library, at "
            f"{measured.onednn:.0f} by oneDNN (measured once; kept in the cache folder)"
        )
    if not is_fast():
        lines.append("EMBEDSMITH_CPU turns our CPU kernels off")
    return Found(facts, lines)


def accelerators() -> Found:
    """Find the GPUs with their memory, and Apple's."""
    import torch

    from embedsmith.models.precision import has_bfloat16

    gpus: list[dict[str, Any]] = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(number)
        gpus.append({"name": torch.cuda.get_device_name(number), "total_bytes": total, "free_bytes": free})
    mps = bool(torch.backends.mps.is_available())
    facts = {"gpus": gpus, "mps": mps, "cuda": torch.version.cuda, "bfloat16": bool(gpus) and has_bfloat16("cuda")}
    lines = [f"cuda:{n} {gpu['name']}, {_room(gpu)}" for n, gpu in enumerate(gpus)] or ["no GPU that torch can use"]
    if not gpus and torch.version.cuda is None:
        lines[0] += "; this build of torch has no CUDA"
    return Found(facts, [*lines, *(["Apple's GPU (mps)"] if mps else [])])


def memory() -> Found:
    """Find the memory, and what this process may take of it."""
    import psutil
    import torch

    from embedsmith.training.memory import free_bytes

    total, free = psutil.virtual_memory().total, free_bytes(torch.device("cpu"))
    return Found({"total_bytes": total, "free_bytes": free}, [_room({"total_bytes": total, "free_bytes": free})])


def disk() -> Found:
    """Find the room on disk: for runs, here, and for kept vectors."""
    from embedsmith.vectors.cache import user_cache

    kept = user_cache()
    there = next(place for place in (kept, *kept.parents) if place.exists())
    free = {"here_free_bytes": shutil.disk_usage(Path.cwd()).free, "vectors_free_bytes": shutil.disk_usage(there).free}
    here, vectors = map(gib, free.values())
    return Found(free, [f"{here} free in this folder, {vectors} free for kept vectors"])


def _device() -> str:
    """Return the device that models are put on."""
    from sentence_transformers.util import get_device_name

    return get_device_name()


def _room(part: dict[str, Any]) -> str:
    return f"{gib(part['total_bytes'])}, {gib(part['free_bytes'])} of it free"

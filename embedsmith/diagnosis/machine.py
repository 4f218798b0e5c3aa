"""The machine: processor, arithmetic, GPUs, memory and disk."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import Any

from embedsmith.diagnosis.found import Found, gib
from embedsmith.system import cores

_BUILT_WITHOUT = "; this build of torch has no CUDA"


def processor() -> Found:
    """Find the processor, the instruction sets that matter here, and how many threads compute."""
    import torch

    from embedsmith.models.precision import cpu_name, instructions

    name = cpu_name() or platform.processor() or platform.machine()
    ours, has, threads = cores(), instructions(), torch.get_num_threads()
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

    from embedsmith.models import devices
    from embedsmith.models.precision import has_bfloat16

    names = [*devices.gpus(), *(["mps"] if devices.has_mps() else [])]
    found: list[dict[str, Any]] = [
        {
            "device": name,
            "name": devices.called(name),
            "total_bytes": devices.total_bytes(name),
            "free_bytes": devices.free_bytes(name),
            "bfloat16": has_bfloat16(name),
        }
        for name in names
    ]
    facts = {"gpus": found, "mps": "mps" in names, "cuda": torch.version.cuda}
    facts["bfloat16"] = any(gpu["bfloat16"] for gpu in found)
    lines = [
        f"{gpu['device']} {gpu['name']}, {_room(gpu)}, {'' if gpu['bfloat16'] else 'no '}bfloat16" for gpu in found
    ]
    return Found(facts, lines or [f"no GPU that torch can use{_BUILT_WITHOUT if torch.version.cuda is None else ''}"])


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
    from embedsmith.models.devices import default_device

    return default_device()


def _room(part: dict[str, Any]) -> str:
    return f"{gib(part['total_bytes'])}, {gib(part['free_bytes'])} of it free"

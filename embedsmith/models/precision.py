"""Precision: which type of numbers this machine computes in. Nothing else asks the hardware.

A processor without instructions for bfloat16 is slower in it than in float32, or refuses it: oneDNN has no such matmul
below AVX-512. So on such a CPU what is asked for in bfloat16 is computed in float32, which holds all its numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch

from embedsmith.errors import SettingsError
from embedsmith.models.compat import (
    cpu_capabilities,
    has_onednn_int8,
    has_onednn_linear,
    onednn_int8_linear,
    onednn_int8_pack,
    onednn_linear,
    unsaved_buffers,
)
from embedsmith.models.devices import kind_of
from embedsmith.models.settings import ReadingDtype, Role

SHORT_TEXT: Mapping[Role, int] = {"query": 16, "passage": 30}
"""Texts of fewer tokens are computed in float32 by `auto`, longer ones with matmuls in bfloat16.

What moves a query's vector moves the scores of all its candidates much alike, and negatives are chosen by how scores
differ; what moves a passage's vector moves one score. So exactness is worth more for passages: with queries alone in
bfloat16 3.0% of float32's negatives are others in nl2bash, with passages alone 4.3%. With these two lengths
all-MiniLM-L6-v2 keeps 97% of them in nl2bash and 98% in squad_sentences, with bfloat16 for all texts 95% and 98%;
encoding takes 76% and 74% of float32's time, bfloat16 for all texts 62%.
"""

_SMALL = 32
"""Rows and columns from which on a weight is multiplied in int8: those of adapters and of small heads are not."""

Model = TypeVar("Model", bound=torch.nn.Module)

_CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"

_INSTRUCTIONS = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512_f", "avx512f"),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "bf16": ("avx512_bf16", "bf16"),
    "AMX": ("amx_tile", "amx_bf16"),
    "NEON": ("neon", "asimd"),
}
"""Instruction set -> what torch and Linux call it."""


def resolve_dtype(dtype: ReadingDtype, device: str | None = None) -> torch.dtype:
    """Return the type that matmuls are computed in on a device where a precision is asked for.

    Args:
        dtype: `auto` is bfloat16 where the hardware has it, float32 elsewhere. On a CPU or an Apple GPU without it
            `bfloat16` is float32 too. Of `int8` it is float32: that of the weights, and of all that is no matmul.
        device: as torch names it; default: the one that models are put on.
    """
    if dtype == "auto" or (dtype == "bfloat16" and kind_of(device) in ("cpu", "mps")):
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    return torch.float32 if dtype == "int8" else getattr(torch, dtype)


def mixes(dtype: ReadingDtype, device: str | None = None) -> bool:
    """Return whether only matmuls are computed in bfloat16, all else in float32: so it is on a CPU."""
    return kind_of(device) == "cpu" and resolve_dtype(dtype, device) is torch.bfloat16


def cast(model: Model, dtype: torch.dtype | None) -> Model:
    """Bring weights into a type, and return the model; None leaves them as they are.

    Buffers that are not saved are built anew from the configuration, as exact as they need be: the angles of rotary
    positions, in float32 always. `Module.to` would round them to bfloat16, and turn far tokens by other angles.
    """
    for module in model.modules():
        unsaved = unsaved_buffers(module)
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if dtype and tensor.is_floating_point() and name not in unsaved:
                tensor.data = tensor.data.to(dtype)
    return model


def mix(model: Model, *, all_short: bool) -> Model:
    """Have a model compute in float32, but for matmuls with weights in bfloat16; return it.

    Args:
        model: changed in place.
        all_short: bring all weights of matmuls into bfloat16; else those stay in it that are already.
    """
    for module in model.modules():
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            is_matmul = isinstance(module, torch.nn.Linear) and name == "weight"
            is_short = is_matmul and (tensor.dtype == torch.bfloat16 or all_short)
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(torch.bfloat16 if is_short else torch.float32)
    return model


def quantised_weights(model: torch.nn.Module) -> list[torch.Tensor]:
    """Return the weights of a model that `int8` quantises."""
    weights = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
    return [weight for weight in weights if min(weight.shape) >= _SMALL and weight.dtype == torch.float32]


def check_reads_int8(device: str | None) -> None:
    """Refuse `int8` where nothing multiplies it.

    Raises:
        SettingsError: the device is no CPU, or oneDNN has no such matmul on it.
    """
    if (kind := kind_of(device)) != "cpu":
        raise SettingsError(f"dtype: int8 is for a CPU, not for {kind}", hint="take auto, or bfloat16")
    if not int8_bits():
        raise SettingsError(
            "dtype: int8: this torch multiplies no int8 on this CPU, or not exactly", hint="take auto, or float32"
        )


def precision_of(model: Any, role: Role) -> str:
    """Return what an embedding model computes matmuls in for a role's texts, and all else."""
    if model.is_quantised:
        return f"float32, {len(quantised_weights(model))} matmuls int8 with weights of {int8_bits()} bits"
    if not model.is_mixed:
        return str(model.dtype)
    weights = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
    short = sum(weight.dtype == torch.bfloat16 for weight in weights)
    rest = f", the rest from {SHORT_TEXT[role]} tokens on" if model.shortens and short < len(weights) else ""
    return f"float32, {short}/{len(weights)} matmuls bfloat16{rest}"


def has_bfloat16(device: str | None = None) -> bool:
    """Return whether a device has instructions that multiply bfloat16."""
    kind = kind_of(device)
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_has_bfloat16() if kind == "cpu" else kind == "mps" and multiplies_right(torch.bfloat16, "mps")


@cache
def multiplies_right(dtype: torch.dtype, device: str) -> bool:
    """Return whether a device multiplies matrices of a type, and rightly: by trying.

    Apple's GPU has bfloat16 from macOS 14 on; which chip computes in it fast is not asked.
    """
    exact = torch.linspace(-1, 1, 64 * 64).view(64, 64).cos()
    wanted = exact @ exact
    try:
        short = exact.to(device).to(dtype)
        found = (short @ short).float().cpu()
    except (RuntimeError, TypeError, AssertionError):  # the last one: a build of torch without the device
        return False
    return bool((found - wanted).norm() < 0.02 * wanted.norm())


def cpu_has_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16, and oneDNN uses that: ONEDNN_MAX_CPU_ISA may keep it from it."""
    has_instructions = bool(_capabilities().get("avx512_bf16", False))
    return has_instructions and onednn_multiplies(torch.bfloat16)


def cpu_capability() -> str:
    """Return up to which instructions torch's own kernels go on this CPU, such as AVX2."""
    return str(torch.backends.cpu.get_cpu_capability())


@cache
def onednn_multiplies(dtype: torch.dtype) -> bool:
    """Return whether oneDNN multiplies matrices of a type: by trying, for that is up to torch's build and the CPU."""
    if not torch.backends.mkldnn.is_available() or not has_onednn_linear():
        return False
    limit_onednn_cache()
    states, weight = (torch.ones(rows, 16, dtype=dtype, device="cpu") for rows in (2, 3))
    try:
        onednn_linear(states, weight, None, "relu", "")
    except RuntimeError:
        return False
    return True


@cache
def int8_bits() -> int:
    """Return how many bits weights may have that are multiplied in int8 on the CPU; 0 where oneDNN cannot.

    8, or 7 on a CPU without VNNI: there it adds two products in 16 bits, in which those of 8 do not fit. Found by
    trying.
    """
    if not torch.backends.mkldnn.is_available() or not has_onednn_int8():
        return 0
    limit_onednn_cache()
    states = torch.full((64, 128), 255, dtype=torch.uint8, device="cpu")
    for bits in (8, 7):
        most = 2 ** (bits - 1) - 1
        weight = torch.full((32, 128), most, dtype=torch.int8, device="cpu")
        weight[::2] = -most
        try:
            found = onednn_int8_linear(states, onednn_int8_pack(weight), torch.ones(32, device="cpu"))
        except RuntimeError:
            return 0
        if torch.equal(found, states.float() @ weight.float().t()):
            return bits
    return 0


@cache
def limit_onednn_cache() -> None:
    """Limit oneDNN's primitive cache to 32 entries, unless the environment sets it. Call it before the first matmul.

    Its default is 1024, one for each shape: gigabytes after a hundred steps of texts of all lengths. oneDNN reads the
    variable once, when it compiles the first primitive.
    """
    if _CAPACITY in os.environ or not torch.backends.mkldnn.is_available():
        return
    os.environ[_CAPACITY] = "32"
    try:
        torch.ones(1, 1, device="cpu").to_mkldnn().to_dense()
    finally:
        del os.environ[_CAPACITY]


def cpu_name() -> str:
    """Return the name of the CPU, an empty one where nobody knows it."""
    return str(_capabilities().get("cpu_name", ""))


def instructions() -> dict[str, bool]:
    """Return whether the CPU has the instruction sets that make matmuls fast."""
    known = _capabilities()
    return {name: any(bool(known.get(flag)) for flag in flags) for name, flags in _INSTRUCTIONS.items()}


def _capabilities() -> Mapping[str, Any]:
    """Return the name and the instruction sets of the CPU, by torch where it knows them, else by Linux."""
    return {**_cpuinfo(), **cpu_capabilities()}


@cache
def _cpuinfo() -> Mapping[str, Any]:
    """Return the name and the instructions of the CPU that Linux knows; nothing elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    known = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {"cpu_name": known.get("model name", ""), **dict.fromkeys(known.get("flags", "").split(), True)}

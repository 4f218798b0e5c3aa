"""On which device models run, where the user names one: all others are hidden from torch before it looks for them."""

from __future__ import annotations

import os
import re
import sys

from embedsmith.errors import SettingsError

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def use_device(name: str) -> None:
    """Have models run on a device, in this process and in those that it starts.

    Args:
        name: `cpu`, `cuda`, `cuda:N` or `mps`, Apple's GPU.

    Raises:
        SettingsError: there is no such device, or it cannot be chosen here.
    """
    if not (found := re.fullmatch(r"cpu|mps|cuda(?::(\d{1,3}))?", name)):
        raise SettingsError(f'--device: no device "{name}"', hint="devices: cpu, cuda, cuda:0, cuda:1 and so on, mps")
    number = found[1]
    if number and os.environ.get("WORLD_SIZE", "1") != "1":
        raise SettingsError(
            f"--device {name}: the launcher gives each process a device",
            hint=f"leave --device out; {_VISIBLE} says which GPUs there are",
        )
    if name in ("cpu", "mps"):
        os.environ[_VISIBLE] = ""
        if sys.platform == "darwin":  # elsewhere it would take seconds to load torch, and there is nothing to choose
            _choose(name)
        elif name == "mps":
            raise _missing(name, "Apple's GPU is in a Mac; name another device, such as cpu")
        return
    if number:
        # Where only some are to be seen already, the number is that of one of those.
        seen = [one for one in os.environ.get(_VISIBLE, "").split(",") if one.strip()]
        os.environ[_VISIBLE] = number if not seen else seen[int(number)] if int(number) < len(seen) else "-1"
    from embedsmith.models.devices import has_cuda

    if not has_cuda():
        raise _missing(
            name, "see nvidia-smi; a torch that ends in +cpu has no CUDA; or name another device, such as cpu"
        )


def _choose(name: str) -> None:
    """Have models run on the processor or on Apple's GPU, which no variable hides from torch."""
    from embedsmith.models.devices import choose_device, has_mps

    if name == "mps" and not has_mps():
        raise _missing(
            name, "macOS 14 or later and a torch for Apple silicon find it; or name another device, such as cpu"
        )
    choose_device(name)


def _missing(name: str, hint: str) -> SettingsError:
    """Return the error of a device that is not there."""
    import torch

    return SettingsError(f"--device {name}: torch {torch.__version__} finds no such GPU", hint=hint)

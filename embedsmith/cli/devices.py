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
        name: `cpu`, `cuda` or `cuda:N`.

    Raises:
        SettingsError: there is no such device, or it cannot be chosen here.
    """
    if not (found := re.fullmatch(r"cpu|cuda(?::(\d{1,3}))?", name)):
        raise SettingsError(f'--device: no device "{name}"', hint="devices: cpu, cuda, cuda:0, cuda:1 and so on")
    if sys.platform == "darwin":
        raise SettingsError(f"--device {name}: on a Mac models run where torch puts them", hint="leave --device out")
    number = found[1]
    if number and os.environ.get("WORLD_SIZE", "1") != "1":
        raise SettingsError(
            f"--device {name}: the launcher gives each process a device",
            hint=f"leave --device out; {_VISIBLE} says which GPUs there are",
        )
    if name == "cpu":
        os.environ[_VISIBLE] = ""
        return
    if number:
        # Where only some are to be seen already, the number is that of one of those.
        seen = [one for one in os.environ.get(_VISIBLE, "").split(",") if one.strip()]
        os.environ[_VISIBLE] = number if not seen else seen[int(number)] if int(number) < len(seen) else "-1"
    import torch

    if not torch.cuda.is_available():
        raise SettingsError(
            f"--device {name}: torch {torch.__version__} finds no such GPU",
            hint="see nvidia-smi; a torch that ends in +cpu has no CUDA; or name another device, such as cpu",
        )

"""Which cluster is asked for: what `--cluster` says.

local, local:4       workers on this machine, started for this command: one a GPU or a core, or so many
auto                 the cluster that runs on this machine, or that RAY_ADDRESS names
HOST:PORT            the cluster whose head listens there

Importing it loads neither Ray nor torch.
"""

from __future__ import annotations

import os
import re
import socket
from typing import NamedTuple

from embedsmith.errors import SettingsError

_PATIENCE_S = 5.0
"""How long a head may take to answer before it counts as unreachable; Ray itself would wait for 40 seconds."""
_MOST_WORKERS = 1024


class Asked(NamedTuple):
    """What `--cluster` asks for."""

    address: str | None
    """HOST:PORT or `auto`; None for a cluster that is started here."""
    workers: int | None = None
    """Of a cluster that is started here; None for one a GPU or a core."""


def parsed(name: str) -> Asked:
    """Return what a name asks for.

    >>> parsed("local:2"), parsed("10.0.0.7:6379").address
    (Asked(address=None, workers=2), '10.0.0.7:6379')

    Raises:
        SettingsError: it says no cluster.
    """
    if found := re.fullmatch(r"local(?::(\d{1,4}))?", name):
        workers = int(found[1]) if found[1] else None
        if workers is None or 0 < workers <= _MOST_WORKERS:
            return Asked(None, workers)
    elif name == "auto":
        return Asked("auto")
    elif name.startswith("ray://"):
        raise SettingsError(
            f"cluster {name}: Ray's client port",
            hint="run the command on a machine of the cluster with --cluster auto, or hand it to `ray job submit`",
        )
    elif re.fullmatch(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):[1-9]\d{0,4}", name):
        return Asked(name)
    raise SettingsError(
        f'cluster: no cluster "{name}"', hint=f"write local, local:N (1 to {_MOST_WORKERS}), auto, or HOST:PORT"
    )


def check_answers(name: str, address: str) -> None:
    """Refuse an address where nobody listens."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return  # of `auto` without RAY_ADDRESS Ray itself knows what runs here
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        raise SettingsError(
            f"cluster {name}: nobody answers at {address} ({reason.lower()})",
            hint="start its head with `ray start --head`, or check the address, which `ray status` names",
        ) from None

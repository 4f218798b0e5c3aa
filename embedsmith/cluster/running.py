"""The cluster that does the work in this context: checked at once, started when there is something to do.

Importing it loads neither Ray nor torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from embedsmith.cluster.asked import check_answers, parsed
from embedsmith.errors import SettingsError

if TYPE_CHECKING:
    from embedsmith.cluster.driver import Cluster

_running: ContextVar[Cluster | None] = ContextVar("cluster", default=None)


def running_cluster() -> Cluster | None:
    """Return the cluster that does the work in this context; None where this process does it."""
    return _running.get()


@contextmanager
def on_cluster(name: str | None) -> Iterator[None]:
    """Let a cluster encode and search within the block; None leaves all as it is.

    Raises:
        SettingsError: the name says none, Ray is not installed, or nobody answers at the address.
    """
    if name is None:
        yield
        return
    asked = parsed(name)
    if importlib.util.find_spec("ray") is None:
        raise SettingsError(f"cluster {name}: Ray is not installed", hint='pip install "embedsmith[ray]"')
    if asked.address:
        check_answers(name, asked.address)
    from embedsmith.cluster.driver import Cluster

    cluster = Cluster(name, asked)
    token = _running.set(cluster)
    try:
        yield
    finally:
        _running.reset(token)
        cluster.close()

"""Tasks on a Ray cluster: handed out, waited for, and their errors told as what they are. No other module knows Ray."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import psutil

from embedsmith.cluster.asked import Asked
from embedsmith.cluster.tally import Tally
from embedsmith.errors import EmbedsmithError, RunError, SettingsError
from embedsmith.models.devices import gpus
from embedsmith.system import cores

_BLOCK = 8
"""Cores of a worker without a GPU, where a machine has so many: more batches at once would wait for Python."""
_RETRIES = 16
"""Times that a shard is begun again because its worker died: a model that kills every worker has an end."""
_POLL_S = 0.5
_OBJECTS = 1 << 30
"""Bytes that a cluster on this machine keeps for texts and results that are under way."""


class Needs(NamedTuple):
    """What a task needs of a machine."""

    cores: int
    gpus: int


class Pool:
    """The machines of a cluster, which is started, or connected to, when there is something to do."""

    def __init__(self, name: str, asked: Asked) -> None:
        """Take note of what is asked for; nothing is started."""
        self.name = name
        self._asked = asked
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self._is_mine = False

    def close(self) -> None:
        """End the cluster that was started, or the connection."""
        if self._is_mine:
            self._ray.shutdown()
        if self._own:
            self._own.cleanup()
        self._is_mine, self._own = False, None

    def put(self, value: Any) -> Any:
        """Return a reference to a value, which each machine gets once."""
        return self._ray.put(value)

    def tally(self) -> Any:
        """Return an actor that counts, and needs nothing."""
        return self._ray.remote(num_cpus=0, max_restarts=-1)(Tally).remote()

    def task(self, function: Callable[..., Any], needs: Needs) -> Any:
        """Return a function as a task of Ray."""
        # max_calls: else a process that had a GPU ends with its task, and the model with it.
        remote = self._ray.remote(max_calls=0, max_retries=_RETRIES)(function)
        return remote.options(num_cpus=needs.cores, num_gpus=needs.gpus)

    def carried_out(
        self, calls: Iterable[Any], needs: Needs, *, while_waiting: Callable[[], None] = lambda: None
    ) -> Iterator[Any]:
        """Yield what tasks return as they end; twice as many are handed out as can run at once."""
        calls = iter(calls)
        running: list[Any] = []
        try:
            while True:
                while len(running) < 2 * self.capacity(needs) + 1 and (call := next(calls, None)) is not None:
                    running.append(call)
                if not running:
                    return
                done, running = self._ray.wait(running, timeout=_POLL_S)
                for one in done:
                    yield self._result(one)
                while_waiting()
        finally:
            for one in running:
                self._ray.cancel(one, force=True)

    def _result(self, done: Any) -> Any:
        """Return what a task has returned; raise what it has raised as the caller's mistake that it is."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(done)
        except errors.RayTaskError as error:
            if isinstance(error.cause, EmbedsmithError | OSError):
                raise error.cause from None
            if "No module named" in str(error) or "failed to import" in str(error):
                raise RunError(
                    f"cluster {self.name}: a worker cannot import embedsmith",
                    hint="install the same version on every machine of the cluster",
                ) from error
            raise
        except errors.RayError as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise RunError(
                f"cluster {self.name}: a task was begun {_RETRIES + 1} times, and its worker died: {said[0]}",
                hint="its machine may have too little memory: see `ray status`, and Ray's logs on that machine",
            ) from error

    def total(self, tally: Any) -> int:
        """Return how many texts of unfinished shards are encoded; 0 where nobody knows."""
        try:
            return int(self._ray.get(tally.total.remote(), timeout=_POLL_S))
        except self._ray.exceptions.RayError:  # it died with its machine, and starts anew on another
            return 0

    def needs(self, device: str) -> Needs:
        """Return what a worker needs: a GPU, or a block of cores; refuse a cluster that has none such."""
        if device == "cuda":
            needs = Needs(1, 1)
        elif device == "cpu":
            needs = Needs(1 if self._asked.address is None else min(_BLOCK, max(1, self._smallest)), 0)
        else:
            raise SettingsError(
                f"cluster {self.name}: workers have processors or NVIDIA's and AMD's GPUs, this is {device}",
                hint="name --device cpu, or leave --cluster out",
            )
        if not self.capacity(needs, or_else=0):
            raise SettingsError(
                f"cluster {self.name}: no machine of it has a free place for a worker on {device}",
                hint="the device of the command is that of the workers: name another --device, or add such a machine",
            )
        return needs

    def cores_of(self, needs: Needs) -> int:
        """Return how many cores a worker computes with."""
        if self._asked.address is None:
            return max(1, cores() // self.capacity(needs))
        return needs.cores

    def capacity(self, needs: Needs, or_else: int = 1) -> int:
        """Return how many tasks run at once, now."""
        found = sum(
            min(
                int(node["Resources"].get("CPU", 0)) // needs.cores,
                int(node["Resources"].get("GPU", 0)) // needs.gpus if needs.gpus else sys.maxsize,
            )
            for node in self._nodes()
        )
        return found or or_else

    @property
    def _smallest(self) -> int:
        """Cores of the smallest machine that has some for tasks."""
        return min((own for node in self._nodes() if (own := int(node["Resources"].get("CPU", 0)))), default=1)

    def _nodes(self) -> list[dict[str, Any]]:
        """Return the machines that are there now."""
        return [node for node in self._ray.nodes() if node["Alive"]]

    @cached_property
    def _ray(self) -> Any:
        """Ray, connected."""
        here = self._asked.address is None
        is_first = "ray" not in sys.modules
        if here and is_first:
            # Ray reads these when it is imported. Its ports are open to every network of this machine: whoever has no
            # token is turned away, and no other process has this one. It would report its use to its makers.
            os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
            os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
        import ray
        import ray.exceptions

        if ray.is_initialized() and not here:
            return ray
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if here:
                self._own = tempfile.TemporaryDirectory(prefix="embedsmith-", ignore_cleanup_errors=True)
                ray.init(
                    num_cpus=self._asked.workers or len(gpus()) or cores(),
                    include_dashboard=False,
                    object_store_memory=min(_OBJECTS, psutil.virtual_memory().total // 8),
                    _temp_dir=self._own.name,
                    **quiet,
                )
            else:
                ray.init(address=self._asked.address, **quiet)
        # Ray ends the process where what answers is no head.
        except (ConnectionError, RuntimeError, SystemExit, ray.exceptions.RayError, ValueError) as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise SettingsError(
                f"cluster {self.name}: {said[0]}", hint="`ray status` on a machine of the cluster says how it is"
            ) from error
        self._is_mine = True
        return ray

"""A server as a process, or several of them: opening in the background, reload on SIGHUP, a graceful end on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from tempfile import TemporaryDirectory
from typing import Any

from embedsmith.errors import EmbedsmithError, SettingsError
from embedsmith.models.devices import choose_device, gpus, kind_of
from embedsmith.serving.server.named import Served
from embedsmith.serving.server.opening import open_corpus, open_models
from embedsmith.serving.server.processes import STARTUP_FAILED, Processes
from embedsmith.serving.server.settings import ServeSettings
from embedsmith.system import HANG_UP

_log = logging.getLogger("embedsmith")

KEY = "EMBEDSMITH_SERVE_KEY"
COUNTS = "PROMETHEUS_MULTIPROC_DIR"
"""Variable of prometheus_client: the folder in which several processes count."""
_GRACE_S = 30
"""Seconds in which requests that were taken are answered after SIGTERM."""
_LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Factory:
    """Makes the application in each process, which opens the models for itself."""

    served: Served
    settings: ServeSettings
    key: str
    is_local: bool
    logs: bool = False
    counts: str | None = None
    """Folder of what several processes count."""
    failures: list[Exception] = field(default_factory=list)
    """Why nothing could be opened."""

    def __call__(self, is_ready: Any = None) -> Any:
        """Return the application.

        Args:
            is_ready: of one of several processes: an event to set when the models are opened, which is before the
                first request. Else requests are refused until then, and /health is answered.
        """
        from embedsmith.serving.server.application import PATHS, application
        from embedsmith.serving.server.guard import Guard
        from embedsmith.serving.server.metrics import Metrics
        from embedsmith.serving.server.service import Service

        metrics = Metrics(self.counts)
        service = Service(self.settings, metrics)
        app = application(service)
        if self.logs:
            _log_requests()
        app.router.lifespan_context = lambda _: self._life(service, is_ready)
        return Guard(
            app,
            settings=self.settings,
            key=self.key,
            paths=PATHS,
            is_local=self.is_local,
            metrics=metrics,
            logs=self.logs,
        )

    @asynccontextmanager
    async def _life(self, service: Any, is_ready: Any) -> AsyncIterator[None]:
        """Open the models while /health answers already, and again on SIGHUP; end their threads at last."""
        changing = asyncio.Lock()

        async def change() -> None:
            async with changing:
                old, opened = service.models, None
                try:
                    opened = await _in_a_passing_thread(open_models, self.served, self.settings, service.metrics)
                    corpus = await _in_a_passing_thread(open_corpus, self.served, opened)
                except (EmbedsmithError, OSError) as error:
                    if opened is not None:
                        await asyncio.to_thread(opened.close)
                    if old is None:
                        raise
                    _log.error("not opened again, the old models go on: %s", _in_a_line(error))
                    return
                service.models, service.corpus = opened, corpus
                _log.warning("serving %s", ", ".join([*opened.embedders, *opened.rerankers]))
                while old is not None and old.holders:
                    await asyncio.sleep(0.02)
                if old is not None:
                    await asyncio.to_thread(old.close)

        async def first() -> None:
            try:
                await change()
            except (EmbedsmithError, OSError) as error:  # nothing is served: the process ends with it
                self.failures.append(error)
                os.kill(os.getpid(), signal.SIGTERM)

        tasks: set[asyncio.Future[None]] = set()
        if is_ready is not None:
            try:
                await change()
            except (EmbedsmithError, OSError) as error:
                self.failures.append(error)
                _log.error("%s", _in_a_line(error))
                raise
            is_ready.set()
        else:
            tasks = {asyncio.ensure_future(first())}
            if HANG_UP is not None:
                with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                    asyncio.get_running_loop().add_signal_handler(
                        HANG_UP, lambda: tasks.add(asyncio.ensure_future(change()))
                    )
        yield
        for task in tasks:
            task.cancel()
        if service.models is not None:
            await asyncio.to_thread(service.models.close)


async def _in_a_passing_thread(work: Callable[..., Any], *given: Any) -> Any:
    """Return what work returns in a thread that then ends, and its OpenMP workers with it; see `Batcher`."""
    thread = ThreadPoolExecutor(1, "open")
    done = asyncio.get_running_loop().run_in_executor(thread, work, *given)
    thread.shutdown(wait=False)
    return await done


def _in_a_line(error: Exception) -> str:
    """Return a mistake with its remedy."""
    return "; ".join(filter(None, [str(error), getattr(error, "hint", "")]))


def serve(
    served: Served,
    settings: ServeSettings,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    logs: bool = False,
) -> int:
    """Serve until a signal ends it; return the exit code.

    Args:
        served: models and corpus.
        settings: limits.
        host: address to listen on.
        port: 0 takes one that is free.
        workers: processes, each with the models of its own.
        logs: write a line of JSON for each request to stderr.

    Raises:
        SettingsError: the extra `serve` is not installed, a name does not fit, or the address is taken.
        ModelError, RunError: a model or the corpus cannot be opened.
    """
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise SettingsError(f"{error.name} is not installed", hint='pip install "embedsmith[serve]"') from error
    served.checked()
    key = os.environ.get(KEY, "")
    is_local = host in _LOCAL
    if not key and not is_local:
        _log.warning("%s is not set: everybody who reaches %s can use the models", KEY, host)
    factory = Factory(served, settings, key, is_local, logs)
    listening = _listening(host, port)
    _log.warning("listening on http://%s:%d", f"[{host}]" if ":" in host else host, listening.getsockname()[1])
    if workers > 1:
        return _several(factory, listening, workers)
    try:
        is_interrupted = _run(factory(), listening)
    except KeyboardInterrupt:
        return 130
    if factory.failures:
        raise factory.failures[0]
    return 130 if is_interrupted else 0


def _several(factory: Factory, listening: socket.socket, workers: int) -> int:
    """Serve in several processes, which count into files of one private folder; return the exit code."""
    from prometheus_client.multiprocess import mark_process_dead

    with ExitStack() as stack:
        try:
            folder = stack.enter_context(TemporaryDirectory(prefix="embedsmith-serve-", ignore_cleanup_errors=True))
        except OSError as error:
            _log.warning("/metrics counts one process only: no temporary folder (%s)", error.strerror or error)
            return Processes(OneOfSeveral(factory), listening, workers).run()

        def forget(process: int) -> None:
            mark_process_dead(process, folder)  # type: ignore[no-untyped-call]

        return Processes(OneOfSeveral(replace(factory, counts=folder)), listening, workers, on_end=forget).run()


@dataclass(frozen=True)
class OneOfSeveral:
    """What each of several processes does: opens the models, and only then takes requests."""

    factory: Factory

    def __call__(self, listening: socket.socket, is_ready: Any, place: int) -> None:
        """Serve until SIGTERM; where there are GPUs, on the one whose turn it is. Untested on several real GPUs."""
        if self.factory.counts:
            os.environ[COUNTS] = self.factory.counts  # read when prometheus_client is imported, which it is not yet
        if kind_of(None) == "cuda":
            choose_device(gpus()[place % len(gpus())])
        _run(self.factory(is_ready), listening)
        if self.factory.failures:
            sys.exit(STARTUP_FAILED)


def _run(app: Any, listening: socket.socket) -> bool:
    """Serve until a signal, and answer what was taken; return whether the signal was SIGINT."""
    import uvicorn

    config = uvicorn.Config(
        app,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        timeout_keep_alive=30,
        backlog=2048,
        ws="none",
    )
    server = uvicorn.Server(config)
    signals: list[int] = []

    def end(number: int, _: Any) -> None:
        signals.append(number)
        server.should_exit = True

    # uvicorn ends gracefully, and then raises the signal once more, for the handler that was there before it. Without
    # one of ours SIGINT would be lost in what a script started with `&`: shells let such programs ignore it.
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[listening])
    except SystemExit:  # the application did not start: it has noted why
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return signal.SIGINT in signals


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Raises:
        SettingsError: another program has it, or the machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends at once (TCP_NODELAY) only where the protocol is named. Else the body of each answer waits for the
    # client's delayed acknowledgement of the headers, 40 ms on Linux.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise SettingsError(
            f"--host {host} --port {port}: {error.strerror or error}", hint="choose another --port, or 0 for a free one"
        ) from error
    found.set_inheritable(True)
    return found


def _log_requests() -> None:
    """Write the access log to stderr, a line of JSON for each request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    access = logging.getLogger("embedsmith.access")
    access.addHandler(handler)
    access.setLevel(logging.INFO)
    access.propagate = False

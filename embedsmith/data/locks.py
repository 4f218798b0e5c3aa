"""Locks: one process at a time writes a run folder, a vector store, a shelf's entry or an output file.

    RUN/.lock         held while a command writes RUN
    .OUT.lock         beside a file or a folder that appears whole at the end

The lock is the operating system's (`flock`, on Windows a locked byte), so it ends with its process, however that ends.
The file only carries it: it names the holder, is removed at the end, and blocks nobody when a killed process left it.

On one machine this holds on every local file system; on NFS where the server has a lock daemon. A file system without
locks holds nothing: two processes must not write one folder there.

Not the package filelock: depending on its version it leaves its file behind, or empties it when somebody else asks, and
the holder's name would need a second file.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar

from embedsmith.data.files import refuse_link, remove_partials_of
from embedsmith.errors import InputError, RunError
from embedsmith.system import NO_LINK, removes_open_files, try_lock, unlock

P = ParamSpec("P")
R = TypeVar("R")

OnWait = Callable[[str], None]
"""Called once with the holder of the lock, such as `process 4711 on gpu-3`."""

_PATIENCE_S = 0.5
"""How long a lock is asked for before it is refused: who only looks whether it is held, holds it for an instant."""
_PAUSE_S = 0.05
_LONGEST = 1000
_OURS = re.compile(rb"(\d+ [^\n]*\n.{0,300})?", re.DOTALL)
"""What a lock holds: its holder, and for a moment the end of a longer name; nothing when it was just made."""


class Lock:
    """The right to write what a lock file stands for."""

    def __init__(self, path: Path) -> None:
        """Take note of the lock file; nothing is held yet."""
        self.path = path
        self._file: IO[bytes] | None = None

    @classmethod
    def in_folder(cls, folder: Path) -> Lock:
        """Return the lock of a folder that is written file by file."""
        return cls(folder / ".lock")

    @classmethod
    def beside(cls, target: Path) -> Lock:
        """Return the lock of a file or folder that appears whole."""
        target = Path(os.path.abspath(target))
        return cls(target.with_name(f".{target.name}.lock"))

    def take(self, *, patience_s: float = _PATIENCE_S) -> bool:
        """Hold the lock, whose folder is made if need be; return False where another holds it for too long."""
        if self._take_at_once():
            return True
        ends = time.monotonic() + patience_s
        while time.monotonic() < ends:
            time.sleep(_PAUSE_S)
            if self._take_at_once():
                return True
        return False

    def wait(self, on_wait: OnWait | None = None) -> None:
        """Hold the lock as soon as it is free."""
        if not self.take():
            if on_wait:
                on_wait(self.holder)
            while not self.take():
                pass

    def release(self) -> None:
        """Let others have it; without effect where it is not held."""
        if self._file is not None:
            # Removed while it is held: whoever has it open already sees that it is no longer the one of this name.
            if removes_open_files():
                with suppress(OSError):
                    self.path.unlink()
            unlock(self._file.fileno())
            self._file.close()
            self._file = None
            if not removes_open_files():
                with suppress(OSError):  # another process has it open: that one removes it
                    self.path.unlink()

    @property
    def holder(self) -> str:
        """Who holds the lock, in words."""
        try:
            process, _, host = self.path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].partition(" ")
        except OSError:
            process = host = ""
        return f"process {process} on {host}" if process and host else "another process"

    @property
    def held_by(self) -> str | None:
        """Who holds the lock now; None where it is free."""
        try:
            file = os.open(self.path, os.O_RDONLY)
        except OSError:
            return None
        try:
            return None if try_lock(file, shared=True) else self.holder
        finally:
            os.close(file)

    def _take_at_once(self) -> bool:
        """Hold the lock unless another does; return whether it is held."""
        with suppress(FileExistsError):  # what was there may have been removed since
            self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | NO_LINK, 0o666), "r+b", buffering=0)
        except FileNotFoundError:
            return False  # the folder is gone again
        except OSError:
            self._refuse_foreign(is_ours=not self.path.is_symlink())
            raise
        try:
            if not try_lock(file.fileno()) or not self._is_in_place(file):
                file.close()
                return False
            self._refuse_foreign(is_ours=_OURS.fullmatch(file.read(_LONGEST)) is not None)
            file.seek(0)
            name = f"{os.getpid()} {socket.gethostname()}\n".encode()
            file.write(name)
            file.truncate(len(name))  # afterwards: who reads meanwhile reads the first line
        except BaseException:
            file.close()
            raise
        self._file = file
        return True

    def _refuse_foreign(self, *, is_ours: bool) -> None:
        """Raise RunError where what has the name of the lock is none: it would be written over and removed."""
        if not is_ours:
            raise RunError(
                f"{self.path}: there already, and no lock of ours", hint="move it away, or choose another --out"
            )

    def _is_in_place(self, file: IO[bytes]) -> bool:
        """Return whether the file that was opened is still the one of that name: its last holder has removed it."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self.path))
        except FileNotFoundError:
            return False


@contextmanager
def waiting(lock: Lock, on_wait: OnWait | None = None) -> Iterator[None]:
    """Hold a lock within the block; where another process holds it, wait for that one to end."""
    lock.wait(on_wait)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def sole_writer(target: Path) -> Iterator[None]:
    """Be the only process that writes a file or a folder that appears whole at the end of the block.

    What a killed process has left of it is removed first.

    Raises:
        InputError: there is a link in its place.
        RunError: another process is writing it.
    """
    refuse_link(target)
    lock = Lock.beside(target)
    made = [folder for folder in lock.path.parents if not folder.exists()]
    if not lock.take():
        raise busy(target, lock)
    try:
        remove_partials_of(target)
        yield
    finally:
        lock.release()
        for folder in made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def writes_out(work: Callable[P, R]) -> Callable[P, R]:
    """Make a function the only one, in all processes, that writes its argument `out` while it works.

    Raises:
        InputError: `out` is a path that another argument names, or lies in a folder that one names.
        RunError: another process is writing it.
    """

    @wraps(work)
    def alone(*arguments: P.args, **keywords: P.kwargs) -> R:
        target = Path(str(keywords["out"]))
        refuse_overwriting(target, [*arguments, *(value for name, value in keywords.items() if name != "out")])
        with sole_writer(target):
            return work(*arguments, **keywords)

    return alone


def _paths_in(values: Iterable[Any]) -> Iterator[Path]:
    """Yield what exists of the paths among some arguments, those in lists too."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from _paths_in(value)
        elif isinstance(value, str | Path):
            with suppress(OSError, ValueError):  # a name that is no path
                if Path(value).exists():
                    yield Path(value)


def refuse_overwriting(target: Path, values: Iterable[Any]) -> None:
    """Raise InputError where what is to be written is one of some values that are read, or lies in a folder of them."""
    for path in _paths_in(values):
        if target.exists() and (target.samefile(path) or path.resolve() in target.resolve().parents):
            what = "is read by this command" if target.samefile(path) else f"lies in {path}, which this command reads"
            raise InputError(f"{target}: {what}", hint="name another --out")


def busy(target: Path, lock: Lock) -> RunError:
    """Return the error of who wants to write what another process is writing."""
    return RunError(
        f"{target}: {lock.holder} is writing it", hint="wait until that process has ended, or choose another --out"
    )


@contextmanager
def file_held(file: IO[bytes]) -> Iterator[None]:
    """Let no other process that asks for it write an open file within the block; wait for who does."""
    while not try_lock(file.fileno()):
        time.sleep(0.002)
    try:
        yield
    finally:
        unlock(file.fileno())

"""What differs between operating systems: nothing else calls what only some of them have.

The part for Windows is untested on Windows; a test runs it with a fake of what Python has there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import sys
from pathlib import Path
from typing import IO

NO_LINK = getattr(os, "O_NOFOLLOW", 0)
"""Flag of opening: what a link leads to is somebody's file. Without effect where the system has no such flag."""

HANG_UP: int | None = getattr(signal, "SIGHUP", None)
"""The signal that asks a server to open its models again; None where there is none."""

_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_NO_LOCKS_HERE = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}

if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30
    """The byte that is locked: nobody can read a locked one, and the name of the holder is to be read."""

    def try_lock(file: int, *, shared: bool = False) -> bool:
        """Lock an open file unless another process holds it; return whether it is locked now."""
        os.lseek(file, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def unlock(file: int) -> None:
        """End the lock of an open file."""
        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def try_lock(file: int, *, shared: bool = False) -> bool:
        """Lock an open file unless another process holds it; return whether it is locked now."""
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise
        return True

    def unlock(file: int) -> None:
        """End the lock of an open file."""
        # Said, not left to closing: a process that was forked meanwhile has the file open too.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)


_OTHER_FILES = 512
"""What else a process may have open."""


def removes_open_files() -> bool:
    """Return whether a file that somebody has open can be removed or renamed."""
    return sys.platform != "win32"


def sync(path: str | Path) -> None:
    """Let the content of a file reach the disk, whoever wrote it."""
    with open(path, "r+b" if sys.platform == "win32" else "rb") as file:  # Windows wants it open for writing
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Let the names of a folder reach the disk, where the system opens folders."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


def open_up(path: str | Path, rights: int) -> None:
    """Give a file the rights to read and write that others have; whether it can be run stays."""
    if sys.platform != "win32":  # which has other rights
        os.chmod(path, os.stat(path).st_mode & 0o111 | rights & 0o666)


def opened_at_once(path: Path) -> IO[bytes]:
    """Open what may be a pipe without a writer, without waiting for one."""
    return os.fdopen(os.open(path, os.O_RDONLY | _AT_ONCE), "rb")


def bound_memory(most: int) -> None:
    """Let this process have an error where it asks for more bytes than these, if the system can do that."""
    if sys.platform == "win32":
        return
    import resource

    _, limit = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or limit > most:
        resource.setrlimit(resource.RLIMIT_AS, (most, limit))


def let_open(files: int) -> None:
    """Let this process have so many more files open, as far as the system lets it: an open memory map holds one."""
    if sys.platform == "win32":  # which counts maps elsewhere
        return
    import resource

    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files + _OTHER_FILES
    if limit != resource.RLIM_INFINITY and limit < wanted:
        if most != resource.RLIM_INFINITY:
            wanted = min(wanted, most)
        with contextlib.suppress(ValueError, OSError):  # macOS refuses more than the kernel has
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def peak_bytes() -> int:
    """Return the most memory that this process has filled so far."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_bytes() -> int:
    """Return the memory of this process that lies in RAM on Linux; 0 elsewhere."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def return_memory() -> None:
    """Give memory that was freed back to the system, where the C library keeps it (glibc); nothing elsewhere."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def cores() -> int:
    """Return how many cores this process may use: it may be kept to some of those that there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

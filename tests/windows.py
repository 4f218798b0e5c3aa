"""Makes this process believe that it runs on Windows, as far as Linux can play that, and then runs commands.

    python -m tests.windows import                    import every module of the package
    python -m tests.windows run '[["mine", ...], ...]'  run commands of `embedsmith`, one after the other

What Python has on POSIX systems alone is gone, and what is open can be neither renamed nor removed. Other packages are
imported first: they look at the system for themselves. Paths stay those of Linux.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import pkgutil
import shutil
import signal
import sys
import types
from pathlib import Path
from typing import Any

# Names that Python's documentation says are not there on Windows.
MODULES = ["fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline", "crypt", "spwd"]
OF_OS = """
    chown fchmod fchown fork forkpty getegid geteuid getgid getgroups getpgid getpgrp getpriority getsid getuid killpg
    lchown lockf mkfifo mknod nice openpty pipe2 posix_fadvise posix_fallocate posix_spawn pread pwrite
    register_at_fork sched_getaffinity sched_setaffinity sched_yield sendfile setgid setsid setuid statvfs sync
    sysconf uname wait wait3 wait4 O_CLOEXEC O_DIRECTORY O_DSYNC O_NOATIME O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH
    O_SYNC O_TMPFILE
""".split()  # noqa: SIM905
OF_SIGNAL = """
    SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 alarm pause
""".split()  # noqa: SIM905
FIRST = """
    accelerate bm25s httpx2 ir_measures mteb numpy peft psutil pyarrow.parquet rich.console rich.progress scipy.stats
    sentence_transformers torch torch._dynamo transformers.models.auto transformers.trainer typer uuid yaml
""".split()  # noqa: SIM905
"""Packages that look at the system when they are imported."""


def open_below(path: Any) -> bool:
    """Return whether this process has a file open, or mapped into memory, that is a path or lies below it."""
    place = os.path.realpath(path)
    mapped = [line.rstrip("\n").partition("/")[2] for line in open("/proc/self/maps", encoding="utf-8")]  # noqa: SIM115
    held = [f"/{name}" for name in mapped if name]
    for number in os.listdir("/proc/self/fd"):
        try:
            held.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    return any(one == place or one.startswith(f"{place}/") for one in held)


def become_windows() -> None:
    """Take away what Windows does not have."""
    for name in FIRST:
        importlib.import_module(name)
    import fcntl

    import psutil

    locked = fcntl.flock

    def locking(file: int, mode: int, count: int) -> None:
        assert os.lseek(file, 0, os.SEEK_CUR), "Windows locks a byte at the file's position: the first one is read"
        locked(file, fcntl.LOCK_UN if mode == 0 else fcntl.LOCK_EX | fcntl.LOCK_NB)

    msvcrt = types.ModuleType("msvcrt")
    vars(msvcrt).update(locking=locking, LK_NBLCK=2, LK_UNLCK=0)
    sys.modules["msvcrt"] = msvcrt
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for place, names in ((os, OF_OS), (signal, OF_SIGNAL)):
        for name in names:
            if hasattr(place, name):
                delattr(place, name)
    _hold_what_is_open()
    info = psutil.Process.memory_info
    psutil.Process.memory_info = lambda process: types.SimpleNamespace(peak_wset=info(process).rss)
    os.symlink = _refused  # type: ignore[assignment]
    sys.platform = "win32"


def _refused(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.EPERM, "A required privilege is not held by the client", str(args[0]))


def _hold_what_is_open() -> None:
    """Have what is open stay where it is; what is there is not renamed over; only what can be written is synced."""

    def guarded(call: Any, *, may_replace: bool, both: bool) -> Any:
        def guard(path: Any, *others: Any, **kwargs: Any) -> Any:
            if isinstance(path, str | Path) and (os.path.exists(path) or os.path.islink(path)):
                for place in (path, *others) if both else (path,):
                    if os.path.exists(place) and open_below(place):
                        raise PermissionError(errno.EACCES, "it is being used by another process", str(place))
            if both and others and not may_replace and os.path.exists(others[0]):
                raise FileExistsError(errno.EEXIST, "there already", str(others[0]))
            if both and others and may_replace and os.path.isdir(others[0]):
                raise PermissionError(errno.EACCES, "Access is denied", str(others[0]))
            return call(path, *others, **kwargs)

        return guard

    os.rename = guarded(os.rename, may_replace=False, both=True)
    os.replace = guarded(os.replace, may_replace=True, both=True)
    os.unlink = os.remove = guarded(os.unlink, may_replace=True, both=False)
    # `rmtree` by descriptors would go around this.
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    synced = os.fsync

    def fsync(file: int) -> None:
        flags = Path(f"/proc/self/fdinfo/{file}").read_text(encoding="utf-8").split("flags:")[1].split()[0]
        if int(flags, 8) & os.O_ACCMODE == os.O_RDONLY or os.path.isdir(f"/proc/self/fd/{file}"):
            raise OSError(errno.EBADF, "Bad file descriptor")
        synced(file)

    os.fsync = fsync


def main() -> None:
    """Do what the command line says."""
    become_windows()
    import embedsmith

    if sys.argv[1] == "import":
        for module in pkgutil.walk_packages(embedsmith.__path__, "embedsmith."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        return
    from embedsmith.cli.main import main as command

    for words in json.loads(sys.argv[2]):
        sys.argv[1:] = words
        try:
            command()
        except SystemExit as end:
            if end.code:
                raise


if __name__ == "__main__":
    main()

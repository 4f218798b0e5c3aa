"""Feeds changed files to the readers of foreign files, and keeps those that end in anything but a result or one line.

    python -m tests.attacks.fuzz --list
    python -m tests.attacks.fuzz pairs-jsonl recipe --minutes 5 --seed 1 --out findings

Good is a result, or an EmbedsmithError of one line with a remedy. A finding is any other exception, a reading that
takes too long, one that takes too much memory, or the end of the process. Its files are saved as OUT/READER/NAME: one
that was mended goes to `seeds/READER/NAME`, which `test_seeds.py` reads ever after.

The readers run in a process of their own, which begins again after its end.
"""

from __future__ import annotations

import argparse
import errno
import gc
import itertools
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.attacks import fast, reading
from tests.attacks.mutations import mutated
from tests.attacks.readers import READERS
from tests.attacks.reading import SEEDS, Reader, checked

Files = dict[str, bytes]
"""Path below the folder that is read -> content."""

_PLACE = b"@FOLDER@"
"""Stands in saved files for the folder that is read, whose path some of them hold."""
_MOST_BYTES = 2**29
"""Of memory that one reading may add to what the process had at its most."""
_MOST_BYTES_AT_ALL = 12 * 2**30


_FORK = multiprocessing.get_context("fork")


class TooLong(BaseException):
    """A reading that hangs; no `except Exception` may take it for something else."""


class Place:
    """The folder that a reader reads: its base, with some files put over it."""

    def __init__(self, reader: Reader, root: Path) -> None:
        self.reader = reader
        self.folder = root / "read"
        self._base = root / "base"
        self.folder.mkdir(parents=True)
        if reader.base:
            reader.base(self.folder)
        self.folder.rename(self._base)
        self._readings = 0

    def seeds(self, name: str) -> list[Files]:
        """Return what is changed: files of the base, and those that are kept."""
        paths = {path for pattern in self.reader.files for path in self._base.glob(pattern) if path.is_file()}
        own = [{str(path.relative_to(self._base)): path.read_bytes()} for path in sorted(paths)]
        return own + [self.loaded(folder) for folder in sorted((SEEDS / name).glob("*")) if folder.is_dir()]

    def loaded(self, folder: Path) -> Files:
        """Return the files of a seed."""
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return {name: raw.replace(_PLACE, bytes(self.folder)) for name, raw in sorted(files.items())}

    def save(self, files: Files, folder: Path) -> None:
        """Write the files of a finding."""
        for name, raw in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(raw.replace(bytes(self.folder), _PLACE))

    def read(self, files: Files) -> None:
        """Let the reader read files over its base."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.reader.base:
            shutil.copytree(self._base, self.folder)
        for name, raw in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(raw)
            self._readings = (self._readings + 1) % fast.CHANGED
            os.utime(self.folder / name, (self._readings, self._readings))  # what is kept goes by it
        self.reader.read(self.folder)


def what_is_wrong(place: Place, files: Files, *, seconds: float) -> tuple[str, str] | None:
    """Return how a reading ended, and where, if it did not end well."""
    from embedsmith.errors import EmbedsmithError

    def too_long(*_: Any) -> None:
        raise TooLong(f"more than {seconds:g} s")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        try:
            place.read(files)
        except EmbedsmithError as error:
            checked(error)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        raise
    except OSError as error:
        # A path that a file names may be longer than any: the system says so, in one line.
        if error.errno != errno.ENAMETOOLONG:
            return f"OSError: {' '.join(str(error).split())[:200]}", _where(error)
    except BaseException as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", _where(error)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return ("memory", f"{grown >> 20} MiB more") if grown > _MOST_BYTES else None


def _where(error: BaseException) -> str:
    """Return the innermost line of the package that an error went through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/embedsmith/" in frame.filename]
    if not frames:
        frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"


def changed_seeds(rng: random.Random, seeds: list[Files]) -> Iterator[Files]:
    """Yield seeds with one file changed, without end."""
    while True:
        files = rng.choice(seeds)
        name = rng.choice(list(files))
        others = [raw for seed in seeds for other, raw in seed.items() if Path(other).suffix == Path(name).suffix]
        yield {**files, name: mutated(rng, name, files[name], others)}


def fuzz(name: str, *, minutes: float, seed: int, out: Path, now: Path) -> int:
    """Feed one reader; return how many readings there were.

    Args:
        now: where the files lie that are being read, for who finds this process dead.
    """
    rng = random.Random(seed)
    seen: set[str] = set()
    executions = 0
    place = Place(READERS[name], now.parent / "place")
    seconds = READERS[name].seconds
    limit = _MOST_BYTES_AT_ALL
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    end = time.monotonic() + 60 * minutes
    seeds = place.seeds(name)
    os.fsync = lambda file: None  # what is read again in a moment need not reach the disk
    assert seeds, f"{name}: no seeds"
    touched = fast.Touched(place.folder)
    reading.is_worth.append(touched.is_worth)
    with touched.learning():
        what_is_wrong(place, {} if READERS[name].base else seeds[0], seconds=20 * seconds)
    fast.keep()
    begun, worked = time.monotonic(), time.process_time()
    for number, files in enumerate(itertools.chain(seeds, changed_seeds(rng, seeds))):
        if time.monotonic() > end and number >= len(seeds):
            break
        now.write_text(json.dumps({file: raw.hex() for file, raw in files.items()}))
        touched.begin(files)
        # The first readings import what is read with.
        wrong = what_is_wrong(place, files, seconds=seconds if number >= len(seeds) else 20 * seconds)
        executions += 1
        if number == len(seeds):
            gc.freeze()  # some readings collect garbage themselves: not all that the libraries hold, each time
        if wrong:
            kind = f"{wrong[0].partition(':')[0]} {wrong[1]}"
            if kind not in seen:
                seen.add(kind)
                _report(place, name, files, out, wrong)
    took, work = time.monotonic() - begun, time.process_time() - worked
    speed = f"{executions / took:.1f} a second, {executions / work:.1f} a second of processor time"
    print(
        f"{name}: {executions:,} readings in {took / 60:.1f} minutes, {speed}, {len(seen)} kinds of findings",
        flush=True,
    )
    return executions


def _report(place: Place, name: str, files: Files, out: Path, wrong: tuple[str, str]) -> None:
    """Save a finding, and print its line."""
    folder = out / name / f"{wrong[0].partition(':')[0]}-{wrong[1]}".replace(" ", "-").replace(":", "-")
    shutil.rmtree(folder, ignore_errors=True)
    place.save(files, folder)
    print(f"{name}: {wrong[1]}: {wrong[0]}: {folder}", flush=True)


def watched(name: str, *, minutes: float, seed: int, out: Path) -> None:
    """Fuzz one reader in a process of its own; one that died, or hangs where no alarm is heard, is a finding."""
    end = time.monotonic() + 60 * minutes
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as root:
        while True:
            now = Path(root) / f"{seed}" / "now.json"
            now.parent.mkdir()
            left = max(0.0, (end - time.monotonic()) / 60)
            process = _FORK.Process(
                target=_reading, args=(name,), kwargs={"minutes": left, "seed": seed, "out": out, "now": now}
            )
            process.start()
            while process.is_alive():
                process.join(0.2)
                if now.exists() and time.time() - now.stat().st_mtime > 25 * READERS[name].seconds:
                    process.kill()
            if process.exitcode == 0:
                return
            if not now.exists():
                raise SystemExit(f"{name}: cannot begin")
            files = {file: bytes.fromhex(raw) for file, raw in json.loads(now.read_text()).items()}
            folder = out / name / f"ended-{process.exitcode}-{seed}"
            for file, raw in files.items():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(raw.replace(str(now.parent / "place" / "read").encode(), _PLACE))
            print(f"{name}: the process ended with {process.exitcode}: {folder}", flush=True)
            if time.monotonic() > end:
                return
            seed += 1


def _reading(name: str, *, minutes: float, seed: int, out: Path, now: Path) -> None:
    """Fuzz one reader in this process, which is a new one."""
    os.environ["XDG_CACHE_HOME"] = str(now.parent / "cache")
    fuzz(name, minutes=minutes, seed=seed, out=out, now=now)


def _prepare() -> None:
    """Import what most readers need: the processes begin with it."""
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    warnings.simplefilter("ignore")
    import datasets  # noqa: F401

    import embedsmith.models.opening
    import embedsmith.recipes.run  # noqa: F401

    gc.freeze()


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="READER", help="all of them where none is named")
    parser.add_argument("--list", action="store_true", help="print the readers")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("findings"))
    given = parser.parse_args()
    if given.list:
        print("\n".join(READERS))
        return
    if unknown := [name for name in given.readers if name not in READERS]:
        parser.error(f"no reader {unknown[0]}; there are {', '.join(READERS)}")
    _prepare()
    for name in given.readers or READERS:
        watched(name, minutes=given.minutes, seed=given.seed, out=given.out)


if __name__ == "__main__":
    main()

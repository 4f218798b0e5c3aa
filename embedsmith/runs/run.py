"""Run folders: what one command wrote, resumed when it was cut short, never overwritten.

RUN/manifest.json    command, settings and their fingerprint, versions, timings, counts, status
RUN/recipe.yaml      the settings, to repeat the run with
RUN/.lock            while a process writes the run: another one is refused
RUN/…                what the command made; each file is whole or absent
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import yaml

from embedsmith.data.files import atomic_write, read_json, remove_below, remove_partials, write_json
from embedsmith.data.locks import Lock, busy
from embedsmith.data.plain_values import is_number
from embedsmith.errors import EmbedsmithError, RunError
from embedsmith.pages.tables import Figures, Tabular
from embedsmith.progress import duration
from embedsmith.runs.part import manifest_of_part, recipe_around
from embedsmith.settings import Settings, fingerprint, flat
from embedsmith.version import __version__, installed_versions

FORMAT = 1
_LOCKED_APART = ("vectors", "shared", "cells")
"""Folders of a run that have locks of their own, within them: another process may be writing there."""
_PACKAGES = ("torch", "transformers", "sentence-transformers", "numpy")
_FIRST_FILES = {"manifest.json", "recipe.yaml"}
"""What a run folder has before its command makes anything."""


class Run(Tabular):
    """A run folder: open for writing, and what a command returns of it."""

    def __init__(self, folder: Path, manifest: dict[str, Any], *, lock: Lock | None) -> None:
        """Use `Run.open`."""
        self.folder = folder
        self.manifest = manifest
        self.vectors = folder / "vectors"
        """Where vectors are kept; several runs may share a folder."""
        self._lock = lock
        """Held by the one process that writes the run."""
        self._seconds_within: list[float] = []
        """Of each timed block that is open, those of the blocks within it; the innermost last."""

    @classmethod
    def follow(cls, folder: str | Path) -> Self:
        """Return the run that another process of the same command has opened; it writes nothing."""
        return cls(Path(folder), {"seconds": {}, "counts": {}, "content": {}}, lock=None)

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Return a finished run.

        Raises:
            RunError: the folder is missing, not a run folder, still being written, or was cut short.
        """
        return cls(Path(folder), finished(folder), lock=None)

    @classmethod
    def open(cls, folder: str | Path, *, command: str, settings: Settings, inputs: dict[str, Any]) -> Self:
        """Create a run folder, or go on with one that the same command was writing; hold its lock until the end.

        Args:
            command: the command's name.
            settings: everything that was chosen; with `inputs` it is the run's identity.
            inputs: what the run reads, as plain values.

        Raises:
            RunError: the folder is finished, another run's, being written, or not a run folder and not empty.
        """
        folder = Path(folder)
        new = {
            "format": FORMAT,
            "command": command,
            "status": "running",
            "fingerprint": fingerprint([FORMAT, command, settings.model_dump(mode="json"), inputs]),
            "settings": settings.model_dump(mode="json"),
            "inputs": inputs,
            # Ours is not asked of the installation: a checkout runs without one.
            "versions": {"embedsmith": __version__, **installed_versions(_PACKAGES)},
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "content": {},
            "seconds": {},
            "counts": {},
        }
        if folder.exists() and not folder.is_dir():
            raise RunError(f"{folder}: a file, wanted a folder to write", hint="choose another --out")
        lock = Lock.in_folder(folder)
        if lock.held_by is None:
            _known(folder, new)  # a folder that is none of this run's is refused without a trace in it
        if not lock.take():
            raise busy(folder, lock)
        try:
            known = _known(folder, new)
            remove_partials(folder, but=_LOCKED_APART)
            run = cls(folder, known or new, lock=lock)
            if not known:
                # The manifest comes first: it makes the folder a run, which can go on if the next write fails.
                run.save()
            run._write_recipe(settings)
        except BaseException:
            lock.release()
            raise
        return run

    @property
    def is_new(self) -> bool:
        """Whether nothing was made in the folder yet."""
        made = {path.name for path in self.folder.iterdir()} - _FIRST_FILES
        return not made - ({self._lock.path.name} if self._lock else set())

    def __enter__(self) -> Self:
        """Work on the run."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let the lock go; remove the folder if a caller's mistake stopped the run before it made anything."""
        if not self._lock:
            return
        is_nothing = kind is not None and issubclass(kind, EmbedsmithError) and self.is_new
        try:
            for name in _FIRST_FILES if is_nothing else ():
                remove_below(self.folder, self.folder / name)
        finally:
            self._lock.release()
        if is_nothing:
            with suppress(OSError):  # another process has begun a run there
                self.folder.rmdir()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self.folder)!r}: {self.manifest.get('command')}, {self.status}>"

    @property
    def status(self) -> str:
        """`running`, which one that was cut short is too, or `finished`."""
        return str(self.manifest.get("status", "running"))

    def figures(self) -> Figures:
        """Return what the run did, and how long it took."""
        rows = [["status", self.status], *([name, duration(took)] for name, took in self.manifest["seconds"].items())]
        return Figures(f"{self.manifest.get('command')}: {self.folder}", ["", "value"], rows)

    def save(self) -> None:
        """Write the manifest."""
        if self._lock:
            write_json(self.folder / "manifest.json", self.manifest)

    def _write_recipe(self, settings: Settings) -> None:
        """Write the settings as a recipe."""
        with atomic_write(self.folder / "recipe.yaml") as file:
            yaml.safe_dump(settings.model_dump(mode="json"), file, sort_keys=False, allow_unicode=True)

    def same_content(self, name: str, content: str) -> None:
        """Note the hash of something that the run reads, or refuse to go on with another content under the same name.

        Raises:
            RunError: it has changed since the run began.
        """
        known = self.manifest["content"].setdefault(name, content)
        if known != content:
            raise RunError(
                f"{self.folder}: {name} has changed since this run began",
                hint="choose another --out, or begin anew with --overwrite",
            )
        self.save()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds that the block takes to the manifest, also when it is cut short.

        Those of a block within it are that block's alone.
        """
        started = time.monotonic()
        self._seconds_within.append(0.0)
        try:
            yield
        except BaseException:
            # What went wrong matters more than that the disk has no room for the seconds either.
            with suppress(OSError):
                self._end(name, time.monotonic() - started)
            raise
        self._end(name, time.monotonic() - started)

    def _end(self, name: str, seconds: float) -> None:
        """Note the seconds of a block that has ended."""
        within = self._seconds_within.pop()
        if self._seconds_within:
            self._seconds_within[-1] += seconds
        self._add_seconds(name, seconds - within)

    def _add_seconds(self, name: str, more: float) -> None:
        """Add seconds to what a piece of work took so far."""
        seconds = self.manifest["seconds"]
        seconds[name] = round(seconds.get(name, 0.0) + more, 2)
        self.save()

    def count(self, name: str, counts: dict[str, Any]) -> None:
        """Note counts in the manifest."""
        self.manifest["counts"][name] = counts
        self.save()

    def choose(self, settings: Settings) -> None:
        """Note the settings that the run itself has chosen; what was asked for stays its identity."""
        self.manifest["settings"] = settings.model_dump(mode="json")
        self._write_recipe(settings)
        self.save()

    def finish(self) -> None:
        """Declare the run whole."""
        self.manifest["status"] = "finished"
        self.save()

    @property
    def seconds(self) -> float:
        """Seconds of work so far, over all attempts."""
        return round(sum(self.manifest["seconds"].values()), 1)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Return the manifest of a run, or of what a recipe's run has mined of one data set.

    Raises:
        RunError: the folder is missing or not a run folder.
    """
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        if (run := recipe_around(folder)) and (
            found := manifest_of_part(folder, run, _manifest_of(run / "manifest.json"))
        ):
            return found
        what = "not a run folder (no manifest.json)" if Path(folder).is_dir() else "no such run folder"
        raise RunError(f"{folder}: {what}", hint="name the folder that was given as --out")
    return _manifest_of(path)


def _manifest_of(path: Path) -> dict[str, Any]:
    """Return what a manifest says.

    Raises:
        RunError: it is no manifest of a run.
    """
    found = read_json(path, finite=True)
    texts, mappings = ("command", "status"), ("settings", "inputs", "content", "seconds", "counts", "versions")
    if isinstance(found, dict):
        found = {**{name: {} for name in mappings}, **found}
        wrong = [name for name in texts if not isinstance(found.get(name), str)]
        wrong += [name for name in mappings if not isinstance(found[name], dict)]
        wrong = wrong or _wrong_within(found)
    else:
        wrong = list(texts)
    if wrong:
        raise RunError(f"{path}: no manifest of a run: nothing fits under {wrong[0]}", hint="run the command again")
    whole: dict[str, Any] = found
    return whole


def _wrong_within(found: dict[str, Any]) -> list[str]:
    """Return the names in a manifest under which the values are of another kind than a run writes."""
    places = [found["inputs"].get(name, "") for name in ("data", "mined", "run")]
    fits = {
        "inputs": all(isinstance(place, str) for place in places),
        "content": all(isinstance(hash_, str) for hash_ in found["content"].values()),
        "versions": all(isinstance(version, str) for version in found["versions"].values()),
        "seconds": all(is_number(seconds) for seconds in found["seconds"].values()),
        "counts": all(isinstance(counts, dict) for counts in found["counts"].values()),
        "trained_names": isinstance(found.get("trained_names", {}), dict),
    }
    return [name for name, fit in fits.items() if not fit]


def finished(folder: str | Path) -> dict[str, Any]:
    """Return the manifest of a run that is whole.

    Raises:
        RunError: the folder is missing, not a run folder, still being written, or was cut short.
    """
    if read_manifest(folder)["status"] != "finished" and (writer := Lock.in_folder(Path(folder)).held_by):
        raise RunError(f"{folder}: {writer} is still writing it", hint="wait until that process has ended")
    manifest = read_manifest(folder)  # again: it may have been finished since
    if manifest["status"] != "finished":
        hint = "give its command again; it goes on where it stopped"
        raise RunError(f"{folder}: a run that was cut short", hint=hint)
    return manifest


def _known(folder: Path, new: dict[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of the run that a folder holds and that goes on, None where the folder has nothing yet.

    Raises:
        RunError: the folder holds something else, or a run that is finished.
    """
    if not (folder / "manifest.json").is_file():
        # All that there may be of a run that was killed while it wrote its first file.
        if folder.is_dir() and any(not _is_first(path.name) for path in folder.iterdir()):
            raise RunError(f"{folder}: not empty and not a run folder", hint="choose another --out")
        return None
    manifest = _manifest_of(folder / "manifest.json")
    hint = "choose another --out, or begin anew with --overwrite"
    if manifest.get("fingerprint") != new["fingerprint"]:
        raise RunError(f"{folder}: holds another run ({_difference(manifest, new)})", hint=hint)
    if manifest["status"] == "finished":
        raise RunError(f"{folder}: this run is finished already", hint=hint)
    return manifest


def _is_first(name: str) -> bool:
    """Return whether a file is there before the manifest of a run is."""
    return name == ".lock" or (name.startswith(".manifest.json.") and name.endswith(".partial"))


def _difference(manifest: dict[str, Any], new: dict[str, Any]) -> str:
    """Return in a few words what distinguishes a run from the one whose folder it is."""
    if manifest.get("command") != new["command"]:
        return f"it was made by `{manifest.get('command')}`"
    then, now = (flat({**one.get("settings", {}), "input": one.get("inputs", {})}) for one in (manifest, new))
    changed = [
        f"{key} {then.get(key)!r}, now {now.get(key)!r}" for key in {**then, **now} if then.get(key) != now.get(key)
    ]
    return "; ".join(changed[:3]) or "made by another version"

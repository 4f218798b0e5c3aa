"""A shelf: results that several runs need, each made once and found by the fingerprint of all that it depends on.

SHELF/vectors/                vectors, in stores that know what they depend on
SHELF/candidates/0f3a…/       what was made, and about.json: what it depends on
SHELF/stages/…, scores/…, code/…
SHELF/candidates/.0f3a….lock  while a process is making it; others wait, and take it then

What a run takes from the shelf is linked into its folder, not copied: all of it is written once and never changed, so
the run is whole by itself, and either can be removed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from embedsmith.data.examples import Example
from embedsmith.data.files import (
    link_file,
    read_json,
    remove_partials_of,
    visible,
    whole_folder,
    write_json,
    write_jsonl,
)
from embedsmith.data.locks import Lock, waiting
from embedsmith.errors import RunError
from embedsmith.models.arithmetic import ARITHMETIC
from embedsmith.models.names import find_model
from embedsmith.models.settings import StudentSettings
from embedsmith.progress import Progress, silent
from embedsmith.runs.run import Run
from embedsmith.services.endpoint import is_url
from embedsmith.settings import fingerprint
from embedsmith.training.batches import Source
from embedsmith.training.report import read_steps, wrong_in_report
from embedsmith.training.settings import StageSettings
from embedsmith.vectors.guide import stores_of_guide, write_guide
from embedsmith.version import __version__, installed_versions

_ABOUT = "about.json"
_CONTENT = "content"

_COMPUTING = ("bm25s", "peft", "PyStemmer", "sentence-transformers", "tokenizers", "torch", "transformers")
"""Packages that decide a number on the shelf."""

_OF_ALL_EXAMPLES = sorted({field.name for field in dataclasses.fields(Source)} - {"examples", "guide"})
"""What a data set says of all its examples, as training reads it."""


class Shelf:
    """A folder of shared results."""

    def __init__(self, folder: str | Path) -> None:
        """Use a folder, which is made when something is put there."""
        self.folder = Path(folder)

    @property
    def vectors(self) -> Path:
        """The folder of the vector stores."""
        return self.folder / "vectors"

    def about(self, kind: str, identity: Any) -> dict[str, Any] | None:
        """Return what is known of a result, None where it is not on the shelf.

        Raises:
            InputError, RunError: the file is damaged.
        """
        path = self._entry(kind, identity) / _ABOUT
        if not path.is_file():
            return None
        found = read_json(path)
        if wrong := _wrong_in(found, kind):
            raise RunError(
                f"{path}: not what is known of {kind}: nothing fits under {wrong}",
                hint=f"remove {path.parent}: it is made again",
            )
        about: dict[str, Any] = found
        return about

    def take(self, kind: str, identity: Any, target: Path) -> bool:
        """Link a result to where a run wants it; return whether there is one."""
        if self.about(kind, identity) is None:
            return False
        _link(self._entry(kind, identity) / _CONTENT, target)
        return True

    def keep(self, kind: str, identity: Any, source: Path, *, about: dict[str, Any] | None = None) -> None:
        """Put a result of a run, a file or a folder, on the shelf; one that is there already stays."""
        if self.about(kind, identity) is None:
            with whole_folder(self._entry(kind, identity)) as partial:
                _link(source, partial / _CONTENT)
                write_json(partial / _ABOUT, {"identity": identity, **(about or {})})

    @contextmanager
    def making(self, kind: str, identity: Any, on_progress: Progress) -> Iterator[None]:
        """Be the only one that makes a result within the block, unless it is there; wait for who is making it."""
        if self.about(kind, identity) is not None:
            yield
            return
        entry = self._entry(kind, identity)

        def tell(holder: str) -> None:
            on_progress(f"shared {kind}", 0, 1, f"waits for {holder}, which is making them")

        with waiting(Lock.beside(entry), tell):
            remove_partials_of(entry)
            yield

    def _entry(self, kind: str, identity: Any) -> Path:
        return self.folder / kind / fingerprint(identity)


def _wrong_in(about: Any, kind: str) -> str | None:
    """Return under which name something else stands than is noted of a kind of result, None where all fits."""
    if not isinstance(about, dict):
        return "identity"
    if kind == "candidates":
        guide = about.get("guide")
        names = ("teacher", "queries", "passages")
        is_guide = isinstance(guide, dict) and all(_is_name(guide.get(name)) for name in names)
        fits = {"guide": "guide" in about and (guide is None or is_guide)}
    elif kind == "stages":
        steps, counts = about.get("steps"), about.get("counts")
        fits = {
            "steps": isinstance(steps, list) and not any(map(wrong_in_report, steps)),
            "counts": isinstance(counts, dict) and all(isinstance(own, dict) for own in counts.values()),
        }
    elif kind == "scores":
        fits = {"model_hash": isinstance(about.get("model_hash"), str | None)}
    else:
        fits = {}
    return next((name for name, fit in fits.items() if not fit), None)


def _is_name(value: Any) -> bool:
    """Return whether a value is a text in one line that leads nowhere else: a teacher's name, or a store's."""
    return isinstance(value, str) and value.isprintable()


@contextmanager
def once(
    shelf: Shelf | None, kind: str, identity: Callable[[], Any], target: Path, on_progress: Progress = silent
) -> Iterator[dict[str, Any]]:
    """Take a result from the shelf before the block, which makes what is missing, and keep there what it has made.

    Where another process is making the same, wait for it.

    Yields:
        what is noted of the result beside its identity; the block may add to it what it makes.
    """
    noted: dict[str, Any] = {}
    if shelf is None:
        yield noted
        return
    depends_on = identity()
    with shelf.making(kind, depends_on, on_progress):
        if not target.exists() and shelf.take(kind, depends_on, target):
            noted |= {
                name: value for name, value in (shelf.about(kind, depends_on) or {}).items() if name != "identity"
            }
        yield noted
        shelf.keep(kind, depends_on, target, about=noted)


@contextmanager
def shared_candidates(
    shelf: Shelf | None, identity: Callable[[], Any], folder: Path, on_progress: Progress = silent
) -> Iterator[None]:
    """Take the candidates of a folder of mined negatives from the shelf, and keep there those that the block mines."""
    if shelf is None:
        yield
        return
    depends_on, path = identity(), folder / "candidates"
    with shelf.making("candidates", depends_on, on_progress):
        about = shelf.about("candidates", depends_on)
        if about and not path.exists():
            if guide := about["guide"]:
                places = {role: shelf.vectors / guide[role] for role in ("queries", "passages")}
                folder.mkdir(parents=True, exist_ok=True)
                write_guide(folder, teacher=guide["teacher"], **places)
            shelf.take("candidates", depends_on, path)
        yield
        shelf.keep("candidates", depends_on, path, about={"guide": stores_of_guide(folder)})


@contextmanager
def shared_stages(
    shelf: Shelf | None,
    run: Run,
    student: StudentSettings,
    stages: Sequence[StageSettings],
    sources: Sequence[Source],
    *,
    seed: int,
    on_progress: Progress = silent,
) -> Iterator[None]:
    """Take the stages that were trained already from the shelf, and keep there those that the block trains.

    A stage that mines again, and those after it, depend on more than their settings say: each run trains them itself.
    """
    if shelf is None:
        yield
        return
    identities = _stage_identities(run.folder, student, stages, sources, seed=seed)
    places = [run.folder / "stages" / stage.name for stage in stages[:-1]] + [run.folder / "model"]
    log = run.folder / "steps.jsonl"
    with ExitStack() as held:
        # From the first on, as every run does: two never wait for each other.
        for identity in identities:
            held.enter_context(shelf.making("stages", identity, on_progress))
        for number in range(_number_to_take(shelf, stages, identities)):
            stage, identity, place = stages[number], identities[number], places[number]
            about = shelf.about("stages", identity)
            if about and not place.exists():
                # The steps first: a stage whose model is there counts as done.
                rows = [row for row in read_steps(log) if row["stage"] != stage.name]
                write_jsonl(log, rows + about["steps"])
                for name, counts in about["counts"].items():
                    run.count(name, counts)
                shelf.take("stages", identity, place)
        yield
        for stage, identity, place in zip(stages, identities, places, strict=False):
            steps = [row for row in read_steps(log) if row["stage"] == stage.name]
            counted = ("model", f"queries of stage {stage.name}")
            counts = {name: run.manifest["counts"][name] for name in counted if name in run.manifest["counts"]}
            shelf.keep("stages", identity, place, about={"steps": steps, "counts": counts})


def _number_to_take(shelf: Shelf, stages: Sequence[StageSettings], identities: Sequence[Any]) -> int:
    """Return how many of the first stages to take: a stage that goes on with an optimizer needs the one before."""
    known = 0
    while known < len(identities) and shelf.about("stages", identities[known]):
        known += 1
    while 0 < known < len(stages) and not stages[known].restart_optimizer:
        known -= 1
    return known


def _stage_identities(
    folder: Path, student: StudentSettings, stages: Sequence[StageSettings], sources: Sequence[Source], *, seed: int
) -> list[Any]:
    """Return what the model after each stage depends on, up to the first stage that mines again."""
    contents = [
        {
            **{name: getattr(source, name) for name in _OF_ALL_EXAMPLES},
            "examples": _hash_of(source.examples),
            "guide": stores_of_guide(folder / "mined" / source.name) if source.guide else None,
        }
        for source in sources
    ]
    start = {
        "student": student.model_dump(mode="json"),
        "weights": identity_of_model(student.name),
        "seed": seed,
        "versions": versions_of_arithmetic(),
    }
    identities = []
    done: list[Any] = []
    for stage in itertools.takewhile(lambda stage: not stage.remine, stages):
        used = [content for content in contents if not stage.data or content["name"] in stage.data]
        done = [*done, {"stage": stage.model_dump(mode="json"), "sources": used}]
        identities.append({"start": start, "stages": done})
    return identities


def _hash_of(examples: Sequence[Example]) -> str:
    """Return a hash of everything that training reads of some examples."""
    digest = hashlib.sha256()
    for example in examples:
        plain = dataclasses.asdict(example)
        plain |= {role: list(map(list, plain[role])) for role in ("positives", "negatives")}
        digest.update(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS))
    return digest.hexdigest()[:16]


def versions_of_arithmetic() -> dict[str, Any]:
    """Return the versions of all that computes what a shelf holds, of those packages that are installed."""
    return {"embedsmith": __version__, "arithmetic": ARITHMETIC, **installed_versions(_COMPUTING)}


def identity_of_model(name: str) -> Any:
    """Return what tells a named model from others: its name and, where they lie on this machine, its files' content.

    >>> identity_of_model("bm25")
    'bm25'
    """
    if name in ("bm25", "random") or is_url(name):
        return name
    local = find_model(name.removeprefix("cross-encoder:")).local
    return name if local is None else {"name": name, "files": identity_of_files(local)}


def identity_of_files(path: Path) -> str | None:
    """Return what tells the content of a file or a folder from others; None where there is neither."""
    if not path.exists():
        return None
    files = [path] if path.is_file() else [inner for inner in visible(path, "**/*") if inner.is_file()]
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return _content_of(tuple(stats))


@cache
def _content_of(files: tuple[tuple[str, int, int], ...]) -> str:
    """Return a hash of the content of files; they are read again when their sizes or times have changed."""
    digest = hashlib.sha256()
    for path, size, _ in files:
        digest.update(f"{Path(path).name} {size}\n".encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _link(source: Path, target: Path) -> None:
    """Link a file, or every file of a folder, under another name, which appears whole or not at all."""
    if source.is_dir():
        with whole_folder(target) as partial:
            for path in sorted(source.rglob("*")):
                if path.is_file():
                    link_file(path, partial / path.relative_to(source))
    else:
        link_file(source, target)

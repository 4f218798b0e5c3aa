"""Exporting a trained model: one folder, opened again and compared before it is in its place.

sentence-transformers   opens in plain sentence-transformers; `trust_remote_code=True` where a module of ours is in it
nv-embed                NV-Embed's released layout, for a bidirectional Mistral or Llama with latent attention
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from embedsmith.data.files import read_json, whole_folder, write_text
from embedsmith.data.locks import writes_out
from embedsmith.errors import ModelError, RunError
from embedsmith.models.adapters import merge_adapters
from embedsmith.models.embedder import EmbeddingModel, describe
from embedsmith.models.golden import write_golden
from embedsmith.models.licence import UNSTATED, licence_in, licence_of
from embedsmith.models.names import ADAPTERS, find_model
from embedsmith.models.nv_embed import write_nv_embed
from embedsmith.models.opening import load
from embedsmith.models.precision import cast
from embedsmith.models.settings import Dtype, Layout
from embedsmith.pages.bars import draws_bars
from embedsmith.pages.markdown import code, inline
from embedsmith.pages.model_card import USE, ModelCard, use, with_scores
from embedsmith.progress import Progress, silent
from embedsmith.runs.lineage import lineage
from embedsmith.runs.named import named_data
from embedsmith.runs.origin import has_changed
from embedsmith.runs.run import finished
from embedsmith.runs.scores import read_scores

PROBES = [
    "What is the capital of France?",
    "10 million people live there; 2 of 3 take the train.",
    "def read_lines(path):\n    return open(path).read().split()",
    " a text after a space, naïve and 東京 and 🙂",
    "A longer passage, so that texts of several lengths stand in one batch. " * 6,
]
"""Texts whose vectors must be the same before and after."""
TOLERANCE = 1e-5
"""How far a number of a vector may move; the same weights compute it twice, in the same precision."""

MERGED = 1e-4
"""The same where adapters were merged: a sum is rounded before the matmul, not after it."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: str
    layout: Layout
    merged: bool
    """Whether adapters were merged into the weights."""
    adapters: bool
    """Whether the folder holds adapters over a base that is found by name, and opens with embedsmith alone."""
    needs_code: bool
    """Whether plain sentence-transformers needs `trust_remote_code=True`."""
    parameters: int
    bytes: int
    largest_difference: float
    """Between the vectors of the model and those of the folder, over a few texts in both roles."""


@writes_out
@draws_bars
def export(
    model: str | Path,
    *,
    out: str | Path,
    merge: bool = False,
    layout: Layout = "sentence-transformers",
    dtype: Dtype = "float32",
    on_progress: Progress = silent,
    progress: bool = True,
) -> Exported:
    """Write a model into a folder of its own, with a card, and check that the folder gives the same vectors.

    Args:
        model: a run, a folder, a hub id or package:NAME/path.
        out: the folder to write; it must not exist, or be empty.
        merge: merge adapters into the weights; adapters that are not merged are written as such, over their base.
        layout: see the module.
        dtype: precision of the weights in the folder.
        on_progress: called with the progress of the work, in place of bars.
        progress: draw bars, where there is a terminal or a notebook.

    Raises:
        RunError: the run is not finished, or the folder is not empty.
        ModelError: the model cannot be opened, or the layout cannot hold it, or the folder gives other vectors.
    """
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RunError(f"{target}: not an empty folder", hint="choose another --out, or begin anew with --overwrite")
    run = Path(model) if (Path(model) / "manifest.json").is_file() else None
    if run:
        finished(run)
    on_progress(f"open {model}", 0, 3)
    embedder = load(str(model), dtype=dtype)
    is_short = dtype == "bfloat16" or embedder.is_mixed
    if is_short:
        # All weights are written in bfloat16, though on a CPU only those of matmuls are used in it, or none.
        cast(embedder, torch.bfloat16).use_dtype(dtype)
    before, is_adapted = _vectors(embedder), embedder.has_adapters
    if is_adapted and merge:
        merge_adapters(embedder, PROBES)
    if is_short:
        cast(embedder, torch.bfloat16)
    sizes = describe(embedder)
    with whole_folder(target, replaces=False) as partial:
        on_progress(f"write {target}", 1, 3)
        if layout == "nv-embed":
            write_nv_embed(embedder, partial)
        else:
            embedder.write_into(partial, name=str(target), create_model_card=False)
        write_text(partial / "README.md", _card(str(model), run, target, layout, partial).text())
        # One of the two in memory at a time.
        del embedder
        gc.collect()
        on_progress(f"check {target}", 2, 3)
        opened = load(str(partial), dtype=dtype)
        difference = float(np.abs(_vectors(opened) - before).max())
        if difference > (MERGED if is_adapted and merge else TOLERANCE):
            raise ModelError(
                f"{target}: gives other vectors than {model}: they differ by {difference:.2g}",
                hint="report it with the model's name; nothing was written",
            )
        # By the folder as it opens: a model whose weights were just rounded computes in another precision.
        write_golden(opened, partial)
        size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
        needs_code = _needs_code(partial)
    on_progress(f"check {target}", 3, 3)
    return Exported(
        folder=str(target),
        layout=layout,
        merged=is_adapted and merge,
        adapters=is_adapted and not merge,
        needs_code=needs_code,
        parameters=sizes["parameters"],
        bytes=size,
        largest_difference=difference,
    )


def _vectors(model: EmbeddingModel) -> Float32[np.ndarray, "N D"]:
    """Return the vectors of the probes, as queries and as passages."""
    return np.concatenate([model.embed(PROBES, "query"), model.embed(PROBES, "passage")])


def _needs_code(folder: Path) -> bool:
    """Return whether a folder names modules that are not sentence-transformers' own."""
    path = folder / "modules.json"
    return path.is_file() and any(not module["type"].startswith("sentence_transformers.") for module in read_json(path))


def _card(name: str, run: Path | None, target: Path, layout: Layout, folder: Path) -> ModelCard:
    """Return the model card: the run's own or the folder's, with scores and how to open it."""
    source = find_model(name)
    path = source.local / "README.md" if source.local else None
    text = path.read_text(encoding="utf-8", errors="replace") if path and path.is_file() else ""
    if text.startswith("---\n"):
        card = ModelCard.of(text)
    else:
        about = f"A copy of {code(name)}.\n\n{text}"
        front = {"library_name": "sentence-transformers", "license": licence_of(source)}
        card = ModelCard.of(ModelCard.new(inline(target.name), about, **front).text())
    if run:
        licences = (f"- {inline(data)}: {inline(licence)}" for data, licence in _licences(run).items())
        card = with_scores(card.with_section("Licences of the data", licences), read_scores(run).metrics())
    needs_code = _needs_code(folder)
    is_plain = layout != "nv-embed" and not (folder / ADAPTERS).is_file()
    lines = [*use(target.name, is_plain=is_plain, needs_code=needs_code)]
    if needs_code:
        lines += ["", "The pool leaves the instruction out or has weights of its own, in `modeling_embedsmith.py`:"]
        lines += ["a server that reads `1_Pooling/config.json` alone, and not that file, gives other vectors."]
    return card.with_section(USE, lines)


def _licences(run: Path) -> dict[str, str]:
    """Return the licence of each data set that a run was trained on, where its folder states one."""
    for folder, manifest in lineage(run):
        places = {name: data["path"] for name, data in named_data(folder, manifest).items()}
        if data := manifest["inputs"].get("data"):
            places = {Path(data).stem: data}
        if places:
            return {name: _stated(place) for name, place in places.items()}
        if "mined" in manifest["inputs"] and has_changed(manifest):
            return {Path(manifest["inputs"]["mined"]).name: "not known: it was mined again after the training"}
    return {}


def _stated(place: str) -> str:
    """Return the licence that a data set's card states."""
    path = Path(place)
    licence = licence_in((path if path.is_dir() else path.parent) / "README.md")
    return licence if licence and licence != UNSTATED else "not stated on this machine: look it up"

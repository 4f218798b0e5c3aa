"""Exporting a trained model: one folder, opened again and compared before it is in its place.

sentence-transformers   opens in plain sentence-transformers; `trust_remote_code=True` where a module of ours is in it
nv-embed                NV-Embed's released layout, for a bidirectional Mistral or Llama with latent attention
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Float32

from embedsmith.data.files import read_json, whole_folder, write_text
from embedsmith.data.locks import writes_out
from embedsmith.data.shown import one_line
from embedsmith.errors import ModelError, RunError
from embedsmith.models.adapters import merge_adapters
from embedsmith.models.embedder import EmbeddingModel, describe
from embedsmith.models.licence import UNSTATED, licence_in, licence_of
from embedsmith.models.names import ADAPTERS, find_model
from embedsmith.models.nv_embed import write_nv_embed
from embedsmith.models.opening import load
from embedsmith.models.precision import cast
from embedsmith.models.settings import Dtype, Layout
from embedsmith.pages.markdown import code, inline
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
"""How far a number of a vector may move; the same weights compute it twice, in whatever precision."""

MERGED = 1e-4
"""The same where adapters were merged: a sum is rounded before the product, not after it."""


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
def export(
    model: str | Path,
    *,
    out: str | Path,
    merge: bool = False,
    layout: Layout = "sentence-transformers",
    dtype: Dtype = "float32",
    on_progress: Progress = silent,
) -> Exported:
    """Write a model into a folder of its own, with a card, and check that the folder gives the same vectors.

    Args:
        model: a run, a folder, a hub id or package:NAME/path.
        out: the folder to write; it must not exist, or be empty.
        merge: merge adapters into the weights; adapters that are not merged are written as such, over their base.
        layout: see the module.
        dtype: precision of the weights in the folder.
        on_progress: told of the work.

    Raises:
        RunError: the run is not finished, or the folder is not empty.
        ModelError: the model cannot be opened, or the layout cannot hold it, or the folder gives other vectors.
    """
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RunError(f"{target}: not an empty folder", hint="choose another --out, or remove it")
    run = Path(model) if (Path(model) / "manifest.json").is_file() else None
    if run:
        finished(run)
    on_progress(f"open {model}", 0, 3)
    embedder = load(str(model), dtype=dtype)
    is_short = dtype == "bfloat16" or embedder.is_mixed
    if is_short:
        # All weights are written in bfloat16, though on a CPU only those of products are used in it, or none.
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
        write_text(partial / "README.md", "\n".join(_card(str(model), run, target, layout, partial)) + "\n")
        # One of the two in memory at a time.
        del embedder
        gc.collect()
        on_progress(f"check {target}", 2, 3)
        difference = float(np.abs(_vectors(load(str(partial), dtype=dtype)) - before).max())
        if difference > (MERGED if is_adapted and merge else TOLERANCE):
            raise ModelError(
                f"{target}: gives other vectors than {model}: they differ by {difference:.2g}",
                hint="report it with the model's name; nothing was written",
            )
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


def _card(name: str, run: Path | None, target: Path, layout: Layout, folder: Path) -> Iterator[str]:
    """Yield the lines of the model card: the run's own or the folder's, with scores and how to open it."""
    source = find_model(name)
    card = source.local / "README.md" if source.local else None
    text = card.read_text(encoding="utf-8", errors="replace") if card and card.is_file() else ""
    if not text.startswith("---\n"):
        front = {"library_name": "sentence-transformers", "license": licence_of(source)}
        title = f"# {inline(target.name)}\n\nA copy of {code(name)}."
        text = f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n{title}\n\n{text}"
    yield text.partition("\n## Use\n")[0].strip()
    if run:
        yield from _data(run)
        yield from _scores(run)
    opened = json.dumps(one_line(target.name), ensure_ascii=False)
    yield from ("", "## Use", "", "```python")
    if layout == "nv-embed" or (folder / ADAPTERS).is_file():
        yield from ("import embedsmith", f"model = embedsmith.load({opened})")
    else:
        trust = ", trust_remote_code=True" if _needs_code(folder) else ""
        yield from ("from sentence_transformers import SentenceTransformer", "")
        yield f"model = SentenceTransformer({opened}{trust})"
    yield from ('queries, passages = model.encode_query(["…"]), model.encode_document(["…"])', "```")
    if _needs_code(folder):
        yield from ("", "The pool leaves the instruction out or has weights of its own, in `modeling_embedsmith.py`:")
        yield "a server that reads `1_Pooling/config.json` alone, and not that file, gives other vectors."


def _data(run: Path) -> Iterator[str]:
    """Yield the data sets of a run, with the licences that they state."""
    licences = _licences(run)
    if licences:
        yield from ("", "## Licences of the data", "")
        yield from (f"- {inline(name)}: {inline(licence)}" for name, licence in licences.items())


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


def _scores(run: Path) -> Iterator[str]:
    """Yield the scores of a recipe's run as tables."""
    for name, rows in read_scores(run).metrics().items():
        metrics = list(dict.fromkeys(metric for row in rows.values() for metric in row))
        yield from (
            "",
            f"## Scores on {inline(name)}",
            "",
            f"| | {' | '.join(map(inline, metrics))} |",
            "| --- " * (len(metrics) + 1) + "|",
        )
        for label, row in rows.items():
            yield f"| {inline(label)} | {' | '.join(_number(row.get(metric)) for metric in metrics)} |"


def _number(value: Any) -> str:
    """Return a score as it stands in a table."""
    return f"{value:.3f}" if isinstance(value, int | float) else ""

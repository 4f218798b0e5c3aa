"""What a folder of a model holds beside its weights: the modules that are ours, and what other programs ask for."""

from __future__ import annotations

import json
from pathlib import Path

from embedsmith.data.files import read_json, write_json
from embedsmith.models import modeling_embedsmith
from embedsmith.models.modeling_embedsmith import (
    InstructedTransformer,
    LatentAttentionPooling,
    MultiLayerPooling,
    SelfAttentionPooling,
)

OUR_FILE = Path(modeling_embedsmith.__file__).stem
OUR_MODULES: dict[str, type] = {
    f"{prefix}.{cls.__name__}": cls
    for cls in (InstructedTransformer, LatentAttentionPooling, SelfAttentionPooling, MultiLayerPooling)
    for prefix in (OUR_FILE, modeling_embedsmith.__name__)
}
"""Our own modules, by the names that a folder may have for them: the file that lies in it, or the package's."""

_OLD_POOLING_KEYS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def first_part(folder: Path) -> str:
    """Return where in a folder its backbone lies."""
    path = folder / "modules.json"
    return str(read_json(path)[0].get("path", "")) if path.is_file() else ""


def model_type(folder: Path) -> str:
    """Return what a folder's config.json calls its kind of model."""
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else {}
    return str(config.get("model_type")) if isinstance(config, dict) else ""


def name_modules_by_file(folder: Path) -> None:
    """Let modules.json name our modules by the file that lies in the folder, as code from a folder must be."""
    path = folder / "modules.json"
    modules = json.loads(path.read_text(encoding="utf-8"))
    for module in modules:
        if module["type"] in OUR_MODULES:
            module["type"] = f"{OUR_FILE}.{module['type'].rsplit('.', 1)[1]}"
    write_json(path, modules)


def add_old_pooling_keys(folder: Path) -> None:
    """Write a flag for each way of pooling beside the one name that sentence-transformers writes since 5.4.

    Servers that read the file themselves, text-embeddings-inference among them, still ask for the flags.
    """
    for path in folder.glob("*_Pooling/config.json"):
        config = read_json(path)
        modes = config.get("pooling_mode", [])
        chosen = [modes] if isinstance(modes, str) else modes
        flags = {key: mode in chosen for mode, key in _OLD_POOLING_KEYS.items()}
        write_json(path, {**config, **flags})

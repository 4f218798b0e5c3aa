"""Errors of libraries over a model's files, as one line about the model."""

from __future__ import annotations

import re
import struct

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from embedsmith.data.reachable import REMEDY
from embedsmith.errors import ModelError

CANNOT_BE_READ = (
    OSError,
    ValueError,
    ImportError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    EOFError,
    SafetensorError,
    struct.error,
    StrictDataclassError,
)
"""What libraries raise over files that are cut off, or hold values of another kind than they expect."""


class LibraryErrors:
    """The block in which a library that stumbles over what a folder holds is a ModelError."""

    def __init__(self, name: str, what: str, *, hint: str = "check the folder") -> None:
        """Take note of the model.

        Args:
            name: of the model.
            what: it cannot do then, such as "cannot be opened".
            hint: the remedy.
        """
        self._start = f"{name}: {what}"
        self._hint = hint

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Raise ModelError for what libraries raise."""
        # What the tokenizers raise is of no class of its own.
        if error is not None and (kind is Exception or isinstance(error, CANNOT_BE_READ) or is_panic(error)):
            hint = f"{REMEDY}, or use a folder that holds every file" if _asked_the_hub(error) else self._hint
            raise ModelError(f"{self._start}: {reason(error)}", hint=hint) from error


def _asked_the_hub(error: BaseException) -> bool:
    """Return whether a library missed a file, asked the hub for it, and was not answered.

    >>> [_asked_the_hub(OSError(said)) for said in ("We couldn't connect to 'https://hub' to load it", "no such file")]
    [True, False]
    """
    return re.search(r"connect to 'https?://|offline mode|HF_HUB_OFFLINE", str(error)) is not None


def is_panic(error: BaseException) -> bool:
    """Return whether an error is one that a library written in Rust had no words for, such as a tokenizer."""
    return type(error).__module__ == "pyo3_runtime"


def reason(error: BaseException) -> str:
    """Return in one line why a library could not read a folder."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # A RuntimeError is a part whose weights do not fit it, and names them over several lines.
    said = (
        " ".join(" ".join(lines).split())
        if isinstance(error, RuntimeError | StrictDataclassError)
        else lines[0].strip()
    )
    return f"no entry {said}" if isinstance(error, KeyError) else said

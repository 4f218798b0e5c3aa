"""Folders of NumPy arrays, one array a file, read as memory maps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from embedsmith.data.files import read_array
from embedsmith.errors import InputError


def hash_of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Return a hash of arrays and their names."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a folder, by name.

    Raises:
        InputError: one of them is damaged.
    """
    try:
        return {path.stem: read_array(path) for path in sorted(folder.glob("*.npy"))}
    except InputError as error:
        raise InputError(str(error), hint=f"remove {folder} and mine again") from None

"""One switch for the fast CPU kernels. Turn them off to check a result that looks odd against plain torch.

EMBEDSMITH_CPU=plain     off, from the next batch on

Vectors agree up to rounding, on or off. The switch does not change what is computed in bfloat16.
"""

from __future__ import annotations

import os

_VARIABLE, _OFF = "EMBEDSMITH_CPU", "plain"


def is_fast() -> bool:
    """Return whether a CPU computes in the ways that are fast here."""
    return os.environ.get(_VARIABLE) != _OFF

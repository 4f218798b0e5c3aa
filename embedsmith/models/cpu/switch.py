"""One switch for all that is done to be fast on a CPU: a result that looks odd is had once more by torch's own ways.

EMBEDSMITH_CPU=plain     turns it off, from the next batch on

Vectors are the same up to rounding with it and without. What is computed in bfloat16 is no matter of this switch.
"""

from __future__ import annotations

import os

_VARIABLE, _OFF = "EMBEDSMITH_CPU", "plain"


def is_fast() -> bool:
    """Return whether a CPU computes in the ways that are fast here."""
    return os.environ.get(_VARIABLE) != _OFF

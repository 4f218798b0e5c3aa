"""What the collector of cyclic garbage leaves alone while work goes on."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_kept = False


def keep() -> None:
    """Keep what is there out of what the collector looks through, until the process ends."""
    global _kept
    gc.freeze()
    _kept = True


@contextmanager
def spared() -> Iterator[None]:
    """Keep objects that were there before the block out of what the collector looks through within it.

    torch, transformers and sentence-transformers are a million objects that stay: a walk over all of them takes a
    quarter of a second, and texts read by the ten thousand set off one after another. Afterwards all is as before.
    It does nothing where the caller has frozen objects himself.
    """
    if _kept or gc.get_freeze_count():  # which walks over all that is frozen: for a command, a tenth of a second
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()

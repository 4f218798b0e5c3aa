"""What the collector of cyclic garbage looks through."""

import gc
import weakref

import pytest

from embedsmith.collector import keep, spared

pytestmark = pytest.mark.usefixtures("unfrozen")


class Knot:
    """An object that only the collector can find dead."""

    def __init__(self):
        self.itself = self


def test_what_was_there_before_is_not_looked_through_and_is_again_afterwards():
    before = Knot()
    seen = weakref.ref(before)
    with spared():
        del before
        within = weakref.ref(Knot())
        gc.collect()
        assert seen() is not None
        assert within() is None
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert seen() is None


def test_an_error_leaves_nothing_frozen():
    with pytest.raises(KeyError), spared():
        raise KeyError
    assert gc.get_freeze_count() == 0


def test_what_the_caller_froze_stays_frozen_and_nothing_else_is():
    frozen = Knot()
    seen = weakref.ref(frozen)
    gc.freeze()
    try:
        later = Knot()
        with spared():
            within = weakref.ref(later)
            del frozen, later
            gc.collect()
            assert within() is None
        gc.collect()
        assert seen() is not None
    finally:
        gc.unfreeze()
    gc.collect()
    assert seen() is None


def test_what_is_kept_is_not_counted_again_and_again(monkeypatch):
    monkeypatch.setattr(gc, "get_freeze_count", lambda: pytest.fail("all that is frozen was walked over"))
    keep()
    with spared():
        within = weakref.ref(Knot())
        gc.collect()
        assert within() is None
    gc.unfreeze()

"""What holds for every test: shapes and types are checked as they are annotated, and no model hub is asked."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import runtime_checkable

import hypothesis
import pytest

from embedsmith import collector
from embedsmith.progress import Progress
from embedsmith.teachers.named import Teacher
from tests import checked

# Read by huggingface_hub when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
# Read with torch: a thread that waits for the others leaves its core to the other tests.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The same examples in every run, however slow or busy the machine is.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("suite")

# Sources that a test reads, not tests.
collect_ignore = ["attacks/seeds"]

pytest_plugins = ["tests.servers", "tests.tiny_models"]

# `settings` is no part of this: beartype refuses the `Self` of a class that it has not seen whole.
ARRAYS = ["cluster", "data", "evaluation", "mining", "models", "teachers", "topk", "training", "vectors"]

# beartype calls `isinstance`, which a protocol supports only when it is runtime-checkable.
for protocol in (Progress, Teacher):
    runtime_checkable(protocol)

checked.install([f"embedsmith.{part}" for part in ARRAYS])


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names a folder of real data sets."""
    parser.addoption("--data", help="Folder of real data sets; the tests that need one are skipped without it.")


def pytest_runtest_setup() -> None:
    """Keep what is there before a test, imported modules above all, out of garbage collection.

    They are millions of objects. A full collection of them takes longer than training a tiny model for a few steps, and
    each training run asks for several. What earlier tests left is collected first; to ask whether all is frozen
    already would take longer, for it counts every object.
    """
    gc.collect()
    collector.keep()


@pytest.fixture
def unfrozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the collector see every object, for tests of what is frozen."""
    gc.unfreeze()
    monkeypatch.setattr(collector, "_kept", False)


@pytest.fixture(scope="session")
def real_data(request: pytest.FixtureRequest) -> Path:
    """The folder that `--data` or EMBEDSMITH_DATA names."""
    folder = request.config.getoption("--data") or os.environ.get("EMBEDSMITH_DATA")
    if not folder:
        pytest.skip("needs real data: --data FOLDER, or EMBEDSMITH_DATA")
    return Path(folder)


@pytest.fixture
def with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the CPU be one that multiplies bfloat16; torch does it, slowly, where it is not."""
    from embedsmith.models import precision  # only now is what it imports checked

    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: True)


@pytest.fixture(params=[True, False], ids=["with bfloat16", "without bfloat16"])
def bfloat16_or_not(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Have the CPU be one that multiplies bfloat16, and then one that does not."""
    from embedsmith.models import precision

    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: request.param)
    return request.param


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The roles of all texts that models encode from here on."""
    from embedsmith.models.embedder import EmbeddingModel  # only now is what it imports checked

    roles: list[str] = []
    embed_each = EmbeddingModel.embed_each

    def noted(lists, role):
        for texts in lists:
            roles.extend([role] * len(texts))
            yield texts

    monkeypatch.setattr(
        EmbeddingModel,
        "embed_each",
        lambda self, lists, role, **keywords: embed_each(self, noted(lists, role), role, **keywords),
    )
    return roles


@pytest.fixture(scope="session", autouse=True)
def _no_ones_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the vectors of the tests out of the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Compute on one thread: more only wait for each other on matrices this small."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Leave it to the system when files reach the disk: they are read again in a moment, and nobody pulls the plug."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield

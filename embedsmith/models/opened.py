"""Models that the caller has open already, as teachers and as what is scored: identified by what they compute.

Such a model has no name that another process could open. It is called `open:` and a fingerprint of all that its vectors
depend on: weights, tokenizer, prompts, lengths, precision. So a run that goes on with another model is refused, and the
same model that was opened twice is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from embedsmith.errors import ModelError
from embedsmith.models.compat import share_state
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.names import OPEN
from embedsmith.models.precision import limit_onednn_cache
from embedsmith.models.remembered import Remembered
from embedsmith.models.settings import StudentSettings
from embedsmith.settings import fingerprint


@contextmanager
def borrowed(model: Any) -> Iterator[EmbeddingModel]:
    """Give an open model as one of ours within the block; its weights are shared, and afterwards it is as it was.

    Args:
        model: a SentenceTransformer.

    Raises:
        TypeError: it is no embedding model.
        ModelError: its weights are not torch's, so that it has no fingerprint.
    """
    if not isinstance(model, SentenceTransformer):
        raise TypeError(f"model: {type(model).__name__}, wanted a name or an open SentenceTransformer")
    if model.backend != "torch":
        raise ModelError(
            f"an open model of {model.backend}: its weights cannot be identified",
            hint='open it with backend="torch"',
        )
    modes = {module: module.training for module in model.modules()}
    config = getattr(getattr(model[0], "model", None), "config", None)
    cached = getattr(config, "use_cache", None)
    try:
        yield model if isinstance(model, EmbeddingModel) else _as_ours(model)
    finally:
        for module, is_training in modes.items():
            module.training = is_training
        if cached is not None:
            config.use_cache = cached  # type: ignore[union-attr]


def name_of_open(model: EmbeddingModel) -> str:
    """Return what an open model is called: the same name for the same vectors, in every process."""
    return OPEN + fingerprint(model.contracts())


def student_folder(run: Path) -> Path:
    """Return where a run keeps a student that was open when training began."""
    return run / "student"


def in_run(student: StudentSettings, run: Path) -> StudentSettings:
    """Return the settings of a student under a name that can be opened: an open one lies in its run."""
    if not student.name.startswith(OPEN):
        return student
    return student.model_copy(update={"name": str(student_folder(run))})


def _as_ours(model: SentenceTransformer) -> EmbeddingModel:
    """Return an `EmbeddingModel` of the same modules."""
    limit_onednn_cache()
    ours = share_state(model, EmbeddingModel)
    ours._remembered = Remembered()
    if getattr(getattr(ours.backbone, "config", None), "use_cache", False):
        ours.backbone.config.use_cache = False  # as `EmbeddingModel` has it
    return ours

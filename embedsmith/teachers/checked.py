"""A `CrossEncoder` that looks at each batch before it goes to a device; imported when one is opened."""

from __future__ import annotations

from typing import Any

from sentence_transformers import CrossEncoder

from embedsmith.models.known_tokens import check_known


class CheckedCrossEncoder(CrossEncoder):
    """A CrossEncoder that refuses a token, a position or a type that it has no row for."""

    called: str = "the cross-encoder"
    """What errors call it."""

    def preprocess(self, *args: Any, **kwargs: Any) -> Any:
        """Return the features of pairs.

        Raises:
            ModelError: the model has no row for a token, a position or a type.
        """
        features = super().preprocess(*args, **kwargs)
        check_known(features, self, self.transformers_model, name=self.called)
        return features

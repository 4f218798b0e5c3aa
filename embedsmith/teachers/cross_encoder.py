"""The cross-encoder: a teacher that reads query and passage together, and only rescores what another one found.

Shapes: Q queries, P passages of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Float32, Int64

from embedsmith.errors import ModelError, SettingsError
from embedsmith.models.attention import steady_attention
from embedsmith.models.contract import contract_of, name_of
from embedsmith.models.devices import default_device
from embedsmith.models.folder import first_part
from embedsmith.models.library_errors import LibraryErrors
from embedsmith.models.names import find_model
from embedsmith.models.precision import limit_onednn_cache, resolve_dtype
from embedsmith.models.settings import ReadingDtype
from embedsmith.models.threads import one_at_a_time
from embedsmith.models.vetted import NO_CODE, NO_CODE_IN_WEIGHTS, vetted
from embedsmith.models.weights import check_tokenizer, check_weights
from embedsmith.progress import Progress, silent

_BLOCK = 16_384
"""Pairs scored at once, sorted by length."""

_WORTH_SPREADING = 10_000
"""Pairs from which on it pays to start a process for each device."""


class CrossEncoderTeacher:
    """A sentence-transformers `CrossEncoder` with one output; its scores are those of `predict`.

    `search` and `moments` would read every passage once for each query: they raise.
    """

    proposes = False

    def __init__(
        self,
        model: str,
        passages: Sequence[str],
        *,
        dtype: ReadingDtype = "auto",
        max_tokens: int | None = None,
        query_prompt: str = "",
        passage_prompt: str = "",
        batch_size: int = 32,
        device: str | None = None,
        devices: Sequence[str] = (),
        on_progress: Progress = silent,
    ) -> None:
        """Open the model; code from its folder is never run, and a pickle never opened.

        Args:
            model: its name, as in `embedsmith.models.names`.
            max_tokens: of query and passage together.
            device: a torch device; default: a GPU where there is one.
            devices: several to score many pairs on, each with a copy of the model. Untested on real GPUs.

        Raises:
            ModelError: the model is missing, needs foreign code, has several outputs, or cannot be opened.
        """
        self.name = f"cross-encoder:{model}"
        self._model = _open(model, dtype, device)
        self._passages = passages
        self._prompts = query_prompt, passage_prompt
        self._batch_size = batch_size
        self._devices = devices
        self._on_progress = on_progress
        if max_tokens:
            limit = getattr(self._model.config, "max_position_embeddings", None)
            if limit and max_tokens > limit:
                raise SettingsError(
                    f"max_tokens: {max_tokens} tokens, but {self.name} ends at {limit}",
                    hint=f"set it to {limit} or less",
                )
            self._model.max_seq_length = max_tokens
        self.contract = {
            **contract_of(self._model),
            "activation": name_of(self._model.activation_fn),
            "prompts": list(self._prompts),
            "own_prompt": self._model.prompts.get(self._model.default_prompt_name),
            "max_tokens": self._model.max_seq_length,
            "dtype": str(self._model.dtype),
        }
        """Everything besides the texts that determines the scores, as plain values."""

    def search(self, queries: Sequence[str], k: int) -> NoReturn:
        """Raise SettingsError."""
        self._refuse("search")

    def moments(self, queries: Sequence[str]) -> NoReturn:
        """Raise SettingsError."""
        self._refuse("score a whole corpus")

    def scores(self, queries: Sequence[str], rows: Int64[np.ndarray, "Q P"]) -> Float32[np.ndarray, "Q P"]:
        """Return the scores of given passages; the pairs of all queries are batched together, by length."""
        scores = np.empty(rows.shape, np.float32)
        step = max(1, _BLOCK // max(1, rows.shape[1]))
        with self._workers(rows.size) as workers:
            for start in range(0, len(queries), step):
                some = slice(start, start + step)
                scores[some] = self._scores_of_block(queries[some], rows[some], workers)
                done = min(start + step, len(queries))
                self._on_progress(f"score queries with {self.name}", done, len(queries))
        return scores

    def _scores_of_block(
        self, queries: Sequence[str], rows: Int64[np.ndarray, "Q P"], workers: dict[str, Any] | None
    ) -> Float32[np.ndarray, "Q P"]:
        """Return the scores of some queries' passages."""
        query_prompt, passage_prompt = self._prompts
        # The same pair of texts is scored once, and so always ties with itself.
        place: dict[tuple[str, str], int] = {}
        places = np.empty(rows.shape, np.int64)
        for q, query in enumerate(queries):
            for p, row in enumerate(rows[q].tolist()):
                pair = query_prompt + query, passage_prompt + self._passages[row]
                places[q, p] = place.setdefault(pair, len(place))
        return self._scores_of(list(place), workers)[places]

    def scores_of_pairs(self, pairs: Sequence[tuple[str, str]]) -> Float32[np.ndarray, " n"]:
        """Return the scores of (query, passage) pairs."""
        query_prompt, passage_prompt = self._prompts
        prompted = [(query_prompt + query, passage_prompt + passage) for query, passage in pairs]
        return self._scores_of(prompted, None) if prompted else np.empty(0, np.float32)

    def tokens_of_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[int, int]]:
        """Return the tokens of each pair before truncation, and how many of them the model reads at the most."""
        query_prompt, passage_prompt = self._prompts
        queries = [query_prompt + query for query, _ in pairs]
        passages = [passage_prompt + passage for _, passage in pairs]
        found = self._model.tokenizer(queries, passages, truncation=False, padding=False, verbose=False)
        limit = self._model.max_seq_length or self._model.tokenizer.model_max_length
        return [(len(ids), limit) for ids in found["input_ids"]]

    def _scores_of(self, pairs: list[tuple[str, str]], workers: dict[str, Any] | None) -> Float32[np.ndarray, " n"]:
        """Return the scores of pairs as the model reads them.

        Raises:
            ModelError: a score is not finite.
        """
        with steady_attention(str(self._model.device.type)):
            found = self._model.predict(pairs, batch_size=self._batch_size, show_progress_bar=False, pool=workers)
        scores = np.asarray(found, np.float32)
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            query, passage = pairs[bad[0]]
            raise ModelError(
                f"{self.name}: the score of {query[:40]!r} with {passage[:40]!r} is not finite",
                hint="use float32 or bfloat16: float16 overflows in many models",
            )
        return scores

    def similarities(self, rows: Int64[np.ndarray, " S"], others: Int64[np.ndarray, "S K"]) -> None:
        """Return None: there are no vectors."""

    def vectors_of(self, queries: Sequence[str]) -> None:
        """Return None: there are no vectors."""

    def _refuse(self, what: str) -> NoReturn:
        """Raise SettingsError."""
        raise SettingsError(
            f"{self.name} rescores what another teacher found; it cannot {what}",
            hint="name a teacher that searches beside it, such as bm25",
        )

    @contextmanager
    def _workers(self, pairs: int) -> Iterator[dict[str, Any] | None]:
        """Start a process for each device where there are several and the pairs are many."""
        if not self._devices or pairs < _WORTH_SPREADING:
            yield None
            return
        home = self._model.device
        workers = self._model.start_multi_process_pool(list(self._devices))
        try:
            yield workers
        finally:
            self._model.stop_multi_process_pool(workers)
            self._model.to(home)


@one_at_a_time
def _open(name: str, dtype: ReadingDtype, device: str | None) -> Any:
    """Return the `CrossEncoder` of a name, with what can go wrong in one line."""
    from embedsmith.teachers.checked import CheckedCrossEncoder

    source = find_model(name)
    if source.kind not in ("folder", "hub"):
        raise ModelError(f"{name}: not the folder or hub id of a cross-encoder", hint="name a folder or a hub id")
    found = vetted(source)
    limit_onednn_cache()
    with LibraryErrors(name, "cannot be opened"):
        model = CheckedCrossEncoder(
            found.path,
            device=device or default_device(),
            model_kwargs={"dtype": resolve_dtype(dtype, device), **NO_CODE_IN_WEIGHTS},
            config_kwargs=dict(NO_CODE),
            processor_kwargs=dict(NO_CODE),
            trust_remote_code=False,
            local_files_only=True,
        )
    model.called = f"cross-encoder:{name}"
    architectures = model.config.architectures or []
    if len(model) == 1 and not any(kind.endswith("ForSequenceClassification") for kind in architectures):
        # transformers puts a random head on it, with no more than a warning.
        raise ModelError(
            f"{name}: no cross-encoder: {' '.join(architectures) or 'its architecture'} has no head for scores",
            hint="name a model that was trained to rank pairs",
        )
    if model.transformers_model is not None:
        check_weights(model.transformers_model, Path(found.path) / first_part(Path(found.path)), name=name, unused=None)
        check_tokenizer(model.tokenizer, model.transformers_model, name=name)
    if model.num_labels != 1:
        raise ModelError(
            f"{name}: has {model.num_labels} outputs, a cross-encoder that ranks has 1",
            hint="name a model that was trained to rank, not to classify",
        )
    with LibraryErrors(name, "opens, and scores no pair"):
        model.predict([("a word that it knows", "\N{SNOWMAN}"), ("a", "cat")], show_progress_bar=False)
    return model

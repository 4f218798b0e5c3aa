"""Texts to vectors: tokenised ahead, cut into batches of about equal work, computed side by side, put back in order.

Shapes: N texts of a list, b texts of a batch, D dimensions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32
from sentence_transformers.util import truncate_embeddings
from torch import Tensor

from embedsmith.models.attention import steady_attention
from embedsmith.models.budget import Features, ahead, side_by_side, token_batches, windows
from embedsmith.models.cpu.matmul import Copies
from embedsmith.models.packed import alone, is_packable, on_device, pack
from embedsmith.models.precision import SHORT_TEXT
from embedsmith.models.settings import Role
from embedsmith.models.threads import on_cores, turn
from embedsmith.models.tokens import tokens_of

_TOKENS = {"cpu": 1024, "mps": 8192}
"""Of one core: a batch whose token states stay in its caches. Eight times as many take a third more a token. The
number for Apple's GPU is an estimate."""
_GPU_TOKENS = 32_768
_MOST_AT_ONCE = 16
"""Batches on a CPU. Python itself takes a thirtieth of MiniLM's, one batch at a time: more would wait for it."""
_WINDOW = 4096
"""Texts tokenised at once."""
_WINDOW_CHARACTERS = 8 * 2**20


class _Batch(NamedTuple):
    """Texts that go through a model together."""

    places: list[int]
    """Of the texts, in their list."""
    features: Features
    is_whole: bool
    """Whether the list has no other texts."""


def task_of_role(role: Role) -> str:
    """Return what sentence-transformers calls the texts of a role."""
    return "query" if role == "query" else "document"


def vectors_of_lists(
    model: Any,
    lists: Iterator[Sequence[str]],
    role: Role,
    *,
    tokens: int | None,
    on_done: Callable[[int], None] | None,
    normalize: bool,
    copies: Callable[[], Copies | None],
) -> Iterator[Float32[np.ndarray, "_ D"]]:
    """Yield the vectors of lists of texts, a list begun before the last one is done.

    Args:
        model: an embedding model with a backbone.
        lists: of texts.
        role: of the texts.
        tokens: of a batch, padding included; by default what suits the device.
        on_done: called with the number of texts done, of all lists.
        normalize: give each vector the length 1.
        copies: returns the weights that take the place of others for long texts.
    """
    on_cpu, packs, shortens = model.device.type == "cpu", model.packs(model.dtype), model.shortens
    apart = SHORT_TEXT[role] if shortens else None
    copies = cache(copies)
    cores = torch.get_num_threads()
    begun: deque[Sequence[str]] = deque()

    def work(batch: _Batch) -> tuple[list[int], Float32[Tensor, "b D"]]:
        is_short = apart is None or int(batch.features["attention_mask"][0].sum()) < apart
        # The only batch of its list has all cores, as if the list were alone: its bytes do not depend on others.
        with on_cores(model.cores_alone or cores) if batch.is_whole else nullcontext():
            return batch.places, vectors_of_batch(
                model, batch.features, task=task_of_role(role), packs=packs, copies=None if is_short else copies()
            )

    budget = tokens or _TOKENS.get(model.device.type, _GPU_TOKENS)
    cut = _batches(model, lists, role, begun=begun, budget=budget, padded=not packs, apart=apart)
    # On a CPU each core has a batch of its own: nothing waits for the slowest core after every matmul.
    workers = min(cores, _MOST_AT_ONCE) if on_cpu else 1
    done = 0
    places: list[int] = []
    vectors: list[Tensor] = []
    for some, found in side_by_side(work, cut, workers):
        places += some
        vectors.append(found)
        done += len(some)
        if on_done:
            on_done(done)
        while begun and len(places) == len(begun[0]):
            begun.popleft()
            ordered = _in_order(model, places, vectors, normalize=normalize)
            places, vectors = [], []
            # Whoever reads them may compute meanwhile, or read another model's: `side_by_side` holds this thread.
            with on_cores(cores):
                yield ordered
    for _ in begun:  # lists of no text
        yield _in_order(model, [], [], normalize=normalize)


def _batches(
    model: Any,
    lists: Iterator[Sequence[str]],
    role: Role,
    *,
    begun: deque[Sequence[str]],
    budget: int,
    padded: bool,
    apart: int | None,
) -> Iterator[_Batch]:
    """Yield the batches of lists of texts, the next texts being tokenised meanwhile.

    Args:
        model: an embedding model.
        lists: of texts.
        role: of the texts.
        begun: each list is put here when its first texts are tokenised.
        budget: see `budget.token_batches`, as the others.
        padded: see there.
        apart: see there.
    """
    prompt, task = model.prompt_of(role), task_of_role(role)

    def parts() -> Iterator[tuple[Sequence[str], list[int]]]:
        for texts in lists:
            begun.append(texts)
            lengths = [len(text) for text in texts]
            for places in windows(lengths, texts=_WINDOW, characters=_WINDOW_CHARACTERS):
                yield texts, places

    def tokenised(part: tuple[Sequence[str], list[int]]) -> Features:
        return tokens_of(model, [part[0][place] for place in part[1]], prompt=prompt, task=task)

    for (texts, window), features in ahead(tokenised, parts()):
        for rows, batch in token_batches(features, budget, padded=padded, apart=apart):
            yield _Batch([window[row] for row in rows.tolist()], batch, len(rows) == len(texts))


# Both contexts belong to the thread that enters them.
@torch.inference_mode()
def vectors_of_batch(
    model: Any, batch: Features, *, task: str, packs: bool, copies: Copies | None
) -> Float32[Tensor, "b D"]:
    """Return the vectors of one batch of tokens."""
    features = pack(batch) if packs and is_packable(batch) else batch
    with alone(model), steady_attention(model.device.type):
        return model(on_device(features, model.device), task=task, copies=copies)["sentence_embedding"].float()


def _in_order(
    model: Any, places: list[int], vectors: list[Float32[Tensor, "_ _"]], *, normalize: bool
) -> Float32[np.ndarray, "N D"]:
    """Return vectors at their places."""
    if not places:
        return np.empty((0, model.get_embedding_dimension()), np.float32)
    stacked = truncate_embeddings(torch.cat(vectors), model.truncate_dim)
    found = _finished(stacked, normalize=normalize)
    ordered = np.empty_like(found)
    ordered[places] = found
    return ordered


def vectors_by_library(
    model: Any, texts: Sequence[str], role: Role, *, pool: Mapping[str, Any] | None, normalize: bool
) -> Float32[np.ndarray, "N D"]:
    """Return vectors as sentence-transformers computes them: over several devices, or without a transformer.

    Args:
        model: an embedding model.
        texts: of one role.
        role: of the texts.
        pool: processes that compute them.
        normalize: give each vector the length 1.
    """
    if not texts:
        return np.empty((0, model.get_embedding_dimension()), np.float32)
    encode = model.encode_query if role == "query" else model.encode_document
    # Processes hand all their vectors to whoever asks first.
    with turn(model) if pool else nullcontext():
        vectors = encode(list(texts), prompt=model.prompt_of(role), convert_to_tensor=True, pool=pool)
    return _finished(vectors, normalize=normalize)


def _finished(vectors: Float[Tensor, "N D"], *, normalize: bool) -> Float32[np.ndarray, "N D"]:
    """Return vectors as they are handed out."""
    # In float32: a length of 1 in bfloat16 is off by up to a percent.
    vectors = vectors.float()
    found: np.ndarray = (torch.nn.functional.normalize(vectors, dim=-1) if normalize else vectors).cpu().numpy()
    return found

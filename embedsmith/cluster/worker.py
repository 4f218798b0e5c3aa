"""What a worker of a cluster does: fills a shard, or searches some. It needs the package, and nothing of the driver.

The vectors equal those of one machine byte for byte. So a worker with other versions, and one that opens another model
than the driver, is refused: the contract of a store says what its numbers depend on, and the worker's must be the same.

Shapes: Q queries, D dimensions, K candidates.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64

from embedsmith.errors import ModelError, RunError
from embedsmith.models.settings import Role
from embedsmith.vectors.filling import EncodeEach, not_here
from embedsmith.vectors.shards import open_when_there
from embedsmith.vectors.store import as_stored
from embedsmith.version import __version__, installed_versions

_PACKAGES = ("numpy", "sentence-transformers", "tokenizers", "torch", "transformers")
"""What the last bits of a vector depend on."""

_BETWEEN_S = 1.0
"""How often a worker tells how far it is."""

_opened: dict[str, Any] = {}
"""The model that this process has read last, by how it was asked for: each process loads it once."""


@dataclass(frozen=True)
class AskedModel:
    """How a worker opens the driver's model."""

    how: dict[str, Any]
    """Arguments of `models.opening.load`."""
    prompts: dict[Role, str]
    lengths: dict[Role, int | None]
    contract: dict[str, Any]
    """Of the role in which texts are read."""
    role: Role
    tokens: int | None
    """Of a batch."""
    cores: int
    """That the worker may use."""
    cores_alone: int
    """Of a batch that is alone, as on the driver: the last bits of a product may depend on it."""
    speeds: tuple[float, float] | None
    """By which the driver's CPU chooses what multiplies float32."""
    versions: dict[str, str]


@dataclass(frozen=True)
class AskedSearch:
    """Some shards of a store, in order."""

    files: list[str]
    rows: list[int]
    """Of each shard."""
    first_row: int
    """Of the first shard, in the store."""
    k: int
    memory_gib: float
    device: str
    cores: int
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """Return the versions that a driver and its workers have to share."""
    python = ".".join(map(str, sys.version_info[:2]))
    return {"python": python, "embedsmith": __version__, **installed_versions(_PACKAGES)}


@runtime_checkable
class Task(Protocol):
    """A piece of the texts that a worker encodes, and writes where it belongs."""

    @property
    def number(self) -> int:
        """Its own among all."""

    def fill(self, encode_each: EncodeEach) -> None:
        """Encode the texts, and write their vectors."""


def encode_shard(asked: AskedModel, task: Task, tally: Any) -> int:
    """Do one task; return its number.

    Args:
        tally: the actor that counts the texts that are encoded.

    Raises:
        InputError: a vector is not finite, or the place is not to be seen from here.
        ModelError: the model is another one here.
        RunError: the versions here are others.
    """
    _check_versions(asked.versions)
    _use_cores(asked.cores)
    model = _model(asked)
    told = time.monotonic()

    def on_done(done: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _BETWEEN_S:
            told = time.monotonic()
            tally.note.remote(task.number, done)

    def encode_each(lists: Iterator[Sequence[str]]) -> Generator[Float32[np.ndarray, "n D"], None, None]:
        found: Generator[Float32[np.ndarray, "n D"], None, None] = model.embed_each(
            lists, asked.role, tokens=asked.tokens, on_done=on_done
        )
        return found

    task.fill(encode_each)
    return task.number


def search_shards(
    queries: Float32[np.ndarray, "Q D"], asked: AskedSearch
) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
    """Return the rows and scores of the k best passages of some shards, best first, ties to the lower row.

    Raises:
        InputError: a shard is not to be seen from here.
        RunError: the versions here are others.
    """
    from embedsmith.topk.exact import top_k

    _check_versions(asked.versions)
    _use_cores(asked.cores)
    shards = []
    for name, count in zip(asked.files, asked.rows, strict=True):
        vectors = open_when_there(Path(name), count, queries.shape[1])
        if vectors is None:
            raise not_here(name)
        shards.append(vectors)
    rows, scores = top_k(queries, shards, k=asked.k, memory_gib=asked.memory_gib, device=asked.device)
    return rows + asked.first_row, scores


def _model(asked: AskedModel) -> Any:
    """Return the driver's model, opened once; refuse another one."""
    key = repr([asked.how, asked.prompts, asked.lengths, asked.cores_alone, asked.speeds])
    if key not in _opened:
        from embedsmith.models.measured import Speeds, use_speeds
        from embedsmith.models.opening import load

        _opened.clear()
        use_speeds(Speeds(*asked.speeds) if asked.speeds else None)
        model = load(**asked.how)
        for role, prompt in asked.prompts.items():
            if model.prompt_of(role) != prompt:
                model.set_prompt(role, prompt)
        lengths = {role: model.contract_length(role) for role in asked.lengths}
        if lengths != asked.lengths:
            model.set_max_tokens(**{role: length for role, length in asked.lengths.items() if length})
        model.cores_alone = asked.cores_alone
        _opened[key] = model, {role: as_stored(contract) for role, contract in model.contracts().items()}
    model, contracts = _opened[key]
    different = [name for name, value in contracts[asked.role].items() if asked.contract.get(name) != value]
    if different or contracts[asked.role].keys() != asked.contract.keys():
        raise ModelError(
            f"{asked.how['name']}: another model on {socket.gethostname()} than where the command was given: "
            f"its {', '.join(different) or 'contract'} differs",
            hint="put the same folder on every machine, or name one on a file system that all of them see",
        )
    return model


def _check_versions(wanted: dict[str, str]) -> None:
    """Refuse to work for a driver of other versions."""
    own = versions()
    for name in [*wanted, *own]:
        if wanted.get(name) != own.get(name):
            raise RunError(
                f"a worker on {socket.gethostname()} has {name} {own.get(name)}, the command {wanted.get(name)}",
                hint="install the same versions on every machine: the last bits of a vector depend on them",
            )


def _use_cores(cores: int) -> None:
    """Have torch use as many cores as the task was given."""
    import torch

    if torch.get_num_threads() != cores:
        torch.set_num_threads(cores)

"""The embedding model: a `SentenceTransformer` whose folders open anywhere, and are opened here without their code.

A saved folder that needs our modules carries their source, so `SentenceTransformer(folder, trust_remote_code=True)`
opens it where embedsmith is not installed. `load` uses the installed modules and needs no flag.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from embedsmith.data.files import whole_folder
from embedsmith.models.adapters import save_adapters
from embedsmith.models.card_data import CardData
from embedsmith.models.computing import Computes
from embedsmith.models.contract import contracts_of, hash_of_weights
from embedsmith.models.cpu.matmul import Copies, fast_matmul
from embedsmith.models.devices import default_device
from embedsmith.models.encoding import vectors_by_library, vectors_of_lists
from embedsmith.models.folder import OUR_MODULES, add_old_pooling_keys, name_modules_by_file
from embedsmith.models.golden import write_golden
from embedsmith.models.known_tokens import check_known
from embedsmith.models.nf4 import check_holds_no_nf4
from embedsmith.models.packed import alone, token_states
from embedsmith.models.precision import limit_onednn_cache
from embedsmith.models.probe import check_attention, promised_attention
from embedsmith.models.remembered import Remembered
from embedsmith.models.settings import Role, StudentSettings
from embedsmith.models.threads import turn, without_bars


class EmbeddingModel(Computes):
    """A SentenceTransformer whose folders are portable, whole or absent, and probed for their attention."""

    _module_classes = OUR_MODULES  # see `compat.OVERRIDDEN`
    model_card_data_class = CardData
    _workers: dict[str, Any] | None = None
    """The processes of `spread`, one a device."""
    merged_origin: StudentSettings | None = None
    """The same for the model that it is when its adapters are merged: known where they were saved."""
    base_weights: str = ""
    """A fingerprint of the weights under the adapters, where there are any."""
    opened: dict[str, Any] | None = None
    """The arguments with which `load` opens it anywhere; None of a model that was not opened by it."""
    cores_alone: int | None = None
    """Cores for a batch that is a whole list, where they are to be another machine's; None for those of the thread."""
    frozen_anyway: frozenset[str] = frozenset()
    """Weights of the backbone that were frozen before adapters froze all of them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        limit_onednn_cache()
        super().__init__(*args, **{**kwargs, "device": kwargs.get("device") or default_device()})
        self._remembered = Remembered()
        config = getattr(self.backbone, "config", None)
        if config is not None and getattr(config, "use_cache", False):
            # Keys and values for tokens to come: none do, and every layer would copy its own for them.
            config.use_cache = False

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> Any:
        """Return the features of texts, as a SentenceTransformer does; threads take turns.

        A fast tokenizer keeps truncation and padding as state, which is set before each call.

        Raises:
            ModelError: the model has no row for a token, a position or a type.
        """
        with turn(self[0]):
            features = super().preprocess(inputs, prompt=prompt, **kwargs)
        check_known(features, self, self.backbone, name=self.called)
        return features

    def forward(self, input: Mapping[str, Any], *, copies: Copies | None = None, **kwargs: Any) -> Any:
        """Return the features with the texts' vectors, as a SentenceTransformer does; they may be packed.

        Args:
            copies: of weights, which take their place in matmuls.

        Raises:
            SettingsError: there are gradients, and the model computes in int8, which has none.
        """
        if torch.is_grad_enabled():
            self.check_is_exact("trained")
        with alone(self), self._fast_matmul(copies):
            if "packed" not in input:
                return super().forward(input, **kwargs)
            found = token_states(self[0], input)
            for module in list(self)[1:]:
                found = module(found)
            return found

    def packs(self, dtype: torch.dtype) -> bool:
        """Return whether the model reads the texts of a batch in one row, where matmuls are computed in a type."""
        return self._remembered.packs(self, dtype)

    def _fast_matmul(self, copies: Copies | None = None) -> AbstractContextManager[Any]:
        """Return the block in which the weights fit each other as they are."""
        activations = self._remembered.fused(self, super().forward)
        # Autocast multiplies in bfloat16 by itself, and returns bfloat16.
        is_mixed = self.is_mixed and not (self.keeps_short and torch.is_autocast_enabled(self.device.type))
        quantised = self._remembered.quantised(self)
        return fast_matmul(self.device, mixed=is_mixed, activations=activations, copies=copies, quantised=quantised)

    def save(self, path: str, *args: Any, **kwargs: Any) -> None:
        """Write the model into a folder that plain sentence-transformers opens, with its golden vectors.

        The folder is written under a temporary name and renamed, so it is whole or absent.

        Raises:
            CausalityError: the attention is not what the configuration promises.
            SettingsError: the model computes in int8.
        """
        with whole_folder(Path(path)) as partial:
            self.write_into(partial, *args, name=str(path), **kwargs)
            write_golden(self, partial)
        here = StudentSettings(name=str(Path(path).resolve()))
        if self.has_adapters:
            self.merged_origin = here
        else:
            self.origin = here

    def write_into(self, folder: Path, *args: Any, name: str, **kwargs: Any) -> None:
        """Write the model into a folder that exists, file after file.

        Raises:
            SettingsError: the model computes in int8, or holds matrices in NF4.
        """
        self.check_is_exact("saved")
        check_holds_no_nf4(self, "saved")
        promised = promised_attention(self.backbone)
        if promised:
            with self._fast_matmul():
                check_attention(self.backbone, promised, name=name)
        if self.has_adapters:
            save_adapters(self, folder)
            return
        with without_bars():
            super().save(str(folder), *args, **kwargs)
        name_modules_by_file(folder)
        add_old_pooling_keys(folder)

    def embed(
        self,
        texts: Sequence[str],
        role: Role,
        *,
        tokens: int | None = None,
        on_done: Callable[[int], None] | None = None,
        normalize: bool = True,
    ) -> Float32[np.ndarray, "N D"]:
        """Return one vector of length 1 for each text, in the order given, with the role's instruction and length.

        They are those of `encode_query` and `encode_document` up to rounding, in about half the time: tokenised first,
        sorted by their tokens, packed to a budget; on a CPU every core has a batch of its own. A batch's composition
        may move the last bits of a vector; the same texts in the same order, on the same device, give the same bytes.

        Args:
            tokens: of a batch, padding included; by default what suits the device.
            on_done: called with the number of texts done after each batch.
            normalize: give each vector the length 1. Else it has what the model gives it.
        """
        (vectors,) = self.embed_each(iter([texts]), role, tokens=tokens, on_done=on_done, normalize=normalize)
        return vectors

    @torch.inference_mode()
    def embed_each(
        self,
        lists: Iterator[Sequence[str]],
        role: Role,
        *,
        tokens: int | None = None,
        on_done: Callable[[int], None] | None = None,
        normalize: bool = True,
    ) -> Generator[Float32[np.ndarray, "_ D"], None, None]:
        """Yield the vectors of lists of texts, bit for bit those of `embed`, a list begun before the last one is done.

        Args:
            tokens: see `embed`.
            on_done: called with the number of texts done, of all lists.
            normalize: see `embed`.
        """
        self.eval()
        if self._workers or self.backbone is None:
            for texts in lists:
                yield vectors_by_library(self, texts, role, pool=self._workers, normalize=normalize)
            return
        yield from vectors_of_lists(
            self, lists, role, tokens=tokens, on_done=on_done, normalize=normalize, copies=self.short_copies
        )

    def short_copies(self) -> Copies | None:
        """Return bfloat16 copies of the weights that long texts are multiplied with; None where there are none."""
        return self._remembered.short_copies(self)

    @contextmanager
    def spread(self, devices: Sequence[str]) -> Iterator[None]:
        """Let `embed` use several devices at once within the block, with one process and one copy of the model each.

        Tested with two processes on a CPU; untested on several real GPUs.
        """
        home = self.device
        workers = self.start_multi_process_pool(list(devices))  # moves the model to the CPU's shared memory
        self._workers = workers
        try:
            yield
        finally:
            self._workers = None
            self.stop_multi_process_pool(workers)
            self.to(home)

    def contract(self, role: Role) -> dict[str, Any]:
        """Return everything besides the texts that determines the vectors of a role, as plain values."""
        return self.contracts()[role]

    def contracts(self) -> dict[Role, dict[str, Any]]:
        """Return the contract of each role; weights and tokenizer, which they share, are hashed once."""
        return contracts_of(self)

    def weights_hash(self) -> str:
        """Return a hash of every parameter and buffer that is saved, by name."""
        return hash_of_weights(self)


def describe(model: EmbeddingModel) -> dict[str, Any]:
    """Return the sizes of a model: parameters in all, in the pooling, layers and dimensions."""
    parameters = [(name, p.numel()) for name, p in model.named_parameters()]
    return {
        "parameters": sum(count for _, count in parameters),
        "pooling_parameters": sum(count for name, count in parameters if not name.startswith("0.")),
        "layers": getattr(model.backbone.config, "num_hidden_layers", None),
        "dimensions": model.get_embedding_dimension(),
    }

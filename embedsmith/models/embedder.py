"""The embedding model: a `SentenceTransformer` whose folders open anywhere, and are opened here without their code.

A saved folder that needs our modules carries their source, so `SentenceTransformer(folder, trust_remote_code=True)`
opens it where embedsmith is not installed. `load` uses the installed modules and needs no flag.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from operator import is_
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sentence_transformers.util import truncate_embeddings
from torch import Tensor

from embedsmith.data.files import whole_folder
from embedsmith.errors import SettingsError
from embedsmith.models.adapters import save_adapters
from embedsmith.models.attention import steady_attention
from embedsmith.models.card_data import CardData
from embedsmith.models.contract import contract_of, hash_of_weights
from embedsmith.models.folder import OUR_MODULES, add_old_pooling_keys, name_modules_by_file
from embedsmith.models.packed import can_pack, may_pack, on_device, pack, packs_right, token_states
from embedsmith.models.packing import Features, ahead, batches, side_by_side, windows
from embedsmith.models.precision import SHORT_TEXT, cast, limit_onednn_cache, mixes, resolve_dtype
from embedsmith.models.probe import check_attention, promised_attention
from embedsmith.models.products import Activations, Copies, activations_of, fast_products
from embedsmith.models.settings import Dtype, Role, StudentSettings
from embedsmith.models.threads import on_cores, turn
from embedsmith.models.tokens import tokens_of

_CPU_TOKENS = 1024
"""Of one core: a batch whose token states stay in its caches. Eight times as many take a third more a token."""
_GPU_TOKENS = 32_768
_MOST_AT_ONCE = 16
"""Batches on a CPU. Python itself takes a thirtieth of MiniLM's, one batch at a time: more would wait for it."""
_WINDOW = 4096
"""Texts tokenised at once."""
_WINDOW_CHARACTERS = 8 * 2**20

_LOOKED_AT = 32
"""Numbers of a weight that are looked at to see whether it is the same."""


class EmbeddingModel(SentenceTransformer):
    """A SentenceTransformer whose folders are portable, whole or absent, and probed for their attention."""

    prompts: dict[str, str]
    _module_classes = OUR_MODULES
    model_card_data_class = CardData
    _workers: dict[str, Any] | None = None
    """The processes of `spread`, one a device."""
    _packed: tuple[list[Any], dict[Any, bool]] | None = None
    """Whether these modules read packed texts right, by all else that was so when it was tried."""
    origin: StudentSettings | None = None
    """What the model was built or opened from; what adapters over it name as their base."""
    merged_origin: StudentSettings | None = None
    """The same for the model that it is when its adapters are merged: known where they were saved."""
    base_weights: str = ""
    """A fingerprint of the weights under the adapters, where there are any."""
    frozen_anyway: frozenset[str] = frozenset()
    """Weights of the backbone that were frozen before adapters froze all of them."""
    _mixed: Dtype | None = None
    """The precision that was asked for, where it is a mixed one."""
    _activations: tuple[list[Any], Activations] | None = None
    """What was found of these modules."""
    _finding = Lock()
    _copies: tuple[list[tuple[Any, ...]], Copies] | None = None
    """Copies of weights as they were."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        limit_onednn_cache()
        super().__init__(*args, **kwargs)
        config = getattr(self.backbone, "config", None)
        if config is not None and getattr(config, "use_cache", False):
            # Keys and values for tokens to come: none do, and every layer would copy its own for them.
            config.use_cache = False

    def use_dtype(self, dtype: Dtype) -> EmbeddingModel:
        """Compute in another precision from now on; return the model.

        Args:
            dtype: `auto` is, on a GPU, bfloat16 where it has that. On a CPU with products in bfloat16 it is float32 for
                short texts, and for `embed`'s others all products in bfloat16, all else in float32 (see `SHORT_TEXT`);
                weights that are in bfloat16 already are multiplied in it always. Elsewhere `auto` is float32.
                `bfloat16` on such a CPU is all products in it for all texts, and all else in float32: a fifth faster,
                and more of the texts get vectors that are off (a cosine by 0.0006, all-MiniLM-L6-v2). Sums, norms and
                embeddings in bfloat16 too would put it off by 0.0009. On a CPU without it `bfloat16` is float32.
        """
        self._mixed = dtype if mixes(dtype, self.device.type) else None
        self._copies = None
        if not self._mixed:
            cast(self, resolve_dtype(dtype, self.device.type))
            return self
        all_short = dtype == "bfloat16"
        for module in self.modules():
            for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                is_product = isinstance(module, torch.nn.Linear) and name == "weight"
                is_short = is_product and (tensor.dtype == torch.bfloat16 or all_short)
                if tensor.is_floating_point():
                    tensor.data = tensor.data.to(torch.bfloat16 if is_short else torch.float32)
        return self

    @property
    def is_mixed(self) -> bool:
        """Whether some matrices are multiplied in bfloat16 and all else is computed in float32: see `use_dtype`.

        Not of a model that was put elsewhere since, or made one of another type.
        """
        return self._mixed is not None and self.device.type == "cpu" and self.dtype == torch.float32

    @property
    def shortens(self) -> bool:
        """Whether `embed` multiplies in bfloat16 for all but short texts."""
        return self._mixed == "auto" and self.is_mixed

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> Any:
        """Return the features of texts, as a SentenceTransformer does; threads take turns.

        A fast tokenizer is told first where to cut and what to fill up, and then is handed the texts.
        """
        with turn(self[0]):
            return super().preprocess(inputs, prompt=prompt, **kwargs)

    def forward(self, input: Mapping[str, Any], *, copies: Copies | None = None, **kwargs: Any) -> Any:
        """Return the features with the texts' vectors, as a SentenceTransformer does; they may be packed.

        Args:
            copies: of weights, which take their place in products.
        """
        with self._alone(), self._products(copies):
            if "packed" not in input:
                return super().forward(input, **kwargs)
            found = token_states(self[0], input)
            for module in list(self)[1:]:
                found = module(found)
            return found

    def _precision(self, role: Role) -> str:
        """Return what products are computed in for a role's texts, and all else."""
        if not self.is_mixed:
            return str(self.dtype)
        weights = [module.weight for module in self.modules() if isinstance(module, torch.nn.Linear)]
        short = sum(weight.dtype == torch.bfloat16 for weight in weights)
        rest = f", the rest from {SHORT_TEXT[role]} tokens on" if self.shortens and short < len(weights) else ""
        return f"float32, {short}/{len(weights)} products bfloat16{rest}"

    def packs(self, dtype: torch.dtype) -> bool:
        """Return whether the model reads the texts of a batch in one row, where products are computed in a type."""
        device = self.device
        if not may_pack(self[0], device, dtype):
            return False
        with self._alone():
            parts, known = self._packed or ([], {})
            if not _are_same(parts, found := _parts(self.backbone)):
                parts, known = self._packed = found, {}
            autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
            asked = dtype, self.dtype, device, autocast, repr(vars(self.backbone.config))
            if asked not in known:
                known[asked] = packs_right(self[0], device)
            return known[asked]

    def _alone(self) -> AbstractContextManager[Any]:
        """Return the block that one thread is in at a time: packed texts have the backbone be another meanwhile.

        On a CPU none are, and every core has a batch of its own.
        """
        return nullcontext() if self.device.type == "cpu" else turn(self)

    def _products(self, copies: Copies | None = None) -> AbstractContextManager[Any]:
        """Return the block in which the weights fit each other as they are."""
        return fast_products(self.device, mixed=self.is_mixed, activations=self._fused(), copies=copies)

    def _fused(self) -> Activations | None:
        """Return which products go straight into an activation, watched anew when the modules are others."""
        if self.device.type != "cpu" or self.backbone is None or not torch.is_inference_mode_enabled():
            return None
        parts = _parts(self)
        with self._finding:
            known = self._activations
            if known is None or not _are_same(known[0], parts):
                features = tokens_of(self, ["what follows what"])
                with fast_products(self.device, mixed=self.is_mixed):
                    known = parts, activations_of(lambda: super(EmbeddingModel, self).forward(features))
                self._activations = known
            return known[1]

    def _short_copies(self) -> Copies | None:
        """Return copies in bfloat16 of the weights in float32 that make products, where they are wanted."""
        if not self.shortens:
            return None
        weights = [module.weight for module in self.modules() if isinstance(module, torch.nn.Linear)]
        with turn(self):
            state = [_state(weight) for weight in weights]
            if self._copies is None or self._copies[0] != state:
                exact = [weight for weight in weights if weight.dtype == torch.float32]
                self._copies = state, {id(weight): (weight, weight.detach().to(torch.bfloat16)) for weight in exact}
            return self._copies[1]

    def save(self, path: str, *args: Any, **kwargs: Any) -> None:
        """Write the model into a folder that plain sentence-transformers opens.

        The folder is written under a temporary name and renamed, so it is whole or absent.

        Raises:
            CausalityError: the attention is not what the configuration promises.
        """
        with whole_folder(Path(path)) as partial:
            self.write_into(partial, *args, name=str(path), **kwargs)
        here = StudentSettings(name=str(Path(path).resolve()))
        if self.has_adapters:
            self.merged_origin = here
        else:
            self.origin = here

    def write_into(self, folder: Path, *args: Any, name: str, **kwargs: Any) -> None:
        """Write the model into a folder that exists, file after file."""
        promised = promised_attention(self.backbone)
        if promised:
            with self._products():
                check_attention(self.backbone, promised, name=name)
        if self.has_adapters:
            save_adapters(self, folder)
            return
        super().save(str(folder), *args, **kwargs)
        name_modules_by_file(folder)
        add_old_pooling_keys(folder)

    @property
    def backbone(self) -> Any:
        """The transformers model inside; None where there is none, as in static embeddings."""
        return getattr(self[0], "model", None)

    @property
    def has_adapters(self) -> bool:
        """Whether low-rank adapters lie beside the weights of the backbone."""
        return type(self.backbone).__module__.startswith("peft.")

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
        prompt, task = self.prompt_of(role), "query" if role == "query" else "document"
        if self._workers or self.backbone is None:
            for texts in lists:
                yield self._encoded(texts, prompt=prompt, task=task, normalize=normalize)
            return
        on_cpu, packs, shortens = self.device.type == "cpu", self.packs(self.dtype), self.shortens
        tokens = tokens or (_CPU_TOKENS if on_cpu else _GPU_TOKENS)
        copies = cache(self._short_copies)
        begun: deque[Sequence[str]] = deque()

        def parts() -> Iterator[tuple[Sequence[str], list[int]]]:
            for texts in lists:
                begun.append(texts)
                lengths = [len(text) for text in texts]
                for places in windows(lengths, texts=_WINDOW, characters=_WINDOW_CHARACTERS):
                    yield texts, places

        def tokenised(part: tuple[Sequence[str], list[int]]) -> Features:
            return tokens_of(self, [part[0][place] for place in part[1]], prompt=prompt, task=task)

        def packed() -> Iterator[tuple[list[int], Features, bool]]:
            for (texts, window), features in ahead(tokenised, parts()):
                cut = batches(features, tokens, padded=not packs, apart=SHORT_TEXT[role] if shortens else None)
                for rows, batch in cut:
                    yield [window[row] for row in rows.tolist()], batch, len(rows) == len(texts)

        cores = torch.get_num_threads()

        def work(item: tuple[list[int], Features, bool]) -> tuple[list[int], Float32[Tensor, "b D"]]:
            some, batch, is_all = item
            is_short = not shortens or int(batch["attention_mask"][0].sum()) < SHORT_TEXT[role]
            # The only batch of its list has all cores, as if the list were alone: its bytes do not depend on others.
            with on_cores(cores) if is_all else nullcontext():
                return some, self._forward(batch, task=task, packs=packs, copies=None if is_short else copies())

        # On a CPU each core has a batch of its own: nothing waits for the slowest core after every product.
        workers = min(cores, _MOST_AT_ONCE) if on_cpu else 1
        done = 0
        places: list[int] = []
        vectors: list[Tensor] = []
        for some, found in side_by_side(work, packed(), workers):
            places += some
            vectors.append(found)
            done += len(some)
            if on_done:
                on_done(done)
            while begun and len(places) == len(begun[0]):
                begun.popleft()
                ordered = self._in_order(places, vectors, normalize=normalize)
                places, vectors = [], []
                # Whoever reads them may compute meanwhile, or read another model's: `side_by_side` holds this thread.
                with on_cores(cores):
                    yield ordered
        for _ in begun:  # lists of no text
            yield self._in_order([], [], normalize=normalize)

    def _in_order(
        self, places: list[int], vectors: list[Float32[Tensor, "_ _"]], *, normalize: bool
    ) -> Float32[np.ndarray, "N D"]:
        """Return vectors at their places."""
        if not places:
            return np.empty((0, self.get_embedding_dimension()), np.float32)
        stacked = truncate_embeddings(torch.cat(vectors), self.truncate_dim)
        found = _finished(stacked, normalize=normalize)
        ordered = np.empty_like(found)
        ordered[places] = found
        return ordered

    # Both contexts belong to the thread that enters them.
    @torch.inference_mode()
    def _forward(self, batch: Features, *, task: str, packs: bool, copies: Copies | None) -> Float32[Tensor, "b D"]:
        """Return the vectors of one batch of tokens."""
        features = pack(batch) if packs and can_pack(batch) else batch
        with self._alone(), steady_attention(self.device.type):
            return self(on_device(features, self.device), task=task, copies=copies)["sentence_embedding"].float()

    def _encoded(self, texts: Sequence[str], *, prompt: str, task: str, normalize: bool) -> Float32[np.ndarray, "N D"]:
        """Return vectors as sentence-transformers computes them: over several devices, or without a transformer."""
        if not texts:
            return np.empty((0, self.get_embedding_dimension()), np.float32)
        encode = self.encode_query if task == "query" else self.encode_document
        # Processes hand all their vectors to whoever asks first.
        with turn(self) if self._workers else nullcontext():
            vectors = encode(list(texts), prompt=prompt, convert_to_tensor=True, pool=self._workers)
        return _finished(vectors, normalize=normalize)

    def count_tokens(self, texts: Sequence[str], role: Role) -> int:
        """Return how many tokens the model reads of some texts: with the prompt, and cut where it cuts."""
        task = "query" if role == "query" else "document"
        features = tokens_of(self, texts, prompt=self.prompt_of(role), task=task)
        # Static embeddings have all tokens in one row, and nothing is padded.
        return int(features["attention_mask"].sum() if "attention_mask" in features else features["input_ids"].numel())

    def prompt_of(self, role: Role) -> str:
        """Return what stands before every text of a role."""
        # sentence-transformers adds an empty "document", and then never looks at the "passage" of a folder.
        names = ("query",) if role == "query" else ("document", "passage", "corpus")
        given = [self.prompts[name] for name in names if name in self.prompts]
        default = self.prompts.get(self.default_prompt_name or "", "")
        return next(filter(None, given), "" if given else default)

    def set_prompt(self, role: Role, prompt: str) -> None:
        """Put another prompt, or none, before every text of a role."""
        others = {name: old for name, old in self.prompts.items() if name not in ("passage", "corpus")}
        self.prompts = {**self.prompts, "query": prompt} if role == "query" else {**others, "document": prompt}

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

    def set_max_tokens(self, *, query: int, passage: int) -> None:
        """Cut queries and passages at these many tokens, now and when the model is saved and opened again.

        Raises:
            SettingsError: the model's positions end before, or it has one length for both.
        """
        if isinstance(self[0], StaticEmbedding):
            if query != passage:
                raise SettingsError(
                    f"query_max_tokens is {query}, passage_max_tokens {passage}, but static embeddings have one length",
                    hint="give both the same",
                )
            self.tokenizer.enable_truncation(query)
            return
        limit = getattr(self.backbone.config, "max_position_embeddings", None)
        for role, tokens in (("query", query), ("passage", passage)):
            if limit and tokens > limit:
                raise SettingsError(
                    f"{role}_max_tokens: {tokens} tokens, but the model ends at {limit}",
                    hint=f"set it to {limit} or less",
                )
        self[0].query_length, self[0].document_length = query, passage
        self.max_seq_length = max(query, passage)

    def contract(self, role: Role) -> dict[str, Any]:
        """Return everything besides the texts that determines the vectors of a role, as plain values."""
        return self.contracts()[role]

    def contracts(self) -> dict[Role, dict[str, Any]]:
        """Return the contract of each role; weights and tokenizer, which they share, are hashed once."""
        shared = {**contract_of(self), **({"dimensions": self.truncate_dim} if self.truncate_dim else {})}
        roles: tuple[Role, ...] = ("query", "passage")
        return {
            role: {
                **shared,
                "role": role,
                "dtype": self._precision(role),
                "prompt": self.prompt_of(role),
                "max_tokens": self.contract_length(role),
            }
            for role in roles
        }

    def contract_length(self, role: Role) -> int | None:
        """Return at how many tokens the texts of a role are cut, None for never."""
        first = self[0]
        if isinstance(first, StaticEmbedding):
            return _static_length(first)
        return getattr(first, "query_length" if role == "query" else "document_length", None) or self.max_seq_length

    def weights_hash(self) -> str:
        """Return a hash of every parameter and buffer that is saved, by name."""
        return hash_of_weights(self)


def _parts(model: torch.nn.Module) -> list[Any]:
    """Return all modules of a model, and the hooks that read what they return."""
    return [part for module in model.modules() for part in (module, *module._forward_hooks.values())]


def _are_same(known: list[Any], found: list[Any]) -> bool:
    """Return whether two lists are of the same objects."""
    return len(known) == len(found) and all(map(is_, known, found))


def _state(weight: Tensor) -> tuple[Any, ...]:
    """Return what is another when a weight has other numbers: it, its memory, its version, and some of its numbers.

    The version does not tell of what is written through `weight.data`, and memory that was given back may be had again.
    Weights made in inference mode have no version.
    """
    numbers = weight.detach().reshape(-1)
    some = numbers[:: max(1, len(numbers) // _LOOKED_AT)][:_LOOKED_AT].tolist()
    return id(weight), weight.data_ptr(), 0 if weight.is_inference() else weight._version, some


def _finished(vectors: Float[Tensor, "N D"], *, normalize: bool) -> Float32[np.ndarray, "N D"]:
    """Return vectors as they are handed out."""
    # In float32: a length of 1 in bfloat16 is off by up to a percent.
    vectors = vectors.float()
    found: np.ndarray = (torch.nn.functional.normalize(vectors, dim=-1) if normalize else vectors).cpu().numpy()
    return found


def _static_length(module: StaticEmbedding) -> int | None:
    """Return how many tokens of a text static embeddings read, None for all."""
    truncation = module.tokenizer.truncation
    return truncation["max_length"] if truncation else None


def describe(model: EmbeddingModel) -> dict[str, Any]:
    """Return the sizes of a model: parameters in all, in the pooling, layers and dimensions."""
    parameters = [(name, p.numel()) for name, p in model.named_parameters()]
    return {
        "parameters": sum(count for _, count in parameters),
        "pooling_parameters": sum(count for name, count in parameters if not name.startswith("0.")),
        "layers": getattr(model.backbone.config, "num_hidden_layers", None),
        "dimensions": model.get_embedding_dimension(),
    }

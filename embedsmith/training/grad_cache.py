"""GradCache: the gradient of a whole batch in the memory of a few chunks.

The loss of a batch needs every vector at once, and its backward pass the activations of every text. Instead

    1. each chunk is encoded; its activations are kept if memory allows, else only its vectors
    2. the loss gives the gradient of every vector
    3. each chunk has its backward pass, from the gradient of its vectors; a chunk whose activations were not kept is
       encoded again first, with the same random numbers

The sum over the chunks is the gradient of the batch. Dropout in a chunk is a function of seed, batch and chunk alone.
It is the same when the chunk is encoded again, in a resumed run, and with any number of processes. The order of the
backward passes does not depend on which chunks were kept, so the memory limit changes no bit of a gradient.

Source: Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup,
https://arxiv.org/abs/2101.06983. Keeping what fits is ours: there every chunk is encoded twice.

Shapes: N texts of a step, n texts of a chunk, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from embedsmith.models.budget import side_by_side
from embedsmith.models.transfer import sent
from embedsmith.training.chunks import Chunk
from embedsmith.training.draws import SeededDropout
from embedsmith.training.processes import Processes

Encode = Callable[[Chunk], Float[Tensor, "n D"]]


class ActivationMemory:
    """How many bytes of activations may be kept, and how many a token takes."""

    def __init__(
        self, limit_bytes: float, *, unseen_bytes_a_token: float = 0.0, shared_bytes: float = 0.0, at_once: int = 1
    ) -> None:
        """Start without a measurement.

        Args:
            limit_bytes: 0 keeps nothing.
            unseen_bytes_a_token: activations that saved-tensor hooks do not see: the inputs of checkpointed layers.
            shared_bytes: what the hooks see in every chunk, though it exists once: bfloat16 copies of the weights.
            at_once: chunks that are encoded at the same time.
        """
        self.at_once = at_once
        self.limit_bytes = limit_bytes
        self.bytes_a_token: float | None = None
        self._unseen = unseen_bytes_a_token
        self._shared = shared_bytes
        self._widest = 0

    def kept(self, tokens: Sequence[int]) -> list[bool]:
        """Return which chunks of a step are kept: all, or as many as leave room to encode one more, or several at once.

        >>> memory = ActivationMemory(100.0)
        >>> memory.bytes_a_token = 2.0
        >>> memory.kept([20, 20, 10]), memory.kept([20, 20, 20])
        ([True, True, True], [True, False, False])
        """
        if not self.limit_bytes or self.bytes_a_token is None:
            return [bool(self.limit_bytes)] * len(tokens)
        needed = np.array(tokens, dtype=float) * self.bytes_a_token
        if needed.sum() <= self.limit_bytes:
            return [True] * len(tokens)
        return list((np.cumsum(needed) + self.at_once * needed.max(initial=0.0) <= self.limit_bytes).tolist())

    def most(self, tokens: Sequence[int]) -> float:
        """Return the peak bytes of activations of a step.

        >>> memory = ActivationMemory(100.0)
        >>> memory.bytes_a_token = 2.0
        >>> memory.most([20, 20, 5]), memory.most([20, 20, 20]), memory.most([60])
        (90.0, 100.0, 120.0)
        """
        a_token = self.bytes_a_token or 0.0
        if all(self.kept(tokens)):
            return a_token * sum(tokens)
        return max(self.limit_bytes, a_token * max(tokens) * min(self.at_once, len(tokens)))

    @contextmanager
    def measured(self, chunk: Chunk, weights: set[int]) -> Iterator[None]:
        """Measure a chunk's activations, unless a chunk as wide was measured: a wider one takes more per token.

        Args:
            weights: addresses of the model's own storages, which are not activations.
        """
        if chunk.width <= self._widest:
            yield
            return
        seen: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                seen[storage.data_ptr()] = storage.nbytes()
            # Not the tensor itself: a graph node that holds its own output is a reference cycle, never freed.
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            yield
        self._widest = chunk.width
        measured = max(0.0, sum(seen.values()) - self._shared) / chunk.tokens + self._unseen
        self.bytes_a_token = max(measured, self.bytes_a_token or 0.0)


class GradCache:
    """Runs the forward and backward passes of a batch, chunk by chunk."""

    def __init__(
        self,
        model: torch.nn.Module,
        encode: Encode,
        *,
        seed: int,
        memory: ActivationMemory,
        processes: Processes,
        dimensions: int,
    ) -> None:
        """Prepare for the batches of a stage.

        Args:
            model: whose parameters accumulate the gradients.
            encode: the forward pass of a chunk; vectors are not yet normalised.
            seed: of dropout.
            memory: which chunks are kept.
            processes: each encodes a share of the chunks.
            dimensions: D.
        """
        self.model = model
        self.memory = memory
        self._encode = encode
        self._seed = seed
        self._processes = processes
        self._dimensions = dimensions
        self._weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._is_single = memory.at_once == 1

    def run(
        self,
        chunks: Sequence[Chunk],
        loss_of: Callable[[Float[Tensor, "N D"]], Float[Tensor, ""]],
        *,
        batch: int,
        device: torch.device,
    ) -> Float[Tensor, ""]:
        """Add a batch's gradient to the parameters' and return its loss.

        With several processes a parameter then has the gradient of this process's chunks only:
        `Processes.sum_gradients` adds them up.

        Args:
            chunks: of all texts.
            loss_of: the loss of the vectors of all texts, in their order.
            batch: number of the batch, for the random state.
        """
        own = self._processes.share([chunk.tokens for chunk in chunks])
        keeps = self.memory.kept([chunks[number].tokens for number in own])
        vectors = torch.zeros(sum(chunk.texts for chunk in chunks), self._dimensions, device=device)
        kept: dict[int, Tensor] = {}

        def forward(place: int) -> tuple[int, Tensor]:
            chunk = chunks[own[place]]
            with self._drawn(batch, own[place]):
                if not keeps[place]:
                    return place, self._vectors_only(chunk)
                # The widest chunk comes first: of several at once no other one would be measured.
                with self.memory.measured(chunk, self._weights) if place == 0 or self._is_single else nullcontext():
                    kept[place] = self._encode(chunk)
            return place, kept[place].detach()

        def backward(place: int) -> Sequence[Tensor | None]:
            number = own[place]
            encoded = kept.pop(place, None)
            if encoded is None:
                with self._drawn(batch, number):
                    encoded = self._encode(chunks[number])
            assert vectors.grad is not None
            gradient = vectors.grad.index_select(0, sent(chunks[number].rows, device)).to(encoded.dtype)
            if self._is_single:
                encoded.backward(gradient)
                return ()
            return torch.autograd.grad(encoded, self._trained, gradient, allow_unused=True)

        places = iter(range(len(own)))
        if keeps and self.memory.bytes_a_token is None:  # the first chunk ever says which others are kept
            found = [forward(next(places))]
            keeps[1:] = self.memory.kept([chunks[number].tokens for number in own])[1:]
        else:
            found = []
        for place, encoded in (*found, *side_by_side(forward, places, self._at_once(len(own)))):
            vectors.index_copy_(0, sent(chunks[own[place]].rows, device), encoded.float())
        self._processes.sum(vectors)
        vectors.requires_grad_()
        with torch.enable_grad():
            loss = loss_of(vectors)
            loss.backward()
        at_once = self._at_once(len(own))
        for gradients in side_by_side(backward, reversed(range(len(own))), at_once, ahead=at_once):
            self._add(gradients)
        return loss.detach()

    def _at_once(self, chunks: int) -> int:
        """Return how many of some chunks run at the same time."""
        return max(1, min(self.memory.at_once, chunks))

    def _add(self, gradients: Sequence[Tensor | None]) -> None:
        """Add a chunk's gradients to the parameters', as its backward pass does where it is the only one."""
        for weight, gradient in zip(self._trained, gradients, strict=False):
            if gradient is None:
                continue
            if weight.grad is None:
                weight.grad = gradient.clone()
            else:
                weight.grad.add_(gradient)

    def vectors(self, chunks: Sequence[Chunk], *, device: torch.device) -> Float[Tensor, "N D"]:
        """Return the vectors of all texts, without a gradient."""
        vectors = torch.zeros(sum(chunk.texts for chunk in chunks), self._dimensions, device=device)
        own = [chunks[number] for number in self._processes.share([chunk.tokens for chunk in chunks])]
        encoded = side_by_side(self._vectors_only, iter(own), self._at_once(len(own)))
        for chunk, found in zip(own, encoded, strict=True):
            vectors.index_copy_(0, sent(chunk.rows, device), found.float())
        self._processes.sum(vectors)
        return vectors

    def _vectors_only(self, chunk: Chunk) -> Float[Tensor, "n D"]:
        """Return a chunk's vectors without a graph."""
        with torch.no_grad():
            return self._encode(chunk)

    def _drawn(self, batch: int, chunk: int) -> AbstractContextManager[object]:
        """Return the block in which dropout is a function of seed, batch and chunk, whenever and wherever it is run."""
        seed = int(np.random.SeedSequence((self._seed, batch, chunk)).generate_state(1, np.uint64)[0]) >> 1
        if not self._is_single:
            return SeededDropout(seed)
        torch.manual_seed(seed)
        return nullcontext()

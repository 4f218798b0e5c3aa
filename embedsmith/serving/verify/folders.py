"""A model's folder in plain sentence-transformers, and its backbone in ONNX.

Shapes: N texts, T tokens, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from embedsmith.errors import ModelError, SettingsError
from embedsmith.models.encoding import task_of_role
from embedsmith.models.library_errors import LibraryErrors
from embedsmith.models.names import find_model
from embedsmith.models.settings import Role
from embedsmith.models.vetted import NO_CODE, NO_CODE_IN_WEIGHTS, vetted
from embedsmith.serving.verify.settings import PromptsBy


class PlainFolder:
    """A folder as `SentenceTransformer(FOLDER)` opens it."""

    def __init__(self, folder: str, *, prompts: PromptsBy, trust_remote_code: bool = False) -> None:
        """Open a folder.

        Args:
            folder: the folder, or a run with one.
            prompts: whether `encode_query` and `encode_document` put the prompt before a text, or whoever calls.
            trust_remote_code: run the code that lies in the folder.

        Raises:
            ModelError: it cannot be opened, or needs code and is not trusted.
        """
        from sentence_transformers import SentenceTransformer

        found = vetted(find_model(folder))
        needs_code = list(Path(found.path).glob("modeling_*.py"))
        if needs_code and not trust_remote_code:
            raise ModelError(
                f"{folder}: plain sentence-transformers needs the code in {needs_code[0].name}",
                hint="add --trust-remote-code, if you trust its author, which runs that code",
            )
        safe: dict[str, Any] = {} if trust_remote_code else NO_CODE
        with LibraryErrors(folder, "cannot be opened by plain sentence-transformers"):
            self._model = SentenceTransformer(
                found.path,
                device="cpu",
                trust_remote_code=trust_remote_code,
                local_files_only=True,
                model_kwargs={**NO_CODE_IN_WEIGHTS, "trust_remote_code": trust_remote_code},
                config_kwargs=dict(safe),
                processor_kwargs=dict(safe),
            )
        self.name, self._prompts = f"{folder} in plain sentence-transformers", prompts

    def vectors(self, texts: Sequence[str], role: Role) -> tuple[Float32[np.ndarray, "N D"], dict[int, str]]:
        """Return the vectors of texts; none is refused."""
        model = self._model
        if self._prompts == "server":
            found = model.encode_query(list(texts)) if role == "query" else model.encode_document(list(texts))
        else:
            found = model.encode(list(texts), prompt="")
        return np.asarray(found, np.float32), {}


class OnnxFile:
    """A backbone in ONNX, with the tokenizer of our model, and its other modules where the file has no pooling."""

    def __init__(self, path: str, model: Any, *, prompts: PromptsBy) -> None:
        """Open a file.

        Args:
            path: of the file.
            model: our own, open.
            prompts: whether the prompts are known to the tokenizer's caller, who masks them, or are part of the texts.

        Raises:
            SettingsError: onnxruntime is not installed.
            ModelError: the file cannot be opened.
        """
        try:
            import onnxruntime  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            raise SettingsError(f"{path}: onnxruntime is not installed", hint="pip install onnxruntime") from None
        if not Path(path).is_file():
            raise ModelError(f"{path}: no such file", hint="check the path")
        self.name, self._model, self._prompts = path, model, prompts
        # Each kind of failure has a class of its own, and no common one.
        native = vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
        self._errors = tuple(kind for kind in native if isinstance(kind, type) and issubclass(kind, Exception))
        with self._failing("cannot be opened by onnxruntime"):
            self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str], role: Role) -> tuple[Float32[np.ndarray, "N D"], dict[int, str]]:
        """Return the vectors of texts; none is refused."""
        return np.stack([self._vector(text, role) for text in texts]), {}

    @contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        """Raise ModelError for what onnxruntime raises within the block."""
        try:
            with LibraryErrors(self.name, what, hint="check the file"):
                yield
        except self._errors as error:
            raise ModelError(f"{self.name}: {what}: {str(error).splitlines()[0]}", hint="check the file") from None

    def _vector(self, text: str, role: Role) -> Float32[np.ndarray, " D"]:
        """Return the vector of a text."""
        model = self._model
        prompt = model.prompt_of(role) if self._prompts == "server" else None
        features = dict(model.preprocess([text], prompt=prompt, task=task_of_role(role)))
        wanted = {each.name for each in self._session.get_inputs()}
        given = {key: value.numpy() for key, value in features.items() if key in wanted and isinstance(value, Tensor)}
        if missing := wanted - given.keys():
            raise ModelError(f"{self.name}: wants {', '.join(sorted(missing))}", hint="export it with the usual inputs")
        names = [each.name for each in self._session.get_outputs()]
        with self._failing("opens, and reads no text"):
            outputs = dict(zip(names, self._session.run(None, given), strict=True))
        if "sentence_embedding" in outputs:
            return np.asarray(outputs["sentence_embedding"][0], np.float32)
        states = next((one for one in outputs.values() if one.ndim == 3), None)
        if states is None:
            raise ModelError(f"{self.name}: no output of three dimensions", hint="export the token states")
        mask = features.get("pooling_mask", features["attention_mask"])
        found = {**features, "attention_mask": mask, "token_embeddings": torch.from_numpy(states).float()}
        for module in list(model)[1:]:
            found = module(found)
        vector: np.ndarray = found["sentence_embedding"][0].numpy()
        return vector

"""Opening a model by name, and making a student of one: the only module that knows every kind of folder.

A folder of adapters names its base, which is built like a student, out of a folder that may hold adapters again: so
`load`, `build_student` and `load_adapters` stand together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding, Transformer
from torch import Tensor

from embedsmith.errors import ModelError, SettingsError
from embedsmith.models.adapters import merge_adapters, put_adapters, read_adapters
from embedsmith.models.backbone import (
    check_instruction_fits,
    open_backbone,
    pooling_of,
    set_attention,
    shorten,
    use_backend,
    with_instruction_mask,
)
from embedsmith.models.compiled import compile_layers
from embedsmith.models.cpu.matmul import fast_matmul
from embedsmith.models.devices import default_device, kind_of
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.end_of_text import append_end_of_text
from embedsmith.models.folder import first_part, model_type
from embedsmith.models.library_errors import LibraryErrors
from embedsmith.models.modeling_embedsmith import InstructedTransformer
from embedsmith.models.names import ADAPTERS, ModelSource, find_model, lasting
from embedsmith.models.nv_embed import read_nv_embed
from embedsmith.models.nv_retriever import read_nv_retriever
from embedsmith.models.precision import cast, check_reads_int8, mix, mixes, resolve_dtype
from embedsmith.models.probe import check_attention, measure_attention, promised_attention
from embedsmith.models.settings import AttentionBackend, ReadingDtype, Role, StudentSettings
from embedsmith.models.static import read_static
from embedsmith.models.threads import one_at_a_time
from embedsmith.models.tokens import tokens_of
from embedsmith.models.vetted import NO_CODE, NO_CODE_IN_WEIGHTS, vetted
from embedsmith.models.weights import (
    are_short,
    check_configuration,
    check_files,
    check_table,
    check_tokenizer,
    check_weights,
)

_RELEASED = {"nvembed": read_nv_embed, "nvretriever": read_nv_retriever}
"""What reads a folder of NVIDIA's in place of the code that lies in it, by its configuration's `model_type`."""

_opened: ContextVar[tuple[Path, ...]] = ContextVar("opened", default=())
"""The folders of adapters whose bases are being opened."""


@one_at_a_time
def load(
    name: str,
    *,
    dtype: ReadingDtype = "float32",
    device: str | None = None,
    dimensions: int | None = None,
    attention_backend: AttentionBackend = "auto",
    compile: bool = False,
) -> EmbeddingModel:
    """Open an embedding model by name: a run, a folder, a hub id, `package:NAME/path` or `static:FOLDER`.

    Never runs code from the folder and never opens a pickle.

    Args:
        name: see `embedsmith.models.names`.
        dtype: precision; `auto` is bfloat16 where the hardware computes in it (on a CPU for matmuls of long texts),
            float32 elsewhere; `bfloat16` is float32 on a CPU that has none; `int8`, on a CPU, to read texts only. See
            `EmbeddingModel.use_dtype`.
        device: a torch device; default: a GPU where there is one.
        dimensions: keep as many of the first numbers of each vector, and bring it back to length 1 (Matryoshka).
        attention_backend: what computes attention, on the device as it is.
        compile: compile the layers, on a GPU: half a minute at first, then a quarter faster where it is large.

    Raises:
        ModelError: the model is missing, needs foreign code, or cannot be opened; or the back end or what compiles is
            not there.
        CausalityError: the attention is not what the configuration promises.
        SettingsError: there are more dimensions wanted than the model has, or int8 of what does not multiply it.
    """
    if dtype == "int8":
        check_reads_int8(device)
    source = find_model(name)
    model = _load(source, dtype=dtype, device=device, attention_backend=attention_backend)
    width = model.get_embedding_dimension()
    if dimensions is not None and not 0 < dimensions <= width:
        raise SettingsError(f"{name}: {dimensions} dimensions wanted, it has {width}", hint=f"ask for 1 to {width}")
    model.truncate_dim = dimensions
    if compile:
        compile_layers(model, name=name)
    model.opened = {
        "name": lasting(source),
        "dtype": dtype,
        "device": model.device.type,
        "dimensions": dimensions,
        "attention_backend": attention_backend,
        "compile": compile,
    }
    return model


def _load(
    source: ModelSource, *, dtype: ReadingDtype, device: str | None, attention_backend: AttentionBackend
) -> EmbeddingModel:
    """Open an embedding model of any kind, and probe it."""
    name = source.name
    if source.kind == "static":
        embedding = read_static(Path(source.path), name=name)
        # Nothing is multiplied: a shorter type would save no time.
        exact = torch.float32 if dtype in ("auto", "int8") else resolve_dtype(dtype, device)
        return cast(EmbeddingModel(modules=[embedding], device=_static_device(device)), exact)
    if source.kind == "gguf":
        raise ModelError(
            f"{name}: a GGUF file holds a language model, not an embedding model",
            hint="use it as --student, which makes an embedding model of it",
        )
    found = vetted(source)
    # As it was saved where each module gets a type of its own: nothing is rounded twice, nor larger than it need be.
    is_mixed = mixes(dtype, device)
    model = _open(found, dtype=None if is_mixed else resolve_dtype(dtype, device), device=device)
    use_backend(model[0], attention_backend, name=name)
    promised = promised_attention(model.backbone)
    if promised:
        check_attention(model.backbone, promised, name=name)
    if is_mixed or dtype == "int8":
        model.use_dtype(dtype)
    here = StudentSettings(name=lasting(source))
    if model.has_adapters:
        model.merged_origin = here
    else:
        model.origin = here
    return model


def _open(source: ModelSource, *, dtype: torch.dtype | None, device: str | None) -> EmbeddingModel:
    """Open a vetted folder as a SentenceTransformer; no dtype: that of its files.

    Raises:
        ModelError: what is wrong, in one line.
    """
    folder = Path(source.path)
    if (folder / ADAPTERS).is_file():
        adapted = load_adapters(folder, name=source.name, device=device, frozen=dtype == torch.bfloat16)
        adapted.keeps_short = False  # all of it is cast
        return cast(adapted, dtype)
    if is_released(folder):
        read = _RELEASED[model_type(folder)]
        with LibraryErrors(source.name, "cannot be opened"):
            modules, prompts = read(folder, name=source.name, dtype=dtype or torch.bfloat16)
            model = EmbeddingModel(modules=modules, prompts=prompts, device=device)
        check_configuration(model.backbone, name=source.name)
        check_tokenizer(model.tokenizer, model.backbone, name=source.name)
        _check_reads(model, source.name)
        return cast(model, dtype)
    check_files(folder, name=source.name)
    with LibraryErrors(source.name, "cannot be opened"):
        model = EmbeddingModel(
            source.path,
            device="cpu",
            model_kwargs={
                "dtype": dtype or "auto",
                "ignore_mismatched_sizes": True,  # check_weights names them
                **NO_CODE_IN_WEIGHTS,
            },
            config_kwargs=dict(NO_CODE),
            processor_kwargs=dict(NO_CODE),
            trust_remote_code=False,
            local_files_only=True,
        )
    if model.backbone is not None:
        check_configuration(model.backbone, name=source.name)
        check_weights(model.backbone, folder / first_part(folder), name=source.name)
        check_tokenizer(model.tokenizer, model.backbone, name=source.name)
    model.to(_static_device(device) if isinstance(model[0], StaticEmbedding) else device or default_device())
    if isinstance(model[0], StaticEmbedding):
        check_table(model[0].tokenizer, model[0].num_embeddings, name=source.name, matrix="its matrix")
    if isinstance(model[0], InstructedTransformer) and not getattr(model.tokenizer, "is_fast", False):
        raise ModelError(
            f"{source.name}: its tokenizer gives no character offsets, which masks of instructions need",
            hint="use the tokenizer that the model was saved with",
        )
    _check_reads(model, source.name)
    return cast(model, dtype)


def _static_device(device: str | None) -> str:
    """Return where static embeddings are looked up: not on Apple's GPU, which has nothing to multiply there."""
    return "cpu" if kind_of(device) == "mps" else device or default_device()


_READ = ["a cat, a word that it knows, and \N{SNOWMAN}", "a"]


def _check_reads(model: EmbeddingModel, name: str) -> None:
    """Refuse a model whose parts do not fit each other: it opens, and stumbles over the first text.

    Raises:
        ModelError: in the words of the library that stumbled.
    """
    model.origin = model.origin or StudentSettings(name=name)
    training = [module for module in model.modules() if module.training]
    with LibraryErrors(name, "opens, and reads no text"), torch.no_grad():
        model.eval()  # no dropout: nothing may be drawn from what a caller has seeded
        # As `embed` does: behind the prompt of each role, and the shorter one is filled up.
        roles: tuple[tuple[str, Role], ...] = (("query", "query"), ("document", "passage"))
        for task, role in roles:
            features = tokens_of(model, _READ, prompt=model.prompt_of(role) or None, task=task)
            on_device = {key: one.to(model.device) if isinstance(one, Tensor) else one for key, one in features.items()}
            vectors, width = model(on_device, task=task).get("sentence_embedding"), model.get_embedding_dimension()
            if not isinstance(vectors, Tensor) or vectors.shape[:-1] != (len(_READ),):
                raise ValueError("its parts give no vector for each text")
            if type(width) is not int or not 0 < width <= vectors.shape[-1]:
                raise ValueError(f"its vectors have {vectors.shape[-1]} dimensions, its parts say {width!r:.60}")
    for module in training:
        module.training = True


def _check_tokenises(model: EmbeddingModel, name: str) -> None:
    """Refuse a student whose tokenizer opens, and stumbles over the first text.

    Raises:
        ModelError: in the words of the library that stumbled.
    """
    roles: tuple[tuple[str, Role], ...] = (("query", "query"), ("document", "passage"))
    with LibraryErrors(name, "opens, and reads no text"):
        for task, role in roles:
            tokens_of(model, _READ, prompt=model.prompt_of(role) or None, task=task)


def is_released(folder: Path) -> bool:
    """Return whether a folder holds an NV-Embed or NV-Retriever as it was released."""
    return model_type(folder) in _RELEASED


@one_at_a_time
def build_student(
    settings: StudentSettings, *, seed: int = 0, device: str | None = None, frozen: bool = False
) -> EmbeddingModel:
    """Return a trainable embedding model in float32, probed for its attention.

    Args:
        settings: what to build.
        seed: of the weights that are new (latent attention).
        device: a torch device; default: a GPU where there is one.
        frozen: only adapters will be trained, and matmuls computed in bfloat16: matrices of linear layers that were
            saved in bfloat16 are opened in it, and stay in it. Half the memory, and the same bits: see `halved`.

    Raises:
        ModelError: the model is missing or cannot be opened.
        SettingsError: the settings do not fit the model.
        CausalityError: the attention is not the one asked for.
    """
    given, source = settings, find_model(settings.name)
    if source.kind == "static":
        raise ModelError(f"{settings.name}: static embeddings cannot be trained here", hint="use them as a teacher")
    found = vetted(source)
    is_embedder = source.kind != "gguf" and _is_embedding_model(Path(found.path))
    keeps_short = frozen and source.kind != "gguf" and _is_short(Path(found.path), is_embedder=is_embedder)
    if is_embedder:
        start = _open(found, dtype=None if keeps_short else torch.float32, device="cpu")
        if start.has_adapters:
            merge_adapters(start)
        transformer, rest, prompts = start[0], list(start)[1:], start.prompts
    else:
        backbone = open_backbone(found, dtype=torch.bfloat16 if keeps_short else torch.float32)
        transformer, rest, prompts = backbone, [], {}
    if keeps_short:
        mix(transformer, all_short=False)
    if not is_embedder:
        with fast_matmul(torch.device("cpu"), mixed=keeps_short):
            settings = _settled(settings, transformer)
    if settings.instruction and not isinstance(transformer, InstructedTransformer):
        transformer = with_instruction_mask(transformer)
    if settings.append_eos or (settings.append_eos is None and settings.pooling == "last"):
        append_end_of_text(transformer.tokenizer, name=settings.name)
    shorten(transformer, settings.layers, settings.name)
    use_backend(transformer, settings.attention_backend, name=settings.name)
    if settings.attention != "auto":
        set_attention(transformer, settings.attention)
    if settings.pooling != "auto":
        rest = [pooling_of(settings, transformer, seed), Normalize()]
    if settings.instruction or not is_embedder:
        prompts = {"query": settings.prompt, "document": settings.passage_prompt}
    model = EmbeddingModel(modules=[transformer, *rest], prompts=prompts, device=device)
    model.keeps_short = keeps_short
    model.origin = given.model_copy(update={"name": lasting(source)})
    model.set_max_tokens(query=settings.query_max_tokens, passage=settings.passage_max_tokens)
    _check_tokenises(model, settings.name)
    check_instruction_fits(model.tokenizer, settings)
    promised = promised_attention(model.backbone) if settings.attention == "auto" else settings.attention
    if promised and (settings.attention != "auto" or settings.attention_backend != "auto"):
        with fast_matmul(model.device, mixed=keeps_short):
            check_attention(model.backbone, promised, name=settings.name)
    if settings.compile:
        compile_layers(model, name=settings.name)
    return model


def _is_short(folder: Path, *, is_embedder: bool) -> bool:
    """Return whether a folder holds a model that was saved in bfloat16, and that nothing of ours has to be done to."""
    if is_released(folder) or (folder / ADAPTERS).is_file():
        return False
    return are_short(folder / first_part(folder) if is_embedder else folder)


def _settled(settings: StudentSettings, transformer: Transformer) -> StudentSettings:
    """Return the settings with what `auto` means for a bare model: an NV-Embed of a decoder, the mean of an encoder."""
    is_decoder = "causal" in measure_attention(transformer.model).values()
    auto = {"attention": "bidirectional", "pooling": "latent"} if is_decoder else {"pooling": "mean"}
    return settings.model_copy(update={k: v for k, v in auto.items() if getattr(settings, k) == "auto"})


def _is_embedding_model(folder: Path) -> bool:
    """Return whether a folder holds sentence-transformers modules, adapters, or a released model."""
    return any((folder / name).is_file() for name in ("modules.json", ADAPTERS)) or is_released(folder)


def load_adapters(folder: Path, *, name: str, device: str | None = None, frozen: bool = False) -> EmbeddingModel:
    """Return the model of a folder of adapters, which stay beside the weights.

    Args:
        folder: of the adapters.
        name: for messages.
        device: a torch device.
        frozen: see `build_student`.

    Raises:
        ModelError: the base is missing or has other weights, or a file is missing or broken.
        SettingsError: peft is not installed.
    """
    known = read_adapters(folder, name=name)
    with _opening_once(folder, name):
        model = build_student(known.base, device=device, frozen=frozen)
    put_adapters(model, known, folder, name=name)
    return model


@contextmanager
def _opening_once(folder: Path, name: str) -> Iterator[None]:
    """Refuse a folder within whose block it is to be opened again: its base would be itself."""
    here = folder.resolve()
    if here in _opened.get():
        raise ModelError(f"{name}: adapters over themselves", hint=f"name their base in {ADAPTERS}")
    token = _opened.set((*_opened.get(), here))
    try:
        yield
    finally:
        _opened.reset(token)

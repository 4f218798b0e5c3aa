"""Golden vectors: texts with the vectors that a model gives them, in a file of its own in every model folder.

Another program that opens the folder, or a server, shows with them that it computes the same vectors: see
`embedsmith verify`. Nothing reads the file when the model is opened.

`golden.json`:

    {"format": "embedsmith golden vectors", "version": 1, "fingerprint": "…", "dimensions": 384, "dtype": "float32",
     "roles": {"query": {"prompt": "", "max_tokens": 256, "cuts": true}, "passage": {…}},
     "texts": [{"role": "query", "name": "a question", "text": "…", "tokens": 9, "vector": "BASE64"}, …]}

A vector is float32, little-endian, as the modules of the model give it: it has length 1 only where the model ends in a
normalisation. `tokens` counts the prompt, and ends where the model cuts. `cuts` says whether a text is long enough to
be cut. A vector of zeros has no direction, so its text is left out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from embedsmith.data.files import check_regular, read_json, write_json
from embedsmith.errors import InputError
from embedsmith.models.contract import contract_of
from embedsmith.models.settings import Role
from embedsmith.settings import fingerprint
from embedsmith.version import __version__

GOLDEN = "golden.json"
"""Name of the file in a model folder."""

_FORMAT, _VERSION = "embedsmith golden vectors", 1
_MOST_BYTES = 16 * 2**20
_MOST_TEXTS, _MOST_CHARACTERS, _MOST_DIMENSIONS = 200, 100_000, 65_536
_VECTOR_BYTES = 2**19
"""Of the vectors of one role: 20 texts of 4,096 dimensions take 320 KiB, and wider models get fewer texts."""
_FEWEST_TEXTS = 6
_MOST_WORDS = 2200
"""Of the longest text: a word is a token or more, and a larger model takes a while to read it."""
_NOT_THE_MODEL = ("arithmetic", "device", "compiled")
"""Parts of a contract that say where the numbers were computed."""

_TEXTS = [
    ("a question", "What is the capital of France?"),
    ("one word", "parser"),
    ("a sentence", "The cat sat on the mat, and the dog slept beside the log."),
    ("digits first", "10 million people live there; 2 of 3 take the train."),
    ("upper case", "READ THE MANUAL BEFORE YOU SWITCH IT ON"),
    ("line breaks", "first line\nsecond line\r\n\n\tthird line"),
    ("code", "def read_lines(path):\n    return open(path).read().split()"),
    ("emoji", "\N{PARTY POPPER} done \N{THUMBS UP SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4}"),
    ("Chinese", "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u516c\u56ed\u3002"),
    ("Japanese", "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3059\u3002"),
    ("Arabic", "\u0627\u0644\u0633\u0644\u0627\u0645 \u0639\u0644\u064a\u0643\u0645"),
    ("accents", "na\u00efve caf\u00e9, Stra\u00dfe, \u0141\u00f3d\u017a"),
    ("combining accents", "nai\u0308ve cafe\u0301"),
    ("a space first", " a text after a space"),
    ("a space last", "a text before a space "),
    ("a single space", " "),
    ("punctuation", "?!..."),
    ("a prompt inside", "query: passage: Instruct: find it"),
]
"""Name -> text: short ones, the likeliest to differ first."""

_WORDS = [
    "river",
    "stone",
    "lamp",
    "window",
    "garden",
    "copper",
    "letter",
    "engine",
    "winter",
    "market",
    "bridge",
    "paper",
    "forest",
    "signal",
    "harbour",
    "metal",
    "orange",
    "doctor",
    "village",
    "circle",
    "thunder",
    "pocket",
    "silver",
    "border",
    "candle",
    "mirror",
    "pepper",
    "ladder",
    "island",
    "camera",
    "basket",
    "planet",
]


def _long_text(words: int) -> str:
    """Return a text of so many words, each of which is one token or more; no two parts of it are alike.

    >>> _long_text(4)
    'river window letter 3'
    """
    return " ".join(
        str(place) if place % 10 == 3 else _WORDS[(place * 3 + place // len(_WORDS)) % len(_WORDS)]
        for place in range(words)
    )


@dataclass(frozen=True)
class GoldenText:
    """A text of one role with its vector."""

    role: Role
    name: str
    text: str
    tokens: int
    vector: Float32[np.ndarray, " D"]


@dataclass(frozen=True)
class GoldenRole:
    """How the model reads the texts of a role."""

    prompt: str
    max_tokens: int | None


@dataclass(frozen=True)
class Golden:
    """Golden vectors of a model."""

    fingerprint: str
    """Of the model: weights, modules, configuration, tokenizer."""
    dtype: str
    dimensions: int
    roles: dict[Role, GoldenRole]
    texts: list[GoldenText]

    def of(self, role: Role) -> list[GoldenText]:
        """Return the texts of a role."""
        return [text for text in self.texts if text.role == role]


def golden_of(model: Any) -> Golden:
    """Return golden vectors of an open embedding model, in the precision that it computes in."""
    contract = {key: value for key, value in contract_of(model).items() if key not in _NOT_THE_MODEL}
    roles: dict[Role, GoldenRole] = {}
    texts: list[GoldenText] = []
    width = 0
    with _whole_vectors(model):
        for role in _ROLES:
            prompt, limit = model.prompt_of(role), model.contract_length(role)
            roles[role] = GoldenRole(prompt, limit)
            named = list(_named_texts(limit))
            vectors = model.embed([text for _, text in named], role, normalize=False)
            width = vectors.shape[1]
            most = max(_FEWEST_TEXTS, _VECTOR_BYTES // (4 * width))
            usable = [
                place for place in range(len(named)) if np.isfinite(vectors[place]).all() and vectors[place].any()
            ]
            for place in usable[:most]:
                name, text = named[place]
                texts.append(GoldenText(role, name, text, model.count_tokens([text], role), vectors[place]))
    dtype = str(model.dtype).removeprefix("torch.")
    return Golden(fingerprint(contract), "bfloat16" if model.is_mixed else dtype, width, roles, texts)


def write_golden(model: Any, folder: Path) -> None:
    """Write the golden vectors of an open embedding model into its folder; the model stays as it is."""
    training = [module for module in model.modules() if module.training]
    golden = golden_of(model)
    for module in training:
        module.training = True
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "embedsmith": __version__,
        "fingerprint": golden.fingerprint,
        "dimensions": golden.dimensions,
        "dtype": golden.dtype,
        "roles": {
            role: {"prompt": read.prompt, "max_tokens": read.max_tokens, "cuts": _cuts(golden, role)}
            for role, read in golden.roles.items()
        },
        "texts": [{**vars(text), "vector": _base64(text.vector)} for text in golden.texts],
    }
    write_json(folder / GOLDEN, document)


def read_golden(path: Path) -> Golden:
    """Return the golden vectors of a file, or of the file in a model folder.

    Raises:
        InputError: it is missing, too large, or not golden vectors; names the text.
    """
    path = path / GOLDEN if path.is_dir() else path
    check_regular(path)
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path}: {path.stat().st_size:,} bytes, wanted {_MOST_BYTES:,} at most", hint=_AGAIN)
    document = read_json(path)
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise InputError(f"{path}: not golden vectors", hint=f"name a {GOLDEN} that embedsmith wrote")
    if document.get("version") != _VERSION or type(document["version"]) is not int:
        raise InputError(
            f"{path}: version {document.get('version')!r:.20}, wanted {_VERSION}", hint="use a newer embedsmith"
        )
    width, texts, roles = document.get("dimensions"), document.get("texts"), document.get("roles")
    if type(width) is not int or not 0 < width <= _MOST_DIMENSIONS:
        raise InputError(f"{path}: dimensions is {width!r:.40}", hint=_AGAIN)
    if not isinstance(texts, list) or not 0 < len(texts) <= _MOST_TEXTS:
        raise InputError(f"{path}: texts is not a list of 1 to {_MOST_TEXTS}", hint=_AGAIN)
    return Golden(
        fingerprint=_name_in(document.get("fingerprint"), f"{path}: fingerprint"),
        dtype=_name_in(document.get("dtype"), f"{path}: dtype"),
        dimensions=width,
        roles={role: _role_in(roles, role, path) for role in _ROLES},
        texts=[_text_in(row, width, f"{path}: text {number}") for number, row in enumerate(texts, start=1)],
    )


_ROLES: tuple[Role, ...] = ("query", "passage")
_AGAIN = "save or export the model again"


@contextmanager
def _whole_vectors(model: Any) -> Iterator[None]:
    """Have the model give all dimensions within the block: how many a caller keeps is not saved with it."""
    kept, model.truncate_dim = model.truncate_dim, None
    try:
        yield
    finally:
        model.truncate_dim = kept


def _named_texts(limit: int | None) -> Iterator[tuple[str, str]]:
    """Yield texts with their names; the longest is cut by a model that cuts at fewer tokens than it has words."""
    longest = min(_MOST_WORDS, 4 * limit) if limit else 600
    yield from _TEXTS[:1]
    yield "the longest", _long_text(max(longest, 400))
    yield "150 words", _long_text(150)
    yield from _TEXTS[1:]
    yield "40 words", _long_text(40)


def _cuts(golden: Golden, role: Role) -> bool:
    """Return whether a text of a role is longer than the model reads."""
    limit = golden.roles[role].max_tokens
    return limit is not None and any(len(text.text.split()) > limit for text in golden.of(role))


def _base64(vector: Float32[np.ndarray, " D"]) -> str:
    """Return the numbers of a vector as text."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def _name_in(value: Any, where: str) -> str:
    """Return a short text of a file."""
    if not isinstance(value, str) or len(value) > 100:
        raise InputError(f"{where}: {value!r:.40}, wanted a short text", hint=_AGAIN)
    return value


def _role_in(roles: Any, role: Role, path: Path) -> GoldenRole:
    """Return how a file says that the model reads the texts of a role."""
    given = roles.get(role) if isinstance(roles, dict) else None
    prompt = given.get("prompt") if isinstance(given, dict) else None
    limit = given.get("max_tokens") if isinstance(given, dict) else None
    if not isinstance(prompt, str) or len(prompt) > _MOST_CHARACTERS:
        raise InputError(f"{path}: no prompt of role {role}", hint=_AGAIN)
    if limit is not None and (type(limit) is not int or not 0 < limit < 2**31):
        raise InputError(f"{path}: max_tokens of role {role} is {limit!r:.40}", hint=_AGAIN)
    return GoldenRole(prompt, limit)


def _text_in(row: Any, width: int, where: str) -> GoldenText:
    """Return a text of a file with its vector."""
    if not isinstance(row, dict) or row.get("role") not in _ROLES:
        raise InputError(f"{where}: no role query or passage", hint=_AGAIN)
    text, tokens, vector = row.get("text"), row.get("tokens"), row.get("vector")
    if not isinstance(text, str) or not 0 < len(text) <= _MOST_CHARACTERS:
        raise InputError(f"{where}: not a text of 1 to {_MOST_CHARACTERS:,} characters", hint=_AGAIN)
    if type(tokens) is not int or not 0 <= tokens < 2**31:
        raise InputError(f"{where}: tokens is {tokens!r:.40}", hint=_AGAIN)
    try:
        raw = base64.b64decode(vector, validate=True) if isinstance(vector, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 4 * width:
        raise InputError(f"{where}: vector is not base64 of {width:,} float32 numbers", hint=_AGAIN)
    numbers = np.frombuffer(raw, "<f4").astype(np.float32)
    if not np.isfinite(numbers).all() or not np.linalg.norm(numbers.astype(np.float64)):
        raise InputError(f"{where}: vector is zero or not finite", hint=_AGAIN)
    return GoldenText(row["role"], _name_in(row.get("name"), f"{where}: name"), text, tokens, numbers)

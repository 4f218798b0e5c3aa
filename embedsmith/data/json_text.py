"""JSON as it is read: no text with half of a surrogate pair, no object with a key twice, nothing too deep."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from embedsmith.data.bad_rows import Unusable, kind

_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""How JSON escapes half of a surrogate pair; two of them in a row are one character."""


def json_of(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is not JSON, or has half of a surrogate pair in it, which no file and no tokenizer takes.
        RecursionError: it is nested too deep.
    """
    value = json.loads(text)
    if _HALF.search(text):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def object_of(raw: bytes, *, is_first: bool = False) -> dict[str, Any] | None:
    """Return the object of a line of JSON; None of a blank line.

    Args:
        raw: the line.
        is_first: whether it is the first of its file, which may begin with a byte order mark.

    Raises:
        Unusable: it is not JSON, no object, or has a key twice.

    >>> object_of(b'{"a": 1}'), object_of(b" ")
    ({'a': 1}, None)
    """
    try:
        row = orjson.loads(raw)
    except orjson.JSONDecodeError:
        if not raw.strip():
            return None
        # orjson takes no byte order mark and no NaN, and its messages say less.
        row = _value_of(raw, is_first=is_first)
    if not isinstance(row, dict):
        what = f"got {kind(row)}, wanted an object"
        raise Unusable(what, reason="not an object", hint='write {"key": value}')
    # Only one value of a key that stands there twice is in the object.
    if _may_double(raw, row) and (twice := _doubled_key(raw, row)) is not None:
        raise Unusable(f'the key "{twice}" stands there twice', reason="a key twice", hint="remove one of the two")
    return row


_COLON = re.compile(rb'(?<!\\)"[ \t\r\n]*:')
"""The end of a key; rarely the beginning of a text."""


def _may_double(raw: bytes, row: dict[str, Any]) -> bool:
    """Return whether there are more ends of keys in a line than keys in its object: quick, for each line is asked."""
    if raw.count(b":") <= len(row):
        return False
    return raw.count(b'":') > len(row) or b" :" in raw or b"\t:" in raw or b"\r:" in raw


def _doubled_key(raw: bytes, row: dict[str, Any]) -> str | None:
    """Return a key that stands twice in an object of a line, None where there is none."""
    if len(_COLON.findall(raw)) <= _count_keys(row):
        return None
    twice: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        keys = [key for key, _ in pairs]
        twice.extend(key for key in keys if keys.count(key) > 1)

    json.loads(raw.decode("utf-8-sig"), object_pairs_hook=note)
    return next(iter(twice), None)


def _count_keys(value: Any) -> int:
    """Return how many keys the objects of a JSON value have.

    >>> _count_keys({"a": [{"b": 1}, {"b": 2}], "c": "d"})
    4
    """
    if isinstance(value, dict):
        return len(value) + sum(map(_count_keys, value.values()))
    # A list of texts has none.
    return sum(map(_count_keys, value)) if isinstance(value, list) and value and not isinstance(value[0], str) else 0


def _value_of(raw: bytes, *, is_first: bool) -> Any:
    """Return the JSON value of a line.

    Raises:
        Unusable: it has none.
    """
    try:
        value = json.loads(raw.decode("utf-8-sig" if is_first else "utf-8"))
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise Unusable(
            f"not UTF-8 (byte {error.start + 1} of the line)", reason="not UTF-8", hint="save the file as UTF-8"
        ) from None
    except UnicodeEncodeError:
        raise Unusable(
            "half of a surrogate pair, which no text can hold",
            reason="half of a surrogate pair",
            hint="remove the broken escape",
        ) from None
    except (ValueError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise Unusable(
            f"broken JSON: {what}", reason="broken JSON", hint="each line holds one whole JSON object"
        ) from None
    return value

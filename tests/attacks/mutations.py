"""Changed copies of a file, by what kind of file it is: of its bytes, of its lines, or of the values that it holds."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import numpy as np
import yaml

ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 2**31, -(2**31), 2**63, -(2**63) - 1, 2**64, 10**30),
    *(0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", " ", "x", "\0", "a\0b", "\n", "\ud800", "\u2028", "\x85", "a" * 300, "a" * 5000, "\u0301" * 50, "été", "猫"),
    *(
        "1",
        "nan",
        "1e999",
        "true",
        "null",
        "..",
        "/",
        ".",
        "~",
        "../x",
        "http://[",
        "https://a:b@c/v1#m",
        "{x}",
        "{{x}}",
    ),
    *([], {}, [[]], [None], [{}], {"": None}, {"x": {}}, [1, "x"], [["x"]], {"0": 1}),
]
"""Values that stand where others are expected."""

TOKENS = [
    *(
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\0",
        b"\r",
        b"\n",
        b"\r\n",
        b"\t",
        b" ",
        b'"',
        b"'",
        b",",
        b":",
        b"\\",
        b"/",
        b"#",
    ),
    *(b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\x85", b"\x1c", b"\x0c", b"\x1b[2J", b"\xf4\x90\x80\x80"),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b"{{",
        b"}}",
        b"null",
        b"NaN",
        b"-",
        b"*a",
        b"&a ",
        b"!!python/object:os.system ",
        b"---\n",
    ),
    *(
        b"0",
        b"-1",
        b"1e999",
        b"9" * 400,
        b"[" * 3000,
        b"(" * 300,
        b"\\ud800",
        b"\\u0000",
        b"<<: ",
        b"? ",
        b"2024-99-99",
    ),
    *(b"def f():\n", b"lambda", b"f'{x}'", b"'''", b'"""', b"async ", b"\\N{DASH}", b"# coding: utf-7\n", b"    "),
]
"""Bytes that mean something to some reader."""


def mutated(rng: random.Random, name: str, content: bytes, others: list[bytes]) -> bytes:
    """Return a changed copy of a file.

    Args:
        name: whose suffix says what kind of file it is.
        others: files of the same kind, parts of which may be put in.
    """
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        content = _once(rng, name, content, others)
    return content


def _once(rng: random.Random, name: str, content: bytes, others: list[bytes]) -> bytes:
    """Return a copy with one change."""
    change = _BY_KIND.get(PurePath(name).suffix)
    if change is not None and rng.random() < 0.75:
        try:
            return change(rng, content)
        except Exception:
            pass  # whatever a library raises: an earlier change has made it no file of its kind
    return (_changed_lines if rng.random() < 0.3 else _changed_bytes)(rng, content, others)


def _changed_bytes(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Return bytes of which some are others, more or fewer."""
    raw = bytearray(content)
    at = rng.randrange(len(raw) + 1)
    end = min(len(raw), at + rng.choice([1, 1, 2, 4, 8, 64]))
    match rng.randrange(8):
        case 0 if at < len(raw):
            raw[at] ^= 1 << rng.randrange(8)
        case 1:
            raw[at:end] = b""
        case 2:
            raw[at:at] = rng.choice(TOKENS)
        case 3:
            raw[at:end] = rng.choice(TOKENS)
        case 4:
            del raw[at:]
        case 5:
            raw[at:at] = raw[at:end] * rng.choice([1, 2, 50])
        case 6:
            kind, most = rng.choice([("<B", 8), ("<H", 16), ("<I", 32), ("<Q", 64), (">I", 32)])
            number = rng.choice([0, 1, 2 ** (most - 1), 2**most - 1, rng.getrandbits(most), rng.randrange(200)])
            raw[at : at + struct.calcsize(kind)] = struct.pack(kind, number)
        case _:
            other = rng.choice(others or [content])
            start = rng.randrange(len(other) + 1)
            raw[at:end] = other[start : start + rng.choice([4, 16, 200])]
    return bytes(raw)


def _changed_lines(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Return lines of which one is gone, doubled, elsewhere, or has another cell."""
    lines = content.splitlines(keepends=True) or [b""]
    at = rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines[at:at] = [lines[at]] * rng.choice([1, 2, 30])
        case 2:
            rng.shuffle(lines)
        case 3:
            lines[at:at] = [rng.choice((rng.choice(others or [content])).splitlines(keepends=True) or [b"\n"])]
        case _:
            delimiter = rng.choice([b"\t", b",", b" ", b":", b"="])
            cells = lines[at].split(delimiter)
            odd = rng.choice([*TOKENS, *(str(value).encode("utf-8", "surrogatepass") for value in ODD)])
            cells[rng.randrange(len(cells))] = odd
            lines[at] = delimiter.join(cells)
    return b"".join(lines)


def changed_value(rng: random.Random, value: Any) -> Any:
    """Return nested values of which one is another, gone, doubled or under another name."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return rng.choice(ODD)
    holder, key = rng.choice(places)
    old = holder[key]
    match rng.randrange(9):
        case 0 | 1 | 2:
            holder[key] = rng.choice(ODD)
        case 3:
            del holder[key]
        case 4 if isinstance(holder, dict):
            name = rng.choice([str(key) + "x", str(key).upper(), "", "\0", *(str(other) for _, other in places[:20])])
            holder[name] = holder.pop(key)
        case 4:
            holder.append(copy.deepcopy(old))
        case 5:
            holder[key] = rng.choice([[old], {"x": old}, [old] * 40, str(old), _deep(old)])
        case 6:
            other, name = rng.choice(places)
            holder[key] = copy.deepcopy(other[name])
        case 7 if isinstance(old, (int, float)) and not isinstance(old, bool):
            holder[key] = rng.choice([old + 1, old - 1, -old, old * 10**9, float(old), old / 2])
        case 7 if isinstance(old, str) and old:
            at = rng.randrange(len(old))
            holder[key] = old[:at] + rng.choice(["", "\0", "\n", "x", "/", "\ud800", "#", "{", "é"]) + old[at + 1 :]
        case _ if isinstance(holder, dict):
            holder[rng.choice(["x", "name", "path", "type", "trust_remote_code"])] = rng.choice([old, *ODD])
        case _:
            rng.shuffle(holder)
    return value


def _places(value: Any) -> Any:
    """Yield (the list or object, the number or key) of everything that lies in a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def _deep(value: Any) -> Any:
    for _ in range(400):
        value = [value]
    return value


def _json(rng: random.Random, content: bytes) -> bytes:
    text = json.dumps(changed_value(rng, json.loads(content)), ensure_ascii=rng.random() < 0.7)
    if rng.random() < 0.05 and text.startswith("{"):
        text = "{" + text[1:-1] + ("," if len(text) > 2 else "") + text[1:]  # every key stands there twice
    return text.encode("utf-8", "surrogatepass")


def _jsonl(rng: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    at = rng.choice([number for number, line in enumerate(lines) if line.strip()])
    lines[at] = _json(rng, lines[at])
    return b"\n".join(lines)


def _yaml(rng: random.Random, content: bytes) -> bytes:
    loader, dumper = getattr(yaml, "CSafeLoader", yaml.SafeLoader), getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    value = changed_value(rng, yaml.load(content, loader))
    try:
        text = yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=rng.random() < 0.5)
    except UnicodeEncodeError:  # half of a surrogate pair
        text = yaml.safe_dump(value, sort_keys=False)
    return text.encode("utf-8", "surrogatepass")


def _npy(rng: random.Random, content: bytes) -> bytes:
    """Change the values, the type or the shape of an array."""
    array = np.load(io.BytesIO(content), allow_pickle=False).copy()
    match rng.randrange(6):
        case 0 if array.size:
            values = [-1, 0, 1, 2**31, 2**40, -(2**40), np.nan, np.inf, -np.inf]
            with np.errstate(invalid="ignore"):
                array.flat[rng.randrange(array.size)] = np.array(rng.choice(values)).astype(array.dtype)
        case 1:
            kinds = ["<i4", "<i8", "<f2", "<f4", "<f8", "<c8", "|b1", ">f4", "|S3", "<U2", "<M8[s]", "<u8"]
            array = array.astype(rng.choice(kinds))
        case 2:
            array = array.reshape(-1)
        case 3:
            array = array[:-1] if array.ndim else array
        case 4:
            array = rng.choice([array[None], array.T, np.concatenate([array, array]), array[..., :0], array[:0]])
        case _:
            head, _, rest = content.partition(b"\n")
            return _changed_bytes(rng, head, []) + b"\n" + rest
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _safetensors(rng: random.Random, content: bytes) -> bytes:
    """Change the header, which is JSON, and keep its length right."""
    size = int.from_bytes(content[:8], "little")
    header = _json(rng, content[8 : 8 + size])
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def _parquet(rng: random.Random, content: bytes) -> bytes:
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(content))
    table.validate(full=True)
    table = _changed_table(rng, table)
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def _arrow(rng: random.Random, content: bytes) -> bytes:
    import pyarrow as pa

    table = pa.ipc.open_stream(io.BytesIO(content)).read_all()
    table.validate(full=True)  # an earlier change may have broken offsets, which end the process that follows them
    table = _changed_table(rng, table)
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    return file.getvalue()


def _changed_table(rng: random.Random, table: Any) -> Any:
    """Change a value, a column or what stands beside the columns."""
    import pyarrow as pa

    if table.num_rows > 10_000:
        raise ValueError("a short file that stands for many rows is changed byte by byte")
    at = rng.randrange(max(1, table.num_columns))
    match rng.randrange(5):
        case 0:
            rows = changed_value(rng, table.to_pylist())
            return pa.Table.from_pylist(rows)
        case 1:
            return table.set_column(at, table.column_names[at], _odd_column(rng, table.num_rows))
        case 2:
            names = list(table.column_names)
            names[at] = rng.choice([rng.choice(names), "", "\0", "label", "score", names[at].upper(), "x" * 300])
            return table.rename_columns(names)
        case 3:
            return rng.choice([table.slice(0, 0), table.remove_column(at), pa.concat_tables([table] * 3)])
        case _:
            known = json.loads((table.schema.metadata or {}).get(b"huggingface", b'{"info": {"features": {}}}'))
            return table.replace_schema_metadata({"huggingface": json.dumps(changed_value(rng, known))})


def _odd_column(rng: random.Random, rows: int) -> Any:
    """Return a column of a type that nobody expects."""
    import pyarrow as pa

    kinds: list[tuple[Any, Any]] = [
        *((pa.null(), None), (pa.bool_(), True), (pa.float16(), np.float16(0.5)), (pa.float64(), float("nan"))),
        *((pa.uint64(), 2**64 - 1), (pa.date32(), 1), (pa.timestamp("ns"), 2**62), (pa.time64("ns"), 1)),
        *((pa.duration("s"), 2**62), (pa.timestamp("s"), 2**62), (pa.binary(), b"\xff"), (pa.large_string(), "x")),
        *((pa.list_(pa.string()), ["x", None]), (pa.list_(pa.list_(pa.int8())), [[1]]), (pa.decimal128(38, 3), None)),
        *((pa.struct([("x", pa.int8())]), {"x": 1}), (pa.map_(pa.string(), pa.string()), [("a", "b")])),
        *((pa.dictionary(pa.int8(), pa.string()), "x"), (pa.list_(pa.float32(), 2), [1.0, 2.0]), (pa.int8(), -1)),
        *((pa.date64(), 2**62), (pa.string_view(), "x"), (pa.month_day_nano_interval(), (1, 2, 3)), (pa.string(), "x")),
    ]
    kind, value = rng.choice(kinds)
    return pa.array([None if rng.random() < 0.2 else value for _ in range(rows)], kind)


_BY_KIND: dict[str, Callable[[random.Random, bytes], bytes]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".yaml": _yaml,
    ".npy": _npy,
    ".safetensors": _safetensors,
    ".parquet": _parquet,
    ".arrow": _arrow,
}

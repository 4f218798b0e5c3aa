"""Tables: nothing of a file is lost without a word, whatever is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsmith.data.bad_rows import Tally, refuse
from embedsmith.data.corpus import load_corpus, read_queries
from embedsmith.data.examples import read_examples
from embedsmith.data.listed import read_listed
from embedsmith.data.load import load_collection
from embedsmith.data.pool import Pool
from embedsmith.data.tables import open_table
from embedsmith.errors import InputError

ROWS = 1000


def rows_of(path: Path) -> tuple[list[dict], int]:
    """Return the rows that are kept of a file, and how many are reported as left out."""
    tally = Tally()
    kept = [row for _, row in open_table(path).rows(tally)]
    return kept, tally.counts.total()


# --- Quotes that nobody closed ----------------------------------------------------------------------------------------

GOOD = [["a query, with a comma", 'a "quoted" passage'], ["plain", "words"], ["two\nlines", "a\r\nb"], ["x", '5" pipe']]
OPEN = {
    "the last cell": 'q{s}"open\n',
    "the first cell": '"open{s}p\n',
    "a cell of several lines": '"two\nlines"{s}"open\n',
    "a cell with a quote inside": 'q{s}"open ""and\n',
}


def csv_text(rows: list[list[str]], separator: str, *, quoted: bool) -> str:
    """Return rows as CSV; without quotes only what needs none."""
    cells = ([f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row] if quoted else row for row in rows)
    return "".join(separator.join(row) + "\n" for row in cells)


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("behind", ["plain rows", "quoted rows", "a closing quote"])
@pytest.mark.parametrize("where", OPEN)
@pytest.mark.parametrize("skips", [False, True])
def test_an_unclosed_quote_is_refused_with_the_line_where_it_opens(tmp_path, suffix, behind, where, skips):
    separator = "," if suffix == "csv" else "\t"
    before = csv_text(GOOD, separator, quoted=True)
    after = csv_text([["q", "p"]] * ROWS, separator, quoted=behind == "quoted rows")
    if behind == "a closing quote":
        after += f'q{separator}p"\n'
    text = f"query{separator}positive\n{before}{OPEN[where].format(s=separator)}{after}"
    (tmp_path / f"pairs.{suffix}").write_bytes(text.encode())
    opened = text[: text.index("open")].count("\n") + 1
    with pytest.raises(InputError, match=rf"pairs\.{suffix}:{opened}: .*more line") as caught:
        load_collection(tmp_path / f"pairs.{suffix}", skip_bad=skips)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=rf"pairs\.{suffix}:{opened}: "):
        rows_of(tmp_path / f"pairs.{suffix}")


def test_an_unclosed_quote_in_the_last_line_loses_that_line_alone(tmp_path):
    (tmp_path / "pairs.csv").write_text('query,positive\na,b\nc,"d\n')
    assert rows_of(tmp_path / "pairs.csv") == ([{"query": "a", "positive": "b"}], 1)


def test_cells_of_many_lines_are_read(tmp_path):
    poem = "\n".join(["Shall I compare thee, to a day?", "Thou art more lovely", "", ", , ,"] * 20)
    code = "\n".join(["func main() {", *['\tfmt.Println("x")'] * 30, "}"])
    for suffix, separator in (("csv", ","), ("tsv", "\t")):
        path = tmp_path / f"pairs.{suffix}"
        header = f"query{separator}positive\n"
        path.write_text(header + csv_text([[poem, code], [code, poem]], separator, quoted=True))
        assert rows_of(path)[0] == [{"query": poem, "positive": code}, {"query": code, "positive": poem}]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "mixed"])
@pytest.mark.parametrize("with_mark", [False, True])
def test_lines_of_csv_may_end_in_either_way(tmp_path, ending, with_mark):
    lines = ["query,positive", '"a\r\nb",c', "d,\x00e", "", "f,g"]
    ends = ["\r\n", "\n", "\r\n", "\n", ""] if ending == "mixed" else [ending] * 5
    text = "".join(line + end for line, end in zip(lines, ends, strict=True))
    (tmp_path / "pairs.csv").write_bytes((b"\xef\xbb\xbf" if with_mark else b"") + text.encode())
    kept, notes = rows_of(tmp_path / "pairs.csv")
    assert [tuple(row.values()) for row in kept] == [("a\r\nb", "c"), ("d", "\x00e"), ("f", "g")]
    assert notes == 0


@pytest.mark.parametrize("text", ["query,positive\ra,b\rc,d\r", "query,positive\na,b\nc,d\re,f\n"])
def test_carriage_returns_outside_quotes_are_refused(tmp_path, text):
    (tmp_path / "pairs.csv").write_bytes(text.encode())
    with pytest.raises(InputError, match=r"pairs\.csv:[13]: broken CSV: a carriage return outside quotes"):
        rows_of(tmp_path / "pairs.csv")


# --- Two of one name --------------------------------------------------------------------------------------------------


def as_csv(path: Path, names: list[str], cells: list[str]) -> Path:
    path = path.with_suffix(".csv")
    path.write_text(csv_text([names, cells], ",", quoted=True))
    return path


def as_parquet(path: Path, names: list[str], cells: list[str]) -> Path:
    path = path.with_suffix(".parquet")
    pq.write_table(pa.Table.from_arrays([pa.array([cell]) for cell in cells], names), path)
    return path


def as_saved(path: Path, names: list[str], cells: list[str]) -> Path:
    path.mkdir()
    table = pa.Table.from_arrays([pa.array([cell]) for cell in cells], names)
    with pa.ipc.new_stream(path / "data.arrow", table.schema) as stream:
        stream.write_table(table)
    (path / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    return path


def as_jsonl(path: Path, names: list[str], cells: list[str]) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_text(
        "{" + ", ".join(f"{json.dumps(n)}: {json.dumps(c)}" for n, c in zip(names, cells, strict=True)) + "}\n"
    )
    return path


READERS: dict[str, Callable[[Path], object]] = {
    "pairs": load_collection,
    "pairs, bad rows skipped": lambda path: load_collection(path, skip_bad=True),
    "corpus": load_corpus,
    "listed": read_listed,
}


@pytest.mark.parametrize("write", [as_csv, as_parquet, as_saved, as_jsonl])
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("twin", ["text", "Text", "text ", "query"])
def test_two_columns_of_one_name_are_refused(tmp_path, write, reader, twin):
    if write is as_saved and not reader.startswith("pairs"):
        pytest.skip("a folder holds no corpus")
    path = write(tmp_path / "data", ["query", "positive", "text", twin], ["a", "b", "c", "d"])
    with pytest.raises(InputError, match=r"two columns|stands there twice|no pairs|no passages|no texts"):
        READERS[reader](path)


def test_a_key_that_stands_twice_in_an_object_is_a_bad_row(tmp_path):
    lines = [
        '{"query": "a", "query": "b"}',
        '{"query": ": \\"x\\": {", "positive": ["a: b", "c:d"], "m": {"a": 1, "b": [{"a": ":"}]}}',
        '{"query": "a", "m": {"a" : 1, "a": 1}}',
        '{"query": "a", "m": [1, {"a":1, "\\u0061"\t:2}]}',
        '{"a": {"a": {"a": "\\\\"}}, "b\\\\": ":"}',
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    kept, notes = rows_of(tmp_path / "rows.jsonl")
    assert kept == [json.loads(lines[1]), json.loads(lines[4])]
    assert notes == 3


def test_objects_in_parquet_with_two_fields_of_one_name_are_refused(tmp_path):
    inner = pa.StructArray.from_arrays([pa.array(["x"]), pa.array(["y"])], ["text", "text"])
    pq.write_table(pa.table({"query": ["a"], "positives": inner}), tmp_path / "rows.parquet")
    for read in (rows_of, read_examples):
        with pytest.raises(InputError, match=r'rows\.parquet: column "positives": two columns are called "text"'):
            read(tmp_path / "rows.parquet")
    names = ["query", "query", "positives"]
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 3, names), tmp_path / "rows.parquet")
    for read in (rows_of, read_examples):
        with pytest.raises(InputError, match=r'rows\.parquet: two columns are called "query"'):
            read(tmp_path / "rows.parquet")


# --- Every row is kept or reported -----------------------------------------------------------------------------------

BAD_LINES = {
    "jsonl": [
        b"{",
        b"[1]",
        b'{"a": \xff}',
        b'{"a": "\\ud800"}',
        b'{"a": 1, "a": 2}',
        b'{"a": 1, "A": 2}',
        b"nul",
        b"{}{}",
    ],
    "csv": [b"a", b"a,b,c", b"\xff,b", b'"a"b,c', b'"\xff,\xff"x,'],
    "tsv": [b"a", b"a\tb\tc", b"\xff\tb", b'"a"b\tc'],
}


@pytest.mark.parametrize("suffix", BAD_LINES)
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_every_line_of_a_file_is_kept_or_told(tmp_path, suffix, ending):
    if ending == b"\r" and suffix != "jsonl":
        pytest.skip("CSV with such ends is refused")
    good = {"jsonl": b'{"query": "a", "positive": "b"}', "csv": b"a,b", "tsv": b"a\tb"}[suffix]
    header = {"jsonl": [], "csv": [b"query,positive"], "tsv": [b"query\tpositive"]}[suffix]
    bad = BAD_LINES[suffix]
    (tmp_path / f"rows.{suffix}").write_bytes(ending.join([*header, good, *bad, good, b"", *bad[::-1], good]))
    kept, notes = rows_of(tmp_path / f"rows.{suffix}")
    assert (len(kept), notes) == (3, 2 * len(bad))
    for line in bad:
        (tmp_path / f"rows.{suffix}").write_bytes(ending.join([*header, good, line, good]))
        number = len(header) + 2
        with pytest.raises(InputError, match=rf"rows\.{suffix}:{number}: "):
            list(open_table(tmp_path / f"rows.{suffix}").rows(refuse))


BAD_PASSAGES = [
    {"_id": "d1", "text": "an id that is taken"},
    {"_id": "x1", "text": " "},
    {"_id": "x2", "text": None},
    {"_id": None, "text": ""},
]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("side", ["corpus", "queries"])
def test_every_passage_and_query_is_kept_or_told(tmp_path, suffix, side):
    rows = [{"_id": "d1", "text": "a"}, *BAD_PASSAGES, {"_id": "d2", "text": "b"}, *BAD_PASSAGES]
    notes: list[str] = []
    path = tmp_path / f"corpus.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == "csv":
        path.write_text(
            csv_text([["_id", "text"], *([row["_id"] or "", row["text"] or ""] for row in rows)], ",", quoted=True)
        )
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    if side == "corpus":
        kept = list(load_corpus(path, skip_bad=True, on_skip=notes.append).ids)
    else:
        tally, pool = Tally(), Pool("q")
        read_queries(open_table(path), pool, tally)
        kept = list(pool.pooled(tally).ids)
        notes = tally.lines()
    assert kept == ["d1", "d2"]
    assert sum(int(note.split()[0]) for note in notes) == 2 * len(BAD_PASSAGES)

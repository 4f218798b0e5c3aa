"""The same pairs in every format are the same collection, and a bad row is named in each."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsmith.data.collection import Collection
from embedsmith.data.columns import ColumnSettings
from embedsmith.data.load import known_splits, load_collection
from embedsmith.errors import InputError

ROWS = [
    {"query": 'a "small"\npet, with fur?', "positive": "a cat", "negative_1": "a dog", "negative_2": "a cow"},
    {"query": "bark?", "positive": "a dog", "negative_1": None, "negative_2": "a cat"},
    {"query": "猫?", "positive": "a cat\tor two", "negative_1": None, "negative_2": None},
]


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: list[dict], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_tsv(path: Path, rows: list[dict]) -> Path:
    return write_csv(path, rows, delimiter="\t")


def write_parquet(path: Path, rows: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


def write_saved(folder: Path, rows: list[dict], *, shards: int = 2) -> Path:
    """Write what `save_to_disk` writes: Arrow streams and the JSON that lists them."""
    folder.mkdir(parents=True)
    schema = pa.Table.from_pylist(rows).schema
    names = [f"data-{shard:05d}-of-{shards:05d}.arrow" for shard in range(shards)]
    size = -(-len(rows) // shards)
    for shard, name in enumerate(names):
        with pa.ipc.new_stream(folder / name, schema) as stream:
            stream.write_table(pa.Table.from_pylist(rows[shard * size : (shard + 1) * size], schema))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


WRITERS = {
    "pairs.jsonl": write_jsonl,
    "pairs.csv": write_csv,
    "pairs.tsv": write_tsv,
    "pairs.parquet": write_parquet,
    "pairs": write_saved,
}
every_format = pytest.mark.parametrize(("name", "write"), WRITERS.items(), ids=WRITERS)


def plain(collection: Collection) -> dict:
    """Return a collection as Python values."""
    negatives = zip(*(rows.tolist() for rows in collection.existing_negatives()), strict=True)
    return {
        "passages": list(collection.passages),
        "queries": list(collection.queries),
        "qrels": collection.qrels,
        "negatives": [(collection.queries[q], collection.passages[p]) for q, p in negatives],
    }


@every_format
def test_the_same_pairs_are_the_same_collection(tmp_path, name, write: Callable[[Path, list[dict]], Path]):
    assert plain(load_collection(write(tmp_path / name, ROWS))) == {
        "passages": ["a cat", "a dog", "a cow", "a cat\tor two"],
        "queries": [row["query"] for row in ROWS],
        "qrels": {"q0": {"p0": 1}, "q1": {"p1": 1}, "q2": {"p3": 1}},
        "negatives": [(ROWS[0]["query"], "a dog"), (ROWS[0]["query"], "a cow"), ("bark?", "a cat")],
    }


@every_format
def test_columns_of_the_caller_are_read_with_ids_of_any_text(tmp_path, name, write):
    rows = [
        {"text": "purr?", "nr": "q 1", "body": "a cat", "body nr": "päss 1", "negative": "x"},
        {"text": "PURR?", "nr": "q 2", "body": "a dog", "body nr": " d2", "negative": "a cat"},
        {"text": "purr?", "nr": "q 1", "body": "a dog", "body nr": " d2", "negative": "y"},
    ]
    columns = ColumnSettings(query="text", query_id="nr", positive="body", positive_id="body nr")
    collection = load_collection(write(tmp_path / name, rows), columns=columns)
    assert collection.query_ids == ["q 1", "q 2"]
    assert collection.queries == ["purr?", "PURR?"]
    assert collection.passage_ids == ["päss 1", "p1", " d2", "p3"]
    assert collection.passages == ["a cat", "x", "a dog", "y"]
    assert collection.qrels == {"q 1": {"päss 1": 1, " d2": 1}, "q 2": {" d2": 1}}
    queries, passages = collection.existing_negatives()
    assert (queries.tolist(), passages.tolist()) == ([0, 0, 1], [1, 3, 0])


@every_format
def test_a_mistyped_column_is_answered_with_the_nearest(tmp_path, name, write):
    path = write(tmp_path / name, [{"heading": "a", "body": "b"}])
    with pytest.raises(InputError, match=r'no (column|value under) "haeding"; .*\(did you mean "heading"\?\)'):
        load_collection(path, columns=ColumnSettings(query="haeding", positive="body"))
    with pytest.raises(InputError, match=r'no column "bodi"; .*\(did you mean "body"\?\)'):
        load_collection(path, columns=ColumnSettings(query="heading", positive="body", negative="bodi"))


@every_format
def test_a_bad_row_is_named_and_can_be_skipped(tmp_path, name, write):
    rows = [
        {"query": "purr?", "positive": "a cat"},
        {"query": " ", "positive": "a cat"},
        {"query": "bark?", "positive": None},
        {"query": "bark?", "positive": "a dog"},
        {"query": "\t", "positive": "a cat"},
    ]
    path = write(tmp_path / name, rows)
    line = {"pairs.jsonl": ":2", "pairs.csv": ":3", "pairs.tsv": ":3"}.get(name, ": row 2")
    with pytest.raises(InputError, match=rf'{name}{line}: "query" is empty'):
        load_collection(path)
    notes: list[str] = []
    collection = load_collection(path, skip_bad=True, on_skip=notes.append)
    assert collection.qrels == {"q0": {"p0": 1}, "q1": {"p1": 1}}
    assert [line.split(", the first")[0] for line in notes] == [
        '2 rows skipped for "empty text"',
        '1 row skipped for "no positive"',
    ]


@pytest.mark.parametrize("name", ["pairs.parquet", "pairs"])
def test_lists_are_several_positives_in_arrow_too(tmp_path, name):
    rows = [{"query": "pet?", "pos": ["a cat", "a dog"], "neg": ["a car"]}, {"query": "x?", "pos": [], "neg": None}]
    path = WRITERS[name](tmp_path / name, rows)
    with pytest.raises(InputError, match=rf'{name}: row 2: "pos" is an empty list'):
        load_collection(path)
    collection = load_collection(path, skip_bad=True)
    assert collection.qrels == {"q0": {"p0": 1, "p1": 1}}
    assert collection.passages[collection.existing_negatives()[1][0]] == "a car"


def test_a_negative_that_is_also_a_positive_of_its_query_is_left_out(tmp_path):
    rows = [{"query": "pet?", "positive": "a cat", "negative": "a dog"}, {"query": "Pet?", "positive": "a dog"}]
    collection = load_collection(write_jsonl(tmp_path / "pairs.jsonl", rows))
    assert collection.qrels == {"q0": {"p0": 1, "p1": 1}}
    assert len(collection.existing_negatives()[0]) == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"query_id": 1, "query": "a", "positive": "x"}, {"query_id": 1, "query": "b", "positive": "x"}], '"1"'),
        (
            [{"query": "a", "positive": "x", "positive_id": "d"}, {"query": "b", "positive": "y", "positive_id": "d"}],
            '"d"',
        ),
    ],
)
def test_an_id_with_two_texts_is_refused_with_both_lines(tmp_path, rows, message):
    path = write_jsonl(tmp_path / "pairs.jsonl", rows)
    with pytest.raises(InputError, match=rf"pairs\.jsonl:2: the id {message} is taken by line 1"):
        load_collection(path)
    assert len(load_collection(path, skip_bad=True).queries) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query_id": None, "query": "a", "positive": "x"}, None),
        ({"query_id": "", "query": "a", "positive": "x"}, "\"query_id\" is '', wanted an id"),
        ({"query": "a", "positive": ["x", "y"], "positive_id": ["d"]}, '"positive_id" has 1 ids for 2 positives'),
        ({"query": "a", "positive": "x", "positive_id": 1.5}, '"positive_id" is 1.5, wanted an id'),
    ],
)
def test_an_id_that_is_none_is_refused(tmp_path, row, message):
    path = write_jsonl(tmp_path / "pairs.jsonl", [row])
    if message is None:
        assert load_collection(path).query_ids == ["q0"]
    else:
        with pytest.raises(InputError, match=rf"pairs\.jsonl:1: {message}"):
            load_collection(path)


def test_given_ids_never_clash_with_those_that_are_numbered(tmp_path):
    rows = [{"query": "a", "positive": "x", "negative": "y", "positive_id": "p1"}, {"query": "b", "positive": "z"}]
    collection = load_collection(write_jsonl(tmp_path / "pairs.jsonl", rows))
    assert collection.passage_ids == ["p1", "_p1", "_p2"]
    assert collection.qrels == {"q0": {"p1": 1}, "q1": {"_p2": 1}}


# --- CSV --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"query,positive\na,b\nc,d,e\n", r"pairs\.csv:3: 3 cells, wanted 2"),
        (b'query,positive\n"a\nb",c\n"d\n\ne"x,f\n', r"pairs\.csv:4: broken CSV: "),
        (b'query,positive\n\na,"b\n', r"pairs\.csv:3: broken CSV: unexpected end of data"),
        (b'query,positive\na,b\n"c\n\xff",d\n', r"pairs\.csv:4: not UTF-8 \(byte 1 of the line\)"),
        (b"query,positive\na,\n", r'pairs\.csv:2: no positive; the row has "query"'),
        (b"query,positive,query\na,b,c\n", r'pairs\.csv:1: two columns are called "query"'),
        (b"", r"pairs\.csv: an empty file"),
        (b"a,b\n1,2\n", r'pairs\.csv: no query; the row has "a", "b"'),
        (b"query,positive\n", r"pairs\.csv: no pairs"),
        ("query,positive\n".encode("utf-16"), r"pairs\.csv:1: not UTF-8 \(byte 1 of the line\)"),
    ],
)
def test_a_csv_file_that_cannot_be_used_is_named_with_the_line(tmp_path, content, message):
    (tmp_path / "pairs.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_collection(tmp_path / "pairs.csv")
    assert caught.value.hint and "\n" not in str(caught.value)


def test_bad_rows_of_csv_are_skipped_whole(tmp_path):
    (tmp_path / "pairs.csv").write_bytes(b'query,positive\n"a\n\xff",b\nc,d,e\nf,g\n"h"i,j\nk,l\n')
    notes: list[str] = []
    collection = load_collection(tmp_path / "pairs.csv", skip_bad=True, on_skip=notes.append)
    assert collection.queries == ["f", "k"]
    assert [line.partition('"')[2].partition('"')[0] for line in notes] == [
        "not UTF-8",
        "wrong number of cells",
        "broken CSV",
    ]


def test_a_cell_is_a_list_of_one_where_json_has_a_list(tmp_path):
    path = write_csv(tmp_path / "pairs.csv", [{"query": "purr?", "pos": "a cat", "neg": "a dog"}])
    collection = load_collection(path)
    assert (collection.qrels, collection.passages) == ({"q0": {"p0": 1}}, ["a cat", "a dog"])


def test_a_cell_may_be_longer_than_the_limit_of_the_csv_module(tmp_path):
    limit = csv.field_size_limit()
    path = write_csv(tmp_path / "pairs.csv", [{"query": "a", "positive": "b" * (limit + 1)}])
    assert len(load_collection(path).passages[0]) == limit + 1
    assert csv.field_size_limit() == limit


# --- JSON lines -------------------------------------------------------------------------------------------------------


def test_bad_lines_of_json_are_skipped_and_counted_by_reason(tmp_path):
    good = b'{"query": "purr?", "positive": "a cat"}\n'
    bad = [
        b"{\n",
        b"[1]\n",
        b'{"query": "\xff"}\n',
        b'{"query": "\\ud800", "positive": "x"}\n',
        b'{"query": 3, "pos": []}\n',
    ]
    (tmp_path / "pairs.jsonl").write_bytes(good + b"".join(bad) + b"{\n" + good)
    notes: list[str] = []
    assert len(load_collection(tmp_path / "pairs.jsonl", skip_bad=True, on_skip=notes.append).queries) == 1
    assert [line.split(": ")[0] for line in notes if "skipped" in line] == [
        f'{count} for "{reason}", the first'
        for count, reason in [
            ("2 rows skipped", "broken JSON"),
            ("1 row skipped", "not an object"),
            ("1 row skipped", "not UTF-8"),
            ("1 row skipped", "half of a surrogate pair"),
            ("1 row skipped", "the query is not a string"),
        ]
    ]


def test_when_nothing_is_left_the_reasons_are_told_before_the_error(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("{\n")
    notes: list[str] = []
    with pytest.raises(InputError, match="no pairs, no row can be used"):
        load_collection(tmp_path / "pairs.jsonl", skip_bad=True, on_skip=notes.append)
    assert len(notes) == 1


# --- Parquet and datasets ---------------------------------------------------------------------------------------------


def test_only_columns_that_count_are_read_from_parquet(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "pairs.parquet", [{"query": "a", "positive": "b", "vector": [0.5]}])
    asked = []
    original = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda self, **options: asked.append(options) or original(self, **options)
    )
    load_collection(path)
    assert asked
    assert all(options["columns"] == ["query", "positive"] for options in asked)


@pytest.mark.parametrize("content", [b"", b"not parquet at all", b"PAR1PAR1"])
def test_a_file_that_is_not_parquet_is_refused(tmp_path, content):
    (tmp_path / "pairs.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"pairs\.parquet: not a whole Parquet file"):
        load_collection(tmp_path / "pairs.parquet")


def test_a_text_that_is_not_utf_8_is_named_with_its_row(tmp_path):
    texts = pa.StringArray.from_buffers(3, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffc"))
    pq.write_table(pa.table({"query": texts, "positive": ["x", "y", "z"]}), tmp_path / "pairs.parquet")
    with pytest.raises(InputError, match=r"pairs\.parquet: row 2: not UTF-8"):
        load_collection(tmp_path / "pairs.parquet")
    assert load_collection(tmp_path / "pairs.parquet", skip_bad=True).queries == ["a", "c"]


@pytest.fixture
def two_splits(tmp_path) -> Path:
    folder = tmp_path / "saved"
    write_saved(folder / "train", ROWS[:2])
    write_saved(folder / "dev", ROWS[2:], shards=1)
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "dev"]}')
    return folder


def test_the_splits_of_saved_data_are_chosen_by_name(two_splits):
    assert known_splits(two_splits) == ["train", "dev"]
    assert load_collection(two_splits, split="dev").queries == ["猫?"]
    assert load_collection(two_splits, split="train").name == "saved"
    for split in ("all", "train,dev", "train, dev"):
        assert load_collection(two_splits, split=split).queries == [row["query"] for row in ROWS]
    with pytest.raises(InputError, match="there are 2 splits, and none was chosen"):
        load_collection(two_splits)
    with pytest.raises(InputError, match=r'no split "tran" \(did you mean "train"\?\)'):
        load_collection(two_splits, split="tran,dev")


def test_saved_data_that_is_not_whole_is_refused(tmp_path):
    folder = write_saved(tmp_path / "saved", ROWS)
    second = folder / "data-00001-of-00002.arrow"
    content = second.read_bytes()
    second.write_bytes(content[:20])
    with pytest.raises(InputError, match=r"data-00001-of-00002\.arrow: not a whole Arrow file"):
        load_collection(folder)
    second.unlink()
    with pytest.raises(InputError, match=r"data-00001-of-00002\.arrow: no such file, state\.json names it"):
        load_collection(folder)
    (folder / "state.json").write_text(
        '{"_data_files": [{"filename": "x"}], "_indices_data_files": [{"filename": "y"}]}'
    )
    with pytest.raises(InputError, match="names a selection of rows"):
        load_collection(folder)


def test_what_datasets_saves_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict(train=whole.select([2, 0]), test=whole.select([1])).save_to_disk(tmp_path / "saved")
    assert load_collection(tmp_path / "saved", split="train").queries == [ROWS[2]["query"], ROWS[0]["query"]]
    whole.save_to_disk(tmp_path / "one", num_shards=3)
    assert (
        load_collection(tmp_path / "one").content_hash()
        == load_collection(write_jsonl(tmp_path / "pairs.jsonl", ROWS)).content_hash()
    )


# --- The hub ----------------------------------------------------------------------------------------------------------


class HubSet:
    """The part of a data set of `datasets` that is used."""

    def __init__(self, rows: list[dict]) -> None:
        self.table = pa.Table.from_pylist(rows)
        self.column_names = self.table.column_names
        self.features = SimpleNamespace(arrow_schema=self.table.schema)

    def select_columns(self, names: list[str]) -> HubSet:
        return HubSet(self.table.select(names).to_pylist())

    def with_format(self, name: str) -> HubSet:
        assert name == "arrow"
        return self

    def iter(self, batch_size: int):
        return iter([self.table])


class DatasetNotFoundError(FileNotFoundError):
    pass


@pytest.fixture
def hub(monkeypatch) -> SimpleNamespace:
    asked: list[tuple] = []

    def load_dataset(name, config, split=None):
        asked.append((name, config, split))
        if name == "no/such":
            raise DatasetNotFoundError("Dataset 'no/such' doesn't exist on the Hub\nor cannot be accessed.")
        if name == "no/wire":
            raise ConnectionError("Couldn't reach 'no/wire' on the Hub (LocalEntryNotFoundError)\nmore")
        if config == "wrong":
            raise ValueError("BuilderConfig 'wrong' not found. Available: ['pair']")
        return {"train": HubSet(ROWS), "dev": HubSet(ROWS[:1])} if config else {"train": HubSet(ROWS)}

    exceptions = SimpleNamespace(DatasetNotFoundError=DatasetNotFoundError)
    config = SimpleNamespace(HF_HUB_OFFLINE=False)
    fake = SimpleNamespace(load_dataset=load_dataset, exceptions=exceptions, config=config, asked=asked)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return fake


def test_a_data_set_of_the_hub_is_read(hub, tmp_path):
    expected = load_collection(write_jsonl(tmp_path / "pairs.jsonl", ROWS))
    assert load_collection("hf:owner/pairs") == expected
    assert load_collection("hf:owner/pairs/pair", split="dev").queries == [ROWS[0]["query"]]
    assert hub.asked == [("owner/pairs", None, None), ("owner/pairs", "pair", None)]
    with pytest.raises(InputError, match="hf:owner/pairs/pair: there are 2 splits, and none was chosen"):
        load_collection("hf:owner/pairs/pair")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("hf:no/such", InputError, "^hf:no/such: Dataset 'no/such' doesn't exist on the Hub$"),
        ("hf:owner/pairs/wrong", InputError, "^hf:owner/pairs/wrong: BuilderConfig 'wrong' not found"),
        ("hf:no/wire", OSError, r"^hf:no/wire: the hub cannot be reached: Couldn't reach 'no/wire' on the Hub \(.*\)$"),
        ("hf:pairs", InputError, '"hf:pairs" names no data set'),
        ("hf:a/b/c/d", InputError, '"hf:a/b/c/d" names no data set'),
    ],
)
def test_what_the_hub_does_not_give_is_one_line(hub, name, error, message):
    with pytest.raises(error, match=message):
        load_collection(name)


def test_without_the_package_the_hub_is_answered_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="the package datasets is needed") as caught:
        load_collection("hf:owner/pairs")
    assert "embedsmith[datasets]" in caught.value.hint

"""The vector store: what was encoded is used again, what does not match or is damaged never is."""

import hashlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence

import numpy as np
import pytest

from embedsmith.data.locks import Lock
from embedsmith.errors import InputError
from embedsmith.vectors import store as stores
from embedsmith.vectors.shards import gather
from embedsmith.vectors.store import VectorStore

CONTRACT = {"weights": "abc", "prompt": "query: ", "max_tokens": 512}
TEXTS = [f"text {i}" for i in range(10)]


class Encoder:
    """Vectors that depend on the text alone, and a memory of what was encoded."""

    def __init__(self, dimensions=4, fail_after=None):
        self.dimensions = dimensions
        self.fail_after = fail_after
        self.calls = []

    def __call__(self, texts):
        if len(self.calls) == self.fail_after:
            raise KeyboardInterrupt
        self.calls.append(texts)
        return np.stack([self.vector(text) for text in texts])

    def texts(self):
        return [text for call in self.calls for text in call]

    def vector(self, text):
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        return np.frombuffer(digest, np.uint8)[: self.dimensions].astype(np.float32)


def opened(parent, texts=TEXTS, contract=CONTRACT, shard_size=3, **more):
    return VectorStore.open_or_create(parent, contract=contract, texts=texts, shard_size=shard_size, **more)


def filled(store, encode, **more):
    """Return a store filled by what encodes one list of texts at a time."""

    def each(lists):
        return (encode(some) if some else np.empty((0, 0), np.float32) for some in lists)

    return store.fill_each(each, **more)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_vectors_come_back_in_the_order_of_the_texts(tmp_path):
    encoder = Encoder()
    store = filled(opened(tmp_path), encoder)
    wanted = np.stack([encoder.vector(text) for text in TEXTS])
    np.testing.assert_array_equal(store.matrix(), wanted)
    np.testing.assert_array_equal(store.rows([9, 0, 3, 3]), wanted[[9, 0, 3, 3]])
    np.testing.assert_array_equal(store.rows(np.array([[1, 2], [8, 4]])), wanted[[[1, 2], [8, 4]]])
    assert [len(shard) for shard in store.shards()] == [3, 3, 3, 1]
    assert all(isinstance(shard, np.memmap) and not shard.flags.writeable for shard in store.shards())
    assert store.is_complete and len(store) == 10 and store.dimensions == 4


def test_shards_may_be_begun_before_the_first_one_is_written(tmp_path):
    encoder, seen = Encoder(), []

    def all_at_once(lists):
        made = [encoder(texts) for texts in lists]
        seen.append(len(made))
        yield from made

    store = opened(tmp_path / "ahead").fill_each(all_at_once)
    assert seen == [4]
    assert files(store.folder) == files(filled(opened(tmp_path / "in turn"), Encoder()).folder)


def test_a_shard_without_vectors_is_an_error(tmp_path):
    with pytest.raises(AssertionError, match="vectors for 3 of 10 texts"):
        opened(tmp_path).fill_each(lambda lists: (Encoder()(texts) for texts in [next(lists)]))


def test_a_killed_run_resumes_at_the_next_shard(tmp_path):
    whole = filled(opened(tmp_path / "whole"), Encoder())
    with pytest.raises(KeyboardInterrupt):
        filled(opened(tmp_path / "cut"), Encoder(fail_after=2))
    store = opened(tmp_path / "cut")
    assert not store.is_complete and store.dimensions == 4
    encoder = Encoder()
    filled(store, encoder)
    assert encoder.calls == [TEXTS[6:9], TEXTS[9:]]
    assert store.is_complete
    assert store.folder.name == whole.folder.name
    assert files(store.folder) == files(whole.folder)


def test_a_complete_store_encodes_nothing(tmp_path):
    filled(opened(tmp_path), Encoder())
    encoder = Encoder(fail_after=0)
    filled(opened(tmp_path), encoder)
    assert encoder.calls == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[:20],
        lambda raw: b"",
        lambda raw: raw + b"\0",
        lambda raw: b"\0" * len(raw),
        lambda raw: raw.replace(b"<f4", b"<i4"),
        lambda raw: raw.replace(b"(3, 4)", b"(4, 3)"),
    ],
    ids=["a byte short", "half a header", "empty", "a byte too many", "zeros", "another type", "another shape"],
)
def test_a_damaged_shard_is_encoded_again(tmp_path, damage):
    store = filled(opened(tmp_path), Encoder())
    before = files(store.folder)
    path = store.folder / "shard-00001.npy"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"shard-00001\.npy: missing or damaged"):
        store.matrix()
    encoder = Encoder()
    store = opened(tmp_path)
    assert not store.is_complete
    filled(store, encoder)
    assert encoder.calls == [TEXTS[3:6]]
    assert files(store.folder) == before


@pytest.mark.parametrize(
    "other",
    [
        {"contract": {**CONTRACT, "prompt": "passage: "}},
        {"texts": [*TEXTS[:-1], "text 9."]},
        {"texts": TEXTS[::-1]},
        {"texts": ["text 0text 1", "", *TEXTS[2:]]},
    ],
    ids=["another prompt", "a changed text", "another order", "other borders"],
)
def test_another_contract_or_text_is_another_folder(tmp_path, other):
    first = filled(opened(tmp_path), Encoder())
    second = opened(tmp_path, **other)
    assert first.folder != second.folder
    assert first.folder.parent == second.folder.parent == tmp_path
    assert first.is_complete
    assert not second.is_complete


def test_the_order_of_the_contract_and_tuples_in_it_do_not_matter(tmp_path):
    first = opened(tmp_path, contract={"a": 1, "lengths": (1, 2)})
    assert opened(tmp_path, contract={"lengths": [1, 2], "a": 1}).folder == first.folder


def test_a_store_keeps_the_shard_size_it_was_made_with(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        filled(opened(tmp_path, shard_size=3), Encoder(fail_after=2))
    encoder = Encoder()
    filled(opened(tmp_path, shard_size=5), encoder)
    assert encoder.calls == [TEXTS[6:9], TEXTS[9:]]


def test_a_store_never_has_more_than_a_hundred_shards(tmp_path):
    texts = [str(i) for i in range(1001)]
    store = filled(opened(tmp_path, texts=texts, shard_size=1), Encoder())
    assert len(store.shards()) == 91  # of 11 rows
    np.testing.assert_array_equal(store.matrix(), np.stack([Encoder().vector(text) for text in texts]))


@pytest.mark.skipif(sys.platform == "win32", reason="it counts no maps among open files")
def test_a_store_of_more_shards_than_files_may_be_open_asks_for_more(tmp_path, monkeypatch):
    import resource

    monkeypatch.setattr(stores, "_MOST_ROWS", 2)
    texts = [str(i) for i in range(600)]
    store = filled(opened(tmp_path, texts=texts, shard_size=1), Encoder())
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 256), most))
    try:
        assert len(store.shards()) == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))


def test_a_text_that_repeats_in_a_shard_is_encoded_once(tmp_path):
    encoder = Encoder()
    store = filled(opened(tmp_path, texts=["a", "b", "a", "a"], shard_size=3), encoder)
    assert encoder.calls == [["a", "b"], ["a"]]
    np.testing.assert_array_equal(store.matrix(), np.stack([encoder.vector(text) for text in "abaa"]))


def test_store_json_says_what_the_numbers_depend_on(tmp_path):
    store = opened(tmp_path)
    found = json.loads((store.folder / "store.json").read_text())
    assert found["dimensions"] is None
    filled(store, Encoder())
    found = json.loads((store.folder / "store.json").read_text())
    digest = hashlib.sha256(b"".join(len(t).to_bytes(8, "little") + t.encode() for t in TEXTS)).hexdigest()
    assert found == {
        "format": 1,
        "contract": CONTRACT,
        "texts": digest,
        "count": 10,
        "shard_size": 3,
        "dimensions": 4,
    }


def test_progress_starts_with_what_was_there(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        filled(opened(tmp_path), Encoder(fail_after=2))
    seen = []
    filled(opened(tmp_path), Encoder(), on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(6, 10), (9, 10), (10, 10)]


def test_no_texts_are_refused(tmp_path):
    with pytest.raises(InputError, match="no texts to encode"):
        opened(tmp_path, texts=[])


def test_reading_before_filling_is_refused(tmp_path):
    store = opened(tmp_path)
    with pytest.raises(InputError, match=r"shard-00000\.npy: missing or damaged"):
        store.shards()
    with pytest.raises(InputError, match="no text is encoded yet"):
        _ = store.dimensions


def test_a_vector_that_is_not_finite_is_refused_and_not_stored(tmp_path):
    def encode(texts):
        vectors = np.ones((len(texts), 2), np.float32)
        vectors[[text == "text 4" for text in texts]] = np.nan
        return vectors

    store = opened(tmp_path)
    with pytest.raises(InputError, match=r"text 5 of 10 \('text 4'\): its vector is not finite"):
        filled(store, encode)
    assert sorted(files(store.folder)) == ["shard-00000.npy", "store.json", "texts.npy"]


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda texts: np.ones((1, 2), np.float32), r"3 texts gave shape \(1, 2\)"),
        (lambda texts: np.ones(3, np.float32), r"3 texts gave shape \(3,\)"),
        (lambda texts: np.ones((3, 2), np.float16), "encode gave float16"),
    ],
)
def test_an_encoder_that_breaks_its_promise_is_our_mistake(tmp_path, encode, message):
    with pytest.raises(AssertionError, match=message):
        filled(opened(tmp_path), encode)


def test_vectors_of_another_length_are_refused(tmp_path):
    with pytest.raises(InputError, match="got vectors of 4 dimensions, the store holds 8"):
        filled(opened(tmp_path, dimensions=8), Encoder(dimensions=4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, r"store\.json: format is 2, wanted 1"),
        ({"contract": {}}, r"store\.json: contract is {}, wanted"),
        ({"count": 3}, r"store\.json: count is 3, wanted 10"),
        ({"dimensions": 7}, r"store\.json: dimensions is 7, wanted 4"),
    ],
)
def test_a_store_that_says_it_is_another_is_refused(tmp_path, changes, message):
    path = opened(tmp_path, dimensions=4).folder / "store.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(InputError, match=message):
        opened(tmp_path, dimensions=4)


def test_a_description_without_its_keys_is_refused(tmp_path):
    path = opened(tmp_path).folder / "store.json"
    path.write_text('{"format": 1}')
    with pytest.raises(InputError, match=r"store\.json: not the description of a vector store"):
        opened(tmp_path)


def test_texts_with_lone_surrogates_are_stored(tmp_path):
    assert filled(opened(tmp_path, texts=["a\ud800"]), Encoder()).is_complete


def test_gathered_rows_equal_those_of_the_stacked_shards():
    matrix = np.arange(14, dtype=np.float32).reshape(7, 2)
    shards = np.split(matrix, [3, 3])
    rows = np.array([[6, 0], [3, 2]])
    np.testing.assert_array_equal(gather(shards, rows), matrix[rows])
    with pytest.raises(AssertionError, match=r"rows must be in \[0, 7\)"):
        gather(shards, np.array([7]))


class TestACorpusThatGrew:
    """Vectors of equal texts are taken from older stores under the same contract."""

    def test_only_new_texts_are_encoded_and_the_others_are_copied_bit_for_bit(self, tmp_path):
        noisy = np.random.default_rng(0)
        old = filled(opened(tmp_path), lambda texts: noisy.standard_normal((len(texts), 4)).astype(np.float32))
        encoder = Encoder()
        grown = filled(opened(tmp_path, texts=[*TEXTS, "new 1", "new 2"]), encoder)
        assert encoder.calls == [["new 1", "new 2"]]
        np.testing.assert_array_equal(grown.matrix()[:10], old.matrix())
        np.testing.assert_array_equal(grown.matrix()[10:], [encoder.vector("new 1"), encoder.vector("new 2")])

    def test_the_order_and_the_size_of_shards_do_not_matter(self, tmp_path):
        old = filled(opened(tmp_path), Encoder())
        encoder = Encoder()
        texts = ["new", *TEXTS[::-1], "text 3"]
        grown = filled(opened(tmp_path, texts=texts, shard_size=5), encoder)
        assert encoder.calls == [["new"]]
        np.testing.assert_array_equal(grown.rows(range(1, 11)), old.matrix()[::-1])
        np.testing.assert_array_equal(grown.matrix(), np.stack([encoder.vector(text) for text in texts]))

    def test_the_first_of_several_stores_gives_a_vector(self, tmp_path):
        stores = [
            filled(opened(tmp_path, texts=["a", name]), lambda some, i=i: np.full((len(some), 4), i, np.float32))
            for i, name in enumerate(["b", "c"])
        ]
        # "a" was copied from the first store into the second.
        np.testing.assert_array_equal(stores[1].matrix()[:, 0], [0, 1])
        encoder = Encoder()
        np.testing.assert_array_equal(
            filled(opened(tmp_path, texts=["c", "b", "a"]), encoder).matrix()[:, 0], [1, 0, 0]
        )
        assert encoder.calls == []

    def test_a_store_under_another_contract_gives_nothing(self, tmp_path):
        filled(opened(tmp_path, contract={**CONTRACT, "prompt": "passage: "}), Encoder())
        encoder = Encoder()
        filled(opened(tmp_path), encoder)
        assert encoder.texts() == TEXTS

    def test_shards_that_are_missing_or_damaged_give_nothing(self, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            filled(opened(tmp_path), Encoder(fail_after=2))
        shard = opened(tmp_path).folder / "shard-00001.npy"
        shard.write_bytes(shard.read_bytes()[:-1])
        encoder = Encoder()
        filled(opened(tmp_path, texts=[*TEXTS, "new"]), encoder)
        assert encoder.texts() == [*TEXTS[3:], "new"]

    @pytest.mark.parametrize("raw", [b"", b"\x93NUMPY damaged", None], ids=["empty", "damaged", "absent"])
    def test_without_its_hashes_a_store_gives_nothing_until_it_is_opened_again(self, tmp_path, raw):
        path = filled(opened(tmp_path), Encoder()).folder / "texts.npy"
        whole = path.read_bytes()
        path.write_bytes(raw) if raw is not None else path.unlink()
        encoder = Encoder()
        filled(opened(tmp_path, texts=[*TEXTS, "new"]), encoder)
        assert encoder.texts() == [*TEXTS, "new"]
        if raw is None:
            opened(tmp_path)
            assert path.read_bytes() == whole

    def test_a_run_that_was_cut_ends_with_the_same_bytes(self, tmp_path):
        texts = ["new 1", *TEXTS[:4], "new 2", *TEXTS[4:], "new 3"]
        for parent in ("whole", "cut"):
            filled(opened(tmp_path / parent), Encoder())
        whole = filled(opened(tmp_path / "whole", texts=texts), Encoder())
        with pytest.raises(KeyboardInterrupt):
            filled(opened(tmp_path / "cut", texts=texts), Encoder(fail_after=1))
        encoder = Encoder()
        cut = filled(opened(tmp_path / "cut", texts=texts), encoder)
        assert encoder.calls == [["new 2"], ["new 3"]]
        assert files(cut.folder) == files(whole.folder)

    @pytest.mark.parametrize("content", ['["not", "a", "store"]', "{broken", json.dumps({"contract": CONTRACT})])
    def test_another_folder_beside_the_stores_does_no_harm(self, tmp_path, content):
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "store.json").write_text(content)
        assert filled(opened(tmp_path), Encoder()).is_complete


def test_texts_may_be_any_sequence(tmp_path):
    class Lazy(Sequence):
        def __len__(self):
            return len(TEXTS)

        def __getitem__(self, place):
            return Lazy.Slice(TEXTS[place]) if isinstance(place, slice) else TEXTS[place]

        class Slice(tuple):
            pass

    store = filled(opened(tmp_path, texts=Lazy()), Encoder())
    np.testing.assert_array_equal(store.matrix(), opened(tmp_path, texts=TEXTS).matrix())


def in_processes(*works):
    """Run each function in a process of its own; return the signal or code that each ended with."""
    children = []
    for work in works:
        if (child := os.fork()) == 0:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.parametrize("kill", [False, True])
def test_processes_that_want_the_same_vectors_encode_each_text_once(tmp_path, kill):
    # Shards of another size are asked for by each: those of the first one hold for all.
    def work(number):
        encoder = Encoder()

        def encode(texts):
            time.sleep(0.02)
            for text in texts:
                (tmp_path / f"encoded-{number}-{text}").touch()
            if kill and number == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return encoder(texts)

        store = filled(opened(tmp_path / "vectors", shard_size=2 + number), encode, on_wait=lambda holder: None)
        np.testing.assert_array_equal(store.matrix(), np.stack([encoder.vector(text) for text in TEXTS]))

    ends = in_processes(*(lambda number=number: work(number) for number in range(3)))
    encoded = [path.name.rpartition("-")[2] for path in tmp_path.glob("encoded-*")]
    if kill and ends[0] == -signal.SIGKILL:
        assert len(encoded) - len(set(encoded)) <= 4  # what it had begun
        assert ends[1:] == [0, 0]
    else:
        assert ends == [0, 0, 0]
        assert sorted(encoded) == sorted(TEXTS)
    (folder,) = (tmp_path / "vectors").iterdir()
    assert {path.name for path in folder.iterdir() if path.name[0] == "."} == set()


def test_who_waits_for_vectors_is_told_for_whom(tmp_path):
    lock = Lock.in_folder(opened(tmp_path).folder)
    assert lock.take()
    notes, encoder = [], Encoder()

    def tell(holder):
        notes.append(holder)
        lock.release()

    filled(opened(tmp_path), encoder, on_wait=tell)
    assert notes == [f"process {os.getpid()} on {socket.gethostname()}"]
    filled(opened(tmp_path), encoder, on_wait=tell)
    assert len(notes) == 1 and len(encoder.texts()) == 10


def test_partial_files_of_a_killed_process_are_removed_by_who_fills_the_store(tmp_path):
    folder = opened(tmp_path).folder
    (folder / ".shard-00000.npy.0a1b2c3d.partial").write_text("half")
    filled(opened(tmp_path), Encoder())
    assert not list(folder.glob(".*"))

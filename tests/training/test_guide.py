"""The teacher's stored vectors in a batch: what lies above its ceiling is no in-batch negative."""

import hashlib

import numpy as np
import pytest

from embedsmith.data.examples import Example, Passage
from embedsmith.errors import InputError
from embedsmith.training.batches import BatchPlan, Source
from embedsmith.training.objective import teacher_vectors
from embedsmith.vectors.guide import Guide, above_ceiling, read_guides, write_guide
from embedsmith.vectors.store import VectorStore

D = 3
EXAMPLES = [
    Example(f"q{i}", f"query {i}", [Passage(f"p{i}", f"positive {i}")], [Passage(f"n{i}", f"negative {i}")])
    for i in range(12)
]
PASSAGES = [passage.text for example in EXAMPLES for passage in (*example.positives, *example.negatives)]


def vector(text: str) -> np.ndarray:
    """A vector of length 1 that only the text decides."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    found = np.random.default_rng(seed).normal(size=D).astype(np.float32)
    return found / np.linalg.norm(found)


def stored(parent, texts, contract):
    store = VectorStore.open_or_create(parent, contract=contract, texts=texts)
    store.fill_each(lambda lists: (np.stack([vector(text) for text in some]) for some in lists))
    return store.folder


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    """A folder of mined negatives that says where the teacher's vectors lie."""
    folder = tmp_path_factory.mktemp("mined")
    write_guide(
        folder,
        teacher="some model",
        queries=stored(folder / "vectors", [example.query for example in EXAMPLES], {"role": "query"}),
        passages=stored(folder / "vectors", PASSAGES, {"role": "passage"}),
    )
    return folder


def plan(guide, **settings):
    return BatchPlan(
        [Source("toy", EXAMPLES, prompt="Find: ", passage_prompt="Text: ", guide=guide)],
        **{"steps": 3, "batch_size": 8, "hard_negatives": 1, "in_batch": True, "seed": 0} | settings,
    )


@pytest.mark.parametrize(("margin", "relative"), [(0.0, False), (0.2, False), (0.3, True)])
def test_a_passage_of_another_query_above_the_ceiling_is_masked_and_no_other(mined, margin, relative):
    (guide,) = read_guides([mined])
    masked = 0
    for batch in plan(guide, guide_margin=margin, guide_relative=relative):
        for b, query in enumerate(batch.queries):
            asked = vector(query.removeprefix("Find: "))
            scores = [float(asked @ vector(passage.removeprefix("Text: "))) for passage in batch.passages]
            own = scores[batch.positive[b]]
            ceiling = own - margin * (abs(own) if relative else 1)
            for u, score in enumerate(scores):
                assert batch.allowed[b, u] == (bool(batch.own[b, u]) or score <= ceiling)
                assert batch.guided[b, u] != batch.allowed[b, u]
                masked += not batch.allowed[b, u]
    assert masked > 10


def test_without_a_margin_no_teacher_is_asked(mined):
    (guide,) = read_guides([mined])
    assert all(batch.allowed.all() and not batch.guided.any() for batch in plan(guide))
    assert all(batch.allowed.all() for batch in plan(None, guide_margin=0.0))


def test_a_batch_of_several_data_sets_asks_each_ones_teacher_about_what_it_knows(mined):
    (guide,) = read_guides([mined])
    others = [Example(f"o{i}", f"other {i}", [Passage(f"op{i}", f"another {i}")], []) for i in range(12)]
    sources = [Source("toy", EXAMPLES, guide=guide), Source("others", others)]
    batches = BatchPlan(sources, steps=4, batch_size=8, hard_negatives=1, in_batch=True, seed=0, guide_margin=0.5)
    masked = np.concatenate([~batch.allowed.ravel() for batch in batches])
    assert masked.any()
    for batch in batches:
        strange = np.array(["another" in text for text in batch.passages])
        assert batch.allowed[:, strange].all()
        foreign = np.array(["other" in text for text in batch.queries])
        assert batch.allowed[foreign].all()


def test_the_teachers_vectors_are_those_of_the_bare_texts(mined):
    (guide,) = read_guides([mined])
    batch = plan(guide)[0]
    expected = [vector(text) for text in [*batch.bare_queries, *batch.bare_passages]]
    np.testing.assert_allclose(teacher_vectors(batch), np.stack(expected), rtol=1e-6)


def test_two_data_sets_of_one_teacher_share_a_guide(mined, tmp_path):
    other = tmp_path / "other"
    write_guide(
        other,
        teacher="some model",
        queries=stored(tmp_path, ["more"], {"role": "query"}),
        passages=stored(tmp_path, ["even more"], {"role": "passage"}),
    )
    one, two, none = read_guides([mined, other, tmp_path])
    assert one is two
    assert none is None
    assert one.scores(["more", "query 1"], ["even more"]).tolist() == pytest.approx(
        np.stack([vector("more"), vector("query 1")]) @ vector("even more")[:, None]
    )


def test_a_query_that_two_data_sets_read_with_other_instructions_has_the_vector_of_its_own(tmp_path):
    """One teacher, one text: what stands before it makes two vectors of it."""
    folders = []
    for number in range(2):
        folders.append(tmp_path / f"set {number}")
        contract = {"role": "query", "prompt": f"instruction {number}"}
        store = VectorStore.open_or_create(tmp_path / "vectors", contract=contract, texts=["the same"])
        store.fill_each(lambda lists, number=number: (np.eye(D, dtype=np.float32)[[number] * len(s)] for s in lists))
        write_guide(
            folders[-1],
            teacher="some model",
            queries=store.folder,
            passages=stored(tmp_path / "vectors", [f"passage {number}"], {"role": "passage"}),
        )
    guides = read_guides(folders)
    for number, guide in enumerate(guides):
        assert guide.vectors(["the same"], "query").tolist() == [np.eye(D)[number].tolist()]
        assert not np.isnan(guide.vectors(["passage 0", "passage 1"], "passage")).any(), "passages are known to both"


def test_a_text_that_the_teacher_has_not_seen_is_above_nothing():
    scores = np.array([[0.5, np.nan, 0.9], [0.1, np.nan, 0.0]], np.float32)
    assert above_ceiling(scores, np.array([0, 1]), margin=0.0, relative=False).tolist() == [
        [False, False, True],
        [False, False, False],
    ]


def test_a_negative_positive_has_a_ceiling_below_it_all_the_same():
    scores = np.array([[-0.5, -0.52, -0.6]], np.float32)
    assert above_ceiling(scores, np.array([0]), margin=0.1, relative=True).tolist() == [[False, True, False]]


def test_nothing_is_known_of_no_stores():
    assert np.isnan(Guide([], []).scores(["a"], ["b"])).all()


def test_vectors_that_are_gone_are_named(mined, tmp_path):
    write_guide(tmp_path, teacher="some model", queries=tmp_path / "gone", passages=tmp_path / "gone")
    with pytest.raises(InputError, match="the vectors of some model are gone"):
        read_guides([tmp_path])

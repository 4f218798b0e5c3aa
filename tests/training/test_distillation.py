"""What is learnt from a teacher: each loss against its formula, one number at a time."""

import math

import numpy as np
import pytest
import torch

from embedsmith.data.examples import Example, Passage
from embedsmith.errors import SettingsError
from embedsmith.training.batches import Batch, BatchPlan, Source
from embedsmith.training.losses import info_nce, margin_error, matryoshka, score_divergence, vector_distance
from embedsmith.training.objective import accuracy, check_objective, objective, targets_of, teacher_vectors
from embedsmith.training.settings import StageSettings
from embedsmith.vectors.guide import Guide
from embedsmith.vectors.store import VectorStore

B, U, D = 4, 7, 6


@pytest.fixture(params=range(3))
def batch(request):
    """Vectors of length 1, positives, and a teacher's scores of some passages."""
    torch.manual_seed(request.param)
    queries = torch.nn.functional.normalize(torch.randn(B, D), dim=1)
    passages = torch.nn.functional.normalize(torch.randn(U, D), dim=1)
    positive = torch.randint(U, (B,))
    teacher = torch.rand(B, U)
    teacher[torch.rand(B, U) < 0.5] = float("nan")
    teacher[torch.arange(B), positive] = 0.9
    return queries, passages, positive, teacher


def dot(one, other):
    return sum(a * b for a, b in zip(one.tolist(), other.tolist(), strict=True))


def slow_divergence(queries, passages, teacher, temperature, teacher_temperature):
    parts = []
    for b in range(B):
        listed = [u for u in range(U) if not math.isnan(teacher[b, u])]
        if len(listed) < 2:
            continue
        wanted = [math.exp(float(teacher[b, u]) / teacher_temperature) for u in listed]
        found = [math.exp(dot(queries[b], passages[u]) / temperature) for u in listed]
        parts.append(
            sum(
                w / sum(wanted) * math.log((w / sum(wanted)) / (f / sum(found)))
                for w, f in zip(wanted, found, strict=True)
            )
        )
    return sum(parts) / len(parts) if parts else 0.0


def slow_margins(queries, passages, positive, teacher):
    parts = []
    for b in range(B):
        p = int(positive[b])
        for u in range(U):
            if u == p or math.isnan(teacher[b, u]):
                continue
            margin = dot(queries[b], passages[p]) - dot(queries[b], passages[u])
            parts.append((margin - (float(teacher[b, p]) - float(teacher[b, u]))) ** 2)
    return sum(parts) / len(parts) if parts else 0.0


def test_the_divergence_of_score_lists_equals_the_formula(batch):
    queries, passages, _, teacher = batch
    teacher[0] = float("nan")
    for own, theirs in [(0.05, 0.05), (0.1, 0.3)]:
        found = score_divergence(queries, passages, teacher=teacher, temperature=own, teacher_temperature=theirs)
        assert found.item() == pytest.approx(slow_divergence(queries, passages, teacher, own, theirs), rel=1e-4)


def test_the_error_of_margins_equals_the_formula(batch):
    queries, passages, positive, teacher = batch
    found = margin_error(queries, passages, positive=positive, teacher=teacher)
    assert found.item() == pytest.approx(slow_margins(queries, passages, positive, teacher), rel=1e-5)


def test_the_distance_of_vectors_equals_the_formula(batch):
    queries, passages, *_ = batch
    teacher = passages[:B].clone()
    teacher[1] = float("nan")
    expected = [
        sum((a - b) ** 2 for a, b in zip(queries[i].tolist(), teacher[i].tolist(), strict=True)) for i in range(B)
    ]
    found = vector_distance(queries, teacher)
    assert found.item() == pytest.approx((expected[0] + expected[2] + expected[3]) / 3, rel=1e-5)


@pytest.mark.parametrize("loss", ["vectors", "scores", "margins"])
def test_where_the_teacher_said_nothing_there_is_no_loss_and_a_gradient_of_zero(batch, loss):
    queries, passages, positive, teacher = batch
    queries.requires_grad_()
    nothing = torch.full_like(teacher, float("nan"))
    found = {
        "vectors": lambda: vector_distance(queries, torch.full_like(queries, float("nan"))),
        "scores": lambda: score_divergence(
            queries, passages, teacher=nothing, temperature=1.0, teacher_temperature=1.0
        ),
        "margins": lambda: margin_error(queries, passages, positive=positive, teacher=nothing),
    }[loss]()
    found.backward()
    assert found.item() == 0
    assert not queries.grad.any()


@pytest.mark.parametrize("loss", ["scores", "margins"])
def test_a_student_like_its_teacher_has_nothing_to_learn_and_gradients_are_finite(batch, loss):
    queries, passages, positive, _ = batch
    teacher = queries @ passages.T
    teacher[:, -1] = float("nan")
    positive = positive.clamp(max=U - 2)
    queries.requires_grad_()
    found = (
        score_divergence(queries, passages, teacher=teacher, temperature=0.1, teacher_temperature=0.1)
        if loss == "scores"
        else margin_error(queries, passages, positive=positive, teacher=teacher)
    )
    found.backward()
    assert found.item() == pytest.approx(0, abs=1e-6)
    assert queries.grad.isfinite().all()


def of_texts(scores=None) -> Batch:
    """Return a batch of two queries and three passages."""
    own = np.array([[True, False, True], [False, True, False]])
    return Batch(
        number=0,
        query_ids=["q1", "q2"],
        queries=["a", "b"],
        prompt_chars=[0, 0],
        passages=["x", "y", "z"],
        passage_prompt_chars=[0, 0, 0],
        positive=np.array([0, 1]),
        own=own,
        allowed=np.ones((2, 3), bool),
        guided=np.zeros((2, 3), bool),
        teacher_scores=np.full((2, 3), np.nan, np.float32) if scores is None else scores,
        guides=[None, None],
    )


@pytest.fixture
def vectors():
    torch.manual_seed(0)
    return 3 * torch.randn(5, D)


def test_the_objective_is_the_weighted_sum_of_its_parts(vectors):
    scores = np.array([[0.9, 0.8, 0.2], [0.1, 0.7, 0.3]], np.float32)
    batch = of_texts(scores)
    stage = StageSettings(
        contrastive=0.5, distill_scores=2.0, distill_margins=3.0, temperature=0.1, distill_temperature=0.2
    )
    targets = targets_of(batch, stage, torch.device("cpu"))
    unit = torch.nn.functional.normalize(vectors, dim=1)
    queries, passages = unit[:2], unit[2:]
    listed = torch.tensor([[0.9, math.nan, 0.2], [math.nan, 0.7, math.nan]])
    positive = torch.tensor([0, 1])
    expected = (
        0.5
        * info_nce(queries, passages, positive=positive, allowed=torch.ones(2, 3, dtype=torch.bool), temperature=0.1)
        + 2 * score_divergence(queries, passages, teacher=listed, temperature=0.1, teacher_temperature=0.2)
        + 3 * margin_error(queries, passages, positive=positive, teacher=listed)
    )
    assert objective(vectors, targets, stage).item() == pytest.approx(expected.item(), rel=1e-6)
    assert accuracy(vectors, targets) in (0.0, 0.5, 1.0)


def test_matryoshka_is_the_mean_over_widths_of_the_loss_of_the_first_dimensions(vectors):
    stage = StageSettings(matryoshka=[2, 4, D], temperature=0.1)
    targets = targets_of(of_texts(), stage, torch.device("cpu"))
    parts = []
    for width in (2, 4, D):
        cut = torch.nn.functional.normalize(torch.nn.functional.normalize(vectors, dim=1)[:, :width], dim=1)
        parts.append(
            info_nce(cut[:2], cut[2:], positive=targets.positive, allowed=targets.allowed, temperature=0.1).item()
        )
    assert objective(vectors, targets, stage).item() == pytest.approx(sum(parts) / 3, rel=1e-6)
    assert torch.equal(matryoshka(vectors, 2), torch.nn.functional.normalize(vectors[:, :2], dim=1))


def set_of(name, *, score=None, guide=None):
    """A data set of one example."""
    passages = [[Passage("p", f"{name} positive", score)], [Passage("n", f"{name} negative", score)]]
    return Source(name, [Example("q", f"{name} query", *passages)], guide=guide)


def taught_by(folder, width, texts) -> Guide:
    """A guide whose vectors of some texts are all of a width."""
    stores = {}
    for role in ("query", "passage"):
        store = VectorStore.open_or_create(folder, contract={"role": role, "width": width}, texts=texts)
        store.fill_each(
            lambda lists: (np.eye(width, dtype=np.float32)[[len(text) % width for text in some]] for some in lists)
        )
        stores[role] = store.folder
    return Guide([stores["query"]], [stores["passage"]])


@pytest.mark.parametrize("has_a_guide", [True, False])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"matryoshka": [4, 32]}, "matryoshka 32, but the model has 6 dimensions"),
        ({"distill_scores": 1.0}, "distillation from scores, but the examples of second have none"),
        ({"distill_margins": 1.0}, "distillation from scores, but the examples of second have none"),
        ({"distill_vectors": 1.0}, "no teacher's vectors are stored of second"),
    ],
)
def test_what_one_data_set_cannot_teach_is_refused_before_training(tmp_path, settings, message, has_a_guide):
    """Whichever data set comes first, and whatever the first batch would hold."""
    first = set_of("first", score=0.5, guide=taught_by(tmp_path, D, ["first query", "first positive"]))
    second = set_of("second", guide=taught_by(tmp_path, D, ["something else"]) if has_a_guide else None)
    for sources in ([first, second], [second, first]):
        with pytest.raises(SettingsError, match=message):
            check_objective(sources, StageSettings(**settings), D)


@pytest.mark.parametrize("order", [1, -1])
def test_teachers_of_another_width_than_the_student_are_refused_whichever_data_set_has_them(tmp_path, order):
    texts = [f"{name} {kind}" for name in ("one", "two") for kind in ("query", "positive", "negative")]
    narrow, wide = taught_by(tmp_path / "narrow", D, texts), taught_by(tmp_path / "wide", D + 2, texts)
    sources = [set_of("one", guide=narrow), set_of("two", guide=wide)][::order]
    with pytest.raises(SettingsError, match="the teacher of two has 8 dimensions, the student 6"):
        check_objective(sources, StageSettings(distill_vectors=1.0), D)
    check_objective([set_of("one", guide=narrow), set_of("two", guide=narrow)], StageSettings(distill_vectors=1.0), D)


def test_every_text_of_a_batch_of_two_teachers_has_the_vector_of_its_own(tmp_path):
    """Each knows the other's texts, too, and says other things of them."""
    texts = [f"{name} {kind}" for name in ("one", "two") for kind in ("query", "positive", "negative")]
    guides = {name: taught_by(tmp_path / name, D, texts) for name in ("one", "two")}
    for place, guide in enumerate(guides.values()):
        guide.vectors = lambda some, role, place=place: np.full((len(some), D), place, np.float32)
    sources = [set_of(name, guide=guide) for name, guide in guides.items()]
    (batch,) = BatchPlan(sources, steps=1, batch_size=2, hard_negatives=1, in_batch=True, seed=0, once=True)
    found = teacher_vectors(batch)
    assert len(found) == 6
    for text, row in zip([*batch.queries, *batch.passages], found, strict=True):
        assert set(row.tolist()) == {0.0 if text.startswith("one") else 1.0}, text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hard_negatives": 0, "distill_scores": 1.0}, "hard_negatives is 0, and scores of a positive alone"),
        ({"hard_negatives": 0, "in_batch": False}, "a query would be contrasted with nothing"),
    ],
)
def test_a_loss_of_nothing_is_refused_with_the_settings(settings, message):
    with pytest.raises(SettingsError, match=message):
        StageSettings.parse(settings, where="stage")

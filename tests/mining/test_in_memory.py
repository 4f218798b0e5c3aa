"""Mining from Python: data in memory and open teachers, beside paths and names."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

import embedsmith
from embedsmith.data.in_memory import NAME
from embedsmith.errors import EmbedsmithError, InputError, RunError, SettingsError
from embedsmith.mining.results import MiningRun
from embedsmith.mining.settings import MiningSettings
from embedsmith.teachers.settings import TeacherSettings
from tests import forks

datasets = pytest.importorskip("datasets")

ANIMALS = ["cat", "dog", "log", "mat", "apple", "pear", "plum", "banana", "parser", "file"]
ROWS = [
    {"anchor": f"where is the {animal}?", "positive": f"the {animal} sat on the {n}"}
    for n, animal in enumerate(ANIMALS)
]
EXACT = MiningSettings(method="naive", teacher_settings=TeacherSettings(dtype="float32"))


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """The folder of a small embedding model."""
    transformer = Transformer(str(tiny_bert))
    parts = [transformer, Pooling(transformer.get_embedding_dimension()), Normalize()]
    SentenceTransformer(modules=parts, device="cpu").save(str(tmp_path / "model"))
    return tmp_path / "model"


@pytest.fixture
def teacher(folder: Path) -> SentenceTransformer:
    """The same, open."""
    return SentenceTransformer(str(folder), device="cpu")


def found(run: MiningRun) -> list[tuple]:
    """Return the texts and scores that were mined."""
    return [
        (e.query, [p.text for p in e.positives], [(p.text, p.score, p.rank) for p in e.negatives])
        for e in run.negatives
    ]


def test_rows_in_memory_and_an_open_teacher_give_the_negatives_of_a_path_and_a_name(
    folder: Path, teacher: SentenceTransformer, tmp_path: Path
):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    by_path = embedsmith.mine(path, out=tmp_path / "a", teacher=str(folder), settings=EXACT, negatives=3)
    for number, data in enumerate([ROWS, datasets.Dataset.from_list(ROWS)]):
        run = embedsmith.mine(
            data, out=tmp_path / f"b{number}", teacher=teacher, negatives=3, settings=MiningSettings(method="naive")
        )
        assert found(run) == found(by_path)
        assert all(len(example.negatives) == 3 for example in run.negatives)


def test_the_forms_of_sentence_transformers_are_data_sets(tmp_path: Path):
    run = embedsmith.mine(
        ROWS, out=tmp_path / "run", teacher="random", negatives=2, settings=MiningSettings(method="naive")
    )
    first = run.negatives[0]
    texts = [first.query, first.positives[0].text, *(passage.text for passage in first.negatives)]
    assert list(run.dataset("triplet")[0].values()) == [*texts[:2], texts[2]]
    assert list(run.dataset("n-tuple")[0].values()) == texts
    assert run.dataset("n-tuple").column_names == ["anchor", "positive", "negative_1", "negative_2"]
    assert run.dataset("labeled-list")[0] == {"anchor": texts[0], "documents": texts[1:], "labels": [1, 0, 0]}
    assert run.dataset("labeled-pair").num_rows == 3 * len(ROWS)
    assert run.dataset("st-triplet")[:] == run.dataset()[:]
    assert run.dataset("flagembedding", instruction="find it")[0]["prompt"] == "find it"
    assert run.dataset("parquet")[0]["negatives"][0]["teacher"] == "random"
    assert len(run.dataset("triplet", negatives=1)) == len(ROWS)
    assert run.dataset("n-tuple", scores=True)[0]["scores"][1] == first.negatives[0].score


@pytest.mark.parametrize(
    ("form", "message", "hint"),
    [
        ("triplets", r'^no form "triplets" \(did you mean "triplet"\?\)$', "n-tuple"),
        ("tevatron", '^"tevatron" is a folder with a corpus, not one table$', "embedsmith.write"),
    ],
)
def test_a_form_that_is_none_is_refused(tmp_path: Path, form: str, message: str, hint: str):
    run = embedsmith.mine(ROWS, out=tmp_path / "run", teacher="bm25")
    with pytest.raises(SettingsError, match=message) as caught:
        run.dataset(form)
    assert hint in caught.value.hint


def test_what_a_form_leaves_out_is_logged_and_nothing_left_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    rows = [{**row, "anchor": f"who sat there, {row['anchor']}"} for row in ROWS]
    rows.append({"anchor": "zebra or apple", "positive": "zebra"})
    run = embedsmith.mine(
        rows, out=tmp_path / "run", teacher="bm25", negatives=20, settings=MiningSettings(method="naive")
    )
    lengths = [len(example.negatives) for example in run.negatives]
    assert len(set(lengths)) > 1
    with caplog.at_level(logging.WARNING, "embedsmith"):
        run.dataset("n-tuple", negatives=max(lengths))
    assert f"fewer than {max(lengths)} negatives" in caplog.text
    with pytest.raises(InputError, match=r"run: no examples to write: .* with fewer than 20 negatives$"):
        run.dataset("n-tuple", negatives=20)


def test_without_a_folder_the_run_lies_in_one_that_ends_with_python(tmp_path: Path):
    script = (
        "import embedsmith, logging\n"
        f"run = embedsmith.mine({ROWS!r}, teacher='bm25')\n"
        "assert (run.folder / 'negatives.jsonl').is_file()\n"
        "print(run.folder)\n"
    )
    done = forks.run(script)
    folder = done.stdout.strip()
    assert done.stderr.strip() == f"no out: the run lies in {folder}, which is removed when Python ends"
    assert not Path(folder).exists()


def test_a_run_of_rows_in_memory_is_selected_from_audited_and_read_again(tmp_path: Path):
    rows = [*ROWS, {"anchor": "where is the cat?", "positive": "another cat"}]
    run = embedsmith.mine(rows, out=tmp_path / "run", teacher="bm25", negatives=3)
    chosen = embedsmith.select(run.folder, out=tmp_path / "chosen", changes={"negatives": 1})
    assert {len(example.negatives) for example in chosen.negatives} <= {0, 1}
    assert embedsmith.audit(run.folder)
    again = MiningRun.read(run.folder)
    assert found(again) == found(run)
    assert str(again) == str(run)
    (run.folder / f"{NAME}.jsonl").write_text('{"anchor": "a", "positive": "b"}\n')
    with pytest.raises(RunError, match="has changed since it was mined"):
        embedsmith.select(run.folder, out=tmp_path / "other", changes={"negatives": 1})


@pytest.fixture
def cut_short(monkeypatch: pytest.MonkeyPatch):
    """Have runs end before they are whole, until it is called."""
    monkeypatch.setattr(MiningRun, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    return monkeypatch.undo


def test_a_run_goes_on_with_the_same_rows_and_teacher_and_is_refused_with_others(
    tmp_path: Path, teacher: SentenceTransformer, cut_short
):
    out, settings = tmp_path / "run", MiningSettings(method="naive")
    with pytest.raises(KeyboardInterrupt):
        embedsmith.mine(ROWS, out=out, teacher=teacher, settings=settings)
    cut_short()
    with pytest.raises(RunError, match=r"holds another run \(input.content '\w+', now '\w+'\)$"):
        embedsmith.mine(ROWS[1:], out=out, teacher=teacher, settings=settings)
    weight = next(teacher.parameters())
    with torch.no_grad():
        weight[0, 0] += 1
    with pytest.raises(RunError, match=r"holds another run \(teachers.0 'open:\w+', now 'open:\w+'\)$"):
        embedsmith.mine(ROWS, out=out, teacher=teacher, settings=settings)
    with torch.no_grad():
        weight[0, 0] -= 1
    run = embedsmith.mine(datasets.Dataset.from_list(ROWS), out=out, teacher=teacher, settings=settings)
    assert run.status == "finished"


def test_a_mistake_leaves_no_folder_behind(tmp_path: Path):
    with pytest.raises(EmbedsmithError):
        embedsmith.mine(ROWS, out=tmp_path / "run", teacher=str(tmp_path / "none"))
    with pytest.raises(EmbedsmithError):
        embedsmith.mine([], out=tmp_path / "run", teacher="bm25")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (
            {"teacher": "bm25", "settings": MiningSettings(teachers=["random"])},
            "^teacher: given beside settings.teachers$",
        ),
        ({"negatives": 2, "settings": MiningSettings(negatives=3)}, "^negatives: given beside settings.negatives$"),
        ({"teacher": ["bm25", "bm25"]}, "^teacher: bm25 is given twice$"),
        ({"negatives": 0}, "^mine: negatives: "),
    ],
)
def test_what_does_not_go_together_is_refused(keywords: dict, message: str):
    with pytest.raises(SettingsError, match=message) as caught:
        embedsmith.mine(ROWS, **keywords)
    assert caught.value.hint


def test_how_an_open_model_reads_is_its_owner_s_affair(teacher: SentenceTransformer):
    for reading in (
        TeacherSettings(max_tokens=5),
        TeacherSettings(query_prompt="q: "),
        TeacherSettings(dtype="float32"),
    ):
        with pytest.raises(SettingsError, match=r"^teacher_settings.*: an open model is used as it stands$"):
            embedsmith.mine(ROWS, teacher=teacher, settings=MiningSettings(teacher_settings=reading))


@pytest.mark.parametrize("teacher", [3, torch.nn.Linear(2, 2)], ids=["a number", "a module"])
def test_a_teacher_of_the_wrong_type_is_a_type_error(teacher: object):
    with pytest.raises(TypeError, match="wanted a name or an open SentenceTransformer"):
        embedsmith.mine(ROWS, teacher=teacher)


def test_several_teachers_open_and_named_act_as_one(tmp_path: Path, teacher: SentenceTransformer):
    settings = MiningSettings(method="naive", ensemble="intra-dedup")
    rows = [{**row, "anchor": f"who sat there, {row['anchor']}"} for row in ROWS]
    run = embedsmith.mine(rows, out=tmp_path / "run", teacher=[teacher, "bm25"], settings=settings, negatives=4)
    names = {passage.teacher for example in run.negatives for passage in example.negatives}
    assert names == {"bm25", run.manifest["settings"]["teachers"][0]}
    assert run.manifest["settings"]["teachers"][0].startswith("open:")


def test_nothing_is_printed_but_what_is_logged(tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog):
    rows = [*ROWS, {"anchor": "Where is the cat?", "positive": "a cat"}]
    with caplog.at_level(logging.INFO, "embedsmith"):
        embedsmith.mine(rows, out=tmp_path / "run", teacher="bm25")
    assert "1 query is one with an earlier query" in caplog.text
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")

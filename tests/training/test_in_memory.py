"""Training on data in memory, of an open student: as by their files and names; the run hands on its model."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import embedsmith
from embedsmith import MiningSettings, StageSettings, StudentSettings
from embedsmith.errors import InputError, RunError
from embedsmith.evaluation.before_and_after import before_and_after
from embedsmith.teachers.settings import TeacherSettings
from embedsmith.training.results import TrainedRun

ANIMALS = ["cat", "dog", "owl", "bat", "eel", "ape"]
ROWS = [
    {"anchor": f"where is the {a}", "positive": f"the {a} sat on the mat", "negative": f"no {a} was ever here"}
    for a in ANIMALS
]
STAGE = StageSettings(steps=2, batch_size=3, dtype="float32", hard_negatives=1)


@pytest.fixture(scope="module")
def model(tiny_bert: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_bert), device="cpu")


def losses(run: TrainedRun) -> list[float]:
    return [json.loads(line)["loss"] for line in (run.folder / "steps.jsonl").read_text().splitlines()]


def test_a_data_set_and_an_open_student_are_trained_as_their_file_and_name_are(model, tmp_path):
    start = tmp_path / "start"
    model.save(str(start))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    run = embedsmith.train(datasets.Dataset.from_list(ROWS), student=model, out=tmp_path / "open", stage=STAGE)
    student = StudentSettings(name=str(start))
    by_name = embedsmith.train(run.folder / "examples.jsonl", student=student, out=tmp_path / "named", stage=STAGE)
    assert losses(run) == losses(by_name)
    np.testing.assert_array_equal(run.model.embed(ANIMALS, "query"), by_name.model.embed(ANIMALS, "query"))
    assert all((weight == before[name]).all() for name, weight in model.state_dict().items())
    again = embedsmith.train(ROWS, student=start, out=tmp_path / "list", stage=STAGE)
    assert losses(again) == losses(run)


def test_what_a_run_mined_in_memory_is_trained_on(model, tmp_path):
    settings = MiningSettings(method="naive", depth=4)
    rows = [{"query": row["anchor"], "positive": row["positive"]} for row in ROWS]
    mined = embedsmith.mine(rows, teacher="bm25", negatives=1, out=tmp_path / "mined", settings=settings)
    run = embedsmith.train(mined, student=model, out=tmp_path / "run", stage=STAGE)
    assert len(losses(run)) == 2
    assert str(run).splitlines()[1].split() == ["stage", "steps", "first", "loss", "last", "loss"]
    assert "<th>train</th><td>2</td>" in run._repr_html_()
    assert TrainedRun.read(run.folder).model.get_embedding_dimension() == run.model.get_embedding_dimension()


def test_rows_keep_their_positives_and_negatives(model, tmp_path):
    rows = [{"query": "q", "positive": ["a", "b"], "negative": "c"}, {"query": "r", "positive": "d"}]
    run = embedsmith.train(rows, student=model, out=tmp_path / "run", stage=STAGE.model_copy(update={"batch_size": 2}))
    found = [json.loads(line) for line in (run.folder / "examples.jsonl").read_text().splitlines()]
    texts = [[[one["text"] for one in row[side]] for side in ("positives", "negatives")] for row in found]
    assert texts == [[["a", "b"], ["c"]], [["d"], []]]


def test_without_a_folder_the_run_is_temporary(model, caplog):
    run = embedsmith.train(ROWS, student=model, stage=STAGE)
    assert f"the run lies in {run.folder}" in caplog.text
    assert run.model.encode(["a cat"]).shape[0] == 1


def test_a_run_does_not_go_on_with_another_model_or_other_rows(tiny_llama, model, tmp_path, monkeypatch):
    from embedsmith.training import train

    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_stage", stop)
        with pytest.raises(KeyboardInterrupt):
            embedsmith.train(ROWS, student=model, out=tmp_path / "run", stage=STAGE)
    with pytest.raises(RunError, match="holds another run"):
        embedsmith.train(ROWS[1:], student=model, out=tmp_path / "run", stage=STAGE)
    with pytest.raises(RunError, match="holds another run"):
        embedsmith.train(ROWS, student=embedsmith.load(str(tiny_llama)), out=tmp_path / "run", stage=STAGE)
    assert len(losses(embedsmith.train(ROWS, student=model, out=tmp_path / "run", stage=STAGE))) == 2


def test_the_start_of_a_run_is_known_though_it_was_open(model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = embedsmith.train(ROWS, student=model, out=tmp_path / "run", stage=STAGE)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"query": r["anchor"], "positive": r["positive"]}) + "\n" for r in ROWS))
    found = before_and_after(run.folder, [str(pairs)], reading=TeacherSettings(dtype="float32"))
    assert found[str(pairs)]["before"] == pytest.approx(embedsmith.evaluate(model, pairs).mean["ndcg@10"])


def test_other_data_and_students_are_refused(model, tmp_path):
    with pytest.raises(TypeError, match=r"dataset: an int, wanted"):
        embedsmith.train(3, student=model, out=tmp_path / "run")
    with pytest.raises(TypeError, match="model: int, wanted a name or an open SentenceTransformer"):
        embedsmith.train(ROWS, student=3, out=tmp_path / "run")
    with pytest.raises(InputError, match=r"dataset: no query; the row has"):
        embedsmith.train([{"text": "a"}], student=model, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()

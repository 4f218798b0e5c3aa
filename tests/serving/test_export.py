"""A model exported gives the same vectors where it is opened, and the folder is whole or absent."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from embedsmith.data.files import write_json
from embedsmith.errors import ModelError, RunError
from embedsmith.models.adapters import add_adapters
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings
from embedsmith.serving import clearing
from embedsmith.serving import export as exporting
from embedsmith.serving.export import export

TEXTS = ["where is the parser", "10 times 100", " the cat", "the dog sat on the log, " * 9]
LATENT = {"pooling": "latent", "latents": 4, "heads": 2, "head_width": 8, "instruction": "Find the code"}


@pytest.fixture(scope="module")
def plain(tiny_bert, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "model"
    build_student(StudentSettings(name=str(tiny_bert)), device="cpu").save(str(folder))
    return folder


@pytest.fixture(scope="module")
def instructed(tiny_llama, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("instructed") / "model"
    build_student(StudentSettings(name=str(tiny_llama), **LATENT), device="cpu").save(str(folder))
    return folder


def run_with(model: Path, folder: Path, status: str = "finished") -> Path:
    """A run folder of a recipe, as training leaves it."""
    load(str(model)).save(str(folder / "model"), create_model_card=False)
    (folder / "model" / "README.md").write_text(
        "---\nlicense: mit\n---\n\n# Trained\n\n## Data\n\n- toy\n\n## Use\n\nold\n"
    )
    data = folder / "toy"
    data.mkdir()
    (data / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    paths = {"toy": {"path": str(data)}, "bare": {"path": str(folder / "nowhere")}}
    write_json(
        folder / "manifest.json", {"command": "train", "status": status, "settings": {"data": paths}, "inputs": {}}
    )
    write_json(folder / "scores.json", {"toy": {"before": {"ndcg@10": 0.25}, "after": {"ndcg@10": 0.5}}})
    return folder


def same_vectors(model: SentenceTransformer, original: EmbeddingModel) -> None:
    np.testing.assert_allclose(model.encode_query(TEXTS), original.embed(TEXTS, "query"), atol=1e-5)
    np.testing.assert_allclose(model.encode_document(TEXTS), original.embed(TEXTS, "passage"), atol=1e-5)


def test_an_encoder_opens_in_plain_sentence_transformers_without_a_flag(plain, tmp_path):
    done = export(plain, out=tmp_path / "out")
    assert not done.needs_code and done.largest_difference <= 1e-5
    same_vectors(SentenceTransformer(str(tmp_path / "out"), device="cpu"), load(str(plain), device="cpu"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert done.bytes == sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_a_decoder_needs_the_flag_and_says_so(instructed, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "code"))
    done = export(instructed, out=tmp_path / "out")
    assert done.needs_code
    opened = SentenceTransformer(str(tmp_path / "out"), device="cpu", trust_remote_code=True)
    same_vectors(opened, load(str(instructed), device="cpu"))
    assert "trust_remote_code=True" in (tmp_path / "out" / "README.md").read_text()


def test_the_released_layout_gives_the_same_vectors(instructed, tmp_path):
    done = export(instructed, out=tmp_path / "out", layout="nv-embed")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "nvembed"
    assert done.largest_difference <= 1e-5
    same_vectors(load(str(tmp_path / "out"), device="cpu"), load(str(instructed), device="cpu"))


@pytest.mark.parametrize(
    ("mode", "flag"),
    [("mean", "pooling_mode_mean_tokens"), ("cls", "pooling_mode_cls_token"), ("lasttoken", "pooling_mode_lasttoken")],
)
def test_the_pooling_is_written_in_the_old_way_too(plain, tmp_path, mode, flag):
    model = load(str(plain))
    model[1] = Pooling(32, pooling_mode=mode)
    model.save(str(tmp_path / "model"))
    config = json.loads((tmp_path / "model" / "1_Pooling" / "config.json").read_text())
    flags = {key: value for key, value in config.items() if key.startswith("pooling_mode_")}
    assert len(flags) == 6 and [key for key, value in flags.items() if value] == [flag]
    assert SentenceTransformer(str(tmp_path / "model"), device="cpu")[1].pooling_mode == mode


@pytest.mark.parametrize("layout", ["sentence-transformers", "nv-embed"])
@pytest.mark.usefixtures("bfloat16_or_not")
def test_every_weight_of_the_folder_is_in_the_precision_asked_for(instructed, tmp_path, layout):
    done = export(instructed, out=tmp_path / "out", layout=layout, dtype="bfloat16")
    assert done.largest_difference <= 1e-5
    types = set()
    for file in (tmp_path / "out").rglob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            types |= {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    assert types == {"BF16"}
    right = load(str(instructed)).embed(TEXTS, "query")
    np.testing.assert_allclose(load(str(tmp_path / "out")).embed(TEXTS, "query"), right, atol=0.05)


def test_the_card_of_a_run_has_its_data_licences_recipe_and_scores(plain, tmp_path):
    export(run_with(plain, tmp_path / "run"), out=tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1]) == {"license": "mit"}
    for part in ("## Data", "- toy: cc-by-4.0", "- bare: not stated", "## Scores on toy", "| after | 0.500 |"):
        assert part in card
    assert "old" not in card
    assert card.count("## Use") == 1


def test_the_sections_of_a_card_are_kept_whatever_their_order(plain, tmp_path):
    run = run_with(plain, tmp_path / "run")
    text = (run / "model" / "README.md").read_text()
    (run / "model" / "README.md").write_text(text + "\n## Limits\n\n```\n## Use\n```\n")
    export(run, out=tmp_path / "one")
    export(str(tmp_path / "one"), out=tmp_path / "two")
    for name in ("one", "two"):
        headings = [line for line in (tmp_path / name / "README.md").read_text().splitlines() if line[:2] == "##"]
        wanted = ["## Data", "## Limits", "## Use", "## Licences of the data", "## Scores on toy", "## Use"]
        assert headings == wanted


def test_a_model_without_a_card_gets_one_with_its_licence(tiny_bert, tmp_path):
    export(str(tiny_bert), out=tmp_path / "out")
    front = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])
    assert front == {"library_name": "sentence-transformers", "license": "other"}


def test_a_folder_that_would_give_other_vectors_is_not_left_behind(plain, tmp_path, monkeypatch):
    embed = EmbeddingModel.embed
    drift = iter([0.0, 0.0, 1e-3, 1e-3])
    monkeypatch.setattr(EmbeddingModel, "embed", lambda self, *a, **k: embed(self, *a, **k) + np.float32(next(drift)))
    with pytest.raises(ModelError, match=r"gives other vectors than .*differ by 0\.001"):
        export(plain, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_leaves_nothing(plain, tmp_path, monkeypatch):
    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(exporting, "_card", full)
    with pytest.raises(OSError, match="No space left"):
        export(plain, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_not_written_over(plain, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(RunError, match="not an empty folder"):
        export(plain, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_that_was_cut_short_is_not_exported(plain, tmp_path):
    run = run_with(plain, tmp_path / "run", status="running")
    with pytest.raises(RunError, match="run: a run that was cut short"):
        export(run, out=tmp_path / "out")


def test_a_model_without_latent_attention_has_no_place_in_the_released_layout(plain, tmp_path):
    with pytest.raises(ModelError, match="nv-embed layout holds latent attention, this model has Pooling"):
        export(plain, out=tmp_path / "out", layout="nv-embed")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["sentence-transformers", "nv-embed"])
def test_what_was_exported_can_be_cleared(instructed, plain, tmp_path, layout):
    export(instructed if layout == "nv-embed" else plain, out=tmp_path / "out", layout=layout)
    export(instructed, out=tmp_path / "decoder")
    for name in ("out", "decoder"):
        clearing.clear_export(tmp_path / name)
        assert list((tmp_path / name).iterdir()) == []


def test_adapters_that_were_exported_can_be_cleared(tiny_bert, tmp_path):
    pytest.importorskip("peft")
    model = build_student(StudentSettings(name=str(tiny_bert)), device="cpu")
    add_adapters(model, rank=2)
    model.save(str(tmp_path / "model"))
    assert export(tmp_path / "model", out=tmp_path / "out").adapters
    clearing.clear_export(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []

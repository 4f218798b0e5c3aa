"""Adapters: small on disk, the same model when they are opened or merged, and never put where no layer is."""

import json
import shutil

import numpy as np
import pytest
import torch

from embedsmith.data.files import read_json, write_json
from embedsmith.errors import ModelError, SettingsError
from embedsmith.models import adapters
from embedsmith.models.adapters import add_adapters, merge_adapters, remove_adapters, temporarily_merged
from embedsmith.models.embedder import describe
from embedsmith.models.frozen import halved
from embedsmith.models.names import ADAPTERS
from embedsmith.models.opening import build_student, load
from embedsmith.models.probe import measure_attention
from embedsmith.models.settings import StudentSettings
from embedsmith.serving.export import export

pytest.importorskip("peft")

TEXTS = ["where is the parser", "10 times 100", " the cat", "the dog sat on the log, " * 4]
LATENT = {"pooling": "latent", "latents": 4, "heads": 2, "head_width": 8}


def close(vectors, expected, atol=1e-5):
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=atol)


def student(folder, **settings):
    given = {"layers": 2, "instruction": "find the code", "query_max_tokens": 40, **LATENT, **settings}
    return build_student(StudentSettings(name=str(folder), **given), device="cpu")


def trained(model, seed=0, **arguments):
    """Adapters with weights as training would give them, and a pooling that has moved."""
    add_adapters(model, rank=4, dropout=0.0, **arguments)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture
def adapted(tiny_llama):
    return trained(student(tiny_llama))


def adapted_layers(model):
    names = [name for name, _ in model.named_parameters() if "lora_A" in name]
    return sorted({name.split(".lora_A")[0].rpartition(".")[2] for name in names})


def test_adapters_and_the_pooling_are_trained_and_nothing_else(tiny_llama):
    model = student(tiny_llama)
    before = model.embed(TEXTS, "query")
    add_adapters(model, rank=4)
    open_ = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in open_ if name.startswith("0.")} == {n for n, _ in model.named_parameters() if "lora_" in n}
    assert {name for name, _ in model.named_parameters() if not name.startswith("0.")} <= open_
    close(model.embed(TEXTS, "query"), before)  # new adapters begin at nothing
    assert len(adapted_layers(model)) == 7


def test_only_frozen_matrices_that_lose_nothing_are_halved_and_all_are_whole_again(tiny_llama):
    model = student(tiny_llama)
    with torch.no_grad():
        model.backbone.layers[0].mlp.up_proj.weight.copy_(model.backbone.layers[0].mlp.up_proj.weight.bfloat16())
    add_adapters(model, rank=2)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with halved(model):
        short = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.bfloat16}
    (name,) = short
    assert name.endswith("layers.0.mlp.up_proj.base_layer.weight")
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32 and torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "v_proj"], ["self_attn.o_proj", "mlp.down_proj"]])
def test_targets_are_the_layers_that_get_adapters(tiny_llama, targets):
    model = student(tiny_llama)
    add_adapters(model, rank=2, targets=targets)
    assert adapted_layers(model) == sorted(target.rpartition(".")[2] for target in targets)


@pytest.mark.parametrize(
    ("target", "reason"), [("q_porj", r'"q_porj" \(did you mean "q_proj"\?\)'), ("proj", '"proj"')]
)
def test_a_target_that_names_no_layer_is_an_error(tiny_llama, target, reason):
    with pytest.raises(SettingsError, match=f"no linear layer is called {reason}"):
        add_adapters(student(tiny_llama), rank=2, targets=["v_proj", target])


def test_merging_keeps_the_vectors_and_leaves_no_adapters(adapted):
    before = adapted.embed(TEXTS, "query")
    assert 0 <= merge_adapters(adapted, TEXTS) < 1e-5
    assert not adapted.has_adapters
    assert not any("lora" in name for name, _ in adapted.named_parameters())
    close(adapted.embed(TEXTS, "query"), before)


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def trained_names(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_for_a_while_they_come_out_again_to_the_last_bit(adapted, dtype):
    adapted.to(getattr(torch, dtype))
    before = bits(adapted)
    vectors = adapted.embed(TEXTS, "query")
    with temporarily_merged(adapted, TEXTS):
        close(adapted.embed(TEXTS, "query"), vectors, atol=1e-5 if dtype == "float32" else 5e-2)
        moved = [name for name, tensor in adapted.state_dict().items() if not torch.equal(tensor, before[name])]
        assert any(name.endswith("q_proj.base_layer.weight") for name in moved)
    for name, tensor in adapted.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.fixture
def wrong_merge(monkeypatch):
    """Let peft merge wrongly: by something else, or by what is no number."""

    def patched(model, factor):
        real = type(model[0].model.base_model).merge_adapter

        def wrong(self, *arguments, **keywords):
            real(self, *arguments, **keywords)
            for module in self.model.modules():
                if hasattr(module, "get_base_layer"):
                    module.get_base_layer().weight.data *= factor

        monkeypatch.setattr(type(model[0].model.base_model), "merge_adapter", wrong)

    return patched


@pytest.mark.parametrize(("factor", "moved"), [(1.5, r"\d\.\d+"), (float("nan"), "nan"), (float("inf"), "nan")])
@pytest.mark.parametrize("merge", [merge_adapters, lambda model, texts: add_adapters(model, rank=2)])
def test_a_merge_that_changes_the_model_is_an_error_and_leaves_it_as_it_was(adapted, wrong_merge, merge, factor, moved):
    before, vectors, names = bits(adapted), adapted.embed(TEXTS, "query"), trained_names(adapted)
    wrong_merge(adapted, factor)
    with pytest.raises(ModelError, match=rf"merging the adapters moved a vector by {moved}, wanted 1e-04 or less"):
        merge(adapted, TEXTS)
    assert adapted.has_adapters
    assert trained_names(adapted) == names
    for name, tensor in adapted.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    np.testing.assert_array_equal(adapted.embed(TEXTS, "query"), vectors)


def test_a_student_of_adapters_that_merge_wrongly_is_refused(adapted, wrong_merge, tmp_path):
    adapted.save(str(tmp_path / "adapters"))
    wrong_merge(adapted, 1.5)
    with pytest.raises(ModelError, match="merging the adapters moved a vector by"):
        build_student(StudentSettings(name=str(tmp_path / "adapters"), query_max_tokens=40), device="cpu")


@pytest.mark.parametrize("end", [merge_adapters, remove_adapters])
def test_without_its_adapters_a_model_is_trained_as_it_was_before_them(tiny_llama, end):
    model = student(tiny_llama)
    assert trained_names(model) == set(bits(model))
    model.backbone.embed_tokens.requires_grad_(False)  # by someone who wants it so
    names = trained_names(model)
    add_adapters(model, rank=2)
    end(model)
    assert trained_names(model) == names


def test_a_student_made_of_adapters_is_trained_in_full(adapted, tmp_path):
    adapted.save(str(tmp_path / "adapters"))
    model = build_student(StudentSettings(name=str(tmp_path / "adapters"), query_max_tokens=40), device="cpu")
    assert trained_names(model) == set(bits(model))


def test_without_its_adapters_a_model_gives_the_vectors_that_it_gave_before_them(tiny_llama):
    model = student(tiny_llama)
    before = model.embed(TEXTS, "query")
    add_adapters(model, rank=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter += 0.1
    assert np.abs(model.embed(TEXTS, "query") - before).max() > 1e-3
    remove_adapters(model)
    assert not model.has_adapters
    np.testing.assert_array_equal(model.embed(TEXTS, "query"), before)


def test_saved_they_are_small_and_opened_they_are_the_same_model(adapted, tmp_path):
    adapted.save(str(tmp_path / "adapters"))
    files = sorted(str(path.relative_to(tmp_path / "adapters")) for path in (tmp_path / "adapters").rglob("*.*"))
    written = ["adapter_config.json", "adapter_model.safetensors"]
    assert files == ["adapters.json", *(f"adapters/{name}" for name in written), "golden.json", "rest.safetensors"]
    # What is not there are the backbone's own weights.
    again = load(str(tmp_path / "adapters"), device="cpu")
    assert again.has_adapters
    assert again.prompts == adapted.prompts
    assert set(measure_attention(again.backbone).values()) == {"bidirectional"}
    assert again.contract("query")["max_tokens"] == 40
    for role in ("query", "passage"):
        close(again.embed(TEXTS, role), adapted.embed(TEXTS, role))
    again.save(str(tmp_path / "twice"))
    close(load(str(tmp_path / "twice"), device="cpu").embed(TEXTS, "query"), adapted.embed(TEXTS, "query"))


def test_the_base_is_named_as_it_was_given_and_not_by_a_path_of_peft(adapted, tiny_llama, tmp_path):
    adapted.save(str(tmp_path / "adapters"))
    config = json.loads((tmp_path / "adapters" / "adapters" / "adapter_config.json").read_text())
    known = json.loads((tmp_path / "adapters" / "adapters.json").read_text())
    assert config["base_model_name_or_path"] == known["base"]["name"] == str(tiny_llama)


def test_adapters_over_a_saved_model_name_its_folder(tiny_llama, tmp_path):
    student(tiny_llama).save(str(tmp_path / "base"))
    model = trained(load(str(tmp_path / "base"), device="cpu"))
    model.save(str(tmp_path / "adapters"))
    close(load(str(tmp_path / "adapters"), device="cpu").embed(TEXTS, "query"), model.embed(TEXTS, "query"))


def test_adapters_over_adapters_stand_on_the_merged_ones(adapted, tmp_path):
    """Two stages, each of which keeps its adapters."""
    adapted.save(str(tmp_path / "first"))
    second = trained(adapted, seed=1)
    second.save(str(tmp_path / "second"))
    close(load(str(tmp_path / "second"), device="cpu").embed(TEXTS, "query"), second.embed(TEXTS, "query"))


def test_a_student_made_of_adapters_is_a_plain_model(adapted, tmp_path):
    adapted.save(str(tmp_path / "adapters"))
    model = build_student(StudentSettings(name=str(tmp_path / "adapters"), query_max_tokens=40), device="cpu")
    assert not model.has_adapters
    close(model.embed(TEXTS, "query"), adapted.embed(TEXTS, "query"))


def test_a_base_that_has_changed_is_refused(tiny_llama, tmp_path):
    student(tiny_llama).save(str(tmp_path / "base"))
    trained(load(str(tmp_path / "base"), device="cpu")).save(str(tmp_path / "adapters"))
    other = load(str(tmp_path / "base"), device="cpu")
    with torch.no_grad():
        other.backbone.norm.weight[0] += 0.5
    other.save(str(tmp_path / "base"))
    with pytest.raises(ModelError, match="is another model than the one that the adapters were trained over"):
        load(str(tmp_path / "adapters"))
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(ModelError, match="no such model folder"):
        load(str(tmp_path / "adapters"))


def test_adapters_without_their_weights_are_refused(adapted, tmp_path):
    adapted.save(str(tmp_path / "model"))
    (tmp_path / "model" / "adapters" / "adapter_model.safetensors").rename(tmp_path / "model" / "adapters" / "a.bin")
    with pytest.raises(ModelError, match=r"pickled weights only \(adapters/a\.bin\)"):
        load(str(tmp_path / "model"))
    (tmp_path / "model" / "adapters" / "a.bin").unlink()
    with pytest.raises(ModelError, match=r"no adapters/adapter_model\.safetensors"):
        load(str(tmp_path / "model"))


def test_exported_they_stay_small_or_are_merged(adapted, tmp_path):
    adapted.save(str(tmp_path / "model"))
    small = export(tmp_path / "model", out=tmp_path / "small")
    assert (small.adapters, small.merged) == (True, False)
    whole = export(tmp_path / "model", out=tmp_path / "whole", merge=True)
    assert (whole.adapters, whole.merged) == (False, True)
    assert whole.parameters < small.parameters
    for folder in ("small", "whole"):
        close(load(str(tmp_path / folder), device="cpu").embed(TEXTS, "query"), adapted.embed(TEXTS, "query"))
    with pytest.raises(ModelError, match="the nv-embed layout holds no adapters"):
        export(tmp_path / "model", out=tmp_path / "released", layout="nv-embed")
    export(tmp_path / "model", out=tmp_path / "released", layout="nv-embed", merge=True)
    close(load(str(tmp_path / "released"), device="cpu").embed(TEXTS, "query"), adapted.embed(TEXTS, "query"))


def test_the_sizes_of_an_adapted_model_count_the_adapters(tiny_llama):
    plain, model = student(tiny_llama), student(tiny_llama)
    add_adapters(model, rank=2, targets=["q_proj"])
    # Two layers, each with 32 × 2 and 2 × 32.
    assert describe(model)["parameters"] == describe(plain)["parameters"] + 2 * 2 * 64


@pytest.mark.parametrize("length", [1, 2])
def test_adapters_over_themselves_are_one_error(adapted, length, tmp_path):
    folders = [tmp_path / f"model{place}" for place in range(length)]
    for place, folder in enumerate(folders):
        adapted.save(str(folder))
        known = read_json(folder / ADAPTERS)
        known["base"]["name"] = str(folders[(place + 1) % length])
        write_json(folder / ADAPTERS, known)
    with pytest.raises(ModelError, match="adapters over themselves"):
        load(str(folders[0]))


def last_weight(folder):
    model = load(str(folder), device="cpu")
    model.backbone.embed_tokens.weight.data[-1, -1] += 0.5
    model.save(str(folder))


def two_rows(folder):
    model = load(str(folder), device="cpu")
    rows = model.backbone.embed_tokens.weight.data
    rows[[-1, -2]] = rows[[-2, -1]].clone()
    model.save(str(folder))


def configured(**changes):
    def change(folder):
        path = folder / "config.json"
        write_json(path, {**read_json(path), **changes})

    return change


@pytest.mark.parametrize(
    "change",
    [last_weight, two_rows, configured(rms_norm_eps=0.5), configured(hidden_act="relu")],
    ids=["last weight", "two rows", "epsilon", "activation"],
)
def test_a_base_of_which_anything_has_changed_is_refused(tiny_llama, tmp_path, change):
    student(tiny_llama).save(str(tmp_path / "base"))
    trained(load(str(tmp_path / "base"), device="cpu")).save(str(tmp_path / "adapters"))
    change(tmp_path / "base")
    with pytest.raises(ModelError, match="is another model than the one that the adapters were trained over"):
        load(str(tmp_path / "adapters"))


def test_adapters_that_an_earlier_version_wrote_are_opened_and_written_as_now(tiny_llama, tmp_path):
    trained(student(tiny_llama)).save(str(tmp_path / "adapters"))
    path = tmp_path / "adapters" / ADAPTERS
    base = build_student(StudentSettings.parse(read_json(path)["base"], where="base"), device="cpu").backbone
    write_json(path, {**read_json(path), "format": 1, "base_weights": adapters._fingerprint(base, version=1)})
    opened = load(str(tmp_path / "adapters"), device="cpu")
    opened.save(str(tmp_path / "again"))
    assert read_json(tmp_path / "again" / ADAPTERS)["format"] == 2
    again = load(str(tmp_path / "again"), device="cpu")
    np.testing.assert_array_equal(again.embed(TEXTS, "query"), opened.embed(TEXTS, "query"))

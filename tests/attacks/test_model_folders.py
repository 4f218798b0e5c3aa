"""Folders of models that would run code, open files elsewhere, or are not whole.

In the place of harm each attack makes a folder: it must not be there afterwards.
"""

import contextlib
import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import BertConfig, BertForSequenceClassification

from embedsmith.errors import EmbedsmithError, ModelError
from embedsmith.models.causal import open_causal
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings
from embedsmith.teachers.cross_encoder import CrossEncoderTeacher
from tests.attacks.model_readers import write_gguf


class Harm:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        import os

        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path, monkeypatch) -> Path:
    """The folder that an attack would make; and a module that would make it when it is imported."""
    mark = tmp_path / "harmed"
    code = f"import os\nos.mkdir({str(mark)!r})\n"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "evil_module.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.setattr(sys, "stdin", None)  # who asks there gets an error and not an answer
    return mark


@pytest.fixture(scope="module")
def whole_embedder(tiny_bert, tmp_path_factory) -> Path:
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    folder = tmp_path_factory.mktemp("models") / "embedder"
    parts = [Transformer(str(tiny_bert)), Pooling(32), Dense(32, 16)]
    SentenceTransformer(modules=parts, device="cpu").save(str(folder))
    load(str(folder), device="cpu")
    return folder


@pytest.fixture
def embedder(whole_embedder, tmp_path) -> Path:
    """An embedding model of a transformer, a pooling and a dense layer, which opens as long as nobody changes it."""
    return Path(shutil.copytree(whole_embedder, tmp_path / "embedder"))


@pytest.fixture(scope="module")
def whole_cross_encoder(tiny_bert, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "cross-encoder"
    shutil.copytree(tiny_bert, folder)
    config = BertConfig.from_pretrained(tiny_bert, num_labels=1)
    BertForSequenceClassification(config).save_pretrained(folder)
    CrossEncoderTeacher(str(folder), ["a"], device="cpu")
    return folder


@pytest.fixture
def cross_encoder(whole_cross_encoder, tmp_path) -> Path:
    """A cross-encoder, which opens as long as nobody changes it."""
    return Path(shutil.copytree(whole_cross_encoder, tmp_path / "cross-encoder"))


def change(path: Path, **values: Any) -> None:
    """Set entries of a JSON file."""
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**known, **values}))


def pickled(path: Path, mark: Path) -> None:
    """Write a pickle that does harm, as torch writes one and as Python does."""
    torch.save({"linear.weight": Harm(mark)}, path)
    path.with_suffix(".pkl").write_bytes(pickle.dumps(Harm(mark)))


def weights_in_a_pickle(folder: Path, mark: Path) -> None:
    change(folder / "sentence_bert_config.json", model_kwargs={"weights_only": False})
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    pickled(folder / "shard.bin", mark)
    names = dict.fromkeys(load_file(folder / "weights.safetensors"), "shard.bin")
    change(folder / "model.safetensors.index.json", weight_map=names, metadata={})


def weights_outside(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    names = dict.fromkeys(load_file(folder.parent / "outside.safetensors"), "../outside.safetensors")
    change(folder / "model.safetensors.index.json", weight_map=names, metadata={})


def named_weights(name: str) -> Callable[[Path, Path], None]:
    def attack(folder: Path, mark: Path) -> None:
        pickled(folder / "adapter_model.bin", mark)
        change(folder / "config.json", transformers_weights=name)

    return attack


def dense_in_a_pickle(folder: Path, mark: Path) -> None:
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "other.safetensors")
    pickled(folder / "2_Dense" / "pytorch_model.bin", mark)


def arguments(**values: Any) -> Callable[[Path, Path], None]:
    return lambda folder, mark: change(folder / "sentence_bert_config.json", **values)


def configuration(**values: Any) -> Callable[[Path, Path], None]:
    return lambda folder, mark: change(folder / "config.json", **values)


def code_beside(folder: Path, mark: Path) -> None:
    (folder / "evil_module.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    there = {"AutoModel": "evil_module.Model", "AutoConfig": "evil_module.Config"}
    change(folder / "config.json", auto_map=there, model_type="never-heard-of")
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil_module.A", "evil_module.B"]})


def module(kind: Any, path: Any = "1_Pooling") -> Callable[[Path, Path], None]:
    def attack(folder: Path, mark: Path) -> None:
        modules = json.loads((folder / "modules.json").read_text())
        modules[1] |= {"type": kind, "path": path}
        (folder / "modules.json").write_text(json.dumps(modules))

    return attack


def through_a_router(kind: str, below: str = "a") -> Callable[[Path, Path], None]:
    def attack(folder: Path, mark: Path) -> None:
        module("sentence_transformers.base.modules.router.Router")(folder, mark)
        change(
            folder / "1_Pooling" / "router_config.json",
            types={below: kind},
            structure={"query": [below]},
            parameters={},
        )

    return attack


def dense_activation(name: str) -> Callable[[Path, Path], None]:
    return lambda folder, mark: change(folder / "2_Dense" / "config.json", activation_function=name)


def adapters_of_another(folder: Path, mark: Path) -> None:
    change(folder / "adapter_config.json", base_model_name_or_path="someone/with-pickles", peft_type="LORA")


ATTACKS = {
    "an index that names a pickle": weights_in_a_pickle,
    "an index that names a file outside": weights_outside,
    "weights named in the configuration": named_weights("adapter_model.bin"),
    "weights named outside": named_weights("../outside.safetensors"),
    "a part in a pickle beside other weights": dense_in_a_pickle,
    "weights_only": arguments(model_kwargs={"weights_only": False}),
    "weights_only by its old name": arguments(model_args={"weights_only": False}),
    "an argument that is never asked for": arguments(model_kwargs={"gguf_file": "x.gguf"}),
    "a folder of code as an argument": arguments(config_kwargs={"code_revision": "main"}),
    "an argument of the tokenizer": arguments(processor_kwargs={"tokenizer_file": "/etc/passwd"}),
    "arguments that are none": arguments(model_kwargs=["weights_only"]),
    "a kernel as an argument": arguments(
        model_kwargs={"attn_implementation": "org/kernel@main", "allow_all_kernels": True}
    ),
    "a kernel in the configuration": configuration(attn_implementation="org/kernel@main"),
    "a kernel for a part": configuration(_attn_implementation={"text_config": "kernels-community/x:forward"}),
    "kernels": configuration(use_kernels=True),
    "a kernel's configuration": configuration(kernel_config={"RMSNorm": "org/kernel:RMSNorm"}),
    "any method": arguments(modality_config={"text": {"method": "save_pretrained", "method_output_name": None}}),
    "code beside": code_beside,
    "a foreign module": module("evil_module.Model"),
    "a module that reads a pickle": module("sentence_transformers.models.CLIPModel"),
    "a function of the library": module("sentence_transformers.util.import_from_string"),
    "a class that is no module": module("sentence_transformers.SentenceTransformer"),
    "a module that is a number": module(3),
    "a place outside": module("sentence_transformers.models.Pooling", "../other"),
    "a place from the root": module("sentence_transformers.models.Pooling", "/tmp"),
    "a place of Windows": module("sentence_transformers.models.Pooling", "..\\other"),
    "a place that is a number": module("sentence_transformers.models.Pooling", 3),
    "a foreign module through a router": through_a_router("evil_module.Model"),
    "a place outside through a router": through_a_router("sentence_transformers.models.Pooling", "../../other"),
    "a router in a router": through_a_router("sentence_transformers.models.Router"),
    "an activation of the dense layer": dense_activation("evil_module.Model"),
    "a function as an activation": dense_activation("torch.hub.load"),
    "a class of torch as an activation": dense_activation("torch.nn.Module"),
    "adapters over a model of the hub": adapters_of_another,
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_no_folder_of_an_embedding_model_runs_code_or_opens_files_elsewhere(embedder, mark, attack, dtype):
    attack(embedder, mark)
    with pytest.raises(ModelError) as caught:
        load(str(embedder), dtype=dtype, device="cpu")
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.hint
    assert not mark.exists()


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_no_folder_of_a_student_runs_code_or_opens_files_elsewhere(embedder, mark, attack):
    attack(embedder, mark)
    with pytest.raises(ModelError):
        build_student(StudentSettings(name=str(embedder), pooling="mean"), device="cpu")
    assert not mark.exists()


_OF_PARTS = ("modul", "place", "rout", "library", "dense", "activation", "a part", "adapters", "hub")


@pytest.mark.parametrize("name", [name for name in ATTACKS if not any(word in name for word in _OF_PARTS)])
@pytest.mark.parametrize("kind", ["student", "cross-encoder", "writer"])
def test_no_folder_of_transformers_runs_code_or_opens_files_elsewhere(
    tiny_bert, tiny_writer, cross_encoder, tmp_path, mark, name, kind
):
    folder = cross_encoder
    if kind != "cross-encoder":
        folder = tmp_path / "bare"
        shutil.copytree(tiny_bert if kind == "student" else tiny_writer, folder)
    if not name.startswith("a part"):
        ATTACKS[name](folder, mark)
        with pytest.raises(ModelError):
            if kind == "student":
                build_student(StudentSettings(name=str(folder), pooling="mean"), device="cpu")
            elif kind == "writer":
                open_causal(str(folder))
            else:
                CrossEncoderTeacher(str(folder), ["a"], device="cpu")
    assert not mark.exists()


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.mkdir('MARK') }}",
        "{% include '/etc/passwd' %}",
        "{% for one in range(10**9) %}x{% endfor %}",
        "{{ raise_exception('no') }}",
        "{{ 1 / 0 }}",
        "{% no",
    ],
)
def test_a_chat_template_that_reaches_outside_is_refused(tiny_writer, tmp_path, mark, template):
    folder = Path(shutil.copytree(tiny_writer, tmp_path / "writer"))
    (folder / "chat_template.jinja").write_text(template.replace("MARK", str(mark)))
    with pytest.raises(ModelError, match="its chat template cannot be rendered"):
        open_causal(str(folder)).tokens_of("a cat")
    assert not mark.exists()


def test_a_chat_template_of_any_length_is_refused(tiny_writer, tmp_path):
    folder = Path(shutil.copytree(tiny_writer, tmp_path / "writer"))
    (folder / "chat_template.jinja").write_text("a" * 100_001)
    with pytest.raises(ModelError, match="its chat template has 100,001 characters"):
        open_causal(str(folder))


def test_what_a_folder_says_of_generation_is_not_heeded(tiny_writer, tmp_path):
    folder = Path(shutil.copytree(tiny_writer, tmp_path / "writer"))
    change(folder / "generation_config.json", num_beams=1000, max_new_tokens=10**9, eos_token_id=[2, 5])
    opened = open_causal(str(folder))
    assert opened.ends == {2, 5}
    assert opened.model.generation_config.num_beams in (None, 1)
    assert opened.model.generation_config.max_new_tokens is None


@pytest.mark.parametrize(
    "said", [{"sentence_transformers": {"activation_fn": "{}"}}, {"sbert_ce_default_activation_function": "{}"}]
)
@pytest.mark.parametrize("name", ["evil_module.Model", "torch.hub.load", "torch.load", "torch.nn.Module", "torch.nn"])
def test_a_cross_encoder_calls_no_function_that_its_folder_names(cross_encoder, mark, said, name):
    change(cross_encoder / "config.json", **json.loads(json.dumps(said).replace("{}", name)))
    with pytest.raises(ModelError, match=r"is no class of torch\.nn"):
        CrossEncoderTeacher(str(cross_encoder), ["a"], device="cpu")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"])
def test_a_cross_encoder_keeps_the_activation_of_its_folder(cross_encoder, name):
    change(cross_encoder / "config.json", sentence_transformers={"activation_fn": name})
    ours = CrossEncoderTeacher(str(cross_encoder), ["a dog"], dtype="float32", device="cpu")
    theirs = CrossEncoder(str(cross_encoder), device="cpu")
    score = ours.scores(["the cat"], torch.zeros(1, 1, dtype=torch.int64).numpy())
    assert abs(float(score[0, 0]) - float(theirs.predict([("the cat", "a dog")])[0])) < 1e-5


def test_code_in_a_tokenizer_beside_a_gguf_file_is_neither_asked_for_nor_run(tmp_path, mark, monkeypatch):
    folder = tmp_path / "gguf"
    folder.mkdir()
    write_gguf(folder / "model.gguf")
    code_beside(folder, mark)
    (folder / "config.json").unlink()
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("asked at the terminal"))
    # Opened without the code, or refused: both are right.
    with contextlib.suppress(ModelError):
        build_student(StudentSettings(name=str(folder / "model.gguf"), layers=1), device="cpu")
    assert not mark.exists()


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("modules.json", DEEP),
        ("modules.json", "{}"),
        ("modules.json", "[3]"),
        ("modules.json", "[{}]"),
        ("modules.json", ""),
        ("config.json", DEEP),
        ("config.json", "[]"),
        ("config.json", "{}"),
        ("config.json", "\x00"),
        ("config_sentence_transformers.json", DEEP),
        ("config_sentence_transformers.json", '{"prompts": 3}'),
        ("config_sentence_transformers.json", '{"prompts": {"query": 3}}'),
        ("config_sentence_transformers.json", '{"prompts": ["query"]}'),
        ("config_sentence_transformers.json", '{"prompts": {"query": ["a"]}}'),
        ("config_sentence_transformers.json", '{"prompts": {"query": "a"}, "default_prompt_name": 3}'),
        ("sentence_bert_config.json", DEEP),
        ("sentence_bert_config.json", '{"suffix": 3}'),
        ("sentence_bert_config.json", '{"max_seq_length": "long"}'),
        ("sentence_bert_config.json", '{"never_heard_of": 1}'),
        ("1_Pooling/config.json", '{"embedding_dimension": 32, "never_heard_of": 1}'),
        ("1_Pooling/config.json", '{"embedding_dimension": "x"}'),
        ("1_Pooling/config.json", "{}"),
        ("tokenizer.json", "{"),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", DEEP),
        ("tokenizer_config.json", DEEP),
        ("model.safetensors", ""),
        ("model.safetensors", "x" * 100),
        ("2_Dense/model.safetensors", "x" * 100),
        ("model.safetensors.index.json", "{}"),
        ("adapters.json", "{}"),
        ("adapters.json", "[]"),
        ("adapters.json", '{"base": {"name": "."}}'),
        ("adapters.json", DEEP),
    ],
)
def test_an_odd_file_in_a_folder_is_one_line(embedder, file, text):
    (embedder / file).write_text(text)
    notes = [error_of(opening, embedder) for opening in (_load_and_embed, _build_and_embed)]
    assert all(error is None or (len(str(error).splitlines()) == 1 and error.hint) for error in notes)


def _load_and_embed(name: str) -> None:
    load(name, device="cpu").embed(["a cat", "a dog"], "query")


def _build_and_embed(name: str) -> None:
    build_student(StudentSettings(name=name), device="cpu").embed(["a cat", "a dog"], "query")


def error_of(opening: Callable[[str], None], folder: Path) -> EmbedsmithError | None:
    """Return how we refuse a folder, None where it does no harm; anything else ends the test."""
    try:
        opening(str(folder))
    except EmbedsmithError as error:
        return error
    return None


def test_adapters_over_themselves_are_one_line(embedder):
    known = {"format": 1, "base": {"name": str(embedder)}, "base_weights": "x", "prompts": {}, "max_tokens": {}}
    (embedder / "adapters.json").write_text(json.dumps(known))
    with pytest.raises(ModelError, match="over themselves"):
        load(str(embedder), device="cpu")


def test_a_whole_gguf_file_is_opened(tmp_path):
    write_gguf(tmp_path / "whole.gguf")
    _build_and_embed(str(tmp_path / "whole.gguf"))


@pytest.mark.parametrize("missing", ["token_embd.weight", "blk.1.attn_q.weight", "output_norm.weight"])
def test_a_gguf_file_without_a_tensor_is_refused_by_its_name(tmp_path, missing):
    write_gguf(tmp_path / "cut.gguf", without=missing)
    with pytest.raises(ModelError, match="no tensor"):
        build_student(StudentSettings(name=str(tmp_path / "cut.gguf")), device="cpu")


@pytest.mark.parametrize("size", [0, 3, 24, 100])
def test_a_gguf_file_that_is_cut_off_is_one_line(tmp_path, size):
    from embedsmith.models.names import find_model
    from embedsmith.models.settings import SMOLLM2

    with open(find_model(SMOLLM2).path, "rb") as whole:
        (tmp_path / "cut.gguf").write_bytes(whole.read(size))
    with pytest.raises(ModelError, match="cannot be opened") as caught:
        build_student(StudentSettings(name=str(tmp_path / "cut.gguf")), device="cpu")
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_may_say_what_harms_nobody(embedder):
    before = load(str(embedder), device="cpu").embed(["a cat"], "query")
    change(
        embedder / "sentence_bert_config.json",
        model_kwargs={"attn_implementation": "eager", "trust_remote_code": True},
        processor_kwargs={"padding_side": "right"},
        config_kwargs={"trust_remote_code": True},
    )
    after = load(str(embedder), device="cpu").embed(["a cat"], "query")
    assert abs(before - after).max() < 1e-5


def test_the_fetched_files_of_a_hub_id_are_checked_as_a_folder_is(embedder, mark, monkeypatch):
    asked = []

    def fetch(name: str, **patterns: Any) -> str:
        asked.append((name, patterns["allow_patterns"]))
        return str(embedder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    load("someone/model", device="cpu")
    weights_outside(embedder, mark)
    for opening in (lambda name: load(name, device="cpu"), lambda name: build_student(StudentSettings(name=name))):
        with pytest.raises(ModelError, match="safetensors beside it"):
            opening("someone/model")
    assert not mark.exists()
    assert {name for name, _ in asked} == {"someone/model"}
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for _, patterns in asked for pattern in patterns)


def test_a_missing_tensor_is_refused_by_its_name_however_a_model_is_opened(embedder, cross_encoder):
    openings: list[tuple[Path, Callable[[str], Any]]] = [
        (embedder, lambda name: load(name, device="cpu")),
        (embedder, lambda name: build_student(StudentSettings(name=name))),
        (cross_encoder, lambda name: CrossEncoderTeacher(name, ["a"], device="cpu")),
    ]
    for folder in (embedder, cross_encoder):
        tensors = load_file(folder / "model.safetensors")
        gone = next(key for key in tensors if key.endswith("layer.1.attention.self.query.weight"))
        save_file({key: value for key, value in tensors.items() if key != gone}, folder / "model.safetensors")
    for folder, opening in openings:
        with pytest.raises(ModelError, match=r"no tensor.*query\.weight"):
            opening(str(folder))

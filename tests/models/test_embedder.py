"""Vectors that depend on nothing but the text, and folders that open everywhere with the same ones."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from embedsmith.errors import CausalityError, ModelError, SettingsError
from embedsmith.models import encoding
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opening import build_student, load
from embedsmith.models.precision import SHORT_TEXT
from embedsmith.models.settings import StudentSettings

TEXTS = [
    "where is the parser",
    "10 times 100",
    " the cat, after a space",
    "s",
    "the cat sat on the mat and the dog sat on the log, " * 3,
    "🙂",
    "def read_lines(path): return open(path).read().split()",
]
LATENT = {"pooling": "latent", "latents": 4, "heads": 2, "head_width": 8}
INSTRUCTION = {"instruction": "Find the code"}
STUDENTS = {
    "mean": {"pooling": "mean"},
    "last": {"pooling": "last"},
    "mean with an instruction": {"pooling": "mean", **INSTRUCTION},
    "last with an instruction": {"pooling": "last", **INSTRUCTION},
    "latent": LATENT,
    "latent with an instruction": {**LATENT, **INSTRUCTION},
}
NEED_OUR_CODE = [kind for kind in STUDENTS if "latent" in kind or "instruction" in kind]


@pytest.fixture(scope="module")
def students(tiny_llama) -> dict[str, EmbeddingModel]:
    return {
        kind: build_student(StudentSettings(name=str(tiny_llama), attention="bidirectional", **settings), device="cpu")
        for kind, settings in STUDENTS.items()
    }


@pytest.fixture(scope="module")
def saved(students, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("saved")
    for kind, student in students.items():
        student.save(str(folder / kind))
    return {kind: folder / kind for kind in students}


def close(vectors, expected) -> None:
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("role", ["query", "passage"])
@pytest.mark.parametrize("kind", STUDENTS)
def test_a_vector_is_the_same_for_any_batch_size_and_order(students, kind, role, padding_side, monkeypatch):
    student = students[kind]
    monkeypatch.setattr(student.tokenizer, "padding_side", padding_side)
    alone = np.concatenate([student.embed([text], role) for text in TEXTS])
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)
    close(student.embed(TEXTS, role, tokens=10_000), alone)
    close(student.embed(TEXTS, role, tokens=1), alone)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    close(student.embed([TEXTS[i] for i in order], role, tokens=40), alone[order])


@pytest.mark.parametrize("role", ["query", "passage"])
@pytest.mark.parametrize("kind", STUDENTS)
def test_vectors_are_those_of_sentence_transformers_own_encode(students, kind, role, monkeypatch):
    monkeypatch.setattr(encoding, "_WINDOW", 3)  # several lists are tokenised
    student = students[kind]
    encode = student.encode_query if role == "query" else student.encode_document
    expected = encode(TEXTS, batch_size=3)
    close(student.embed(TEXTS, role, tokens=40), expected / np.linalg.norm(expected, axis=1, keepdims=True))


def test_the_same_texts_give_the_same_bytes_and_none_give_none(students):
    student = students["latent with an instruction"]
    assert student.embed(TEXTS, "query").tobytes() == student.embed(tuple(TEXTS), "query").tobytes()
    assert student.embed([], "query").shape == (0, student.get_embedding_dimension())


@pytest.mark.parametrize("name", ["document", "passage", "corpus"])
def test_a_passage_gets_the_prompt_that_sentence_transformers_chooses(tiny_bert, name):
    model = build_student(StudentSettings(name=str(tiny_bert)), device="cpu")
    model.prompts = {"query": "", name: "the cat "}
    expected = model.encode_document(TEXTS)
    close(model.embed(TEXTS, "passage"), expected / np.linalg.norm(expected, axis=1, keepdims=True))
    assert model.contract("passage")["prompt"] == "the cat "
    model.prompts, model.default_prompt_name = {"other": "a dog "}, "other"
    expected = model.encode_query(TEXTS)
    close(model.embed(TEXTS, "query"), expected / np.linalg.norm(expected, axis=1, keepdims=True))
    assert model.contract("query")["prompt"] == "a dog "


@pytest.mark.parametrize("kind", ["mean with an instruction", "latent with an instruction"])
def test_an_instruction_is_attended_to_and_stands_before_queries_only(students, kind):
    student, without = students[kind], students[kind.removesuffix(" with an instruction")]
    assert student.prompts == {"query": "Instruct: Find the code\nQuery: ", "document": ""}
    close(student.embed(TEXTS, "passage"), without.embed(TEXTS, "passage"))
    assert np.abs(student.embed(TEXTS, "query") - without.embed(TEXTS, "query")).max() > 0.01


def test_a_query_is_the_mean_of_its_own_tokens_states(students):
    student = students["mean with an instruction"]
    prompt, text = student.prompts["query"], "where is the parser"
    encoding = student.tokenizer([prompt + text], return_tensors="pt")
    with torch.no_grad():
        states = student.backbone(**encoding).last_hidden_state[0]
    own = [place for place in range(len(states)) if encoding.token_to_chars(0, place).end > len(prompt)]
    mean = states[own].mean(0)
    close(student.embed([text], "query")[0], (mean / mean.norm()).numpy())


OPEN_PLAINLY = """
import importlib.abc, json, sys
import numpy as np

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "embedsmith":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from sentence_transformers import SentenceTransformer

for job in json.load(sys.stdin):
    model = SentenceTransformer(job["folder"], device="cpu", **job["arguments"])
    queries, passages = model.encode_query(job["texts"]), model.encode_document(job["texts"])
    np.savez(job["vectors"], query=queries, passage=passages)
    model.save(job["again"])
assert "embedsmith" not in sys.modules
"""


@pytest.fixture(scope="module")
def opened_plainly(saved, tmp_path_factory) -> dict[str, Path]:
    """What a process without embedsmith saw in each folder, and wrote as a folder of its own."""
    out = tmp_path_factory.mktemp("plain")
    jobs = [
        {
            "folder": str(folder),
            "arguments": {"trust_remote_code": True} if kind in NEED_OUR_CODE else {},
            "texts": TEXTS,
            "vectors": str(out / f"{kind}.npz"),
            "again": str(out / kind),
        }
        for kind, folder in saved.items()
    ]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(out / "code"), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", OPEN_PLAINLY],
        input=json.dumps(jobs),
        cwd=out,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return {kind: out / kind for kind in saved}


def test_lists_that_are_encoded_ahead_have_the_bytes_of_each_list_alone(students, monkeypatch):
    model = students["mean"]
    lists = [TEXTS * 7, [], TEXTS[:1], TEXTS * 3, TEXTS[1:2], []]
    begun, done, cores = [], [], []
    forward = encoding.vectors_of_batch

    def noted(model, batch, **keywords):
        cores.append((len(batch["input_ids"]), torch.get_num_threads()))
        return forward(model, batch, **keywords)

    def given():
        for texts in lists:
            begun.append(len(texts))
            yield texts

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        alone = [model.embed(texts, "passage", tokens=40) for texts in lists]
        monkeypatch.setattr(encoding, "vectors_of_batch", noted)
        together, seen = [], []
        for vectors in model.embed_each(given(), "passage", tokens=40, on_done=done.append):
            together.append(vectors)
            seen.append(len(begun))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    assert seen[0] > 1  # the next list was begun before the first one was whole
    assert done == sorted(done) and done[-1] == sum(map(len, lists))
    assert {threads for texts, threads in cores if texts == 1} == {1, 2}  # lists of one text: alone on all cores
    assert model.embed([], "query").shape == (0, 32)


@pytest.mark.parametrize("is_plain", [False, True])
def test_vectors_keep_the_length_that_the_model_gives_them(tiny_bert, monkeypatch, is_plain):
    model = load(str(tiny_bert), dtype="float32", device="cpu")
    plain = model.encode_document(TEXTS)
    if is_plain:  # as where sentence-transformers encodes: on several devices, or without a transformer
        monkeypatch.setattr(EmbeddingModel, "backbone", None)
    found = model.embed(TEXTS, "passage", normalize=False)
    np.testing.assert_allclose(found, plain, atol=1e-5)
    assert np.ptp(np.linalg.norm(found, axis=1)) > 1e-3
    np.testing.assert_allclose(np.linalg.norm(model.embed(TEXTS, "passage"), axis=1), 1, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", STUDENTS)
def test_a_saved_folder_opens_with_the_same_vectors_here_and_without_embedsmith(students, saved, opened_plainly, kind):
    here = load(str(saved[kind]), device="cpu")
    with np.load(f"{opened_plainly[kind]}.npz") as plain:
        for role in ("query", "passage"):
            expected = students[kind].embed(TEXTS, role)
            close(here.embed(TEXTS, role), expected)
            close(plain[role], expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", STUDENTS)
def test_a_folder_saved_again_opens_again(students, saved, opened_plainly, kind, tmp_path):
    expected = students[kind].embed(TEXTS, "query")
    load(str(saved[kind]), device="cpu").save(str(tmp_path / "again"))
    close(load(str(tmp_path / "again"), device="cpu").embed(TEXTS, "query"), expected)
    close(load(str(opened_plainly[kind]), device="cpu").embed(TEXTS, "query"), expected)


@pytest.mark.parametrize("kind", STUDENTS)
def test_a_folder_names_our_modules_by_the_file_beside_them_and_only_where_it_needs_them(saved, kind):
    types = [module["type"] for module in json.loads((saved[kind] / "modules.json").read_text())]
    foreign = [name for name in types if not name.startswith("sentence_transformers.")]
    assert bool(foreign) == (kind in NEED_OUR_CODE)
    assert all(name.startswith("modeling_embedsmith.") for name in foreign)
    assert (saved[kind] / "modeling_embedsmith.py").exists() == bool(foreign)


def test_saving_over_a_folder_replaces_it_whole(students, tmp_path):
    students["latent"].save(str(tmp_path / "model"))
    students["mean"].save(str(tmp_path / "model"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert not list((tmp_path / "model").glob("*LatentAttentionPooling"))
    close(load(str(tmp_path / "model")).embed(TEXTS, "query"), students["mean"].embed(TEXTS, "query"))


def test_a_save_that_fails_leaves_the_old_folder_and_no_other(students, tmp_path, monkeypatch):
    student = students["mean"]
    student.save(str(tmp_path / "model"))
    before = sorted(path.name for path in (tmp_path / "model").iterdir())

    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(type(student[1]), "save", full)
    with pytest.raises(OSError, match="No space left"):
        student.save(str(tmp_path / "model"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == before


class TestAttention:
    """What the configuration promises is what is measured, or the model is refused."""

    @pytest.fixture
    def deaf_backbone(self, monkeypatch):
        """A library version whose decoder does not look at `is_causal`."""
        from transformers.models.llama.modeling_llama import LlamaModel

        forward = LlamaModel.forward

        def causal_forward(self, *args, **kwargs):
            promised, self.config.is_causal = getattr(self.config, "is_causal", True), True
            try:
                return forward(self, *args, **kwargs)
            finally:
                self.config.is_causal = promised

        monkeypatch.setattr(LlamaModel, "forward", causal_forward)

    def test_a_model_that_became_causal_is_not_opened(self, saved, deaf_backbone):
        with pytest.raises(CausalityError, match=r"attention is causal, not bidirectional .*back end: sdpa"):
            load(str(saved["mean"]))

    def test_a_model_that_became_causal_is_not_saved_and_leaves_nothing_behind(self, students, deaf_backbone, tmp_path):
        with pytest.raises(CausalityError, match="attention is causal, not bidirectional"):
            students["mean"].save(str(tmp_path / "model"))
        assert list(tmp_path.iterdir()) == []

    def test_a_model_that_became_causal_is_not_built(self, tiny_llama, deaf_backbone):
        with pytest.raises(CausalityError, match="attention is causal, not bidirectional"):
            build_student(StudentSettings(name=str(tiny_llama), attention="bidirectional", pooling="mean"))

    @pytest.mark.parametrize("edit", ["true", "absent"])
    def test_a_folder_is_what_its_configuration_says(self, students, tmp_path, edit):
        students["mean"].save(str(tmp_path / "model"))
        path = tmp_path / "model" / "config.json"
        config = json.loads(path.read_text())
        assert config.pop("is_causal") is False
        path.write_text(json.dumps(config | ({"is_causal": True} if edit == "true" else {})))
        causal = load(str(tmp_path / "model"))
        with torch.no_grad():
            ids = torch.tensor([[20, 21, 22, 23], [20, 21, 22, 99]])
            first, second = causal.backbone(input_ids=ids).last_hidden_state
        assert torch.allclose(first[:3], second[:3])
        assert np.abs(causal.embed(TEXTS, "query") - students["mean"].embed(TEXTS, "query")).max() > 0.01


class TestContract:
    """Whatever changes a vector changes the contract, and nothing else does."""

    def test_it_is_the_same_after_use_and_in_a_copy_from_disk(self, students, saved):
        student = students["latent with an instruction"]
        again = load(str(saved["latent with an instruction"]), device="cpu")
        before = again.contract("query")
        again.embed(TEXTS, "query")
        again.embed(TEXTS[:2], "passage")
        assert again.contract("query") == before == student.contract("query")

    def test_it_tells_roles_poolings_and_instructions_apart(self, students):
        contracts = [json.dumps(student.contract("query")) for student in students.values()]
        assert len(set(contracts)) == len(contracts)
        assert all(student.contract("query") != student.contract("passage") for student in students.values())

    def test_it_tells_tokenizers_of_the_same_size_apart(self, tiny_llama, tiny_llama_bos_eos):
        one, other = (
            build_student(StudentSettings(name=str(folder), pooling="mean"))
            for folder in (tiny_llama, tiny_llama_bos_eos)
        )
        assert one.weights_hash() == other.weights_hash()
        assert one.contract("passage") != other.contract("passage")

    def test_it_changes_with_a_single_weight(self, saved):
        model = load(str(saved["mean"]))
        before = model.contract("query")
        with torch.no_grad():
            next(model.parameters())[0, 0] += 1e-6
        assert model.contract("query") != before

    def test_it_changes_with_the_length_of_the_role_alone(self, saved):
        model = load(str(saved["mean"]))
        before = {role: model.contract(role) for role in ("query", "passage")}
        model.set_max_tokens(query=16, passage=before["passage"]["max_tokens"])
        assert model.contract("query") != before["query"]
        assert model.contract("passage") == before["passage"]


def test_lengths_are_kept_in_the_folder(saved, tmp_path):
    model = load(str(saved["mean"]))
    model.set_max_tokens(query=5, passage=9)
    model.save(str(tmp_path / "model"))
    again = load(str(tmp_path / "model"))
    words = "the cat sat on the mat and the dog sat on the log"
    for role, tokens in (("query", 5), ("passage", 9)):
        cut = again.tokenizer.decode(again.tokenizer(words)["input_ids"][:tokens])
        close(again.embed([words], role), again.embed([cut], role))
        assert np.abs(again.embed([words], role) - model.embed([words + " end"], role)).max() < 1e-5


def test_a_length_above_the_models_positions_is_refused(saved):
    with pytest.raises(SettingsError, match="passage_max_tokens: 129 tokens, but the model ends at 128"):
        load(str(saved["mean"])).set_max_tokens(query=16, passage=129)


class TestFoldersThatAreNotOpened:
    def folder_with(self, saved, tmp_path, module_type: str) -> Path:
        """Return a folder that asks for a module whose import would leave a file behind."""
        folder = tmp_path / "model"
        shutil.copytree(saved["mean"], folder)
        modules = json.loads((folder / "modules.json").read_text())
        modules[1]["type"] = module_type
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')\n")
        return folder

    @pytest.mark.parametrize("module_type", ["evil.Evil", "embedsmith.cli.Evil", "sentence_transformersx.Evil", ""])
    def test_a_foreign_module_is_refused_and_its_code_not_run(self, saved, tmp_path, module_type):
        folder = self.folder_with(saved, tmp_path, module_type)
        for attempt in (lambda: load(str(folder)), lambda: build_student(StudentSettings(name=str(folder)))):
            with pytest.raises(ModelError, match=f"needs the code of module '{module_type}' from the folder"):
                attempt()
        assert not (tmp_path / "it-ran").exists()

    @pytest.mark.parametrize("opener", [load, lambda name: build_student(StudentSettings(name=name, pooling="mean"))])
    def test_a_backbone_with_code_of_its_own_is_refused_and_not_run(self, tiny_llama, tmp_path, opener, monkeypatch):
        monkeypatch.setattr("builtins.input", lambda *question: "y")  # a question at a terminal, answered in haste
        folder = tmp_path / "model"
        shutil.copytree(tiny_llama, folder)
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')\n")
        with pytest.raises(ModelError, match="cannot be opened"):
            opener(str(folder))
        assert not (tmp_path / "it-ran").exists()

    @pytest.mark.parametrize("content", ["{broken", '{"a": 1}', "[1]", '[{"path": ""}]'])
    def test_a_broken_list_of_modules_is_one_clear_error(self, saved, tmp_path, content):
        shutil.copytree(saved["mean"], tmp_path / "model")
        (tmp_path / "model" / "modules.json").write_text(content)
        with pytest.raises(ModelError, match=r"modules\.json( is not JSON|: not a list of modules)"):
            load(str(tmp_path / "model"))

    def test_a_folder_without_weights_is_one_clear_error(self, saved, tmp_path):
        shutil.copytree(saved["mean"], tmp_path / "model")
        (tmp_path / "model" / "model.safetensors").unlink()
        with pytest.raises(ModelError, match="cannot be opened"):
            load(str(tmp_path / "model"))

    def test_a_gguf_file_is_no_embedding_model(self, tmp_path):
        (tmp_path / "model.gguf").write_bytes(b"GGUF")
        with pytest.raises(ModelError, match="holds a language model, not an embedding model"):
            load(str(tmp_path / "model.gguf"))


def types_of(model):
    """Return the types of its weights, and whether they are those of linear layers."""
    return {
        (isinstance(module, torch.nn.Linear) and name == "weight", parameter.dtype)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
    }


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float16", "float32"])
def test_the_angles_of_positions_are_not_rounded(saved, dtype):
    exact = load(str(saved["mean"]), dtype="float32", device="cpu").backbone.rotary_emb.inv_freq
    model = load(str(saved["mean"]), dtype=dtype, device="cpu")
    for found in (model, model.use_dtype("float16"), model.use_dtype("float32")):
        assert torch.equal(found.backbone.rotary_emb.inv_freq, exact)


@pytest.mark.parametrize("kind", ["mean", "latent"])
def test_bfloat16_on_a_cpu_is_for_matmuls_where_it_has_that(saved, kind, bfloat16_or_not):
    model = load(str(saved[kind]), dtype="bfloat16", device="cpu")
    assert types_of(model) == {(True, torch.bfloat16 if bfloat16_or_not else torch.float32), (False, torch.float32)}
    assert bfloat16_or_not == ("bfloat16" in model.contract("query")["dtype"])
    found = model.embed(TEXTS, "query")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, load(str(saved[kind]), device="cpu").embed(TEXTS, "query"), atol=0.05)


def test_a_dtype_goes_to_every_weight(saved):
    model = load(str(saved["latent"]), dtype="float16", device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}


@pytest.mark.usefixtures("with_bfloat16")
class TestPrecisionThatIsAutomatic:
    """On a CPU with matmuls in bfloat16."""

    @pytest.mark.parametrize("role", ["query", "passage"])
    @pytest.mark.parametrize("kind", ["mean", "latent"])
    def test_short_texts_are_float32s_and_long_ones_have_matmuls_in_bfloat16(self, saved, kind, role):
        short = ["where is the parser", "10 times 100", " a", "g", ""]
        long = [
            " ".join("abcdefgh"[(number * step) % 8] for number in range(SHORT_TEXT[role])) for step in (1, 2, 3, 5)
        ]
        exact, mixed, all_short = (
            load(str(saved[kind]), dtype=t, device="cpu") for t in ("float32", "auto", "bfloat16")
        )
        assert exact.count_tokens(long[:1], role) >= SHORT_TEXT[role] > exact.count_tokens(short[:1], role)
        assert types_of(mixed) == types_of(exact)
        together = mixed.embed([*long, *short], role)
        np.testing.assert_allclose(together[4:], exact.embed(short, role), rtol=0, atol=1e-6)
        np.testing.assert_allclose(together[:4], all_short.embed(long, role), rtol=0, atol=1e-3)
        assert np.abs(together[:4] - exact.embed(long, role)).max() > 1e-4
        # A sentence-transformers method may meet short and long in one batch, and is exact.
        np.testing.assert_allclose(mixed.encode_document(long), exact.encode_document(long), rtol=0, atol=1e-6)

    def test_the_precision_of_vectors_tells_from_what_length_on_it_is_shorter(self, saved):
        model = load(str(saved["mean"]), dtype="auto", device="cpu")
        matmuls = sum(isinstance(module, torch.nn.Linear) for module in model.modules())
        for role, contract in model.contracts().items():
            assert contract["dtype"] == (
                f"float32, 0/{matmuls} matmuls bfloat16, the rest from {SHORT_TEXT[role]} tokens on"
            )
        model.use_dtype("bfloat16")
        assert model.contract("query")["dtype"] == f"float32, {matmuls}/{matmuls} matmuls bfloat16"

    def test_weights_that_change_are_copied_again(self, saved):
        model = load(str(saved["mean"]), dtype="auto", device="cpu")
        text = [" ".join("abcd" * SHORT_TEXT["passage"])]
        before = model.embed(text, "passage")
        assert np.array_equal(model.embed(text, "passage"), before)
        with torch.no_grad():
            model.backbone.layers[0].mlp.down_proj.weight.mul_(2)
        changed = model.embed(text, "passage")
        assert np.abs(changed - before).max() > 1e-2
        np.testing.assert_allclose(changed, model.use_dtype("float32").embed(text, "passage"), atol=1e-2)

    def test_weights_that_were_saved_in_bfloat16_stay(self, saved, tmp_path):
        load(str(saved["mean"]), device="cpu", dtype="float32").to(torch.bfloat16).save(str(tmp_path / "model"))
        model = load(str(tmp_path / "model"), dtype="auto", device="cpu")
        assert types_of(model) == {(True, torch.bfloat16), (False, torch.float32)}
        assert np.isfinite(model.embed(TEXTS, "query")).all()

    def test_a_model_in_it_encodes_saves_and_goes_back(self, saved, tmp_path):
        model = load(str(saved["latent"]), dtype="auto", device="cpu")
        exact = load(str(saved["latent"]))
        np.testing.assert_allclose(model.encode_query(TEXTS), exact.encode_query(TEXTS), atol=0.05)
        model.save(str(tmp_path / "model"))
        np.testing.assert_allclose(
            load(str(tmp_path / "model")).embed(TEXTS, "query"), exact.embed(TEXTS, "query"), atol=0.05
        )
        assert {parameter.dtype for parameter in model.use_dtype("float32").parameters()} == {torch.float32}
        assert np.isfinite(model.embed(TEXTS, "query")).all()


def test_nothing_is_kept_for_tokens_to_come(tiny_llama):
    model = build_student(StudentSettings(name=str(tiny_llama), pooling="mean"), device="cpu")
    tokens = torch.tensor([[5, 6, 7]])
    model.backbone.config.use_cache = True  # newer versions of sentence-transformers turn it off themselves
    assert model.backbone(input_ids=tokens).past_key_values is not None
    again = EmbeddingModel(modules=list(model), device="cpu")
    assert again.backbone(input_ids=tokens).past_key_values is None


def test_no_library_draws_bars_while_a_model_is_opened_and_saved(tiny_bert: Path, tmp_path: Path, capfd):
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    build_student(StudentSettings(name=str(tiny_bert))).save(str(tmp_path / "model"))
    load(str(tmp_path / "model"))
    assert "it/s" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled()
    if not before:
        logging.disable_progress_bar()

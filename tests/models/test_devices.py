"""Each kind of device gets what suits it, and torch is asked about GPUs in one place. Apple's GPU is a fake here."""

import ast
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

import embedsmith
from embedsmith.cli.devices import use_device
from embedsmith.diagnosis.machine import accelerators, arithmetic
from embedsmith.errors import SettingsError
from embedsmith.models import devices, precision
from embedsmith.models.devices import choose_device, default_device, kind_of, searching_device
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opening import build_student, load
from embedsmith.models.precision import mixes, multiplies_right, resolve_dtype
from embedsmith.models.settings import StudentSettings
from embedsmith.teachers import dense
from embedsmith.teachers.dense import DenseTeacher
from embedsmith.topk.exact import top_k
from embedsmith.training.chunks import _overhead, chunk_tokens, gpu_tokens
from embedsmith.training.draws import own_draws
from embedsmith.training.memory import activation_bytes, free_bytes
from embedsmith.training.processes import Processes
from embedsmith.training.settings import MemorySettings, StageSettings
from embedsmith.training.stage import _arguments

GIB = 2**30
MPS = torch.device("mps")


@pytest.fixture
def apple(monkeypatch):
    """A torch that finds Apple's GPU, of 12 GiB, in a machine with 16 of which 8 are free."""
    state = [torch.zeros(3)]

    def set_state(new):
        state[0] = new

    fake = SimpleNamespace(
        recommended_max_memory=lambda: 12 * GIB,
        current_allocated_memory=lambda: 2 * GIB,
        driver_allocated_memory=lambda: 3 * GIB,
        synchronize=lambda: state.append("waited"),
        get_rng_state=lambda: state[0],
        set_rng_state=set_state,
        state=state,
    )
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "mps", fake)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * GIB, total=16 * GIB))
    monkeypatch.setattr(precision, "multiplies_right", lambda dtype, device: True)
    monkeypatch.setattr(devices, "_chosen", None)
    return fake


@pytest.fixture
def elsewhere(monkeypatch):
    """A function that has all models say that their weights lie on a device."""
    return lambda device: monkeypatch.setattr(EmbeddingModel, "device", torch.device(device))


@pytest.fixture
def model(tiny_llama):
    return build_student(StudentSettings(name=str(tiny_llama), pooling="mean"), device="cpu")


def test_gpus_are_asked_about_in_one_place():
    package = Path(embedsmith.__file__).parent
    asking = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        if ast.unparse(node) in ("torch.cuda", "torch.mps", "torch.backends.mps")
    }
    # Whether a GPU has bfloat16 and a kernel are questions of precision and of packing.
    assert asking == {"models/devices.py", "models/precision.py", "models/packed.py"}


def test_models_run_on_it_where_nothing_else_is_said(apple):
    assert default_device() == "mps"
    assert kind_of(None) == "mps"
    choose_device("cpu")
    assert default_device() == kind_of(None) == "cpu"


def test_its_precision_is_what_torch_can_do_there(apple, monkeypatch):
    for dtype in ("auto", "bfloat16"):
        assert resolve_dtype(dtype) is torch.bfloat16
        assert not mixes(dtype)  # all of a model is in it, as on other GPUs
    monkeypatch.setattr(precision, "multiplies_right", lambda dtype, device: False)
    assert resolve_dtype("auto", "mps") is resolve_dtype("bfloat16", "mps:0") is torch.float32


def test_a_device_that_is_not_there_is_not_used():
    assert multiplies_right.__wrapped__(torch.bfloat16, "cpu")
    if not torch.backends.mps.is_available():
        assert not multiplies_right.__wrapped__(torch.bfloat16, "mps")
    assert not multiplies_right.__wrapped__(torch.bfloat16, "meta")  # it multiplies, and there are no numbers


def test_a_type_that_is_multiplied_wrongly_is_not_used():
    assert not multiplies_right.__wrapped__(torch.int8, "cpu")  # all numbers are 0 in it


def test_memory_is_the_machines(apple, monkeypatch):
    assert free_bytes(MPS) == 9 * GIB  # 8 that are free, and 1 that torch holds and does not use
    stage = StageSettings(report_to="none")
    assert activation_bytes(stage, MPS, missing=3.0 * GIB) == 3 * GIB  # half: other programs need memory too
    apple.recommended_max_memory = lambda: 4 * GIB
    assert free_bytes(MPS) == 2 * GIB
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0, total=16 * GIB))
    apple.current_allocated_memory = lambda: 9 * GIB
    assert free_bytes(MPS) == 0


def test_chunks_are_smaller_than_on_other_gpus(apple, model, elsewhere):
    layers, width = 3, 32
    assert chunk_tokens(MemorySettings(), model) == 2048
    overhead = [_overhead(model)]
    elsewhere("mps")
    assert chunk_tokens(MemorySettings(), model) == gpu_tokens(12.0 * GIB, layers, width, checkpointed=False) // 4
    assert chunk_tokens(MemorySettings(chunk_tokens=99), model) == 99
    overhead.append(_overhead(model))
    elsewhere("cuda")
    overhead.append(_overhead(model))
    assert overhead == [64, int(4e7 / width**2), int(3e9 / width**2)]


def test_autocast_is_ours_alone(apple, tmp_path):
    stage = StageSettings(report_to="none")
    asked = _arguments(stage, tmp_path, device="mps", steps=1, seed=0)
    assert not asked.bf16
    assert not asked.use_cpu


def test_random_states_are_put_back(apple):
    before = apple.get_rng_state()
    with own_draws():
        apple.set_rng_state(torch.ones(3))
    assert apple.get_rng_state() is before


def test_a_step_is_timed_to_its_end(apple):
    devices.synchronize(MPS)
    assert apple.state[-1] == "waited"


def test_vectors_are_searched_by_the_processor(model, elsewhere, monkeypatch, tmp_path):
    assert searching_device("mps") == searching_device("mps:0") == searching_device("cpu") == "cpu"
    assert searching_device("cuda:1") == "cuda:1"
    asked = []
    teacher = DenseTeacher(model, ["the cat", "a dog"], name="tiny", folder=tmp_path)
    vectors = teacher.vectors(["the cat"])
    monkeypatch.setattr(dense, "top_k", lambda *args, device, **kwargs: asked.append(device) or top_k(*args, **kwargs))
    elsewhere("mps")
    rows, _ = teacher.search_vectors(vectors, ["the cat"], 1)
    assert rows.tolist() == [[0]]
    assert asked == ["cpu"]


def test_static_embeddings_stay_with_the_processor(apple, tmp_path):
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "cat": 1}, unk_token="[UNK]"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    save_file({"embedding.weight": torch.ones(2, 4)}, tmp_path / "model.safetensors")
    model = load(f"static:{tmp_path}")
    assert model.device.type == "cpu"
    model.save(str(tmp_path / "saved"))
    assert load(str(tmp_path / "saved")).device.type == "cpu"


def test_several_processes_are_refused(apple, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="2 processes on Apple's GPU"):
        Processes.running()


def test_a_user_may_name_it_or_the_processor(apple, monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    use_device("cpu")
    assert default_device() == "cpu"
    use_device("mps")
    assert default_device() == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=r"--device mps: torch .* finds no such GPU"):
        use_device("mps")


def test_the_doctor_shows_it(apple):
    found = accelerators()
    (gpu,) = found.facts["gpus"]
    assert gpu == {
        "device": "mps",
        "name": "Apple's GPU",
        "total_bytes": 12 * GIB,
        "free_bytes": 9 * GIB,
        "bfloat16": True,
    }
    assert found.facts["mps"]
    assert found.facts["bfloat16"]
    assert found.lines == ["mps Apple's GPU, 12.0 GiB, 9.0 GiB of it free, bfloat16"]
    assert arithmetic().lines[0] == "models run on mps; `auto` is bfloat16"


def test_no_array_of_float64_is_sent_to_a_device(model):
    """Apple's GPU has none: what a training step and an encoding send are of shorter types."""
    from embedsmith.data.examples import Example, Passage
    from embedsmith.training.batches import Source
    from embedsmith.training.objective import targets_of
    from embedsmith.training.plan import plan_of

    examples = [
        Example(f"q{n}", f"query {n}", [Passage(f"p{n}", f"the cat {n}", score=0.5)], [Passage(f"n{n}", f"a dog {n}")])
        for n in range(4)
    ]
    stage = StageSettings(steps=1, batch_size=2, report_to="none", distill_scores=1.0)
    targets = targets_of(plan_of([Source("toy", examples)], stage, 0)[0], stage, torch.device("cpu"))
    sent = [value for value in vars(targets).values() if isinstance(value, torch.Tensor)]
    assert sent
    assert torch.float64 not in {tensor.dtype for tensor in sent}
    features = model.preprocess(["the cat"])
    assert torch.float64 not in {value.dtype for value in features.values() if isinstance(value, torch.Tensor)}
    assert torch.float64 not in {tensor.dtype for tensor in model.state_dict().values()}

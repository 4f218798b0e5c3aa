"""Memory: what is counted is what is allocated, and what does not fit is said in one line."""

import errno
import gc
import weakref
from pathlib import Path

import pytest
import torch

from embedsmith.data.examples import Example, Passage
from embedsmith.errors import SettingsError
from embedsmith.models.adapters import add_adapters
from embedsmith.models.opening import build_student
from embedsmith.models.settings import StudentSettings
from embedsmith.training import memory, trainer
from embedsmith.training.batches import Source
from embedsmith.training.checkpoints import checkpoints
from embedsmith.training.cost import cost_of
from embedsmith.training.memory import check_memory, enough_memory, missing_bytes, room_in_group, weights_to_train
from embedsmith.training.plan import plan_of
from embedsmith.training.settings import StageSettings
from embedsmith.training.stage import train_stage
from tests import forks

GIB = 2**30
STAGE = StageSettings(name="one", steps=2, batch_size=4, dtype="float32", report_to="none")
EXAMPLES = [
    Example(
        f"q{i}", f"where is the {i}", [Passage(f"p{i}", f"the cat {i} sat " * 20)], [Passage(f"n{i}", f"a dog {i}")]
    )
    for i in range(8)
]


@pytest.fixture
def model(tiny_llama):
    settings = StudentSettings(name=str(tiny_llama), attention="bidirectional", pooling="latent", latents=4, heads=2)
    return build_student(settings, seed=1, device="cpu")


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


class TestGroups:
    """The limit of a container or a job counts, and so does that of a group around it."""

    def test_without_a_limit_there_is_no_end(self, tmp_path):
        process = tmp_path / "cgroup"
        assert room_in_group(tmp_path, process) == float("inf")
        process.write_text("0::/\n")
        write(tmp_path, memory__max="max", memory__current="5", memory__stat="inactive_file 1")
        assert room_in_group(tmp_path, process) == float("inf")

    def test_the_tightest_group_decides_and_files_in_the_cache_do_not_count(self, tmp_path):
        (tmp_path / "cgroup").write_text("0::/job/step\n")
        write(tmp_path / "job", memory__max="1000", memory__current="700", memory__stat="anon 9\ninactive_file 50")
        write(tmp_path / "job/step", memory__max="900", memory__current="100", memory__stat="inactive_file 0")
        assert room_in_group(tmp_path, tmp_path / "cgroup") == 1000 - 700 + 50

    def test_the_older_kind_of_groups_is_read_too(self, tmp_path):
        (tmp_path / "cgroup").write_text("9:name=systemd:/\n4:cpu,memory:/a\n3:cpuset:/\n")
        names = {"memory__limit_in_bytes": "1000", "memory__usage_in_bytes": "600"}
        write(tmp_path / "memory", **names, memory__stat="total_inactive_file 100")
        assert room_in_group(tmp_path, tmp_path / "cgroup") == 500


@pytest.mark.parametrize("targets", [[], ["q_proj"], ["self_attn.v_proj", "up_proj"]])
def test_the_weights_of_adapters_are_counted_before_they_are_there(model, targets):
    pytest.importorskip("peft")
    stage = STAGE.model_copy(update={"lora_rank": 3, "lora_targets": targets})
    counted = weights_to_train(model, stage)
    add_adapters(model, **stage.adapters)
    assert counted == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_without_adapters_every_weight_is_trained(model):
    assert weights_to_train(model, STAGE) == sum(parameter.numel() for parameter in model.parameters())


def test_a_stage_whose_gradients_and_means_do_not_fit_is_refused(model, monkeypatch):
    weights = weights_to_train(model, STAGE)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 12 * weights)
    check_memory(model, STAGE)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 12 * weights - 1)
    with pytest.raises(
        SettingsError, match=rf"stage one: not enough memory on cpu: .* of {weights:,} trained"
    ) as caught:
        check_memory(model, STAGE)
    assert "lora_rank" in caught.value.hint


def test_what_is_missing_is_what_backward_and_adamw_then_allocate(model):
    optimizer = torch.optim.AdamW(model.parameters())
    count = sum(parameter.numel() for parameter in model.parameters())
    assert missing_bytes(model, optimizer) == 12 * count
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert missing_bytes(model, optimizer) == 8 * count
    optimizer.step()
    held = [value for state in optimizer.state.values() for value in state.values() if value.numel() > 1]
    assert sum(value.nbytes for value in held) == 8 * count
    assert missing_bytes(model, optimizer) == 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_whoever_runs_out_of_memory_it_is_said_in_one_line(error):
    with (
        pytest.raises(SettingsError, match=r"^step 3: not enough memory on cpu$") as caught,
        enough_memory(lambda: "step 3", torch.device("cpu")),
    ):
        raise error
    assert "chunk_tokens" in caught.value.hint


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), OSError(errno.ENOSPC, "No space left")])
def test_other_errors_stay_what_they_are(error):
    with (
        pytest.raises(type(error), match=r"shapes do not match|No space left"),
        enough_memory(lambda: "step 3", torch.device("cpu")),
    ):
        raise error


def test_a_stage_that_may_not_fit_says_so_before_its_first_step(model, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 3 * GIB)
    notes = []
    train_stage(
        model,
        [Source("toy", EXAMPLES)],
        STAGE,
        folder=tmp_path / "roomy",
        seed=0,
        on_start=lambda done, steps, warning: notes.append((done, steps, warning)),
        on_step=lambda report: notes.append(report.step),
    )
    assert notes == [(0, 2, ""), 1, 2]
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    with pytest.raises(KeyboardInterrupt, match="enough"):
        train_stage(
            model,
            [Source("toy", EXAMPLES)],
            STAGE,
            folder=tmp_path / "tight",
            seed=0,
            on_start=lambda done, steps, warning: notes.append(warning),
            on_step=_stop,
        )
    assert notes[3].startswith("may run out of memory: about 0.0 GiB wanted, 0.0 GiB free on cpu; lower chunk_tokens")


def _stop(report):
    raise KeyboardInterrupt("enough")


def test_what_a_stage_keeps_leaves_room_for_gradients_and_means(model, monkeypatch):
    free = 100 * GIB
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    assert memory.activation_bytes(STAGE, model.device, missing=0.0) == 50 * GIB
    assert memory.activation_bytes(STAGE, model.device, missing=84.0 * GIB) == 8 * GIB
    assert memory.activation_bytes(STAGE, model.device, missing=200.0 * GIB) == 0
    own = STAGE.model_copy(update={"memory_gib": 3.0})
    assert memory.activation_bytes(own, model.device, missing=84.0 * GIB) == 3 * GIB


def test_checkpointed_layers_are_planned_with_less_memory_and_the_model_stays_as_it_was(model):
    stage = STAGE.model_copy(update={"dropout": 0.0})
    sources = [Source("toy", EXAMPLES)]
    whole = cost_of(model, plan_of(sources, stage, 0), stage)
    frugal = stage.model_copy(update={"gradient_checkpointing": True})
    less = cost_of(model, plan_of(sources, frugal, 0), frugal)
    assert less.bytes < whole.bytes
    assert cost_of(model, plan_of(sources, stage, 0), stage).bytes == whole.bytes


@pytest.mark.parametrize("rank", [None, 2])
def test_dropout_and_checkpointing_end_with_their_stage(model, tmp_path, rank):
    if rank:
        pytest.importorskip("peft")

    def state():
        own = [getattr(m, "attention_dropout", None) for m in model.modules()]
        return own, model.backbone.is_gradient_checkpointing

    before, seen = state(), []
    stage = STAGE.model_copy(update={"dropout": 0.4, "gradient_checkpointing": True, "lora_rank": rank})
    sources = [Source("toy", EXAMPLES)]
    cost_of(model, plan_of(sources, stage, 0), stage)
    assert state() == before
    train_stage(model, sources, stage, folder=tmp_path, seed=0, on_step=lambda report: seen.append(state()))
    assert state() == before
    assert {share for share in seen[0][0] if share is not None} == {0.4}
    assert seen[0][1] is True


def test_the_optimizer_of_a_stage_is_gone_when_the_stage_is(model, tmp_path, monkeypatch):
    made = []
    create = trainer.ContrastiveTrainer.create_optimizer

    def noted(self, *arguments):
        found = create(self, *arguments)
        made.append(weakref.ref(found))
        return found

    monkeypatch.setattr(trainer.ContrastiveTrainer, "create_optimizer", noted)
    gc.disable()
    try:
        train_stage(model, [Source("toy", EXAMPLES)], STAGE, folder=tmp_path, seed=0)
        assert [optimizer() for optimizer in made] == [None]
    finally:
        gc.enable()


@pytest.mark.slow
def test_a_run_that_really_runs_out_keeps_its_checkpoint(tiny_llama, tmp_path):
    done = forks.run_module("tests.training.running_out", tiny_llama, tmp_path / "run")
    said = done.stdout.splitlines()[-1] if done.stdout else done.stderr
    assert said.startswith("stage one, step 3, chunks of 1000000 tokens: not enough memory"), done.stderr
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["checkpoint-1", "checkpoint-2"]

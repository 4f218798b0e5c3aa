"""What others in the process use too is as it was after every import of the package, and after each public function."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own: the checks of types in a test run draw numbers.
SCRIPT = """
import importlib, importlib.util, json, pkgutil, sys
from pathlib import Path

for name in "accelerate bm25s datasets faiss gguf ir_measures mteb peft sklearn transformers".split():
    if importlib.util.find_spec(name):
        importlib.import_module(name)
import scipy.stats, sentence_transformers.cross_encoder, transformers.trainer
from tests.process_state import difference, state

changed = {}

def call(name, function):
    before = state()
    found = function()
    if names := sorted(difference(before, state())):
        changed[name] = names
    return found

def import_all():
    import embedsmith
    for module in pkgutil.walk_packages(embedsmith.__path__, "embedsmith."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

call("import", import_all)

import embedsmith
from embedsmith import MiningSettings, StageSettings, StudentSettings, TeacherSettings
from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection

folder, encoder, decoder = map(Path, sys.argv[1:])
things = [(animal, place) for animal in ("cat", "dog", "owl", "bat", "eel", "ape") for place in ("mat", "log", "tree")]
passages = [f"the {animal} sat on the {place} and read the file" for animal, place in things]

def split(rows):
    return Collection.of(
        name="animals",
        passage_ids=[f"p{row}" for row in range(len(passages))],
        passages=passages,
        query_ids=[f"q{row}" for row in rows],
        queries=["where is the {} of the {}".format(*things[row]) for row in rows],
        qrels={f"q{row}": {f"p{row}": 1} for row in rows},
    )

data, mined, run = folder / "animals", folder / "mined", folder / "run"
write_beir(data, {"train": split(range(14)), "test": split(range(14, 18))})
mining = MiningSettings(
    teachers=[str(encoder), "bm25"], negatives=3, depth=8, teacher_settings=TeacherSettings(dtype="float32")
)
student = StudentSettings(
    name=str(decoder), pooling="latent", latents=4, heads=2, head_width=8, instruction="Find it"
)
stage = StageSettings(steps=2, batch_size=6, learning_rate=5e-3, report_to="none", dropout=0.1)
rank = 2 if importlib.util.find_spec("peft") else 0
adapted = stage.model_copy(update={"lora_rank": rank, "dtype": "bfloat16", "held_out": 2})
many = [f"a text of {n} words" for n in range(120)]

model = call("build_student", lambda: embedsmith.build_student(student))
call("embed", lambda: model.embed(many, "passage", tokens=100))
call("embed_each", lambda: next(model.embed_each(iter([many, many]), "query", tokens=100)))
call("encode_query", lambda: model.encode_query(many))
call("save", lambda: model.save(str(folder / "model")))
for dtype in ("float32", "auto", "bfloat16", "float16"):
    opened = call(f"load, {dtype}", lambda: embedsmith.load(str(folder / "model"), dtype=dtype))
    call(f"embed, {dtype}", lambda: opened.embed(many, "passage"))
call("load_collection", lambda: embedsmith.load_collection(data, split="train"))
call("mine", lambda: embedsmith.mine(data, out=mined, settings=mining))
call("select", lambda: embedsmith.select(mined, out=folder / "selected", changes={"negatives": 2}))
call("write", lambda: embedsmith.write(mined, out=folder / "examples.jsonl"))
call("train", lambda: embedsmith.train(mined, out=run, student=student, stage=stage))
call("train adapters", lambda: embedsmith.train(mined, out=folder / "adapted", student=student, stage=adapted))
call("evaluate", lambda: embedsmith.evaluate(run, data))
call("find", lambda: embedsmith.search(run, "where is the cat", data=data))
call("export", lambda: embedsmith.export(run, out=folder / "exported", dtype="bfloat16"))
call("decontaminate", lambda: embedsmith.decontaminate(mined, against=[data], out=folder / "clean.jsonl"))
print(json.dumps(changed))
"""


@pytest.mark.slow
def test_every_import_and_every_public_function_leaves_the_process_as_it_was(tiny_bert, tiny_llama, tmp_path):
    outer = {name: value for name, value in os.environ.items() if not name.startswith("ONEDNN")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(tiny_bert), str(tiny_llama)],
        cwd=Path(__file__).parents[1],
        env=outer,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {}

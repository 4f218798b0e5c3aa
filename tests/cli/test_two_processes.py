"""Two processes of each command that writes, on one folder: one does the work, the other is refused in one line or does
the same afterwards, and the folder is that of one process. A killed one blocks nobody."""

import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from tests import forks
from tests.evaluation.test_compare import write_data

ROUNDS = int(os.environ.get("EMBEDSMITH_ROUNDS", "1"))
"""How often each command is tried; from the second time on at random moments."""

KILLED = {"train", "encode", "export", "judge"} if ROUNDS == 1 else None
"""The commands whose first process is killed; in more than one round all. Others have tests of their own kills."""

PROGRAM = """
import json, os, random, shutil, signal, sys, time, traceback
from embedsmith.cli import main as command_line
from embedsmith.recipes import quickstart

whole_quickstart = quickstart.quickstart_recipe


def short_quickstart(**asked):
    recipe = whole_quickstart(**asked)
    stages = [stage.model_copy(update={"steps": 2, "batch_size": 4, "dtype": "float32"}) for stage in recipe.stages]
    short = {"query_max_tokens": 64, "passage_max_tokens": 64}
    student = recipe.student.model_copy(update={"name": tiny, **short})
    teacher = recipe.mining.teacher_settings.model_copy(update={"max_tokens": 64})
    mining = recipe.mining.model_copy(update={"teachers": [tiny], "teacher_settings": teacher})
    return recipe.model_copy(update={"stages": stages, "student": student, "mining": mining})


quickstart.quickstart_recipe = short_quickstart
place, rounds, scenarios, tiny = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4]


def start(words, folder, log):
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.chdir(folder)
        for stream in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        sys.argv = ["embedsmith", *words]
        command_line.main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def prepared(name, what):
    folder = f"{place}/{name}/{what}"
    os.makedirs(folder)
    for source, target in scenarios[name].get("copies", {}).items():
        shutil.copytree(source, f"{folder}/{target}")
    return folder


notes = []
for name, scenario in scenarios.items():
    words = scenario["words"]
    began = time.monotonic()
    folder = prepared(name, "alone")
    log = f"{folder}.log"
    code = ended(start(words, folder, log))
    assert code == 0, (name, open(log).read())
    took = time.monotonic() - began
    moments = scenario["moments"] + [random.random() for _ in range((rounds - 1) * len(scenario["moments"]))]
    for number, moment in enumerate(moments):
        folder = prepared(name, f"two-{number}")
        first = start(words, folder, f"{folder}-a.log")
        time.sleep(moment * took)
        second = start(words, folder, f"{folder}-b.log")
        codes = ended(first), ended(second)
        said = [open(f"{folder}-{one}.log").read() for one in "ab"]
        notes.append({"name": name, "folder": folder, "codes": codes, "said": said})
    for number, moment in enumerate(scenario.get("kills", [])):
        folder = prepared(name, f"killed-{number}")
        first = start(words, folder, f"{folder}-a.log")
        time.sleep(moment * took)
        os.kill(first, signal.SIGKILL)
        killed = ended(first)
        code = ended(start(words, folder, f"{folder}-b.log"))
        said = ["", open(f"{folder}-b.log").read()]
        notes.append({"name": name, "folder": folder, "codes": [killed, code], "said": said})
print(json.dumps(notes))
"""

REFUSED = re.compile(
    r"^error: \S+: (process \d+ on \S+ is (still )?writing it|this run is finished already|there already"
    r"|is there already|not an empty folder)$",
    re.MULTILINE,
)

WHOLE = re.compile(r"^error: \S+: (this run is finished already|there already|not an empty folder)$", re.MULTILINE)


def says(prompt: str) -> str:
    """Answer as a judge, as a writer of queries, of tasks and of examples, always the same to the same."""
    if "Does the passage answer" in prompt:
        return "yes" if "owl" in prompt else "no"
    if prompt.startswith("Task: "):
        words = re.findall(r"[a-z]+ \d+", prompt)[0]
        return json.dumps({"query": f"query {words}", "positive": f"positive {words}", "negative": f"other {words}"})
    if "JSON" in prompt:
        return json.dumps(["Given red 1, find it", "Given blue 2, find it"])
    first = prompt.splitlines()[0].split()
    return f"find the {first[1]} of the {first[-1]}"


def without_seconds(value):
    """Return plain values without times, and without the command's own words."""
    if isinstance(value, dict):
        left_out = ("seconds", "estimate_s", "command")
        return {key: without_seconds(inner) for key, inner in value.items() if key not in left_out}
    return [without_seconds(inner) for inner in value] if isinstance(value, list) else value


def content(folder: Path) -> dict[str, object]:
    """Return what a folder holds, by path; of what tells times or an order of arrival, the rest."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or "/tensorboard/" in name:
            continue
        if path.name in ("report.md", "report.html", "table.md", "table.json"):
            found[name] = None
        elif path.suffix == ".json":
            found[name] = without_seconds(json.loads(path.read_text()))
        elif path.name in ("steps.jsonl", "answers.jsonl", "verdicts.jsonl"):
            rows = [without_seconds(json.loads(line)) for line in path.read_text().splitlines()]
            found[name] = sorted(rows, key=str) if path.name != "steps.jsonl" else rows
        else:
            found[name] = path.read_bytes()
    return found


@pytest.fixture
def scenarios(tmp_path: Path, tiny_bert: Path, chat_server) -> dict[str, dict]:
    """Every command that writes, with the moments of the first process's work at which the second one starts."""
    chat_server.say = says
    data = write_data(tmp_path / "animals")
    mined, trained = tmp_path / "mine" / "alone" / "out", tmp_path / "train" / "alone" / "out"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        json.dumps(
            {
                "data": {"animals": {"path": str(data)}},
                "mining": {"teachers": ["bm25", str(tiny_bert)], "method": "naive", "depth": 10},
                "student": {"name": str(tiny_bert)},
                "stages": [{"steps": 2, "batch_size": 4, "report_to": "none", "dtype": "float32"}],
                "evaluation": {"baselines": ["bm25"], "dtype": "float32"},
            }
        )
    )
    code = tmp_path / "code"
    code.mkdir()
    for module in "abcdef":
        functions = [
            f'def {module}{name}(value):\n    """Return the {name} of the {module}."""\n    return value + {name!r}\n'
            for name in ("first", "last", "sum", "count")
        ]
        (code / f"{module}.py").write_text("\n\n".join(functions))
    labelled = tmp_path / "labelled.jsonl"
    labelled.write_text("".join(json.dumps({"text": f"{a} {b}", "label": a}) + "\n" for a in "pqrs" for b in "vwxyz"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"query": f"q {i}", "positive": f"p {i}"}) + "\n" for i in range(200)))
    against = tmp_path / "against.jsonl"
    against.write_text("".join(json.dumps({"query": f"q {i}", "positive": f"p {i}"}) + "\n" for i in range(20)))
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"text {i} of the cat\n" for i in range(300)))
    url = ["--url", chat_server.name]
    teachers = ["--teacher", tiny_bert, "--teacher", "bm25", "--teacher-dtype", "float32", "--method", "naive"]
    stage = ["--steps", 4, "--batch-size", 8, "--report-to", "none", "--dtype", "float32", "--save-steps", 1]
    commands: dict[str, tuple] = {
        "mine": (["mine", data, *teachers, "--out", "out"], [0.0, 0.4, 0.8], [0.5]),
        "select": (["select", mined, "--negatives", 2, "--out", "out"], [0.4], []),
        "train": (["train", mined, "--student", tiny_bert, *stage, "--out", "out"], [0.2, 0.7], [0.6]),
        "recipe": (["train", recipe, "--out", "out"], [0.5], [0.7]),
        "quickstart": (["quickstart", "--source", code, "--out", "out"], [0.5], []),
        "ablate": (
            ["ablate", recipe, "--vary", "mining.negatives=1,2", "--seeds", 1, "--shared", "shared", "--out", "out"],
            [0.5],
            [0.6],
        ),
        "evaluate": (["evaluate", trained, data, "--vectors", "vectors", "--out", "out"], [0.1, 0.6], [0.5]),
        "encode": (["encode", tiny_bert, texts, "--out", "out.parquet"], [0.0, 0.6], [0.8]),
        "export": (["export", trained, "--out", "out"], [0.3, 0.8], [0.7]),
        "convert": (
            ["convert", labelled, "--task", "classification", "--teacher", "bm25", "--out", "out.jsonl"],
            [0.5],
            [0.6],
        ),
        "decontaminate": (["decontaminate", rows, "--against", against, "--out", "out.jsonl"], [0.5], []),
        "decontaminate-beir": (["decontaminate", data, "--against", against, "--out", "out"], [0.5], []),
        "write": (["write", mined, "--dialect", "tevatron", "--out", "out"], [0.4], []),
        "queries": (
            ["synthesize", "queries", data / "corpus.jsonl", *url, "--teacher", "bm25", "--out", "out"],
            [0.5],
            [0.5],
        ),
        "tasks": (["synthesize", "tasks", *url, "--tasks", 2, "--examples", 2, "--out", "out"], [0.5], []),
        "judge": (["judge", "out", *url], [0.0, 0.5], [0.5]),
        "report": (["report", "out"], [0.5], []),
    }
    copies = {"judge": {str(mined): "out"}, "report": {str(mined): "out"}}
    return {
        name: {
            "words": [str(word) for word in words],
            "moments": two,
            "kills": kills if KILLED is None or name in KILLED else [],
            "copies": copies.get(name, {}),
        }
        for name, (words, two, kills) in commands.items()
    }


@pytest.mark.slow
def test_two_processes_of_each_command_on_one_folder_leave_what_one_leaves(
    tmp_path: Path, scenarios, chat_server, tiny_bert
):
    done = forks.run(PROGRAM, tmp_path, ROUNDS, json.dumps(scenarios), tiny_bert)
    assert done.returncode == 0, done.stderr[-3000:]
    notes = json.loads(done.stdout.splitlines()[-1])
    assert len([one for one in notes if "/two-" in one["folder"]]) >= 20
    alone = {name: content(tmp_path / name / "alone") for name in scenarios}
    for one in notes:
        name, folder = one["name"], Path(one["folder"])
        where = f"{name} in {folder.name}: {one['codes']} {one['said']}"
        assert not any("Traceback" in said for said in one["said"]), where
        if "/two-" in one["folder"]:
            assert 0 in one["codes"], where
        else:
            # It may have been killed when all was done.
            assert one["codes"][1] == 0 or (WHOLE.search(one["said"][1]) and one["codes"][1] == 2), where
        for code, said in zip(one["codes"], one["said"], strict=True):
            if code not in (0, -9):
                assert code == 2, where
                assert REFUSED.search(said), where
                assert said.count("error:") == said.count("hint:") == 1, where
        found = content(folder)
        if "/killed-" in one["folder"]:
            # The lock of a store that was whole already is asked for no more.
            found = {path: held for path, held in found.items() if not re.search(r"vectors/\w+/\.lock$", path)}
        assert found.keys() == alone[name].keys(), where
        assert [path for path in found if found[path] != alone[name][path]] == [], where
    # Nothing was paid for twice: each folder has asked each of its questions once, but for what a kill has cut.
    asked = Counter(chat_server.prompts)
    runs = {"judge": 0, "queries": 0, "tasks": 0}
    for one in notes:
        runs[one["name"]] = runs.get(one["name"], 0) + 1
    judged = [number for prompt, number in asked.items() if "Does the passage answer" in prompt]
    kills = len(scenarios["judge"]["kills"]) * 8  # under way when it was killed
    assert sum(judged) <= len(judged) * (1 + runs["judge"]) + kills

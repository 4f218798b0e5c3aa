"""The package needs nothing that only POSIX systems have: read in the syntax tree, and run on a fake of Windows."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import embedsmith
from embedsmith.data.files import read_json
from embedsmith.recipes.recipe import read_recipe
from tests.windows import MODULES, OF_OS, OF_SIGNAL

PACKAGE = Path(embedsmith.__file__).parent
ROOT = PACKAGE.parent
PLACE = "system.py"
"""Where what differs between systems has its fallbacks."""
GONE = {
    *(f"os.{name}" for name in OF_OS),
    *(f"signal.{name}" for name in OF_SIGNAL),
    "os.rename",  # over an existing file on POSIX alone: `os.replace` goes over it everywhere
    "os.symlink",
    "os.sync",
}
TEXTS = [f"the cat {n} sat on the mat and the dog {n * 7} on the log" for n in range(24)]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is faked here is asked of Linux")


def posix_only(path: str, source: str) -> list[str]:
    """Return what a module uses that Windows does not have."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and (said := ast.unparse(node)) in GONE:
            found.append(f"{path}:{node.lineno} {said}")
        elif isinstance(node, ast.Attribute) and node.attr in ("symlink_to", "hardlink_to", "owner", "group", "lchmod"):
            if isinstance(node.value, ast.Name) and node.attr in ("owner", "group"):
                continue  # of a match, or a dataclass
            found.append(f"{path}:{node.lineno} {node.attr}")
        elif isinstance(node, ast.Import) and {alias.name for alias in node.names} & {*MODULES}:
            found.append(f"{path}:{node.lineno} {ast.unparse(node)}")
        elif isinstance(node, ast.ImportFrom) and node.module in {*MODULES, "os", "signal"}:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            if node.module in MODULES or names & GONE:
                found.append(f"{path}:{node.lineno} {ast.unparse(node)}")
        elif isinstance(node, ast.Name) and node.id == "fork":
            found.append(f"{path}:{node.lineno} fork")
    return found


def without_encoding(path: str, source: str) -> list[str]:
    """Return where a text is read or written in whatever encoding the system takes for its own."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, keywords = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
        modes = [value.value for value in node.args[1:2] if isinstance(value, ast.Constant)]
        is_text = name.endswith((".read_text", ".write_text")) and not node.args[1:]
        is_text |= (
            name == "open"
            and not any("b" in str(mode) for mode in modes)
            and not isinstance(node.args[1] if node.args[1:] else None, ast.Name | ast.IfExp)
        )
        if is_text and not keywords & {"encoding", None}:
            found.append(f"{path}:{node.lineno} {name}")
    return found


def sources() -> list[tuple[str, str]]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return [(path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def test_what_only_posix_has_stands_in_one_place():
    used = {path: found for path, source in sources() if (found := posix_only(path, source))}
    assert used.pop(PLACE)
    assert used == {}


@pytest.mark.parametrize(
    "source",
    [
        "import fcntl",
        "from resource import getrusage",
        "import os\nos.getuid()",
        "import os\nflags = os.O_NONBLOCK",
        "import os\nos.rename('a', 'b')",
        "from os import fork\nfork()",
        "import signal\nsignal.SIGKILL",
        "path.symlink_to(other)",
    ],
)
def test_what_only_posix_has_is_seen(source: str):
    assert posix_only("data/files.py", source)


def test_texts_are_read_in_a_named_encoding():
    assert [found for module in sources() for found in without_encoding(*module)] == []
    for source in ("path.read_text()", "open('a')", "open('a', 'w')", "path.write_text('a')"):
        assert without_encoding("data/files.py", source)


def on_windows(*words: str, cwd: Path | None = None, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.windows", *words],
        cwd=cwd or ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout


def test_every_module_is_imported_without_what_windows_lacks():
    on_windows("import")


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write JSON lines as an editor of Windows does: with a mark of UTF-8, and lines that end in CRLF."""
    path.write_bytes(("\ufeff" + "".join(json.dumps(row) + "\r\n" for row in rows)).encode())
    return path


@pytest.mark.slow
def test_a_model_is_mined_for_trained_and_used(tmp_path: Path, tiny_bert: Path):
    pairs = write(tmp_path / "pairs.jsonl", [{"query": text[:20], "positive": text} for text in TEXTS])
    texts = tmp_path / "texts.txt"
    texts.write_bytes("\r\n".join(TEXTS).encode())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(
        f"\ufeffname: toy\r\ndata:\r\n  toy: {{path: {pairs}}}\r\nstudent: {{name: {tiny_bert}}}\r\n"
        "mining: {teachers: [bm25], negatives: 1}\r\n"
        "stages: [{name: one, steps: 2, batch_size: 4, hard_negatives: 1, dtype: float32, save_steps: 1}]\r\n".encode()
    )
    model, vectors = tmp_path / "trained", tmp_path / "vectors"
    commands = [
        ["mine", pairs, "--teacher", tiny_bert, "--negatives", "1", "--out", tmp_path / "mined"],
        ["select", tmp_path / "mined", "--negatives", "2", "--out", tmp_path / "selected"],
        [
            "train",
            tmp_path / "mined",
            "--student",
            tiny_bert,
            "--steps",
            "3",
            "--batch-size",
            "4",
            "--hard-negatives",
            "1",
            "--save-steps",
            "1",
            "--report-to",
            "none",
            "--out",
            model,
        ],
        ["export-model", model, "--out", tmp_path / "exported"],
        ["encode", tmp_path / "exported", texts, "--out", tmp_path / "texts.npy"],
        ["evaluate", model, pairs, "--out", tmp_path / "scores"],
        ["run", recipe, "--out", tmp_path / "run"],
        ["mine", pairs, "--teacher", "bm25", "--negatives", "2", "--out", tmp_path / "mined", "--overwrite", "--yes"],
    ]
    on_windows(
        "run", json.dumps([[str(word) for word in words] for words in commands]), EMBEDSMITH_VECTORS=str(vectors)
    )
    assert (tmp_path / "run" / "model" / "modules.json").is_file()
    assert len((tmp_path / "mined" / "negatives.jsonl").read_text(encoding="utf-8").splitlines()) == len(TEXTS)
    left = [path.name for path in tmp_path.rglob("*") if path.name.endswith((".lock", ".partial"))]
    assert left == []


def test_marks_of_utf8_and_line_ends_of_windows_change_nothing(tmp_path: Path):
    text = "name: toy\ndata:\n  toy: {path: pairs.jsonl}\nstages:\n- {name: one, steps: 2}\n"
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "b.yaml").write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    assert read_recipe(tmp_path / "a.yaml") == read_recipe(tmp_path / "b.yaml")
    (tmp_path / "a.json").write_bytes('\ufeff{"a": 1}\r\n'.encode())
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_what_a_terminal_cannot_write_is_written_out(tmp_path: Path):
    pairs = write(tmp_path / "日本.jsonl", [{"query": "日本", "positive": "東京"}])
    command = [sys.executable, "-m", "embedsmith", "mine", str(pairs), "--teacher", "bm25", "--json", "--out", "日本"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("cp1252"))

"""`docs/troubleshooting.md` names every error class and exit code, and quotes messages that the program has."""

from __future__ import annotations

import ast
import re
from contextlib import chdir
from pathlib import Path

import pytest

from embedsmith import errors
from embedsmith.cli import main as cli
from embedsmith.errors import EmbedsmithError

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
VARIES = re.compile(r"…|\b[A-Z]+\b")
"""What a quoted message leaves open."""


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def messages() -> list[str]:
    """Return the messages of all lists: the code that an entry begins with."""
    titles = [*(name for name in vars(errors) if name.endswith("Error")), "Servers and keys"]
    rows = [line for title in titles for line in section(title).splitlines() if line.startswith("- `")]
    return [found[1] for row in rows if (found := re.match(r"- `(.*?)`[:,]", row)) and not is_variable(found[1])]


def is_variable(name: str) -> bool:
    return re.fullmatch(r"[A-Z_]+", name) is not None


def texts_of_the_source() -> list[str]:
    """Return every text of the package, a zero byte for each value that is put into one."""
    found = []
    for path in (ROOT / "embedsmith").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


TEXTS = texts_of_the_source()


def test_there_are_messages_of_every_class():
    assert len(messages()) > 55
    for title in (name for name in vars(errors) if name.endswith("Error") and name != "EmbedsmithError"):
        assert section(title).count("\n- `") >= 1, title


@pytest.mark.parametrize("message", messages())
def test_a_quoted_message_is_one_of_the_programs(message):
    parts = [re.escape(part.strip(" \"'`()")) for part in VARIES.split(message)]
    pattern = re.compile(".*".join(parts), re.DOTALL)
    assert sum(map(len, parts)) >= 8, "too little of it is fixed"
    assert any(pattern.search(text) for text in TEXTS), f"no text of embedsmith/ fits {pattern.pattern}"


def test_every_error_class_stands_on_the_page():
    classes = [
        kind.__name__ for kind in vars(errors).values() if isinstance(kind, type) and kind.__module__ == errors.__name__
    ]
    assert "EmbedsmithError" in classes
    for name in classes:
        assert f"| `{name}` |" in PAGE
    for kind in EmbedsmithError.__subclasses__():
        if kind.__module__ == errors.__name__:
            assert section(kind.__name__), f"no section {kind.__name__}"


def test_every_exit_code_stands_on_the_page():
    source = ast.parse(Path(cli.__file__).read_text())
    codes = {
        node.args[0].value
        for node in ast.walk(source)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "sys.exit"
        and isinstance(node.args[0], ast.Constant)
    }
    codes |= {0, cli._INTERRUPTED}
    assert codes == {0, 1, 2, 130}
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", section("Exit codes"), re.M)}
    assert listed == codes


def test_messages_that_are_met_read_as_on_the_page(workplace: Path, monkeypatch, capsys):
    asked = {
        ("mine", "no.jsonl", "--teacher", "bm25", "--out", "runs/a"): "PATH: no such file or folder",
        ("mine", "pairs.csv", "--teacher", "bm25", "--out", "runs/a"): "no ROLE; the row has COLUMNS",
        ("mine", "pairs.jsonl", "--teacher", "bm25", "--teacher", "bm25", "--out", "r"): "a teacher is named twice",
        ("mine", "pairs.jsonl", "--teacher", "no/such/model", "--out", "runs/a"): "NAME: no such model folder",
        ("audit", "runs/nothing"): "RUN: no such run folder",
        ("mine", "pairs.jsonl", "--teacher", "bm25", "--out", "scifact"): "RUN: not empty and not a run folder",
    }
    with chdir(workplace):
        for words, message in asked.items():
            assert f"\n- `{message}`: " in PAGE
            monkeypatch.setattr("sys.argv", ["embedsmith", *words])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            said = capsys.readouterr().err
            assert ended.value.code == 2
            assert re.search(".*".join(map(re.escape, VARIES.split(message))), said), said
            assert "hint:" in said


def test_variables_of_keys_stand_on_the_page():
    from embedsmith.models.cpu import switch
    from embedsmith.services import endpoint

    for name in (endpoint.KEY, endpoint.OPENAI_KEY, endpoint.HOSTS, f"{switch._VARIABLE}={switch._OFF}"):
        assert name in PAGE

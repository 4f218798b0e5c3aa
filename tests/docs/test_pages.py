"""Every command line and every Python block of the documentation does what its page says, in the order of the page."""

from __future__ import annotations

import re
import sys
import tomllib
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import yaml

from embedsmith.cli.main import main
from embedsmith.recipes.recipe import Recipe
from tests.docs.blocks import LANGUAGES, Block, blocks_in, blocks_of, few_steps
from tests.docs.workplace import chat_model, prepare, save_models
from tests.servers import ChatServer

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
GENERATED = ROOT / "docs" / "reference"

CHAT = "http://localhost:8000/v1#MODEL"
"""The chat model of the pages."""

ELSEWHERE = {"pip", "git", "cd", "make", "source", "python", "torchrun", "export"}
"""Programs that pages call beside ours; `check_others` looks at their arguments."""


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, tiny_llama: Path) -> Path:
    """A cache of the model hub that holds tiny models under the names of the pages."""
    folder = tmp_path_factory.mktemp("hub")
    save_models(folder, tiny_bert, tiny_llama)
    return folder


@pytest.fixture
def workplace(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a page is run."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setenv("EMBEDSMITH_DATA", str(tmp_path))
    prepare(tmp_path)
    return tmp_path


def pages() -> list[object]:
    """Return the pages that hold blocks."""
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in PAGES if GENERATED not in page.parents]


@pytest.mark.slow
@pytest.mark.parametrize("page", pages())
def test_what_a_page_shows_can_be_done(page: Path, workplace: Path, chat_server: ChatServer, monkeypatch, capsys):
    namespace: dict[str, object] = {"__name__": "__main__"}
    chat_server.say = chat_model()
    with chdir(workplace):
        for block in blocks_in(page, ROOT):
            assert block.language in LANGUAGES, block.place
            if block.not_run:
                continue
            block = replace(block, text=few_steps(block.text))
            if block.language == "python":
                exec(compile(block.text.replace(CHAT, chat_server.name), block.place, "exec"), namespace)
            elif block.language == "yaml":
                write_yaml(block)
            elif block.language == "sh":
                for words in block.commands():
                    run([word.replace(CHAT, chat_server.name) for word in words], block, monkeypatch, capsys)


def run(words: list[str], block: Block, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Run one command line of ours, and look at those of others."""
    if words[0] != "embedsmith":
        check_others(words, block)
        return
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert not ended.value.code, f"{block.place}: {' '.join(words)}\n{printed.out}{printed.err}"


def check_others(words: list[str], block: Block) -> None:
    """Refuse what is not there: a program, a target of make, an extra of the package."""
    assert words[0] in ELSEWHERE or "=" in words[0], f"{block.place}: {words[0]} is none of {sorted(ELSEWHERE)}"
    if "make" in words:
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
        asked = [word for word in words[words.index("make") + 1 :] if "=" not in word]
        assert set(asked) <= set(targets), block.place
    for extras in re.findall(r"embedsmith\[([a-z0-9,-]+)\]", " ".join(words)):
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(extras.split(",")) <= set(known), block.place


def write_yaml(block: Block) -> None:
    """Read a recipe, and write it into the workplace under its name; other YAML has to be YAML."""
    found = yaml.safe_load(block.text)
    if "stages" in found:
        recipe = Recipe.parse(found, where=block.place)
        Path(f"{recipe.name}.yaml").write_text(block.text, encoding="utf-8")


def test_blocks_are_told_apart():
    page = "a\n```sh\nembedsmith mine a \\\n  b  # c\n```\n\n<!-- not run: needs a GPU -->\n```python\n1/0\n```\n"
    shell, python = blocks_of("p.md", page)
    assert shell.commands() == [["embedsmith", "mine", "a", "b"]]
    assert (shell.line, python.not_run) == (3, "needs a GPU")


def test_a_block_that_fails_is_named(workplace: Path, monkeypatch, capsys):
    block = Block("p.md", 3, "sh", "embedsmith mine nothing --out runs/x\n")
    with chdir(workplace), pytest.raises(AssertionError, match=r"p\.md:3: embedsmith mine nothing"):
        run(block.commands()[0], block, monkeypatch, capsys)

"""Files that are broken or made to do harm: each is counted, with its reason, and the others are read."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import sys
from pathlib import Path

import pytest

from embedsmith.errors import InputError
from embedsmith.prepare.documents import limits, reader_process
from embedsmith.prepare.documents.blocks import Document, Unread, block_of
from embedsmith.prepare.documents.reader_process import answer_of
from embedsmith.prepare.documents.reading import _Reader, read_documents
from embedsmith.prepare.documents.walking import walk
from tests.prepare.documents.made import docx, epub, folder_of, packed, paragraph, pdf, read

GOOD = {"good.md": "# Cats\n\nThey purr.\n"}
LAUGHS = '<!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'


def test_each_broken_file_is_counted_and_the_others_are_read(tmp_path: Path):
    whole = pdf([[(10, 0, "A cat sat on the mat, and it was a good mat.")]])
    body = paragraph("a") * 50
    outside = (
        '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><d xmlns:w="http://schemas.openxmlformats.org/'
        'wordprocessingml/2006/main"><w:body><w:p><w:r><w:t>&x;</w:t></w:r></w:p></w:body></d>'
    )
    files: dict[str, str | bytes] = {
        **GOOD,
        "cut.pdf": whole[: len(whole) // 3],
        "none.pdf": b"%PDF-1.7\n",
        "text.pdf": "I am a text.",
        "picture.pdf": pdf([[]]),
        "cut.docx": docx(body)[:200],
        "laughs.docx": packed({"word/document.xml": LAUGHS + "<d>&b;</d>"}),
        "outside.docx": packed({"word/document.xml": outside}),
        "deep.docx": packed({"word/document.xml": "<d>" * 100_000}),
        "other.docx": packed({"a.txt": "no document"}),
        "bomb.docx": packed({"word/document.xml": b"<d>" + b" " * 150_000_000}),
        "nested.epub": packed({"META-INF/container.xml": packed({"a": b"a"})}),
        "out.epub": packed({"META-INF/container.xml": '<a xmlns="b"><rootfile full-path="../../etc/passwd"/></a>'}),
        "scripts.html": "<html><body><script>document.write('hello')</script><noscript>on</noscript></body></html>",
        "nulls.txt": b"\0" * 1000,
        "broken.py": "def f(:\n",
        "broken.jsonl": "{not json\n" * 5,
        "no.eml": "just a text\n",
        "no.mbox": "just a text\n",
        "empty.md": "",
        "photo.jpg": b"\xff\xd8\xff",
        "photo.jpg.gz": gzip.compress(b"\xff\xd8\xff"),
        "code.py.gz": gzip.compress(b"a = 1"),
        "broken.py.gz": gzip.compress(b"def f(:\n"),
        "bomb.py.xz": lzma.compress(b"#" * 2_000_001),
        "text.md.gz": "no gzip",
        "cut.md.gz": gzip.compress(random.Random(0).randbytes(5000))[:2000],
        "cut.md.bz2": bz2.compress(b"# Cats" * 9)[:20],
        "cut.md.xz": lzma.compress(b"# Cats" * 9)[:40],
        "text.md.xz": "This is no xz file at all.",
        "bomb.html.gz": gzip.compress(b" " * 40_000_000),
        "bomb.html.xz": lzma.compress(b" " * 40_000_000),
        "twice.html.gz": gzip.compress(b" " * 20_000_000) * 2,
        "greedy.html.xz": lzma.compress(b"# Cats", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**29}]),
    }
    documents, reasons = read(tmp_path, files)
    assert set(documents) == {"good.md"}
    assert documents.keys() | reasons.keys() == files.keys()
    for file, reason in {
        "cut.pdf": "damaged",
        "none.pdf": "damaged",
        "text.pdf": "damaged",
        "picture.pdf": "no text in it: pictures of pages, perhaps",
        "cut.docx": "damaged: BadZipFile",
        "laughs.docx": "declares entities",
        "outside.docx": "declares entities",
        "deep.docx": "nested deeper than 200",
        "other.docx": "no word/document.xml in it",
        "bomb.docx": "unpacks to more than 100,000,000 bytes",
        "nested.epub": "damaged",
        "out.epub": "no ../../etc/passwd in it",
        "scripts.html": "no text in it",
        "nulls.txt": "not a text: null bytes",
        "broken.py": "line 1: syntax error",
        "broken.jsonl": "no line of it is a JSON object",
        "no.eml": "no message",
        "no.mbox": "no mailbox",
        "empty.md": "empty",
        "photo.jpg": "no reader for .jpg",
        "photo.jpg.gz": "no reader for .jpg.gz",
        "code.py.gz": "no text in it",
        "broken.py.gz": "line 1: syntax error",
        "bomb.py.xz": "2,000,001 bytes, at most 2,000,000 are read",
        "text.md.gz": "damaged: Not a gzipped file",
        "cut.md.gz": "damaged: Compressed file ended before",
        "cut.md.bz2": "damaged: Compressed file ended before",
        "cut.md.xz": "damaged: it ends before its end-of-stream marker",
        "text.md.xz": "damaged: Input format not supported",
        "bomb.html.gz": "unpacks to more than 32,000,000 bytes",
        "bomb.html.xz": "unpacks to more than 32,000,000 bytes",
        "twice.html.gz": "unpacks to more than 32,000,000 bytes",
        "greedy.html.xz": "damaged: Memory usage limit exceeded",
    }.items():
        assert reason in reasons[file], file


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes and no such links there")
def test_links_that_loop_pipes_and_names_in_latin_1_are_counted(tmp_path: Path):
    folder_of(tmp_path, {**GOOD, "inner/a.txt": "A cat sat."})
    (tmp_path / "inner" / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "itself.txt").symlink_to(tmp_path / "itself.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "device.txt").symlink_to("/dev/zero")
    name = os.fsdecode(b"caf\xe9.txt")
    (tmp_path / name).write_text("text")
    documents, reasons = read(tmp_path)
    assert set(documents) == {"good.md", "inner/a.txt"}
    assert reasons == {
        "inner/loop": "a link to a folder",
        "gone.txt": "cannot be read: No such file or directory",
        "itself.txt": "cannot be read: Too many levels of symbolic links",
        "pipe.txt": "not a regular file",
        "device.txt": "not a regular file",
        "caf\\udce9.txt": "its name is not UTF-8",
    }


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes there")
def test_a_file_that_has_become_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "a.txt")
    assert answer_of(tmp_path, "a.txt") == {"reason": "not a regular file"}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_counted(tmp_path: Path):
    folder_of(tmp_path, {**GOOD, "secret.txt": "a"})
    (tmp_path / "secret.txt").chmod(0)
    assert read(tmp_path)[1] == {"secret.txt": "cannot be read: Permission denied"}


def test_others_packages_environments_and_hidden_folders_are_passed_over(tmp_path: Path):
    files = {
        **GOOD,
        ".git/a.txt": "a",
        "node_modules/b.md": "b",
        "env/pyvenv.cfg": "",
        "env/c.txt": "c",
        ".hidden.txt": "d",
    }
    assert walk(folder_of(tmp_path, files)).files == ["good.md"]


def test_a_folder_without_a_document_is_refused(tmp_path: Path):
    folder_of(tmp_path, {"a.png": b"a"})
    with pytest.raises(InputError, match="no file that can be read"):
        list(read_documents(tmp_path))


def test_of_one_endless_line_the_beginning_is_read(tmp_path: Path):
    with open(tmp_path / "line.txt", "wb") as file:
        file.write(b"A cat sat. ")
        file.truncate(100_000_000)
    with open(tmp_path / "words.txt", "wb") as file:
        for _ in range(100):
            file.write(b"A cat sat on a mat. " * 50_000)
    documents, reasons = read(tmp_path)
    assert reasons == {"line.txt": "not a text: null bytes"}
    document = documents["words.txt"]
    assert not document.is_whole and len(document.text) <= limits.MAX_TEXT
    assert document.text.startswith("A cat sat on a mat.")


def test_of_a_file_of_many_small_pieces_the_first_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reader_process, "MAX_BLOCKS", 3)
    monkeypatch.setattr(reader_process, "MAX_LINKS", 3)
    files: dict[str, str | bytes] = {
        "rows.csv": "cat,dog\n" + "purrs,barks\n" * 9,
        "links.html": "<p id=here><a href=a>one</a> <a href=b>two</a></p><p id=there><a href=c>three</a></p>",
        "whole.md": "# Cats\n\nThey purr.\n\nAnd sleep.\n",
    }
    folder_of(tmp_path, files)
    rows = answer_of(tmp_path, "rows.csv")
    assert len(rows["blocks"]) == 3 and not rows["is_whole"]
    links = [block_of(one) for one in answer_of(tmp_path, "links.html")["blocks"]]
    assert [(len(one.links), one.anchors) for one in links] == [(2, ("here",)), (0, ())]
    whole = answer_of(tmp_path, "whole.md")
    assert len(whole["blocks"]) == 3 and whole["is_whole"]


def test_a_file_that_is_too_long_for_its_kind_is_not_read(tmp_path: Path):
    with open(tmp_path / "long.html", "wb") as file:
        file.truncate(limits.MAX_BYTES + 1)
    assert answer_of(tmp_path, "long.html") == {"reason": "32,000,001 bytes, at most 32,000,000 are read"}


def test_a_file_that_changes_while_it_is_read_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = folder_of(tmp_path, GOOD) / "good.md"
    statuses = iter([os.stat(path)])
    path.write_text("# Dogs\n\nThey bark, and they bark again.\n")
    real = os.fstat
    monkeypatch.setattr(os, "fstat", lambda number: next(statuses, None) or real(number))
    assert answer_of(tmp_path, "good.md") == {"reason": "changed while it was read"}


def test_elements_nested_as_deep_as_anybody_likes_end_nothing(tmp_path: Path):
    deep = "<div>" * 200_000 + "<p>At the bottom.</p>"
    lists = "- " * 20_000 + "a"
    quotes = ">" * 20_000 + " a"
    brackets = "[" * 50_000 + "a"
    documents, reasons = read(
        tmp_path, {**GOOD, "a.html": deep, "b.md": lists, "c.md": quotes, "d.md": brackets}, max_seconds=3
    )
    assert "good.md" in documents
    assert set(documents) | set(reasons) == {"good.md", "a.html", "b.md", "c.md", "d.md"}


@pytest.fixture
def readers_that_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A reader of Markdown that ends its process at one file, and never ends at another."""
    package = tmp_path / "patched"
    package.mkdir()
    (package / "sitecustomize.py").write_text(
        "import os, time\n"
        "from embedsmith.prepare.documents import decoding, kinds\n"
        "def decoded(content, *, is_whole=True):\n"
        "    if content == b'crash': os._exit(11)\n"
        "    if content == b'wait': time.sleep(60)\n"
        "    return content.decode()\n"
        "kinds.decoded = decoded\n"
    )
    there = os.environ.get("PYTHONPATH", "")
    root = Path(limits.__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package), str(root), there]))
    return folder_of(tmp_path / "documents", {"a.md": "crash", "b.md": "wait", "c.md": "A cat sat."})


def test_a_file_that_ends_its_reader_or_takes_too_long_is_counted(readers_that_fail: Path):
    found = list(read_documents(readers_that_fail, max_seconds=5))
    assert found[:2] == [Unread("a.md", "ended its reader"), Unread("b.md", "took longer than 5 seconds")]
    assert isinstance(found[2], Document) and found[2].text == "A cat sat."


def test_the_reader_is_gone_when_the_folder_is_read(tmp_path: Path):
    folder_of(tmp_path, GOOD)
    with _Reader(60) as reader:
        assert isinstance(reader.read(tmp_path, "good.md"), Document)
        process = reader._process
    assert process is not None and process.returncode is not None


def test_a_page_that_names_other_places_opens_none_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket, "socket", refuse)
    page = '<p>A cat.</p><img src="http://127.0.0.1:9/a"><iframe src="http://127.0.0.1:9/b"></iframe>'
    rst = "A cat.\n\n.. image:: http://127.0.0.1:9/a\n.. include:: /etc/hostname\n.. raw:: html\n   :url: http://127.0.0.1:9/\n"
    md = "A cat.\n\n![a](http://127.0.0.1:9/a)\n"
    folder_of(tmp_path, {"a.html": page, "b.rst": rst, "c.md": md, "d.epub": epub({"p.xhtml": page})})
    for file in ("a.html", "b.rst", "c.md", "d.epub"):
        answer = answer_of(tmp_path, file)
        assert "A cat." in [block[1] for block in answer["blocks"]], answer


def seeds() -> dict[str, bytes]:
    page = b"<html><body><h1>Cats</h1><p>They <a href='b.html'>purr</a>.</p><table><tr><td>a</td></tr></table>"
    return {
        "pdf": pdf([[(10, 0, "A cat sat on the mat."), (18, 30, f"Chapter {n}")] for n in range(3)]),
        "docx": docx(paragraph("A cat") + paragraph("sat.")),
        "epub": epub({"a.xhtml": "<body><h1>Cats</h1><p>They purr.</p></body>"}),
        "html": page * 5,
        "rst": b"Cats\n====\n\n.. function:: purr(a)\n\n   Make a `sound`_.\n\n======  ===\na       b\n======  ===\n",
        "md": b"# Cats\n\n| a | b |\n| - | - |\n| c | d |\n\n- *one*\n\n```\ncode\n```\n",
        "csv": b'question,answer\n"Why?","So."\n' * 20,
        "jsonl": b'{"title": "a", "text": "b"}\n' * 20,
        "eml": b"Subject: Cats\nContent-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: text/html\n\n<p>a\n",
        "mbox": b"From a Mon Jan  1 00:00:00 2026\nSubject: x\n\nhello\n" * 3,
        "py": b'def purr(a):\n    """Make a sound of a cat."""\n    return a\n' * 5,
        "c": b"/* Makes a sound */\nint purr(void) {\n  return 1;\n}\n\n" * 5,
        "txt": "1. Größe\n\n- eins\n- zwei\n\nName   Alter\nTom    3\n".encode() * 5,
    }


def broken(content: bytes, draw: random.Random) -> bytes:
    """Return bytes cut short, with others in them, out of order, or again and again."""
    damaged = bytearray(content)
    match draw.randrange(4):
        case 0:
            return content[: draw.randrange(len(content))]
        case 1:
            for _ in range(draw.randrange(1, 30)):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            return bytes(damaged)
        case 2:
            first, last = draw.randrange(len(content)), draw.randrange(len(content))
            return content[:first] + content[last:] + content[first:last]
        case _:
            return content * draw.randrange(1, 20)


@pytest.mark.slow
def test_two_hundred_broken_files_are_all_counted(tmp_path: Path):
    draw = random.Random(0)
    kinds = seeds()
    files = {f"{n}.{kind}": broken(kinds[kind], draw) for n in range(200) for kind in [draw.choice(list(kinds))]}
    documents, reasons = read(tmp_path, {**files, **GOOD})
    assert documents.keys() | reasons.keys() == files.keys() | GOOD.keys()
    assert "good.md" in documents and len(documents) > 100
    # Nothing of ours stumbles: what a reader raises is of its library, about the file.
    assert "ended its reader" not in reasons.values()
    assert not [one for one in reasons.values() if "IndexError" in one or "AssertionError" in one or "KeyError" in one]

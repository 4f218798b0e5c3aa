"""Readers of documents: each kind by itself, then what is made of it in the process of the command.

A file's own reader may be ended by it, since it runs in a process of its own; here it must not, so that the fuzzer sees
a hang or an ended process as a finding.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from embedsmith.prepare.documents.blocks import Block, Document, block_of, heading
from embedsmith.prepare.documents.harvest import harvest_of
from embedsmith.prepare.documents.questions import questions_as_headings
from embedsmith.prepare.documents.reader_process import answer_of
from embedsmith.prepare.documents.settings import DocumentSettings
from embedsmith.prepare.documents.sides import split_documents
from tests.attacks.reading import Base, Reader
from tests.prepare.documents import made

_TEXT = """Cats and owls

What does a cat eat?
A cat eats what it finds: mice, plums, and the owl's supper when nobody looks at it.

Q: Where does the owl sleep?
A: The owl sleeps in the old tree beside the well, by day, with one eye open.

  - A plum is the fruit of a plum tree, which is blue when it is ripe.
  - A fig is not a plum, though both are eaten.
"""
_MARKDOWN = """---
title: Cats
---
# Cats and owls

The [owl](other.md#owl) sleeps in the *old* tree beside the well, by day.

## What does a cat eat?

| who | what |
| --- | --- |
| cat | mice, plums and the owl's supper |

```python
def eat(): ...
```

1. first
   > quoted ![picture](x.png "title")

<div>raw</div>
"""
_RESTRUCTURED = """
Cats and owls
=============

.. contents::

The `owl <other.html>`_ sleeps in the old tree :ref:`beside <well>` the well [1]_.

.. note:: A plum is the fruit of a plum tree.

What does a cat eat?
--------------------

+-----+------+
| cat | mice |
+-----+------+

::

    code

.. [1] A footnote.
.. include:: /etc/hostname
"""
_HTML = """<!doctype html><html lang="en"><head><title>Cats</title><meta charset="utf-8"><script>x()</script></head>
<body>
<nav><a href="/">home</a></nav><main><h1 id="a">Cats and owls</h1><p>The <a href="o.html#owl">owl</a> sleeps in the old
tree.</p><h2>What does a cat eat?</h2><ul><li>mice</li><li>plums<ul><li>blue</li></ul></li></ul><pre>code &lt; x</pre>
<table><tr><th>who</th><td>cat</td></tr></table><dl><dt>plum</dt><dd>a fruit</dd></dl></main>
<footer>(c)</footer></body></html>
"""
_MAIL = """From: A <a@example.com>
Subject: =?utf-8?q?Where_does_the_owl_sleep=3F?=
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary="b"

--b
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

The owl sleeps in the old tree =E2=80=94 by day.
> What does the cat eat?
--b
Content-Type: text/html; charset=latin-1
Content-Transfer-Encoding: base64

PHA+VGhlIG93bDwvcD4=
--b--
"""
_PYTHON = '''"""Cats and owls, and what they eat."""

class Owl:
    """An owl that sleeps in the old tree, by day."""

    def eat(self, what: str) -> bool:
        """Eat something that lies about, and say whether it was good to eat."""
        return what == "plum"
'''
_C = """/* Cats and owls, and what they eat. */
// Return the owl that sleeps in the old tree beside the well.
int owl(const char *tree) { return tree[0] == 'x'; /* inner */ }
"""


def _file(name: str, content: str | bytes) -> Base:
    def base(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return base


def _members(content: bytes) -> Base:
    """Write what is in an archive as files, which are changed by themselves and packed again."""

    def base(folder: Path) -> None:
        import io
        import zipfile

        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(folder / "members")

    return base


def _read(folder: Path) -> None:
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        _made(folder, path.name)


def _packed(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        root = folder / "members"
        files = {
            path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
        }
        out = folder.with_name("packed")
        out.mkdir(exist_ok=True)
        (out / name).write_bytes(made.packed(files))
        _made(out, name)

    return read


def _made(root: Path, name: str) -> None:
    """Read a file, and make passages, pairs and both sides of it beside a second one."""
    answer = json.loads(json.dumps(answer_of(root, name)).encode())
    if "reason" in answer:
        assert len(answer["reason"].splitlines()) == 1, answer["reason"]
        return
    settings = DocumentSettings(max_tokens=24, overlap_tokens=4)
    blocks = questions_as_headings(map(block_of, answer["blocks"]))
    document = Document.of(name, blocks, is_whole=answer["is_whole"])
    # The others take most of the time.
    is_split = zlib.crc32(document.text.encode()) % 8 == 0
    found = harvest_of([document, *_others()] if is_split else [document], settings, _words)
    for said in (*(passage.text for passage in found.passages), *(pair.query for pair in found.pairs)):
        said.encode()
    if is_split:
        both = split_documents(found, settings)
        for side in (both.train, both.test):
            side.content_hash()


def _words(text: str) -> int:
    return len(text.split())


@cache
def _others() -> list[Document]:
    """Return documents that a folder has besides, enough to be split."""
    lines = ("cat owl plum fig tree well mouse supper eye day", "night blue ripe old stone river road hill")
    words = " ".join(lines).split()
    found = []
    for number in range(6):
        blocks = []
        for part in range(5):
            said = [words[(number * 7 + part * 5 + place * (number + 2)) % len(words)] for place in range(12)]
            blocks += [heading(f"Where {said[0]} meets {said[1]} {number}", 2), Block("paragraph", " ".join(said))]
        found.append(Document.of(f"other{number}.md", blocks, is_whole=True))
    return found


_PDF = made.pdf(
    [[(20, 30, "Cats and owls"), (10, 30, "The owl sleeps in the old tree."), (10, 12, "A plum is blue.")]] * 3
)
_DOCX = made.docx(
    made.paragraph("Cats and owls", "Heading1")
    + made.paragraph("The owl sleeps in the old tree beside the well, by day.")
    + "<w:tbl><w:tr><w:tc><w:p><w:r><w:t>cat</w:t></w:r></w:p></w:tc></w:tr></w:tbl>",
    '<w:style w:styleId="Heading1"><w:name w:val="heading 1"/></w:style>',
)
_EPUB = made.epub({"one.xhtml": _HTML, "two.xhtml": "<h1>Two</h1><p>A plum is the fruit of a plum tree.</p>"})

DOCUMENT_READERS: dict[str, Reader] = {
    "document-prose": Reader(_read, _file("cats.txt", _TEXT), ("*",)),
    "document-markdown": Reader(_read, _file("cats.md", _MARKDOWN), ("*",)),
    "document-restructured": Reader(_read, _file("cats.rst", _RESTRUCTURED), ("*",)),
    "document-html": Reader(_read, _file("cats.html", _HTML), ("*",)),
    "document-pdf": Reader(_read, _file("cats.pdf", _PDF), ("*",)),
    "document-docx": Reader(_read, _file("cats.docx", _DOCX), ("*",)),
    "document-docx-parts": Reader(_packed("cats.docx"), _members(_DOCX), ("members/*/*",)),
    "document-epub": Reader(_read, _file("cats.epub", _EPUB), ("*",)),
    "document-epub-parts": Reader(_packed("cats.epub"), _members(_EPUB), ("members/*/*",)),
    "document-rows": Reader(_read, _file("cats.csv", 'who,what does it eat\ncat,mice and plums\nowl,"a, b"\n'), ("*",)),
    "document-lines": Reader(
        _read, _file("cats.jsonl", '{"title": "Cats", "text": "The owl sleeps in the old tree."}\n' * 3), ("*",)
    ),
    "document-message": Reader(_read, _file("cats.eml", _MAIL), ("*",)),
    "document-mbox": Reader(
        _read, _file("cats.mbox", f"From a@example.com Mon Jan  1 00:00:00 2024\n{_MAIL}\n" * 2), ("*",)
    ),
    "document-python": Reader(_read, _file("cats.py", _PYTHON), ("*",)),
    "document-code": Reader(_read, _file("cats.c", _C), ("*",)),
    "document-gz": Reader(_read, _file("cats.md.gz", gzip.compress(_MARKDOWN.encode(), mtime=0)), ("*",)),
    "document-bz2": Reader(_read, _file("cats.md.bz2", bz2.compress(_MARKDOWN.encode())), ("*",)),
    "document-xz": Reader(_read, _file("cats.md.xz", lzma.compress(_MARKDOWN.encode())), ("*",)),
}

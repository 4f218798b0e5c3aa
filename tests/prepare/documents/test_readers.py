from __future__ import annotations

import bz2
import gzip
import importlib.util
import lzma
import random
from pathlib import Path

import pytest

from embedsmith.errors import InputError
from embedsmith.prepare.documents.blocks import Document
from embedsmith.prepare.documents.decoding import decoded
from embedsmith.prepare.documents.limits import Unreadable
from embedsmith.prepare.documents.reading import check_documents
from tests.prepare.documents.made import docx, epub, folder_of, paragraph, pdf, read, said


def test_offsets_are_those_of_the_document_s_text_and_headings_those_above(tmp_path: Path):
    documents, _ = read(
        tmp_path, {"a.md": "# Cats\n\nThey purr.\n\n## Food\n\n- fish\n- milk\n\n# Dogs\n\nThey bark.\n"}
    )
    document = documents["a.md"]
    for one in document.blocks:
        assert document.text[one.start : one.end] == one.block.text
    assert [(one.block.text, one.path) for one in document.blocks if one.block.kind != "heading"] == [
        ("They purr.", ("Cats",)),
        ("fish", ("Cats", "Food")),
        ("milk", ("Cats", "Food")),
        ("They bark.", ("Dogs",)),
    ]


def test_markdown_gives_code_rows_links_and_terms(tmp_path: Path):
    text = (
        "---\ntitle: The guide\n---\n**Purr**: a sound. See [the\nfood](food.md#fish).\n\n"
        "```py\nx = 1\n\ny = 2\n```\n\n"
        "| a | b |\n| --- | --- |\n| cat | [dog](d.md) |\n\n<div>shown</div>\n"
    )
    documents, _ = read(tmp_path, {"a.md": text})
    assert said(documents["a.md"]) == [
        ("heading", "The guide"),
        ("paragraph", "Purr: a sound. See the food."),
        ("code", "x = 1\n\ny = 2"),
        ("row", "a | b"),
        ("row", "cat | dog"),
        ("paragraph", "shown"),
    ]
    blocks = [one.block for one in documents["a.md"].blocks]
    assert (blocks[1].label, blocks[1].links) == ("Purr", (("the food", "food.md#fish"),))
    assert blocks[4].links == (("dog", "d.md"),)


def test_plain_text_gives_headings_items_and_what_is_laid_out(tmp_path: Path):
    text = (
        "The Title\n=========\n\nA first line\nthat goes on.\n\n2.1 A section\n\n- one\n  more of one\n- two\n\n"
        "NAME      AGE\nTom       3\nKitty     4\n"
    )
    documents, _ = read(tmp_path, {"README": text})
    assert said(documents["README"]) == [
        ("heading", "The Title"),
        ("paragraph", "A first line that goes on."),
        ("heading", "A section"),
        ("item", "one more of one"),
        ("item", "two"),
        ("code", "NAME      AGE\nTom       3\nKitty     4"),
    ]


def test_what_stands_on_every_page_of_a_text_is_left_out(tmp_path: Path):
    words = ["One cat sat.", "Two dogs ran.", "An owl flew.", "No fish swam."]
    pages = [f"Smith      Standards Track\n\n{text}\n\nRFC 1      [Page {n}]\n" for n, text in enumerate(words)]
    documents, _ = read(tmp_path, {"rfc.txt": "\f".join(pages)})
    assert said(documents["rfc.txt"]) == [("paragraph", text) for text in words]


def test_a_page_gives_its_own_text_without_navigation_and_scripts(tmp_path: Path):
    page = """<html><head><title>Cats — The site</title><script>alert(1)</script></head><body>
    <nav><a href="x.html">Home</a></nav><div class="sphinxsidebar">Contents</div>
    <h2 id="food">2.1 Food<a class="headerlink" href="#food">¶</a></h2>
    <p>They eat <a href="fish.html#raw">raw <b>fish</b></a>.<script>track()</script></p>
    <ul><li><p>milk</p></li><li>water<ul><li>cold</li></ul></li></ul>
    <dl><dt id="purr">purr</dt><dd><p>A sound.</p><p>Of cats.</p></dd></dl>
    <table><tr><th>Name</th><td>Tom</td></tr></table><pre>x = 1
    y = 2</pre><footer>© 2026</footer></body></html>"""
    documents, _ = read(tmp_path, {"a.html": page})
    assert said(documents["a.html"]) == [
        ("heading", "Cats"),
        ("heading", "Food"),
        ("paragraph", "They eat raw fish."),
        ("item", "milk"),
        ("item", "water"),
        ("item", "cold"),
        ("item", "purr: A sound."),
        ("item", "Of cats."),
        ("row", "Name | Tom"),
        ("code", "x = 1\n    y = 2"),
    ]
    blocks = [one.block for one in documents["a.html"].blocks]
    assert blocks[1].anchors == ("food",)
    assert blocks[2].links == (("raw fish", "fish.html#raw"),)
    assert (blocks[6].label, blocks[6].anchors) == ("purr", ("purr",))


def test_restructured_text_is_read_with_directives_and_roles_of_sphinx(tmp_path: Path):
    text = """
The module
==========

.. module:: cats
   :synopsis: Cats.

.. toctree::
   :maxdepth: 2

   a

Calls :func:`purr` and :py:meth:`~cats.Cat.eat`, see `the site <other.html>`_.

.. function:: purr(volume)

   Make a sound.

   .. versionadded:: 3.2
      It is new.

Food
----

.. code-block:: python

   eat("fish")

.. include:: /etc/passwd
.. raw:: html
   :file: /etc/passwd

term
   What it means.
"""
    documents, reasons = read(tmp_path, {"a.rst": text})
    assert reasons == {}
    assert said(documents["a.rst"]) == [
        ("heading", "The module"),
        ("paragraph", "Calls purr and eat, see the site."),
        ("paragraph", "purr(volume): Make a sound."),
        ("paragraph", "3.2 It is new."),
        ("heading", "Food"),
        ("code", 'eat("fish")'),
        ("item", "term: What it means."),
    ]


def test_a_pdf_gives_paragraphs_pages_and_headings_by_their_size(tmp_path: Path):
    def page(number: int) -> list[tuple[float, float, str]]:
        return [
            (9, 0, "The book of cats"),
            (18, 40, f"{number}. Chapter about {'abcd'[number]}"),
            (10, 30, "A cat sat on the mat and was con-"),
            (10, 12, "tent with it all day, until it"),
            (10, 12, "was night."),
            (10, 30, f"Another paragraph, about {'abcd'[number]}, begins after a gap."),
            (9, 500, f"Page {number}"),
        ]

    documents, _ = read(tmp_path, {"a.pdf": pdf([page(1), page(2), page(3)])})
    document = documents["a.pdf"]
    assert said(document)[:3] == [
        ("heading", "Chapter about b"),
        ("paragraph", "A cat sat on the mat and was content with it all day, until it was night."),
        ("paragraph", "Another paragraph, about b, begins after a gap."),
    ]
    assert [one.block.page for one in document.blocks] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert "book of cats" not in document.text and "Page" not in document.text


def test_pages_that_are_all_alike_are_read(tmp_path: Path):
    slide = [(10.0, 0.0, "A cat sat on a mat."), (10.0, 30.0, "It was a good mat.")]
    documents, _ = read(tmp_path, {"a.pdf": pdf([slide] * 3)})
    assert documents["a.pdf"].text.count("It was a good mat.") == 3


def test_a_word_document_gives_headings_by_the_names_of_their_styles(tmp_path: Path):
    styles = '<w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>'
    table = f"<w:tbl><w:tr><w:tc>{paragraph('a')}</w:tc><w:tc>{paragraph('b')}</w:tc></w:tr></w:tbl>"
    body = (
        paragraph("Katzen", "berschrift1") + paragraph("Sie schnurren.") + table + paragraph("Fisch", "ListParagraph")
    )
    documents, _ = read(tmp_path, {"a.docx": docx(body, styles)})
    assert said(documents["a.docx"]) == [
        ("heading", "Katzen"),
        ("paragraph", "Sie schnurren."),
        ("row", "a | b"),
        ("item", "Fisch"),
    ]


def test_a_book_is_read_in_the_order_of_its_spine_under_its_title(tmp_path: Path):
    pages = {"b.xhtml": "<html><body><h1>One</h1><p>First.</p></body></html>", "a.xhtml": "<body><p>Last.</p></body>"}
    documents, _ = read(tmp_path, {"a.epub": epub(pages)})
    assert said(documents["a.epub"]) == [
        ("heading", "A book of cats"),
        ("heading", "One"),
        ("paragraph", "First."),
        ("paragraph", "Last."),
    ]


def test_rows_with_a_question_and_an_answer_are_sections(tmp_path: Path):
    files = {
        "a.csv": 'question,answer\nWhy?,"So, and\nso."\n',
        "b.jsonl": '{"title": "Cats", "body": "They purr."}\nnot json\n{"town": "Ulm", "river": "Donau"}\n',
        "c.tsv": "town\triver\nUlm\tDonau\n",
    }
    documents, _ = read(tmp_path, files)
    assert said(documents["a.csv"]) == [("heading", "Why?"), ("paragraph", "So, and so.")]
    assert said(documents["b.jsonl"]) == [
        ("heading", "Cats"),
        ("paragraph", "They purr."),
        ("row", "town: Ulm; river: Donau"),
    ]
    assert said(documents["c.tsv"]) == [("row", "town: Ulm; river: Donau")]


MAIL = """From: a@example.org
Subject: Re: [list] =?utf-8?q?Caf=C3=A9?= opening hours
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: 8bit

On Monday, Bob wrote:
> When do you open?

We open at nine, except on Sundays, dear caf\xe9 friends.

--\x20
Alice, phone 123
"""


def test_mail_gives_subject_and_text_without_what_is_quoted_and_signed(tmp_path: Path):
    message = MAIL.encode("latin-1")
    box = b"From a Mon Jan  1 00:00:00 2026\n" + message + b"\nFrom b Tue Jan  2 00:00:00 2026\n" + message
    documents, _ = read(tmp_path, {"a.eml": message, "b.mbox": box})
    own = [("heading", "Café opening hours"), ("paragraph", "We open at nine, except on Sundays, dear café friends.")]
    assert said(documents["a.eml"]) == own
    assert said(documents["b.mbox"]) == [*own, *own]


def test_code_is_read_with_its_comments(tmp_path: Path):
    c = "/* Adds two numbers\n * of any size. More. */\n"
    c += "int add(int a, int b) {\n\n  return a + b; // the sum\n}\n\nint x;\n"
    python = 'def purr(volume):\n    """Make a sound of a cat."""\n    return volume\n'
    documents, _ = read(tmp_path, {"a.c": c, "b.py": python})
    (block,) = [one.block for one in documents["a.c"].blocks]
    assert (block.label, block.text) == (
        "Adds two numbers of any size",
        "int add(int a, int b) {\n\n  return a + b; // the sum\n}",
    )
    name, block = [one.block for one in documents["b.py"].blocks]
    assert (name.text, block.label) == ("purr", "Make a sound of a cat")
    assert block.text == "# b.purr\ndef purr(volume):\n    return volume"
    documents, _ = read(tmp_path, {"b.py.gz": gzip.compress(python.encode())})
    assert said(documents["b.py.gz"]) == said(documents["b.py"])


def test_questions_stand_over_their_answers(tmp_path: Path):
    text = "Q: Do cats purr?\nA: They do.\n\nQ: Do dogs?\n\nA: No.\n\n**How do I feed them?**\n\nWith fish.\n"
    documents, _ = read(tmp_path, {"faq.md": text})
    assert said(documents["faq.md"]) == [
        ("heading", "Do cats purr?"),
        ("paragraph", "They do."),
        ("heading", "Do dogs?"),
        ("paragraph", "No."),
        ("heading", "How do I feed them?"),
        ("paragraph", "With fish."),
    ]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Der Schlüssel für die Tür hängt über der Küche, schön groß und für alle Gäste zugänglich.", "cp1252"),
        ("Съешь же ещё этих мягких французских булок, да выпей чаю вместе с нами сегодня.", "cp1251"),
        ("日本語の文書はさまざまな文字コードで書かれていることがあります。これは試験です。", "euc_jp"),
        ("日本語の文書はさまざまな文字コードで書かれていることがあります。これは試験です。", "utf-16"),
        ("naïve café", "utf-8-sig"),
    ],
)
def test_a_text_is_read_in_its_encoding(text: str, encoding: str):
    assert decoded((text * 20).encode(encoding)) == text * 20


def test_a_text_with_a_few_broken_bytes_is_read():
    text = ("日本語の文書です。 A page of it, and more. " * 50).encode()
    broken = text[:1000] + b"\xff\xfe\x81" + text[1000:]
    assert decoded(broken).startswith("日本語の文書です。 A page of it")
    with pytest.raises(Unreadable, match="encoding was not recognised"):
        decoded(random.Random(1).randbytes(3000).replace(b"\0", b"\1"))


def test_a_file_of_null_bytes_is_no_text():
    with pytest.raises(Unreadable, match="null bytes"):
        decoded(b"GIF89a\0\0\0")


def test_a_library_that_is_missing_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from embedsmith.prepare.documents import kinds

    folder_of(tmp_path, {"a.txt": "a", "b.pdf": "b"})
    monkeypatch.setattr(kinds, "_is_there", lambda library: library != "pypdfium2")
    with pytest.raises(InputError, match=r"^b\.pdf: read by pypdfium2, which is not installed$") as found:
        check_documents(tmp_path)
    assert found.value.hint == 'pip install "embedsmith[documents]"'


def test_every_library_that_a_kind_needs_is_one_of_the_extra():
    from embedsmith.prepare.documents.kinds import _LIBRARIES

    assert all(importlib.util.find_spec(library) for library in _LIBRARIES.values())


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("a")
    with pytest.raises(InputError, match="is a file, wanted a folder of documents"):
        check_documents(path)
    with pytest.raises(InputError, match="no such folder"):
        check_documents(tmp_path / "b")


def test_empty_blocks_are_left_out():
    from embedsmith.prepare.documents.blocks import Block

    assert Document.of("a", [Block("paragraph", "  "), Block("paragraph", "a")]).text == "a"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_file_is_read_as_the_file_in_it(tmp_path: Path, pack):
    suffix = {gzip.compress: "gz", bz2.compress: "bz2", lzma.compress: "xz"}[pack]
    page = b"<h1>Cats</h1><p>They purr.</p>"
    files: dict[str, str | bytes] = {
        f"page.html.{suffix}": pack(page),
        f"NEWS.{suffix}": pack(b"A cat sat.\n\n") + pack(b"A dog ran.\n"),
        f"code.c.{suffix}": pack(b"// Add two numbers\nint add;\n"),
        f"rows.tsv.{suffix}": pack(b"question\tanswer\nMay it bark?\tNo.\n"),
    }
    documents, reasons = read(tmp_path, files)
    assert not reasons
    assert said(documents[f"page.html.{suffix}"]) == [("heading", "Cats"), ("paragraph", "They purr.")]
    assert said(documents[f"NEWS.{suffix}"]) == [("paragraph", "A cat sat."), ("paragraph", "A dog ran.")]
    assert said(documents[f"code.c.{suffix}"]) == [("code", "int add;")]
    assert said(documents[f"rows.tsv.{suffix}"])[0] == ("heading", "May it bark?")


def test_of_a_long_packed_text_the_beginning_is_read(tmp_path: Path):
    long = b"A cat sat on a mat. " * 2_000_000
    documents, _ = read(tmp_path, {"a.txt.gz": gzip.compress(long, 1), "b.txt.xz": lzma.compress(long, preset=0)})
    for one in documents.values():
        assert not one.is_whole and one.text.startswith("A cat sat on a mat.")

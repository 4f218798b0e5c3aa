"""Which reader a file has, by its name, and what that reader needs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import PurePosixPath

from embedsmith.errors import InputError
from embedsmith.prepare.documents.blocks import Block
from embedsmith.prepare.documents.decoding import decoded
from embedsmith.prepare.documents.limits import Unreadable
from embedsmith.prepare.documents.packed import name_inside

_SUFFIXES = {
    "prose": ("txt", "text", "log", ""),
    "markdown": ("md", "markdown", "mkd", "mdx"),
    "restructured": ("rst", "rest"),
    "html": ("html", "htm", "xhtml"),
    "pdf": ("pdf",),
    "docx": ("docx",),
    "epub": ("epub",),
    "csv": ("csv", "tsv"),
    "jsonl": ("jsonl", "ndjson"),
    "message": ("eml",),
    "mbox": ("mbox",),
    "python": ("py",),
    "code": (
        *(
            "c",
            "h",
            "cc",
            "cpp",
            "cxx",
            "hpp",
            "hh",
            "cs",
            "java",
            "kt",
            "scala",
            "go",
            "rs",
            "swift",
            "js",
            "mjs",
            "ts",
        ),
        *("jsx", "tsx", "php", "rb", "pl", "pm", "lua", "r", "jl", "hs", "ml", "ex", "exs", "erl", "clj", "sh", "bash"),
        *("sql", "f90", "dart", "zig", "nim", "groovy", "m"),
    ),
}
_KIND_OF = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes}

_LIBRARIES = {
    "html": "selectolax",
    "epub": "selectolax",
    "message": "selectolax",
    "mbox": "selectolax",
    "pdf": "pypdfium2",
    "restructured": "docutils",
    "markdown": "markdown_it",
    "code": "pygments",
    "prose": "charset_normalizer",
    "csv": "charset_normalizer",
    "jsonl": "charset_normalizer",
}
_STREAMS = {"prose", "csv", "jsonl", "mbox"}


def kind_of(file: str) -> str | None:
    """Return what a file is by its name, None for what no reader is there for.

    >>> kind_of("a/Guide.HTM"), kind_of("README"), kind_of("photo.jpg"), kind_of("index.rst.txt"), kind_of("NEWS.gz")
    ('html', 'prose', None, 'restructured', 'prose')
    """
    name = PurePosixPath(name_inside(file.lower()))
    if name.suffix == ".txt" and name.with_suffix("").suffix in (".rst", ".md"):  # as sites show their sources
        name = name.with_suffix("")
    return _KIND_OF.get(name.suffix.removeprefix("."))


def is_stream(kind: str) -> bool:
    """Tell whether the beginning of a file of a kind can be read by itself."""
    return kind in _STREAMS


def check_libraries(files: Iterable[str]) -> None:
    """Refuse files whose reader needs a library that is not installed.

    Raises:
        InputError: names the first one, and how to install it.
    """
    for file in files:
        library = _LIBRARIES.get(kind_of(file) or "")
        if library and not _is_there(library):
            raise InputError(
                f"{file}: read by {library}, which is not installed", hint='pip install "embedsmith[documents]"'
            )


@cache
def _is_there(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def blocks_of(file: str, content: bytes, *, is_whole: bool) -> list[Block]:
    """Return the blocks of a file.

    Args:
        file: its path from the folder.
        content: its bytes, unpacked, or the first of them.
        is_whole: whether those are all.

    Raises:
        Unreadable: it is not what its name says. What readers raise of others' mistakes is theirs.
    """
    kind = kind_of(file)
    if kind == "pdf":
        from embedsmith.prepare.documents.pdf import read_pdf

        return read_pdf(content)
    if kind in ("docx", "epub"):
        from embedsmith.prepare.documents.docx import read_docx
        from embedsmith.prepare.documents.epub import read_epub

        return read_docx(content) if kind == "docx" else read_epub(content)
    if kind in ("message", "mbox"):
        from embedsmith.prepare.documents.mail import read_mbox, read_message

        return read_message(content) if kind == "message" else read_mbox(content)
    if kind == "python":
        from embedsmith.prepare.documents.source_code import read_python

        return read_python(content, name_inside(file))
    return _blocks_of_text(kind, name_inside(file), decoded(content, is_whole=is_whole))


def _blocks_of_text(kind: str | None, file: str, text: str) -> list[Block]:
    """Return the blocks of a file that is text."""
    match kind:
        case "markdown":
            from embedsmith.prepare.documents.markdown import read_markdown

            return read_markdown(text)
        case "restructured":
            from embedsmith.prepare.documents.restructured import read_restructured

            return read_restructured(text)
        case "html":
            from embedsmith.prepare.documents.html import read_html

            return read_html(text)
        case "csv":
            from embedsmith.prepare.documents.rows import read_csv

            return read_csv(text, delimiter="\t" if file.lower().endswith(".tsv") else ",")
        case "jsonl":
            from embedsmith.prepare.documents.rows import read_jsonl

            return read_jsonl(text)
        case "code":
            from embedsmith.prepare.documents.source_code import read_code

            return read_code(text, file)
        case "prose":
            from embedsmith.prepare.documents.prose import read_prose

            return read_prose(text)
        case _:
            raise Unreadable("no reader for its kind")

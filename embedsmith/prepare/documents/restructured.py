"""reStructuredText, by docutils: the library that defines it, public domain and BSD, kept well, 5 MB.

Sphinx adds directives and roles that docutils does not know. Their names are looked for in the text, and each is read
as what it holds. Nothing is included, no raw text is taken and nothing is fetched.
"""

from __future__ import annotations

import re
from typing import Any

from embedsmith.prepare.documents.blocks import Block, heading, line_of, lines_of_code

_DIRECTIVES = re.compile(r"^[ \t]*\.\. ([a-zA-Z][\w.:+-]*)::", re.MULTILINE)
_ROLES = re.compile(r"(?<![\w`]):([a-zA-Z][\w.:+-]*):`")
_SHOWN_AS_CODE = {
    "code-block",
    "sourcecode",
    "code",
    "highlight",
    "literalinclude",
    "testcode",
    "doctest",
    "productionlist",
}
_WITHOUT_TEXT = {
    *("toctree", "index", "module", "currentmodule", "tabularcolumns", "only", "sectionauthor", "moduleauthor"),
    *("automodule", "autoclass", "autofunction", "include", "raw", "contents", "image", "figure", "math", "graphviz"),
}
_TARGET = re.compile(r"^(.*?)\s*<([^<>]+)>$", re.DOTALL)


def read_restructured(text: str) -> list[Block]:
    """Return the blocks of a text."""
    from docutils.core import publish_doctree

    _teach(text)
    settings = {
        "report_level": 5,
        "halt_level": 5,
        "file_insertion_enabled": False,
        "raw_enabled": False,
        "_disable_config": True,
        "smart_quotes": False,
        "doctitle_xform": False,
        "warning_stream": False,
    }
    tree = publish_doctree(text, settings_overrides=settings)
    reading = _Reading()
    reading.read(tree)
    return reading.blocks


def _teach(text: str) -> None:
    """Let docutils read every directive and role of a text that it does not know itself."""
    from docutils.nodes import inline, literal_block, paragraph
    from docutils.parsers.rst import Directive, directives, roles

    class Any_(Directive):
        """A directive whose text is what it holds, under what stands behind its name."""

        optional_arguments = 1
        final_argument_whitespace = True
        has_content = True
        option_spec = _AnyOption()

        def run(self) -> list[Any]:
            if self.name in _WITHOUT_TEXT:
                return []
            if self.name in _SHOWN_AS_CODE:
                code = "\n".join(self.content)
                return [literal_block(code, code)] if code else []
            own = paragraph()
            self.state.nested_parse(self.content, self.content_offset, own)
            said = line_of(" ".join(self.arguments))
            if not said:
                return list(own.children)
            if not own.children:  # `.. versionadded:: 3.2` with its text on the next line is one argument
                return [paragraph(said, "", inline(said, said))]
            # The signature of what is described is a term, and its description says what it is.
            term = paragraph(said, "", inline(said, said), classes=["term"])
            return [term, *own.children]

    def role(
        name: str, rawtext: str, said: str, line: int, inliner: Any, options: Any = None, content: Any = ()
    ) -> Any:
        shown = _TARGET.match(said)
        words = (
            (shown[1] or shown[2]) if shown else said.lstrip("~!").rpartition(".")[2] if said.startswith("~") else said
        )
        return [inline(rawtext, words)], []

    for name in sorted({match.lower() for match in _DIRECTIVES.findall(text)}):
        if name in _WITHOUT_TEXT or name in _SHOWN_AS_CODE or not _is_known(name):
            directives.register_directive(name, Any_)
    for name in sorted({match.lower() for match in _ROLES.findall(text)}):
        roles.register_local_role(name, role)


class _AnyOption(dict[str, Any]):
    """Options of a directive, whatever they are called."""

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, name: str) -> Any:
        return lambda value: value


def _is_known(name: str) -> bool:
    """Tell whether docutils has a directive of a name."""
    from docutils.parsers.rst.languages import en

    return name in en.directives


class _Reading:
    """Nodes in, blocks out."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._anchors: list[str] = []
        self._term = ""

    def read(self, node: Any, *, level: int = 0, in_item: bool = False) -> None:
        """Read the children of a node; sections nest no deeper than docutils itself reads them."""
        for child in node.children:
            name = child.__class__.__name__
            if name == "section":
                self._anchors += child.get("ids", [])
                self.read(child, level=level + 1)
            elif name in ("title", "rubric", "subtitle"):
                if child.parent.__class__.__name__ in ("section", "document"):
                    self._add(heading(child.astext(), max(1, level + (name == "subtitle")), anchors=self._taken()))
            elif name == "paragraph" and "term" in child.get("classes", []):
                self._term = line_of(child.astext())
            elif name in ("paragraph", "line_block", "attribution", "caption"):
                self._prose(child, "item" if in_item else "paragraph")
            elif name in ("literal_block", "doctest_block", "math_block"):
                self._add(Block("code", lines_of_code(child.astext()), anchors=self._taken()))
            elif name == "row":
                cells = [line_of(cell.astext()) for cell in child.children]
                self._add(Block("row", " | ".join(cell for cell in cells if cell), links=_links(child)))
            elif name in ("term", "field_name", "option_group"):
                self._term = line_of(child.astext())
            elif name in ("comment", "system_message", "substitution_definition", "pending", "target", "raw", "topic"):
                if name == "target":
                    self._anchors += child.get("ids", [])
            elif name in ("list_item", "definition", "field_body", "description"):
                self.read(child, level=level, in_item=True)
            elif child.children:
                self.read(child, level=level, in_item=in_item)

    def _prose(self, node: Any, kind: Any) -> None:
        label, self._term = self._term, ""
        said = line_of(node.astext())
        text = f"{label}: {said}" if label else said
        self._add(Block(kind, text, label=label, links=_links(node), anchors=self._taken()))

    def _add(self, block: Block) -> None:
        if block.kind == "heading" or block.kind == "code":
            self._term = ""
        self.blocks.append(block)

    def _taken(self) -> tuple[str, ...]:
        anchors, self._anchors = tuple(self._anchors), []
        return anchors


def _links(node: Any) -> tuple[tuple[str, str], ...]:
    """Return the links of a node to places that it names itself."""
    from docutils.nodes import reference

    return tuple(
        (line_of(found.astext()), str(found.get("refuri") or f"#{found['refid']}"))
        for found in node.findall(reference)
        if found.get("refuri") or found.get("refid")
    )

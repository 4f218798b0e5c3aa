"""XML of files that others made: no entities, no documents elsewhere, elements nested only so deep."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from embedsmith.prepare.documents.limits import MAX_DEPTH, Unreadable


def xml_of(content: bytes) -> Element:
    """Return the root of a document; names are `{namespace}name`.

    Raises:
        Unreadable: it is no XML, declares entities, or nests too deeply.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise Unreadable(f"elements nested deeper than {MAX_DEPTH}")
        builder.start(_named(name), {_named(key): value for key, value in attributes.items()})

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_named(name))

    def declared(*_: Any) -> None:
        raise Unreadable("declares entities, which no document of its kind does")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = declared
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise Unreadable(f"damaged: {error}") from None
    return builder.close()


def _named(name: str) -> str:
    return "{" + name if "}" in name else name

"""Where a passage that was found stands, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedsmith.serving.search import Hit


def is_code(hit: Hit) -> bool:
    """Return whether a passage is a function of source code."""
    return {"file", "line", "name"} <= hit.metadata.keys()


def place_of(hit: Hit) -> str:
    """Return file, line and name of a function; of documents file, page and heading; else the id of the passage."""
    where = hit.metadata
    if is_code(hit):
        return f"{where['file']}:{where['line']} {where['name']}"
    if not {"file", "headings"} <= where.keys():
        return hit.id
    page = f" page {where['page']}" if "page" in where else ""
    return f"{where['file']}{page}" + "".join(f" > {heading}" for heading in where["headings"][-1:])

"""The documented functions of a Python file, each without its docstring."""

from __future__ import annotations

import ast
import io
import os
import re
import stat
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from embedsmith.prepare.first_sentence import _is_query, first_sentence


@dataclass(frozen=True)
class Function:
    """A function with a docstring that says something."""

    file: str
    """Path relative to the source, with slashes."""
    line: int
    """Line of the `def`, from 1."""
    name: str
    """`ZipFile.namelist`, `outer.inner`."""
    module: str
    """Top-level module: the first part of the path, without `.py`."""
    query: str
    text: str

    @property
    def passage(self) -> str:
        """The text under its qualified name.

        >>> Function("xml/dom/__init__.py", 3, "Node.clone", "xml", "Copy the node", "def clone(self): ...").passage
        '# xml.dom.Node.clone\\ndef clone(self): ...'
        """
        parts = PurePosixPath(self.file.removesuffix(".py")).parts
        home = parts[:-1] if parts[-1] == "__init__" else parts
        return f"# {'.'.join((*home, self.name))}\n{self.text}"


@dataclass(frozen=True)
class Skipped:
    """A file or folder that could not be read."""

    path: str
    line: int | None
    reason: str


MAX_FILE_BYTES = 2_000_000


def read_functions(root: Path, file: str) -> list[Function] | Skipped:
    """Return the functions of one file, or why it cannot be read."""
    if printable(file) != file:
        return Skipped(printable(file), None, "file name is not UTF-8")
    try:
        status = os.stat(root / file)
        if not stat.S_ISREG(status.st_mode):  # to open a named pipe would wait for ever
            return Skipped(file, None, "not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            return Skipped(file, None, _too_long(status.st_size))
        content = (root / file).read_bytes()
    except OSError as error:
        return Skipped(file, None, f"cannot be read: {error.strerror}")
    return functions_in(content, file)


def functions_in(content: bytes, file: str) -> list[Function] | Skipped:
    """Return the functions of a source, or why it cannot be parsed.

    Args:
        content: of the file.
        file: its path relative to the source, which ends in `.py`.
    """
    if len(content) > MAX_FILE_BYTES:
        return Skipped(file, None, _too_long(len(content)))
    try:
        source = _decoded(content)
        with warnings.catch_warnings():  # of the invalid escapes in others' strings
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except SyntaxError as error:
        return Skipped(file, error.lineno, f"syntax error: {error.msg}")
    except UnicodeDecodeError as error:
        return Skipped(file, None, f"not {error.encoding} (byte {error.start + 1})")
    except (RecursionError, MemoryError):
        return Skipped(file, None, "nested too deeply for the parser")
    except (ValueError, LookupError) as error:  # null bytes; an encoding that is none of text
        return Skipped(file, None, str(error))
    return _functions(source, tree, file)


def _too_long(count: int) -> str:
    return f"{count:,} bytes, at most {MAX_FILE_BYTES:,} are read"


def _decoded(content: bytes) -> str:
    """Return a source in the encoding that it declares, with line ends as the parser counts them.

    `tokenize.open` does the same, but writes the whole path into its errors.
    """
    buffer = io.BytesIO(content)
    encoding, _ = tokenize.detect_encoding(buffer.readline)
    buffer.seek(0)
    return io.TextIOWrapper(buffer, encoding).read()


def _functions(source: str, tree: ast.Module, file: str) -> list[Function]:
    """Return the functions of a parsed file that make a pair, in the order of their lines."""
    text = _Text(source)
    documented = [(name, node, ast.get_docstring(node)) for name, node in _definitions(tree)]
    spans = sorted(_docstring_span(text, node) for _, node, doc in documented if doc is not None and len(node.body) > 1)
    module = PurePosixPath(file).parts[0].removesuffix(".py")
    functions = []
    for name, node, doc in documented:
        if doc is None or isinstance(node, ast.ClassDef) or all(_does_nothing(it) for it in node.body[1:]):
            continue
        query = first_sentence(doc, name=node.name)
        if _is_query(query):
            body = _without(text, node, spans)
            functions.append(
                Function(file=file, line=node.lineno, name=name, module=module, query=query, text=body),
            )
    return sorted(functions, key=lambda function: function.line)


def _definitions(tree: ast.Module) -> Iterator[tuple[str, _Documented]]:
    """Yield (qualified name, node) of every class and function at any depth."""
    # A stack of our own: a chain of a thousand `elif` is a thousand levels deep.
    stack: list[tuple[str, ast.AST]] = [("", tree)]
    while stack:
        scope, parent = stack.pop()
        for node in ast.iter_child_nodes(parent):
            inner = scope
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{scope}.{node.name}" if scope else node.name
                yield inner, node
            if isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
                stack.append((inner, node))


def _does_nothing(statement: ast.stmt) -> bool:
    """Tell whether a statement is `pass`, a bare constant such as `...`, or `raise NotImplementedError`."""
    if isinstance(statement, ast.Raise):
        raised = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
        return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
    bare = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return bare or isinstance(statement, ast.Pass)


class _Text:
    """A source with its positions in characters; the parser counts columns in bytes of UTF-8."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._lines = source.split("\n")  # not splitlines: a form feed ends no line for the parser
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)

    def line_start(self, line: int) -> int:
        return self._starts[line - 1]

    def line_end(self, line: int) -> int:
        return self._starts[line] - 1

    def offset(self, line: int, column: int) -> int:
        text = self._lines[line - 1]
        return self._starts[line - 1] + (column if text.isascii() else len(text.encode()[:column].decode()))


_REST_OF_STATEMENT = re.compile(r"(?:[ \t\f;]|\\\n)*(?:#[^\n]*)?")
_BLANK_LINES = re.compile(r"\n(?:[ \t\f]*\n)*")


def _docstring_span(text: _Text, node: _Documented) -> tuple[int, int]:
    """Return the characters to remove so that a docstring with statements after it is gone without a trace."""
    # The statement's position, not the string's: a docstring may stand in parentheses.
    doc = node.body[0]
    assert doc.end_lineno is not None
    assert doc.end_col_offset is not None
    rest = _REST_OF_STATEMENT.match(text.source, text.offset(doc.end_lineno, doc.end_col_offset))
    assert rest is not None
    blank = _BLANK_LINES.match(text.source, rest.end())
    if blank is None:  # another statement follows on the line: `"doc"; return 1`
        return text.offset(doc.lineno, doc.col_offset), rest.end()
    return text.line_start(doc.lineno), blank.end()


def _without(text: _Text, node: _Def, spans: list[tuple[int, int]]) -> str:
    """Return a function's lines, decorators included, dedented, without the sorted spans."""
    first_line = text.line_start(node.lineno)
    if node.decorator_list:
        first = node.decorator_list[0]
        # In `@(\n    name\n)` the expression starts lines after its sign.
        sign = text.source.rindex("@", 0, text.offset(first.lineno, first.col_offset))
        first_line = text.source.rfind("\n", 0, sign) + 1
    assert node.end_lineno is not None
    pieces, at, end = [], first_line, text.line_end(node.end_lineno)
    for start, stop in spans:
        if first_line <= start and stop <= end:
            pieces.append(text.source[at:start])
            at = stop
    pieces.append(text.source[at:end])
    return _dedent("".join(pieces)).rstrip()


_FORM_FEEDS = re.compile(r"^[ \t\f]*\f", re.MULTILINE)


def _dedent(text: str) -> str:
    """Take the first line's indentation from every line that has it.

    `textwrap.dedent` would leave a method as it is when a line of a long string in it starts at the margin.

    >>> _dedent("    def f():\\n        return '''\\nx'''")
    "def f():\\n    return '''\\nx'''"
    """
    text = _FORM_FEEDS.sub("", text)  # the parser counts indentation anew after a form feed
    indent = text[: len(text) - len(text.lstrip(" \t"))]
    return "\n".join(line.removeprefix(indent) for line in text.split("\n"))


def printable(path: str) -> str:
    """Return a path that can be written as UTF-8."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


_Def: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_Documented: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

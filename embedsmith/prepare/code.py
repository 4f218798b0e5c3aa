"""Code search: (what a function does, its source) pairs from a tree of Python files, split by module.

A query is the first sentence of a docstring, its passage the function's source without any docstring, under a line
that says where it is at home: a method that does not name its class is half a passage. Whole modules go to the test
side, and nothing that stands there, query or function, is seen in training.
"""

from __future__ import annotations

import ast
import hashlib
import io
import os
import random
import re
import stat
import sysconfig
import tokenize
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from pydantic import Field

from embedsmith.data.collection import Collection
from embedsmith.data.normalised import normalised
from embedsmith.errors import InputError
from embedsmith.settings import Seed, Settings

MAX_FILE_BYTES = 2_000_000
MAX_QUERY_CHARS = 300
MIN_QUERY_WORDS = 3
MIN_PAIRS = 20
MIN_UNITS = 5
"""Fewer units than this are too coarse to come near a share, so the split looks one folder deeper."""

_FOREIGN_FOLDERS = {"__pycache__", "site-packages", "dist-packages", "node_modules"}
_BUILD_FOLDERS = {"build", "dist"}
# A folder `testing` is kept: it is mostly a library for others' tests, with docstrings that say what it does.
_TEST_FOLDERS = {"test", "tests", "idle_test"}
_TEST_FILES = ("test_*.py", "*_test.py", "tests.py", "conftest.py")


class CodeSettings(Settings):
    """Which Python files, and how much of them is held out."""

    source: str = Field("stdlib", min_length=1)
    """A folder of Python files; `stdlib` is the standard library of the running Python."""

    split_seed: Seed = 0
    """Seed of the order in which modules are drawn for the test side."""

    test_share: float = Field(0.2, gt=0, lt=1)
    """Share of the pairs aimed at for the test side, which takes whole modules."""


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


@dataclass(frozen=True)
class Harvest:
    """The functions in the order of file and line, and what could not be read."""

    functions: list[Function]
    skipped: list[Skipped]


@dataclass(frozen=True)
class CodeSearch:
    """Two collections that share no module, and no query and function text in training that the test modules hold."""

    train: Collection
    test: Collection
    """Queries of the test modules; its passages are the functions of all modules."""
    test_modules: list[str]
    """Sorted; path prefixes (`src/pkg/part`) where the tree has too few top-level modules to split."""


def check_sources(settings: CodeSettings) -> None:
    """Refuse a source without Python files; none of them is read.

    Raises:
        InputError: it is not a folder, or holds no Python file.
    """
    _sources(settings, [])


def harvest(settings: CodeSettings, *, on_file: Callable[[int, int], None] | None = None) -> Harvest:
    """Return every function that has both a docstring and a body.

    Functions that only `pass`, `...` or `raise NotImplementedError` are left out, and so are those whose first sentence
    has fewer than three words. A pointer such as "See the base class." stays: shared by many functions, it becomes
    one query with many positives, and it costs nothing else.

    Args:
        on_file: called with (files done, files in all) after each file.

    Raises:
        InputError: the source is not a folder, or holds no Python file or no function with a docstring.
    """
    skipped: list[Skipped] = []
    root, paths = _sources(settings, skipped)
    functions: list[Function] = []
    for done, path in enumerate(paths, start=1):
        found = _read_functions(root, path)
        if isinstance(found, Skipped):
            skipped.append(found)
        else:
            functions += found
        if on_file is not None:
            on_file(done, len(paths))
    if not functions:
        raise InputError(
            f"{root}: no function with both a docstring and a body in {len(paths):,} Python files"
            f"{_first_skipped(skipped)}",
            hint="a source tree without docstrings has no queries: choose another one",
        )
    return Harvest(functions=functions, skipped=skipped)


def _first_skipped(skipped: list[Skipped]) -> str:
    if not skipped:
        return ""
    first = skipped[0]
    place = first.path if first.line is None else f"{first.path}:{first.line}"
    return f" ({len(skipped):,} could not be read, first {place}: {first.reason})"


def sources_hash(settings: CodeSettings) -> str:
    """Return a hash of every file that a harvest reads."""
    root = _root_of(settings)
    digest = hashlib.sha256()
    for path in _python_files(root, []):
        content = (root / path).read_bytes() if (root / path).is_file() and os.access(root / path, os.R_OK) else b""
        digest.update(f"{path}\n{hashlib.sha256(content).hexdigest()}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def _sources(settings: CodeSettings, skipped: list[Skipped]) -> tuple[Path, list[str]]:
    """Return the folder of a source and its Python files."""
    root = _root_of(settings)
    if not root.is_dir():
        what = "is a file, wanted a folder" if root.exists() else "no such folder"
        raise InputError(f"{root}: {what}", hint='set `source` to a folder of Python files, or to "stdlib"')
    paths = _python_files(root, skipped)
    if not paths:
        raise InputError(
            f"{root}: no Python file (*.py) outside tests, hidden folders and virtual environments",
            hint="set `source` to the folder that holds the packages",
        )
    return root, paths


def _root_of(settings: CodeSettings) -> Path:
    """Return the folder that a source names."""
    return Path(sysconfig.get_path("stdlib") if settings.source == "stdlib" else settings.source)


def _python_files(root: Path, skipped: list[Skipped]) -> list[str]:
    """Return the files to read, relative to the root and sorted by the parts of their paths."""

    def unreadable(error: OSError) -> None:
        folder = Path(error.filename).relative_to(root).as_posix()
        skipped.append(Skipped(_printable(folder), None, f"cannot be listed: {error.strerror}"))

    found: list[PurePosixPath] = []
    # Links to folders are not followed: what they show is elsewhere in the tree, foreign, or a loop.
    for folder, folders, files in os.walk(root, onerror=unreadable):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if _is_own_code(here / name))
        for name in files:
            is_test = any(fnmatch(name, pattern) for pattern in _TEST_FILES)
            if name.endswith(".py") and not name.startswith(".") and not is_test:
                found.append(PurePosixPath((here / name).relative_to(root).as_posix()))
    return [str(path) for path in sorted(found, key=lambda path: path.parts)]


def _is_own_code(folder: Path) -> bool:
    """Tell whether a folder holds code of the project that is neither a test, nor generated, nor others' code."""
    name = folder.name
    if name.startswith(".") or name in _FOREIGN_FOLDERS or name in _TEST_FOLDERS:
        return False
    if name in _BUILD_FOLDERS:  # a package may be called so, the output of a build has no __init__.py
        return os.path.exists(folder / "__init__.py")
    return not os.path.exists(folder / "pyvenv.cfg")


def _printable(path: str) -> str:
    """Return a path that can be written as UTF-8."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def _read_functions(root: Path, file: str) -> list[Function] | Skipped:
    """Return the functions of one file, or why it cannot be read."""
    if _printable(file) != file:
        return Skipped(_printable(file), None, "file name is not UTF-8")
    try:
        status = os.stat(root / file)
        if not stat.S_ISREG(status.st_mode):  # to open a named pipe would wait for ever
            return Skipped(file, None, "not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            return Skipped(file, None, f"{status.st_size:,} bytes, at most {MAX_FILE_BYTES:,} are read")
        source = _decoded((root / file).read_bytes())
        with warnings.catch_warnings():  # of the invalid escapes in others' strings
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except SyntaxError as error:
        return Skipped(file, error.lineno, f"syntax error: {error.msg}")
    except UnicodeDecodeError as error:
        return Skipped(file, None, f"not {error.encoding} (byte {error.start + 1})")
    except OSError as error:
        return Skipped(file, None, f"cannot be read: {error.strerror}")
    except (RecursionError, MemoryError):
        return Skipped(file, None, "nested too deeply for the parser")
    except (ValueError, LookupError) as error:  # null bytes; an encoding that is none of text
        return Skipped(file, None, str(error))
    return _functions(source, tree, file)


def _decoded(content: bytes) -> str:
    """Return a source in the encoding that it declares, with line ends as the parser counts them.

    `tokenize.open` does the same, but writes the whole path into its errors.
    """
    buffer = io.BytesIO(content)
    encoding, _ = tokenize.detect_encoding(buffer.readline)
    buffer.seek(0)
    return io.TextIOWrapper(buffer, encoding).read()


# --- One file: what is a query, what is its text? ---------------------------------------------------------------------

_Def: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_Documented: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


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


_HEADS = "args|arguments|attributes|examples?|keyword (?:args|arguments)|notes?|parameters|params|raises|references"
_HEADS += "|returns?|see also|todo|usage|warnings?|yields?"
_FIELDS = (
    "arg|exception|except|ivar|key|keyword|kwarg|param|parameter|raise|raises|return|returns|rtype|type|var|yields?"
)
_MARKUP_LINE = re.compile(rf"(?:{_HEADS})\s*:(?:\s|$)|@(?:{_FIELDS})\b|\.\. |```|[-*+] |\|", re.IGNORECASE)
_INLINE_MARKUP = re.compile(rf">>>|(?:^|(?<=\s)):(?:{_FIELDS})\b[^:\n]*:")
_UNDERLINE = re.compile(r"([-=~^#*])\1{2,}\s*$")
# Not after a dot, which is an ellipsis, and not after a space, which is a sign spoken of: "the . in a name".
_SENTENCE_END = re.compile(r"(?<=[^\s.])[.!?][\"'`)\]]*(?=\s|$)")
_ABBREVIATION = re.compile(r"(?:^|[\s(\[,;])(?:e\.g|i\.e|eg|ie|cf|vs|resp|approx|incl|esp)\.$", re.IGNORECASE)
_DOCSTRING_CHARS = 10_000
"""Characters of a docstring that are looked at for its first sentence."""
_ET_CETERA = re.compile(r"\betc\.\s+[^A-Z]")


def first_sentence(docstring: str, *, name: str = "") -> str:
    """Return the first sentence of a docstring's first paragraph, without markup and without its full stop.

    The signature of `name` at the beginning is passed over, and so is a bullet. At most 300 characters, cut at a word.

    >>> first_sentence("Return the names,\\n   e.g. of os.path, sorted. More follows.\\n\\nArgs:\\n    x: no")
    'Return the names, e.g. of os.path, sorted'
    >>> first_sentence("get(key) -> value\\n\\nIs it there?  Who knows.", name="get")
    'Is it there?'
    >>> first_sentence("Double a number :param x: the number")
    'Double a number'
    """
    lines = [line.strip() for line in docstring.strip()[:_DOCSTRING_CHARS].split("\n")]
    # `get(key) -> value` says nothing more; `S.add(x) -- add an element` does, after the dashes.
    bare = re.escape(name.strip("_"))
    signature = re.compile(rf"(?:\w+\.)*_*{bare}_*\(.*?\)(?:\s*<?[-=]+>.*$|\s+--?\s+|:\s+|:?$)")
    while bare and (match := signature.match(lines[0])):
        lines = "\n".join([lines[0][match.end() :], *lines[1:]]).strip().split("\n")
    lines[0] = re.sub(r"^[-*+]\s+", "", lines[0])
    text = " ".join(" ".join(_first_paragraph(lines)).split())
    end = len(text)
    for match in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text[max(0, match.end() - 20) : match.end()]) and not _ET_CETERA.match(
            text, match.end() - 4
        ):
            end = match.end()
            break
    return _shortened(text[:end]).rstrip(" .:;,")


def _first_paragraph(lines: list[str]) -> list[str]:
    """Return the stripped lines up to the first blank one or the first markup."""
    taken: list[str] = []
    for line in lines:
        if _UNDERLINE.match(line):
            return taken[:1] if len(taken) == 1 else taken[:-1]  # of a title, or of the section that begins here
        if not line or _MARKUP_LINE.match(line):
            break
        markup = _INLINE_MARKUP.search(line)
        if markup:
            return [*taken, line[: markup.start()]]
        taken.append(line)
    return taken


def _shortened(text: str) -> str:
    if len(text) <= MAX_QUERY_CHARS:
        return text
    head = text[: MAX_QUERY_CHARS + 1].rpartition(" ")[0]
    return head or text[:MAX_QUERY_CHARS]


def _is_query(text: str) -> bool:
    """Tell whether a text has enough words to search for, and can be written as UTF-8.

    >>> _is_query("Return x + 1"), _is_query("Return the sum")
    (False, True)
    """
    words = [word for word in text.split() if any(char.isalpha() for char in word)]
    # A docstring may spell half a character: "\ud800".
    return len(words) >= MIN_QUERY_WORDS and not any("\ud800" <= char <= "\udfff" for char in text)


# --- The split --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Merged:
    """Functions with equal texts as one passage, equal queries as one query; keys are normalised texts."""

    passage_ids: dict[str, str]
    passages: dict[str, Function]
    query_ids: dict[str, str]
    queries: dict[str, str]
    positives: dict[str, dict[str, None]]
    """query key -> its passage keys in order."""


def split(harvest: Harvest, settings: CodeSettings) -> CodeSearch:
    """Return collections whose test queries come from modules that training never saw.

    Test queries search among all functions, of both sides. A query or a function that also stands in a test module is
    taken out of training; a test query that a training module carries too keeps that function as a positive.

    A passage is compared by its text: the line above it would make every copy another function. Copies in several
    places are one passage, under the name of the first.

    Ids are the same on both sides: `zipfile.py:ZipFile.namelist`, with `@line` where a file has the name twice.

    Raises:
        InputError: there are too few pairs, all in one file, or none is left to train on.
    """
    merged = _merge(harvest.functions)
    pairs = sum(len(keys) for keys in merged.positives.values())
    if pairs < MIN_PAIRS:
        raise InputError(
            f"{settings.source}: got {pairs} pairs of docstring and function, wanted at least {MIN_PAIRS}",
            hint="choose a larger source tree, or one with more docstrings",
        )
    units = _units(harvest.functions)
    sizes = Counter(units[function.file] for function in harvest.functions)
    test_units = _drawn(sizes, share=settings.test_share, seed=settings.split_seed)
    if not test_units:
        raise InputError(
            f"{settings.source}: all {pairs:,} pairs are in one file, {harvest.functions[0].file}; "
            "a split needs at least 2 files",
            hint="choose a source tree with several modules",
        )
    tested = [function for function in harvest.functions if units[function.file] in test_units]
    test_queries = {normalised(function.query) for function in tested}
    test_texts = {normalised(function.text) for function in tested}
    train = _collection(
        "code-search-train", merged, merged.queries.keys() - test_queries, merged.passages.keys() - test_texts
    )
    if not train.queries:
        raise InputError(
            f"{settings.source}: no pair is left to train on: all that is outside the test modules "
            f"({', '.join(sorted(test_units)[:3])}, ...) is repeated in them",
            hint="set another `split_seed` or a smaller `test_share`",
        )
    test = _collection("code-search-test", merged, test_queries, set(merged.passages))
    return CodeSearch(train=train, test=test, test_modules=sorted(test_units))


def _merge(functions: list[Function]) -> _Merged:
    """Return passages and queries in the order of their first occurrence."""
    merged = _Merged(passage_ids={}, passages={}, query_ids={}, queries={}, positives={})
    names = Counter((function.file, function.name) for function in functions)
    for function in functions:
        query, text = normalised(function.query), normalised(function.text)
        if text not in merged.passages:
            line = f"@{function.line}" if names[function.file, function.name] > 1 else ""
            merged.passage_ids[text] = f"{function.file}:{function.name}{line}"
            merged.passages[text] = function
        if query not in merged.queries:
            merged.query_ids[query] = f"q{len(merged.queries) + 1}"
            merged.queries[query] = function.query
            merged.positives[query] = {}
        merged.positives[query][text] = None
    return merged


def _units(functions: list[Function]) -> dict[str, str]:
    """Return file -> the unit that goes to one side as a whole.

    Units are the path prefixes of the shallowest depth that has at least five of them, else the files: in a tree
    whose only top-level folder is `src/`, top-level modules would leave nothing to split.
    """
    files = {function.file: PurePosixPath(function.file.removesuffix(".py")).parts for function in functions}
    units: dict[str, str] = {}
    for depth in range(1, max(map(len, files.values()), default=0) + 1):
        units = {file: "/".join(parts[:depth]) for file, parts in files.items()}
        if len(set(units.values())) >= MIN_UNITS:
            break
    return units


def _drawn(sizes: Counter[str], *, share: float, seed: int) -> set[str]:
    """Return the units of the test side: in random order those that fit, at last one more if it comes nearer.

    At least one unit is on each side; of a single unit nothing is drawn.

    >>> _drawn(Counter(a=50, b=20, c=15, d=15), share=0.2, seed=0)
    {'c'}
    >>> _drawn(Counter(a=50, b=50), share=0.01, seed=0)
    {'a'}
    """
    if len(sizes) < 2:
        return set()
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    wanted, count = share * sizes.total(), 0
    drawn: set[str] = set()
    for unit in order:
        if count + sizes[unit] <= wanted:
            drawn.add(unit)
            count += sizes[unit]
    rest = [unit for unit in order if unit not in drawn]
    nearest = min(rest, key=lambda unit: abs(count + sizes[unit] - wanted))
    is_nearer = abs(count + sizes[nearest] - wanted) < wanted - count
    if not drawn or (is_nearer and len(rest) > 1):
        drawn.add(nearest)
    return drawn


def _collection(name: str, merged: _Merged, queries: set[str], passages: set[str]) -> Collection:
    """Return the collection of some passages and of those queries that have a positive among them."""
    kept = {key: function for key, function in merged.passages.items() if key in passages}
    qrels = {
        merged.query_ids[query]: {merged.passage_ids[text]: 1 for text in texts if text in kept}
        for query, texts in merged.positives.items()
        if query in queries and any(text in kept for text in texts)
    }
    asked = [query for query, query_id in merged.query_ids.items() if query_id in qrels]
    return Collection.of(
        name=name,
        passage_ids=[merged.passage_ids[key] for key in kept],
        passages=[function.passage for function in kept.values()],
        query_ids=[merged.query_ids[query] for query in asked],
        queries=[merged.queries[query] for query in asked],
        qrels=qrels,
        metadata=[
            {"file": function.file, "line": function.line, "name": function.name, "module": function.module}
            for function in kept.values()
        ],
    )

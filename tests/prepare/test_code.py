from __future__ import annotations

import ast
import os
import shutil
import sysconfig
import warnings
from pathlib import Path

import pytest

from embedsmith.data.normalised import normalised
from embedsmith.errors import InputError
from embedsmith.prepare.code import CodeSearch, CodeSettings, Harvest, harvest, split
from embedsmith.prepare.first_sentence import first_sentence
from embedsmith.prepare.functions import MAX_FILE_BYTES, Function, Skipped, read_functions

STDLIB = Path(sysconfig.get_path("stdlib"))


def write_tree(root: Path, files: dict[str, str | bytes]) -> CodeSettings:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return CodeSettings(source=str(root))


def harvest_text(root: Path, source: str | bytes) -> list[Function]:
    return harvest(write_tree(root, {"m.py": source})).functions


def function(file: str, name: str, *, query: str | None = None, text: str | None = None, line: int = 1) -> Function:
    query = query or f"Explain the function {name} of {file}"
    text = text or f"def {name}():\n    return {file!r}"
    module = file.split("/")[0].removesuffix(".py")
    return Function(file=file, line=line, name=name, module=module, query=query, text=text)


def copy_of_stdlib(root: Path, *names: str) -> CodeSettings:
    for name in names:
        if (STDLIB / name).is_dir():
            shutil.copytree(STDLIB / name, root / name)
        else:
            shutil.copy(STDLIB / name, root / name)
    return CodeSettings(source=str(root))


# --- Which functions --------------------------------------------------------------------------------------------------


def test_functions_and_methods_at_any_depth_are_harvested_in_the_order_of_their_lines(tmp_path: Path) -> None:
    source = '''
class Outer:
    class Inner:
        async def fetch(self):
            """Fetch the next page."""
            return 1
if True:
    try:
        def outer():
            """Return a new function."""
            def inner():
                """Return the number one."""
                return 1
            return inner
    except ValueError:
        pass
'''
    found = harvest_text(tmp_path, source)
    assert [(f.name, f.line, f.query) for f in found] == [
        ("Outer.Inner.fetch", 4, "Fetch the next page"),
        ("outer", 9, "Return a new function"),
        ("outer.inner", 11, "Return the number one"),
    ]
    assert found[1].text == "def outer():\n    def inner():\n        return 1\n    return inner"


def test_a_function_without_docstring_or_without_body_is_not_harvested(tmp_path: Path) -> None:
    bodies = ["", "pass", "...", "raise NotImplementedError", "raise NotImplementedError('later')", "pass; ..."]
    stubs = "".join(f'def f{i}():\n    """Compute a large number."""\n    {body}\n' for i, body in enumerate(bodies))
    rest = (
        "def bare():\n    return 1\n"
        'def bytes_():\n    b"Compute a large number."\n    return 1\n'
        'def short():\n    """Two words."""\n    return 1\n'
        'def kept():\n    """Compute a large number."""\n    return\n'
    )
    assert [f.name for f in harvest_text(tmp_path, stubs + rest)] == ["kept"]


def test_tests_foreign_code_and_build_output_are_not_harvested(tmp_path: Path) -> None:
    source = 'def f():\n    """Return the number one."""\n    return 1\n'
    kept = ["a.py", "pkg/__init__.py", "pkg/testing/b.py", "pkg/build/__init__.py", "contest.py"]
    left = [
        "test/a.py", "tests/a.py", "pkg/idle_test/a.py", "test_a.py", "a_test.py", "tests.py", "conftest.py",
        ".hidden/a.py", ".a.py", "site-packages/a.py", "node_modules/a.py", "build/lib/a.py", "dist/a.py",
        "env/lib/a.py", "a.txt", "a.pyi",
    ]  # fmt: skip
    settings = write_tree(tmp_path, dict.fromkeys(kept + left, source) | {"env/pyvenv.cfg": ""})
    assert sorted(f.file for f in harvest(settings).functions) == sorted(kept)


def test_files_come_in_the_order_of_their_paths_with_their_top_level_module(tmp_path: Path) -> None:
    source = 'def f():\n    """Return the number one."""\n    return 1\n'
    settings = write_tree(tmp_path, dict.fromkeys(["b.py", "a-b/x.py", "a/c.py", "a/b/d.py", "a.py"], source))
    calls: list[tuple[int, int]] = []
    found = harvest(settings, on_file=lambda done, total: calls.append((done, total)))
    assert [(f.file, f.module) for f in found.functions] == [
        ("a/b/d.py", "a"), ("a/c.py", "a"), ("a-b/x.py", "a-b"), ("a.py", "a"), ("b.py", "b"),
    ]  # fmt: skip
    assert calls == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert harvest(settings) == found


def test_what_cannot_be_read_is_recorded_with_its_reason(tmp_path: Path) -> None:
    good = 'def f():\n    """Return the number one."""\n    return "\\d"\n'
    settings = write_tree(
        tmp_path,
        {
            "broken.py": "x = 1\ndef f(:\n",
            "codec.py": "# coding: rot13\n",
            "cookie.py": "# coding: martian\n",
            "deep.py": "x = " + "-" * 100_000 + "1\n",
            "good.py": good,
            "large.py": b"#" * (MAX_FILE_BYTES + 1),
            "latin.py": "# é\n".encode("latin-1"),
            "late.py": "x = 1\n\n# é\n".encode("latin-1"),
            "null.py": b"x = 1\0\n",
        },
    )
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere.py")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self.py").symlink_to(tmp_path / "self.py")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # good.py has an invalid escape
        found = harvest(settings)
    assert [f.file for f in found.functions] == ["good.py"]
    reasons = {it.path: (it.line, it.reason) for it in found.skipped}
    assert found.skipped[0] == Skipped("broken.py", 2, "syntax error: invalid syntax")
    assert sorted(reasons) == [
        "broken.py", "codec.py", "cookie.py", "deep.py", "gone.py", "large.py", "late.py", "latin.py",
        "null.py", "pipe.py", "self.py",
    ]  # fmt: skip
    assert "rot13" in reasons["codec.py"][1]
    assert reasons["cookie.py"][1] == "syntax error: unknown encoding: martian"
    assert reasons["gone.py"][1] == "cannot be read: No such file or directory"
    assert reasons["large.py"][1] == "2,000,001 bytes, at most 2,000,000 are read"
    assert reasons["late.py"][1] == "not utf-8 (byte 10)"
    assert reasons["latin.py"][1] == "syntax error: invalid or missing encoding declaration"
    assert "null bytes" in reasons["null.py"][1]
    assert reasons["pipe.py"][1] == "not a regular file"


def test_a_file_in_its_own_encoding_is_read(tmp_path: Path) -> None:
    source = '# coding: latin-1\ndef f():\n    """Rendre la clé voulue."""\n    return "é"\n'
    (found,) = harvest_text(tmp_path, source.encode("latin-1"))
    assert (found.query, found.text) == ("Rendre la clé voulue", 'def f():\n    return "é"')


# --- The text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ('def f(): "Return the number one."; return 1', "def f(): return 1"),
        ('def f(): "Return the number one." ;  x = 1; return x  # so', "def f(): x = 1; return x  # so"),
        ('def f():\n    "Return the number one."; return 1', "def f():\n    return 1"),
        ('def f():\n    "Return the number one."; \\\n    return 1', "def f():\n    return 1"),
        ('def f(): \\\n    "Return the number one."; return 1', "def f(): \\\n    return 1"),
        ('def f():\n    "Return the number one.";  # D401\n    return 1', "def f():\n    return 1"),
        ('def f():\n    """Return the number one.\n\n  More.\n    """\n\n    # why\n    return 1',
         "def f():\n    # why\n    return 1"),
        ('def f():\n    ("Return "\n     "the number "  # so\n     "one.")\n    return 1', "def f():\n    return 1"),
        ('def f():\n    "Return " \\\n    "the number one."\n    return 1', "def f():\n    return 1"),
        ('def f(é="é"): "Rendre la clé voulue."; return "é"', 'def f(é="é"): return "é"'),
        ('class A:\n\tdef f(self):\n\t\t"""Return the number one."""\n\t\treturn 1\n\tx = 2',
         "def f(self):\n\treturn 1"),
        ('class A:\n    x = 1\n\f\n\f    def f(self):\n        """Return the number one."""\n\f        return 1',
         "def f(self):\n    return 1"),
        ('class A:\n    def f(self):\n        """Return the number one."""\n        return """\nx"""',
         'def f(self):\n    return """\nx"""'),
        ('class A:\n    @a\n    @b(\n        1)\n    def f(self):\n        "Return the number one."\n        return 1',
         "@a\n@b(\n    1)\ndef f(self):\n    return 1"),
        ('x = 1\n@(  # c\n    a\n)\ndef f():\n    "Return the number one."\n    return 1',
         "@(  # c\n    a\n)\ndef f():\n    return 1"),
        ('def f():\n    "Return the number one."\n    class A:\n        "Inner doc."; x = 1\n    return A',
         "def f():\n    class A:\n        x = 1\n    return A"),
        ('def f():\r\n    """Return\r\n    the number one."""\r\n    return 1\r\n', "def f():\n    return 1"),
        ('def f():\n    """Return the number one."""\n    return 1 \n\n    # after\nx = 2', "def f():\n    return 1"),
    ],
)  # fmt: skip
def test_the_text_is_the_source_without_the_docstring(tmp_path: Path, source: str, text: str) -> None:
    (found,) = harvest_text(tmp_path, source)
    assert found.text == text


def undocumented(node: ast.AST) -> str:
    """Dump a function without the docstrings in it, which `ast` finds by itself."""
    for inner in ast.walk(node):
        documented = isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if documented and ast.get_docstring(inner) is not None and len(inner.body) > 1:  # type: ignore[arg-type]
            del inner.body[0]  # type: ignore[attr-defined]
    return ast.dump(node)


def test_every_text_of_real_modules_is_the_parsed_function_without_its_docstring() -> None:
    folder = ["zipfile.py", "textwrap.py", "typing.py", "_pydecimal.py", "functools.py", "turtle.py"]
    names = [name for name in folder if (STDLIB / name).is_file()]
    settings = CodeSettings(source=str(STDLIB))
    found = [f for f in _harvest_files(settings, names) if f.file in names]
    assert len(found) > 300
    for name in names:
        tree = ast.parse((STDLIB / name).read_text(encoding="utf-8"))
        expected = {
            node.lineno: undocumented(node)
            for node in reversed(list(ast.walk(tree)))  # the inner ones first
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for f in (f for f in found if f.file == name):
            (node,) = ast.parse(f.text).body
            assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            assert ast.get_docstring(node) is None, f
            if not any(isinstance(it, ast.Constant) and "\n" in str(it.value) for it in ast.walk(node)):
                assert ast.dump(node) == expected[f.line], f


def _harvest_files(settings: CodeSettings, names: list[str]) -> list[Function]:

    found: list[Function] = []
    for name in names:
        functions = read_functions(Path(settings.source), name)
        assert isinstance(functions, list)
        found += functions
    return found


# --- The query --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Return the sum.", "Return the sum"),
        ("Return\n  the\tsum. Then more.", "Return the sum"),
        ("Is it so? Or not.", "Is it so?"),
        ("Stop here! Now.", "Stop here!"),
        ("First paragraph\n\nSecond one.", "First paragraph"),
        ("Read a file, e.g. one of os.path, i.e. a path. More.", "Read a file, e.g. one of os.path, i.e. a path"),
        ("Sort names, numbers, etc. in place. More.", "Sort names, numbers, etc. in place"),
        ("Sort names, numbers, etc. Return nothing.", "Sort names, numbers, etc"),
        ("Since version 3.11 it is 2.5 times faster. More.", "Since version 3.11 it is 2.5 times faster"),
        ("Split at the . in a name. More.", "Split at the . in a name"),
        ("Add 1, 2, ... to a list. More.", "Add 1, 2, ... to a list"),
        ('Print "Hello." Then more.', 'Print "Hello."'),
        ("Double a number\n:param x: the number", "Double a number"),
        ("Double a number :param int x: the number", "Double a number"),
        ("Double a number\nArgs:\n    x: the number", "Double a number"),
        ("Double a number\n>>> double(1)\n2", "Double a number"),
        ("Double a number >>> double(1)", "Double a number"),
        ("Double a number\n@param x: the number", "Double a number"),
        ("Double a number\n===============\nMore.", "Double a number"),
        ("Double a number\nReturns\n-------\nint", "Double a number"),
        ("Double each of\n- one\n- two", "Double each of"),
        ("+ Double a number.", "Double a number"),
        (":param x: the number", ""),
        (">>> double(1)", ""),
        ("Returns: the number", ""),
        ("Use :class:`Path` for paths. More.", "Use :class:`Path` for paths"),
        ("get(key[, default]) -> value\n\nFind a value. More.", "Find a value"),
        ("D.get(key)\nD.get(key, default)\nFind a value.", "Find a value"),
        ("D.get(key) -- find a value", "find a value"),
        ("get(key)", ""),
        ("", ""),
    ],
)
def test_the_query_is_the_first_sentence(docstring: str, sentence: str) -> None:
    assert first_sentence(docstring, name="get") == sentence


def test_a_long_sentence_is_cut_at_a_word() -> None:
    assert first_sentence("word " * 100) == " ".join(["word"] * 60)
    assert first_sentence("x" * 400) == "x" * 300
    assert first_sentence("y" * 300) == "y" * 300


def test_a_query_that_is_not_text_is_dropped(tmp_path: Path) -> None:
    body = "\n    return 1\n"
    source = f'def f():\n    "Return the \\ud800 half."{body}def g():\n    "Return 1 + 2."{body}'
    assert [f.name for f in harvest_text(tmp_path, source + f'def h():\n    "Return a b."{body}')] == ["h"]


# --- The split --------------------------------------------------------------------------------------------------------


def code_of(passage: str) -> str:
    """The normalised text of a passage, without the line that names it."""
    name, _, text = passage.partition("\n")
    assert name.startswith("# ")
    return normalised(text)


def assert_nothing_of_the_test_modules_is_in_training(found: Harvest, result: CodeSearch) -> None:
    """Judge by paths and texts alone: which functions stand under a test module's prefix?"""
    prefixes = tuple(result.test_modules)
    tested, trained = [], []
    for f in found.functions:
        stem = f.file.removesuffix(".py")
        inside = any(stem == prefix or stem.startswith(prefix + "/") for prefix in prefixes)
        (tested if inside else trained).append(f)
    test_queries, test_texts = {normalised(f.query) for f in tested}, {normalised(f.text) for f in tested}
    assert not test_queries & {normalised(query) for query in result.train.queries}
    assert not test_texts & {code_of(passage) for passage in result.train.passages}
    # Nothing more than that is lost.
    assert test_queries == {normalised(query) for query in result.test.queries}
    assert {normalised(f.text) for f in trained} - test_texts == {code_of(p) for p in result.train.passages}
    assert {normalised(f.text) for f in found.functions} == {code_of(p) for p in result.test.passages}
    for collection, functions in (result.train, trained), (result.test, found.functions):
        pairs = [(normalised(f.query), normalised(f.text)) for f in functions]
        text = dict(zip(collection.passage_ids, map(code_of, collection.passages), strict=True))
        for query_id, query in zip(collection.query_ids, collection.queries, strict=True):
            wanted = {answer for asked, answer in pairs if asked == normalised(query)}
            assert {text[it] for it in collection.positives(query_id)} == wanted & set(text.values()) != set()
        assert collection.qrels.keys() == set(collection.query_ids)
        assert len(set(text)) == len(set(text.values())) == len(collection.metadata)


def clashing() -> Harvest:
    """Five modules of six functions; each shares a query with the next, and a text with the one after that."""
    functions = []
    for m in range(5):
        file, after, second = f"m{m}.py", f"m{(m + 1) % 5}.py", f"m{(m + 2) % 5}.py"
        functions += [function(file, f"f{i}", line=i) for i in range(4)]
        functions.append(function(file, "q", line=5, query=function(after, "f0").query.upper() + " "))
        functions.append(function(file, "t", line=6, text="\t" + function(second, "f1").text.replace("\n", " \n\n")))
    return Harvest(functions, [])


@pytest.mark.parametrize("seed", range(5))
def test_no_query_and_no_function_of_a_test_module_is_in_training(seed: int) -> None:
    found = clashing()
    result = split(found, CodeSettings(split_seed=seed, test_share=0.4))
    assert len(result.test_modules) == 2
    assert_nothing_of_the_test_modules_is_in_training(found, result)
    assert len(result.train.passages) < 3 * 6  # the clashes did take something out


def test_no_query_and_no_function_of_a_real_test_module_is_in_training(tmp_path: Path) -> None:
    names = ["json", "email", "collections", "textwrap.py", "bz2.py", "gzip.py", "lzma.py", "operator.py", "shutil.py"]
    settings = copy_of_stdlib(tmp_path, *names)
    shutil.copy(tmp_path / "gzip.py", tmp_path / "vendored.py")
    found = harvest(settings)
    for seed in range(4):
        result = split(found, settings.model_copy(update={"split_seed": seed}))
        assert_nothing_of_the_test_modules_is_in_training(found, result)


def test_equal_queries_become_one_with_all_their_functions() -> None:
    found = clashing()
    result = split(found, CodeSettings(test_share=0.2))
    (module,) = result.test_modules
    query = function(f"{module}.py", "f0").query
    query_id = result.test.query_ids[[normalised(it) for it in result.test.queries].index(normalised(query))]
    before = f"m{(int(module[1]) - 1) % 5}"
    assert set(result.test.positives(query_id)) == {f"{module}.py:f0", f"{before}.py:q"}
    # The training module's function stays a passage there, without its query.
    assert f"{before}.py:q" in result.train.passage_ids
    assert query_id not in result.train.qrels


def test_equal_functions_become_one_passage_that_names_its_first_occurrence() -> None:
    functions = [function(f"m{m}.py", f"f{i}") for m in range(5) for i in range(5)]
    copies = [function("m3.py", "copy", text=functions[0].text.upper(), line=9)]
    test = split(Harvest(functions + copies, []), CodeSettings()).test
    assert len(test.passages) == 25
    assert test.metadata[0] == {"file": "m0.py", "line": 1, "name": "f0", "module": "m0"}
    assert (test.passage_ids[0], test.passages[0]) == ("m0.py:f0", f"# m0.f0\n{functions[0].text}")


def test_passages_of_one_name_in_one_file_are_told_apart_by_their_line() -> None:
    functions = [function(f"m{m}.py", f"f{i}") for m in range(5) for i in range(5)]
    setter = function("m0.py", "f1", query="Set the value f1", text="def f1(value): ...", line=7)
    ids = split(Harvest([*functions, setter], []), CodeSettings()).test.passage_ids
    assert ids[:3] == ["m0.py:f0", "m0.py:f1@1", "m0.py:f2"]
    assert ids[-1] == "m0.py:f1@7"


def test_the_split_depends_on_the_seed_and_on_nothing_else() -> None:
    found = clashing()
    first, again = split(found, CodeSettings(split_seed=1)), split(found, CodeSettings(split_seed=1))
    assert first == again
    assert len({tuple(split(found, CodeSettings(split_seed=seed)).test_modules) for seed in range(20)}) > 2


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_the_test_share_is_met_as_nearly_as_the_modules_allow(share: float, seed: int) -> None:
    sizes = [40, 12, 10, 10, 9, 8, 5, 3, 2, 2]
    functions = [function(f"m{m}.py", f"f{i}") for m, size in enumerate(sizes) for i in range(size)]
    result = split(Harvest(functions, []), CodeSettings(test_share=share, split_seed=seed))
    tested = sum(f.module in result.test_modules for f in functions)
    # What does not fit any more is larger than the gap, and the nearest of it misses by half its size at most.
    assert abs(tested - share * len(functions)) <= max(sizes) / 2
    assert abs(tested - share * len(functions)) <= 6 or share == 0.5


def test_two_modules_end_up_on_the_two_sides() -> None:
    functions = [function(file, f"f{i}") for file in ("a.py", "b.py") for i in range(20)]
    for share in (0.01, 0.5, 0.99):
        assert len(split(Harvest(functions, []), CodeSettings(test_share=share)).test_modules) == 1


def test_a_tree_with_one_top_level_folder_is_split_further_down() -> None:
    files = [f"src/pkg/{part}/{file}.py" for part in "abcde" for file in ("x", "y")]
    functions = [function(file, f"f{i}") for file in files for i in range(3)]
    found = Harvest(functions, [])
    (unit,) = split(found, CodeSettings()).test_modules
    assert unit in {f"src/pkg/{part}" for part in "abcde"}
    assert_nothing_of_the_test_modules_is_in_training(found, split(found, CodeSettings()))

    three = [function(f"src/pkg/{file}.py", f"f{i}") for file in "xyz" for i in range(9)]
    (unit,) = split(Harvest(three, []), CodeSettings()).test_modules
    assert unit in {"src/pkg/x", "src/pkg/y", "src/pkg/z"}


# --- Mistakes ---------------------------------------------------------------------------------------------------------


def test_a_source_that_holds_nothing_to_harvest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder") as error:
        harvest(CodeSettings(source=str(tmp_path / "nowhere")))
    assert "stdlib" in error.value.hint
    with pytest.raises(InputError, match="no Python file"):
        harvest(write_tree(tmp_path, {"a.txt": "", "tests/a.py": ""}))
    with pytest.raises(InputError, match=r"a\.txt: is a file, wanted a folder"):
        harvest(CodeSettings(source=str(tmp_path / "a.txt")))
    with pytest.raises(InputError, match=r"in 1 Python files$") as error:
        harvest(write_tree(tmp_path, {"a.py": "def f():\n    return 1\n"}))
    assert "a source tree without docstrings" in error.value.hint
    with pytest.raises(InputError, match=r"2 Python files \(1 could not be read, first b.py:1: syntax error"):
        harvest(write_tree(tmp_path, {"b.py": "def\n"}))


def test_too_little_to_split_is_refused() -> None:
    def split_of(functions: list[Function]) -> None:
        split(Harvest(functions, []), CodeSettings(source="tree"))

    with pytest.raises(InputError, match="tree: got 19 pairs of docstring and function, wanted at least 20"):
        split_of([function(f"m{i}.py", "f") for i in range(19)])
    with pytest.raises(InputError, match="got 0 pairs"):
        split_of([])
    with pytest.raises(InputError, match=r"all 30 pairs are in one file, a/b.py; a split needs at least 2 files"):
        split_of([function("a/b.py", f"f{i}") for i in range(30)])
    with pytest.raises(InputError, match="no pair is left to train on"):
        # Two copies of the same thirty functions.
        split_of([function(file, f"f{i}", query=f"Do thing {i}", text=f"t{i}") for file in "ab" for i in range(30)])

"""Private names of the model libraries are used in `compat.py` modules only, each of which has tests of its own.

A private name may go with any release. In one place, with a test beside it, its loss is seen and mended at once.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import embedsmith
from embedsmith.models import compat
from embedsmith.training.compat import OPTIONAL, OVERRIDDEN

PACKAGE = Path(embedsmith.__file__).parent
LIBRARIES = {"torch", "transformers", "accelerate", "sentence_transformers", "bm25s", "peft"}
PUBLIC = {
    *LIBRARIES,
    "torch.autograd.function",
    "torch.nn",
    "torch.nn.attention",
    "torch.nn.utils",
    "torch.overrides",
    "sentence_transformers.sentence_transformer.modules",
    "sentence_transformers.util",
}
"""Modules that the libraries document."""
DOCUMENTED = {"_asdict", "_fields", "_replace"}
"""Of a named tuple: the underscore keeps them apart from its fields."""
FIELDS = {*compat.ORIGIN_FIELDS, *compat.ATTENTION_FIELDS}
"""Of configurations, which may be dictionaries."""
PRIVATE = re.compile(r"_[a-zA-Z]\w*")


def modules() -> list[Path]:
    """Return the modules that may use no private name of a library."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "compat.py"]


def is_private(name: object) -> bool:
    """Return whether a name begins with one underscore."""
    return isinstance(name, str) and PRIVATE.fullmatch(name) is not None


def defined(tree: ast.AST) -> Iterator[str]:
    """Yield the private names that a module gives to functions, classes, fields and attributes of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node.value):
            yield node.attr


def is_own(node: ast.expr) -> bool:
    """Return whether an expression is the object or the class that a method belongs to."""
    is_super = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
    return is_super or (isinstance(node, ast.Name) and node.id in ("self", "cls"))


@cache
def our_names() -> frozenset[str]:
    """Return every private name that this package defines."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in modules())
    return frozenset(name for tree in trees for name in defined(tree) if is_private(name))


@cache
def names_of_libraries() -> frozenset[str]:
    """Return the private names of the libraries' objects that this package handles most."""
    import torch
    from peft import PeftModel
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, Trainer

    classes = (SentenceTransformer, CrossEncoder, Transformer, Trainer, PeftModel)
    classes += (PreTrainedModel, PreTrainedConfig, PreTrainedTokenizerBase)
    found = {name for cls in classes for name in attributes_of(cls)} | set(dir(torch.nn.Linear(1, 1)))
    return frozenset(filter(is_private, found | set(dir(torch.ones(1)))))


def is_foreign(cls: type) -> bool:
    """Return whether a class is written in Python in one of the libraries, not in C."""
    return cls.__module__.split(".")[0] in LIBRARIES and inspect.getsourcefile(cls) is not None


def attributes_of(cls: type) -> set[str]:
    """Return the names of a class and those that its methods give to `self`."""
    bases = [base for base in cls.__mro__ if is_foreign(base)]
    return {*dir(cls), *(name for base in bases for name in re.findall(r"self\.(\w+)\b.*=", inspect.getsource(base)))}


def foreign_names(source: str) -> list[str]:
    """Return what a module uses of the libraries that is private, or that they do not document."""
    tree = ast.parse(source)
    here, theirs = {name for name in defined(tree) if is_private(name)}, names_of_libraries()
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and not is_own(node.value):
            is_ours = node.attr in here | our_names() | DOCUMENTED and node.attr not in theirs
            found += [] if is_ours else [ast.unparse(node)]
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.ops":
            found.append("torch.ops")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr", "delattr"):
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
            found += [name] if is_private(name) else []
        elif isinstance(node, ast.Constant) and is_private(node.value) and node.value in FIELDS:
            found.append(node.value)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found += undocumented(node)
    return sorted(set(found))


def undocumented(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return what an import takes from a library that it does not document."""
    module = None if isinstance(node, ast.Import) else "." * node.level + (node.module or "")
    found = []
    for alias in node.names:
        home = alias.name if module is None else module
        if home.split(".")[0] in LIBRARIES and (home not in PUBLIC or is_private(alias.name)):
            found.append(home if module is None else f"{home}.{alias.name}")
        elif module in LIBRARIES and inspect.ismodule(getattr(importlib.import_module(module), alias.name, None)):
            found += [] if f"{module}.{alias.name}" in PUBLIC | {"torch.distributed"} else [f"{module}.{alias.name}"]
    return found


def inherited(source: str, classes: dict[str, type]) -> list[str]:
    """Return the private names of base classes in libraries that classes of a module use or override."""
    found = []
    for node in ast.walk(ast.parse(source)):
        cls = classes.get(node.name) if isinstance(node, ast.ClassDef) else None
        bases = [base for base in cls.__mro__ if is_foreign(base)] if cls else []
        if bases:
            used = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and is_own(n.value)}
            of_bases = set().union(*map(attributes_of, bases))
            found += sorted(
                f"{node.name}.{name}" for name in (used | set(defined(node))) & of_bases if is_private(name)
            )
    return found


def test_no_other_module_uses_a_private_name_of_a_library():
    found = {
        path.relative_to(PACKAGE).as_posix(): foreign_names(path.read_text(encoding="utf-8")) for path in modules()
    }
    assert {path: names for path, names in found.items() if names} == {}


def test_no_class_uses_or_overrides_a_private_name_of_its_base_but_those_that_compat_lists():
    found = set()
    for path in modules():
        source = path.read_text(encoding="utf-8")
        if "class " in source and LIBRARIES & set(re.findall(r"\w+", source)):
            name = ".".join(["embedsmith", *path.relative_to(PACKAGE).with_suffix("").parts])
            found |= set(inherited(source, vars(importlib.import_module(name))))
    listed = {name for name in (*OVERRIDDEN, *OPTIONAL, *compat.OVERRIDDEN) if is_private(name)}
    assert {name.split(".")[1] for name in found} == listed, found


@pytest.mark.parametrize(
    "source",
    [
        "tensor._version",
        "model._modules",
        "f()._c(1)",
        "torch._dynamo.config",
        "torch.ops.mkldnn",
        "getattr(config, '_attn_implementation', None)",
        "setattr(layer, '_compiled_call_impl', None)",
        "fields = ['_commit_hash']",
        "import torch._dynamo",
        "from torch import _dynamo",
        "from torch.utils._pytree import tree_leaves",
        "from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS",
        "from transformers import modeling_utils",
        "from bm25s import stopwords",
        "from peft.helpers import disable_input_dtype_casting",
        "def late():\n    from accelerate.utils import extract_model_from_parallel",
    ],
)
def test_a_private_name_is_seen(source: str):
    assert len(foreign_names(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "self._mine",
        "row._replace(id=1)",
        "class A:\n    _mine = 1\n\ndef f(a):\n    return a._mine",
        "from torch import nn, Tensor",
        "import torch.nn",
    ],
)
def test_names_of_our_own_and_public_ones_pass(source: str):
    assert foreign_names(source) == []


def test_a_private_name_of_a_base_class_is_seen():
    import torch

    source = (
        "class Mine(torch.nn.Module):\n    _version = 2\n    _own = 1\n\n    def f(self):\n        return self._buffers"
    )
    space: dict[str, type] = {"torch": torch}
    exec(source, space)
    assert inherited(source, space) == ["Mine._buffers", "Mine._version"]

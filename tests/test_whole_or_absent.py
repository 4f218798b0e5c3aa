"""Whatever the package writes is whole or absent: all of it goes through `embedsmith.data.files`."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.test_architecture import modules

WRITERS = {
    "data/files.py": "is the one way",
    "data/locks.py": "holds locks, which hold nothing else",
    "services/journal.py": "adds line after line to a file that only grows, under a lock",
}
"""The modules that open files for writing, with the reason."""

WRITES = {
    *("write_text", "write_bytes", "tofile", "touch", "symlink_to", "hardlink_to", "truncate", "mkstemp"),
    *("savetxt", "savez", "savez_compressed", "open_memmap", "memmap", "save_file", "to_parquet", "to_csv", "to_json"),
    *("copy", "copy2", "copyfile", "copytree", "copyfileobj", "move", "link", "rename", "renames", "fdopen"),
    *("save_pretrained", "save_to_json", "save_to_disk", "mkdtemp", "NamedTemporaryFile"),
}
"""Functions and methods that write, or give a name, by themselves."""

INSIDE = {
    # What a library writes by a name goes into a folder that appears whole, or into one that is thrown away.
    ("training/checkpoints.py", "write_checkpoint", "save_to_json"): "into a whole folder",
    ("models/nv_embed.py", "write_nv_embed", "save_pretrained"): "into the folder that it is given",
    ("models/adapters.py", "save_adapters", "save_pretrained"): "into the folder that it is given",
    ("runs/temporary.py", "folder_or_temporary", "mkdtemp"): "a folder that is thrown away",
    ("prepare/documents/reader_process.py", "main", "fdopen"): "the pipe to the process that asked",
    ("system.py", "opened_at_once", "fdopen"): "reads",
    ("models/nv_embed.py", "around", "copy"): "into a folder that is thrown away",
    ("models/nv_embed.py", "around", "save_pretrained"): "into a folder that is thrown away",
    (
        "models/modeling_embedsmith.py",
        "_leave_source_in",
        "copyfile",
    ): "into the folder that is given; imports torch only",
}


def writing(path: str, source: str) -> Iterator[tuple[str, str, str]]:
    """Yield (module, function around it, what is called) for each call that writes a file."""
    tree = ast.parse(source)
    around = {
        inner: function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for inner in ast.walk(function)
    }
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        function = call.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = (
            function.value.id if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) else ""
        )
        plain = isinstance(function, ast.Attribute)
        if name == "open":
            # Of a path the first argument is the mode, of the built-in function the second.
            is_method = plain and owner not in ("io", "os", "gzip")
            modes = [word.value for word in call.keywords if word.arg == "mode"] + call.args[0 if is_method else 1 :]
            writes = any(
                isinstance(mode, ast.Constant) and isinstance(mode.value, str) and set(mode.value) & set("wax+")
                for mode in modes[:1]
            ) or (owner == "os" and "O_RDONLY" not in ast.unparse(call))
        elif name in ("save", "dump", "replace"):
            writes = f"{owner}.{name}" in ("np.save", "torch.save", "json.dump", "pickle.dump", "os.replace")
        elif name == "ParquetWriter":
            writes = ast.unparse(call.args[0]) != "file"
        elif name in ("copy", "copy2", "move", "link", "rename", "truncate", "touch"):
            writes = owner in ("shutil", "os") or name in ("rename", "touch")
        else:
            writes = name in WRITES and (plain or name != "write_text")  # the function of that name is ours
        if writes:
            yield path, around.get(call, ""), name


def test_no_other_module_opens_a_file_for_writing():
    found = [call for path, source in modules() if path not in WRITERS for call in writing(path, source)]
    assert [call for call in found if call not in INSIDE] == []
    assert set(INSIDE) == set(found), "what is excused is there"


@pytest.mark.parametrize(
    "source",
    [
        'open(path, "w")',
        'open(path, mode="ab")',
        'path.open("w")',
        'path.write_text("a")',
        "np.save(path, array)",
        "np.savez(path, array)",
        "np.lib.format.open_memmap(path)",
        "torch.save(tensors, path)",
        "save_file(tensors, path)",
        "json.dump(value, file)",
        "frame.to_parquet(path)",
        "pq.ParquetWriter(path, schema)",
        "shutil.copyfile(a, b)",
        "shutil.copytree(a, b)",
        "os.replace(a, b)",
        "partial.rename(target)",
        "os.open(path, os.O_RDWR | os.O_CREAT)",
        "model.save_pretrained(folder)",
    ],
)
def test_a_write_that_goes_another_way_is_seen(source: str):
    assert len(list(writing("data/beir.py", source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "open(path)",
        'open(path, "rb")',
        'path.open(encoding="utf-8")',
        "np.load(path)",
        'text.replace("a", "w")',
        "json.dumps(value)",
        "values.copy()",
        "replace(settings, seed=1)",
        "pq.ParquetWriter(file, schema)",
        "os.open(path, os.O_RDONLY)",
        'Run.open(out, command="write")',
    ],
)
def test_what_only_reads_passes(source: str):
    assert list(writing("data/beir.py", source)) == []

"""bitsandbytes is imported without the package `kernels`, which fetches compiled code from a hub."""

import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = """
from pathlib import Path

def get_kernel(name, **settings):
    (Path(__file__).parent / "fetched").write_text(name)
"""
BITSANDBYTES = """
import bitsandbytes.inner
"""
INNER = """
import logging

try:
    from kernels import get_kernel
except ImportError as error:
    logging.getLogger("bitsandbytes.backends.cpu.ops").warning("Failed to load: %s", error)
else:
    get_kernel("kernels-community/x", version=1)
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder of packages, with a `kernels` that fetches and a `bitsandbytes` that asks it to."""
    (tmp_path / "bitsandbytes").mkdir()
    (tmp_path / "kernels.py").write_text(KERNELS)
    (tmp_path / "bitsandbytes" / "__init__.py").write_text(BITSANDBYTES)
    (tmp_path / "bitsandbytes" / "inner.py").write_text(INNER)
    return tmp_path


def said_by(program: str, packages: Path) -> str:
    program = f"import sys; sys.path.insert(0, {str(packages)!r})\n{program}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_packages_of_these_tests_fetch_something_where_nothing_is_done(packages):
    said_by("import bitsandbytes", packages)
    assert (packages / "fetched").read_text() == "kernels-community/x"


@pytest.mark.parametrize("before", ["", "import kernels"], ids=["not yet", "imported"])
def test_nothing_is_fetched_nothing_is_said_and_the_package_is_there_for_others(packages, before):
    program = f"""
{before}
import embedsmith, logging
import bitsandbytes
assert bitsandbytes.inner
assert not logging.getLogger("bitsandbytes.backends.cpu.ops").disabled
import kernels
print(kernels.get_kernel.__name__, type(bitsandbytes.__spec__.loader).__name__)
"""
    assert said_by(program, packages) == "get_kernel SourceFileLoader\n"
    assert not (packages / "fetched").exists()


def test_a_bitsandbytes_that_cannot_be_imported_leaves_the_package_there(packages):
    (packages / "bitsandbytes" / "inner.py").write_text("raise RuntimeError('broken')")
    program = """
import embedsmith
try:
    import bitsandbytes
except RuntimeError as error:
    print(error)
import kernels
"""
    assert said_by(program, packages) == "broken\n"


def test_it_is_not_found_where_it_is_not_installed(packages):
    for path in (packages / "bitsandbytes").iterdir():
        path.unlink()
    (packages / "bitsandbytes").rmdir()
    program = """
import embedsmith, importlib
from embedsmith.hub_kernels import never_fetched
before = list(sys.meta_path)
never_fetched()
assert sys.meta_path == before
finder = sys.meta_path[0]
print(type(finder).__name__, finder.find_spec("kernels"), finder.find_spec("bitsandbytes", [sys.path[0]]))
"""
    assert said_by(program, packages) == "_Finder None None\n"


def test_the_model_libraries_import_it_silently(packages):
    pytest.importorskip("bitsandbytes")
    program = "import embedsmith; sys.path.pop(0); from embedsmith.models import adapters; import peft; print('done')"
    assert said_by(program, packages) == "done\n"

"""``code_version`` changes with the code and with nothing else; the package says that it has types."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mga_kernels
from mga_kernels import version
from mga_kernels.errors import InputError
from mga_kernels.version import code_version

CODE = '''"""Doc."""
import os

class Sum:
    """Doc."""

    def __call__(self, a, b=2):
        """Doc."""
        return a + b  # why
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that writes ``code`` as module ``sums`` of a package of its own and returns the version of a name."""
    (tmp_path / "made_up" / "inner").mkdir(parents=True)
    (tmp_path / "made_up" / "__init__.py").write_text("raise RuntimeError('it is read and not imported')\n")
    monkeypatch.syspath_prepend(tmp_path)

    def of(code: str, name: str = "made_up", **named) -> str:
        (tmp_path / "made_up" / "inner" / "sums.py").write_text(code)
        return code_version.__wrapped__(name, **named)

    return of


@pytest.mark.parametrize("name", ["made_up", "made_up.inner", "made_up.inner.sums"])
def test_code_counts_and_what_is_said_about_it_does_not(package, name):
    known = package(CODE, name)
    assert package(CODE, name) == known
    assert package(CODE.replace('"""Doc."""', '"""Other words."""'), name) == known
    assert package(CODE.replace("  # why", "").replace("b=2", "b = 2"), name) == known
    assert package(CODE.replace('    """Doc."""\n\n', ""), name) == known
    for old, new in (("a + b", "a - b"), ("b=2", "b=3"), ("Sum", "Sums"), ("import os", "import os as o")):
        assert package(CODE.replace(old, new), name) != known, new
    assert package("not python (", name) not in (known, package("not python [", name))


def test_exactly_everything_counts(package):
    known = package(CODE, exact=True)
    assert package(CODE, exact=True) == known
    assert package(CODE.replace("  # why", ""), exact=True) != known


def test_files_and_other_modules_count(package, tmp_path):
    known = package(CODE), package(CODE, "made_up.inner.sums")
    (tmp_path / "made_up" / "more.py").write_text("")
    assert (package(CODE) == known[0], package(CODE, "made_up.inner.sums") == known[1]) == (False, True)
    both = code_version("mga_kernels.ops", "made_up")
    assert both == code_version("made_up", "mga_kernels.ops")
    assert both not in (code_version("made_up"), code_version("mga_kernels.ops"))


def test_the_native_library_counts(package, monkeypatch, tmp_path):
    library = tmp_path / "_C.so"
    monkeypatch.setattr(version, "LIBRARY", library)
    without = package(CODE)
    library.write_bytes(b"one build")
    one = package(CODE)
    library.write_bytes(b"another build")
    assert len({without, one, package(CODE)}) == 3
    assert package(CODE, native=False) == without


def test_it_is_the_same_in_every_process_and_says_where_the_code_is():
    script = "from mga_kernels.version import code_version; print(code_version())"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == code_version()
    assert len(code_version()) == 16


@pytest.mark.parametrize("name", ["no_such_package", "mga_kernels.no_such_module", "mga_kernels.runtimes.nothing"])
def test_a_module_that_does_not_exist_is_refused(name):
    with pytest.raises(InputError, match=f"code_version: .*{name}"):
        code_version(name)


def test_a_package_without_sources_has_a_version_too(monkeypatch, tmp_path):
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("archived/__init__.py", CODE)
    monkeypatch.syspath_prepend(tmp_path / "archive.zip")
    assert len(code_version.__wrapped__("archived")) == 16


def test_the_package_says_that_it_has_types():
    assert (Path(mga_kernels.__file__).parent / "py.typed").is_file()

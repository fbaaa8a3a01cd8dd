"""Which code this is: the number of the release, and a fingerprint of the code itself for what is kept between runs.

The number stays the same from one release to the next, so what was measured or made yesterday under it may be the
work of other code. Whatever is kept in files and used again is keyed by ``code_version``.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError

__version__ = "0.1.0"

LIBRARY = Path(__file__).with_name("_C.so")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def code_version(*modules: str, native: bool = True, exact: bool = False) -> str:
    """Sixteen hexadecimal digits that change with the code of ``modules``, packages with all that is in them.

    ``modules`` are dotted names ("mga_kernels.runtimes", "mga.evaluation.metrics"), by default all of ``mga_kernels``;
    they are not imported. Comments, docstrings and layout do not count. ``native``: the native library counts as well,
    each build of it. ``exact``: everything counts, for what is sooner found out anew than code is understood, which
    takes fifty times as long, a second for all of ``mga_kernels``. Code is read once in a process. InputError for a
    module that does not exist.
    """
    digest = hashlib.sha256(__version__.encode())
    for module in sorted(set(modules or ("mga_kernels",))):
        for name, source in _sources(module):
            digest.update(f"\0{name}\0".encode())
            digest.update(source if exact else _meaning(source))
    if native and LIBRARY.is_file():
        with LIBRARY.open("rb") as library:
            digest.update(hashlib.file_digest(library, "sha256").digest())
    return digest.hexdigest()[:16]


def foreign_code(*classes: type) -> str:
    """The same of the files in which these classes are defined outside of this package; empty where there are none."""
    files = {getattr(sys.modules.get(kind.__module__), "__file__", None) for kind in classes if not _is_ours(kind)}
    sources = [path.read_bytes() for path in map(Path, sorted(filter(None, files))) if path.is_file()]
    return hashlib.sha256(b"\0".join(map(_meaning, sources))).hexdigest()[:16] if sources else ""


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == __package__


def _sources(module: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files of a module or package; none where it is installed without its sources."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        raise InputError(f"code_version: there is no module {module!r}; give dotted names of modules and packages")
    origin = Path(spec.origin)
    if not origin.is_file():  # in an archive
        return
    place = origin.parent.joinpath(*rest) if spec.submodule_search_locations else origin
    file = place if place.is_file() else place.with_name(f"{place.name}.py")
    if place.is_dir():
        paths = sorted(place.rglob("*.py"))
    elif file.is_file():
        paths = [file]
    else:
        raise InputError(f"code_version: {module!r} is no module or package in {origin.parent}; was it renamed?")
    for path in paths:
        yield path.relative_to(origin.parent).as_posix(), path.read_bytes()


def _meaning(source: bytes) -> bytes:
    """What a file says to Python, without comments, docstrings and layout; the file itself where it is not Python."""
    try:
        return repr(_plain(ast.parse(source))).encode()
    except (SyntaxError, ValueError):
        return source


def _plain(value: object) -> object:
    """A syntax tree in lists, without what is empty: versions of Python differ in whether they name that."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, ast.AST):
        return value
    fields = {name: getattr(value, name, None) for name in value._fields}
    if isinstance(value, DOCUMENTED) and ast.get_docstring(value, clean=False) is not None:
        fields["body"] = value.body[1:]
    kept = [(name, _plain(field)) for name, field in fields.items() if field is not None and field != []]
    return [type(value).__name__, *kept]

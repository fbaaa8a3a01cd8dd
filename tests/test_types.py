"""What a caller reads in a signature: no parameter and no result is ``Any``.

What is of many types by its nature has a name that says of what: ``Info`` (Pillow's), ``Record`` (JSON's), ``Table``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = re.compile(r"\w+")
SPECIAL = ("__init__", "__call__", "__new__", "__enter__")  # of the methods with such names, those that are called


def _public(name: str) -> bool:
    return not name.startswith("_") or name in SPECIAL


def _functions(node: ast.AST, place: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Public functions, and public methods of public classes, by name; none that another function holds."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and _public(child.name):
            yield from _functions(child, f"{place}.{child.name}")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and _public(child.name):
            yield f"{place}.{child.name}", child
        elif isinstance(child, ast.If | ast.Try):
            yield from _functions(child, place)


def _annotations(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, ast.expr | None]]:
    arguments = function.args
    given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    for argument in filter(None, given):
        if argument.arg not in ("self", "cls"):
            yield argument.arg, argument.annotation
    yield "result", function.returns


def untyped(source: str, place: str) -> list[str]:
    """Parameters and results of public functions that are ``Any``, be it somewhere inside."""
    return [
        f"{name}: {what}"
        for name, function in _functions(ast.parse(source), place)
        for what, annotation in _annotations(function)
        if annotation is not None and "Any" in NAMES.findall(ast.unparse(annotation))
    ]


def test_finds_what_is_untyped() -> None:
    source = """
def plain(x: int, *rest: Any, **more: int) -> None: ...
class Kept:
    def __init__(self, table: dict[str, Any]) -> None: ...
    def _inner(self, x: Any) -> Any: ...
    def found(self, x: int) -> "list[Any]": ...
class _Hidden:
    def method(self, x: Any) -> Any: ...
"""
    assert untyped(source, "m") == ["m.plain: rest", "m.Kept.__init__: table", "m.Kept.found: result"]


def test_public_signatures_say_their_types() -> None:
    files = [path for folder in ("mga_kernels", "python") for path in sorted((ROOT / folder).rglob("*.py"))]
    public = [path for path in files if _public(path.stem)]
    assert len(public) > 300
    found = [line for path in public for line in untyped(path.read_text("utf-8"), str(path.relative_to(ROOT)))]
    assert not found, "\n".join(found)

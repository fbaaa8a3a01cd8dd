"""docs/environment.md names every environment variable that is read, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/environment.md").read_text()
PYTHON = [
    ROOT / "setup.py",
    *(path for name in ("mga_kernels", "python", "bench") for path in (ROOT / name).rglob("*.py")),
]
NATIVE = [path for path in (ROOT / "csrc").rglob("*") if path.suffix in (".cpp", ".cu", ".h", ".cuh")]
CONFIGURATIONS = sorted((ROOT / "configs").glob("*.toml"))
A_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


def documented() -> set[str]:
    """Names in the first column of the tables."""
    cells = (line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `"))
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def is_environ(node: ast.AST) -> bool:
    """``os.environ`` or a name that ends so."""
    return (isinstance(node, ast.Attribute) and node.attr == "environ") or (
        isinstance(node, ast.Name) and node.id == "environ"
    )


def asked_for(tree: ast.Module) -> list[ast.expr]:
    """The names, as they are written, of what a file reads of the environment."""
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and is_environ(node.value):
            found.append(node.slice)
        elif isinstance(node, ast.Compare) and any(is_environ(one) for one in node.comparators):
            found.append(node.left)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if is_environ(node.func.value) and node.func.attr in ("get", "pop", "setdefault"):
                found.append(node.args[0])
            elif node.func.attr in ("getenv", "getenvb"):
                found.append(node.args[0])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getenv":
            found.append(node.args[0])
    return found


def read_by(source: str) -> set[str]:
    """Variables that Python code reads; where a name is computed, all constants of the file that look like one."""
    tree, found = ast.parse(source), set[str]()
    for name in asked_for(tree):
        if isinstance(name, ast.Constant):
            found.add(str(name.value))
        else:
            constants = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            found |= {text for text in constants if isinstance(text, str) and A_NAME.fullmatch(text) and "_" in text}
    return found


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_python_reads_is_documented(path):
    assert read_by(path.read_text()) <= documented()


def test_what_native_code_reads_is_documented():
    named = {name for path in NATIVE for name in re.findall(r"\bgetenv\(([^)]*)\)", path.read_text())}
    assert named, "the instruction set is chosen there"
    assert {name.strip('"') for name in named} <= documented()


def test_what_configurations_name_is_documented():
    named = {name for path in CONFIGURATIONS for name in re.findall(r"\$\{([A-Z]\w*)\}", path.read_text())}
    assert named <= documented()
    assert {"MGA_SETS", "MGA_PACKS"} <= named


def test_nothing_is_documented_that_nobody_reads():
    files = [*PYTHON, *NATIVE, *CONFIGURATIONS, *(ROOT / "tests").glob("*.py")]
    text = "\n".join(path.read_text() for path in files if path != Path(__file__))
    assert {name for name in documented() if not re.search(rf"\b{name}\b", text)} == set()
    assert len(documented()) > 20


@pytest.mark.parametrize(
    "code",
    [
        'import os\nos.environ.get("MGA_NEW")',
        'import os\nos.environ["MGA_NEW"]',
        'import os\nos.getenv("MGA_NEW", "1")',
        'from os import environ\nenviron.pop("MGA_NEW")',
        'from os import getenv\ngetenv("MGA_NEW")',
        'import os\nfound = "MGA_NEW" in os.environ',
        'import os\nfor name in ("MGA_NEW", "MGA_CACHE"):\n    os.environ.get(name)',
    ],
)
def test_a_new_variable_is_seen(code):
    assert "MGA_NEW" in read_by(code)
    assert not read_by(code) <= documented()

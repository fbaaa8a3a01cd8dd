"""The folders import each other as README says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
IMPORTED = {  # by each folder of the package; the files beside the folders are open to all
    "ops": set(),
    "images": set(),
    "networks": {"ops"},
    "checkpoints": {"networks", "ops"},
    "plans": {"networks", "ops"},
    "export": {"checkpoints", "networks", "ops", "plans"},
}


def imports(file: Path, package: tuple[str, ...]) -> set[str]:
    """Dotted names of all that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            found |= {".".join(filter(None, (*above, node.module, name.name))) for name in node.names}
    return found


@pytest.mark.parametrize("folder", IMPORTED)
def test_a_folder_imports_only_those_below_it(folder):
    files = sorted((ROOT / "mga_kernels" / folder).rglob("*.py"))
    assert files
    for file in files:
        names = imports(file, file.relative_to(ROOT).parent.parts)
        others = {name.split(".")[1] for name in names if name.startswith("mga_kernels.")} & set(IMPORTED) - {folder}
        assert others <= IMPORTED[folder], file


def test_the_package_never_imports_the_toolbox():
    for file in sorted((ROOT / "mga_kernels").rglob("*.py")):
        names = imports(file, file.relative_to(ROOT).parent.parts)
        assert not [name for name in names if name.partition(".")[0] == "mga"], file

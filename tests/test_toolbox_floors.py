"""The folders of ``python/mga``: which may import which. There is no arrow up and no circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLBOX = ROOT / "python/mga"
# A folder, or a module of the top, and what it may import, from the lowest floor to the highest.
MAY_IMPORT = {
    "settings": set[str](),
    "files": set[str](),
    "console": set[str](),
    "complexity": {"settings", "files"},
    "evaluation": {"settings", "files", "console", "complexity"},
    "drawing": {"evaluation"},
    "training": {"settings", "files", "evaluation"},
    "conversion": {"settings", "files", "console", "complexity", "evaluation", "training"},
    "report": {"files", "complexity", "evaluation", "drawing"},
    "studies": {"settings", "files", "evaluation", "drawing", "training"},
    "upscaling": {"files", "console", "drawing"},
    "page": {"console", "upscaling"},
    "commands": {
        *("settings", "files", "console", "complexity", "evaluation", "drawing"),
        *("training", "conversion", "report", "studies", "upscaling", "page"),
    },
    "cli": {"commands", "console"},
    "demo": {"commands", "console", "drawing"},
    "start": {"cli"},
    "__main__": {"start"},
}


def imported(source: str, module: str) -> set[str]:
    """Full names of what the code of ``module`` ("mga.training.loop") imports, wherever it stands."""
    found = set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def rooms(source: str, module: str) -> set[str]:
    """The folders of the toolbox that it imports, but its own."""
    names = (name.split(".") for name in imported(source, module))
    return {name[1] for name in names if name[0] == "mga" and len(name) > 1} - {module.split(".")[1]}


def name_of(path: Path) -> str:
    parts = path.relative_to(TOOLBOX.parent).with_suffix("").parts
    return ".".join(parts)  # of a package "mga.report.__init__", so that one dot leads to it


FILES = sorted(path for path in TOOLBOX.rglob("*.py") if path != TOOLBOX / "__init__.py")


def test_every_folder_has_its_floor():
    assert {name_of(path).split(".")[1] for path in FILES} == set(MAY_IMPORT)


def test_no_arrow_leads_up():
    below = set[str]()
    for name, others in MAY_IMPORT.items():
        assert others <= below, f"{name} stands below {others - below}"
        below.add(name)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_only_what_its_folder_may(path):
    module = name_of(path)
    assert rooms(path.read_text(), module) <= MAY_IMPORT[module.split(".")[1]]


def test_what_is_allowed_is_used():
    used: dict[str, set[str]] = {}
    for path in FILES:
        used.setdefault(name_of(path).split(".")[1], set()).update(rooms(path.read_text(), name_of(path)))
    assert {name: others - used[name] for name, others in MAY_IMPORT.items() if others - used[name]} == {}


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("mga.evaluation.masks", "from ..training.objectives import l1"),
        ("mga.evaluation.suite.table", "from ...studies import ablation"),
        ("mga.files.folders", "def late():\n    import mga.console.failures"),
        ("mga.training.loop", "from mga.conversion.fitting import Fitting"),
        ("mga.report.__init__", "from .. import conversion"),
        ("mga.console.process", "from ..cli import main"),
    ],
)
def test_a_planted_import_is_found(module, code):
    assert not rooms(code, module) <= MAY_IMPORT[module.split(".")[1]]


@pytest.mark.parametrize("path", sorted((ROOT / "mga_kernels").rglob("*.py")), ids=lambda path: path.stem)
def test_the_library_does_not_import_the_toolbox(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    assert not any(name == "mga" or name.startswith("mga.") for name in imported(path.read_text(), module))

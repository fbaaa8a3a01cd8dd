"""The floors of ``mga_kernels``: which folders import which, without a circle, and that one file names the networks.

Files that lie beside the folders stand for rooms: the ground imports nothing, nothing imports the top, modes is system.
"""

from __future__ import annotations

import ast
import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from mga_kernels.catalogue import ARCHITECTURES

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mga_kernels"
ARROWS = {  # folder -> those that its files may import
    "ground": (),
    "system": ("ground",),
    "alone": ("system", "ground"),
    "ops": ("alone", "ground"),
    "images": ("system", "ground"),
    "video": ("system", "ground"),
    "networks": ("ops", "ground"),
    "checkpoints": ("networks", "system", "ground"),
    "runtimes": ("networks", "ops", "alone", "system", "ground"),
    "architectures": ("runtimes", "checkpoints", "networks", "ops", "ground"),
    "export": ("runtimes", "checkpoints", "networks", "ops", "system", "ground"),
    "engine": ("runtimes", "checkpoints", "networks", "images", "ops", "alone", "system", "ground"),
    "distributed": ("engine", "images", "system", "ground"),
    "top": ("engine", "runtimes", "ops", "ground"),
}
GROUND = ("_native", "catalogue", "errors", "notices", "quantities", "records", "version")
TOP = ("__init__", "info")
ROOMS = dict.fromkeys(GROUND, "ground") | dict.fromkeys(TOP, "top") | {"modes": "system"}
RUNTIMES = {  # runtime -> the others that it may import; all may import what lies beside these folders
    "cpu": (),
    "openvino_cpu": (),
    "pytorch": (),
    "cuda": ("pytorch", "cpu"),  # of which it takes the layers that networks list, not what runs them
    "tiles": ("cuda", "pytorch"),
}
CHOOSING = ("choose", "__init__")  # which no runtime imports
KINDS = {"BlackBoxNetwork", "MaskGuidedNetwork", "RegionNetwork", "WholeNetwork"}
# Tables of networks that there were before a network was a folder; in lower case, so that a search finds none here.
TABLES = "planned _makers blocks layouts networks spellings fsrcnn_spellings all_spellings undivided built_in".split()


def arrows(package: Path) -> Iterator[tuple[str, str, str]]:
    """(file, its room, the room that it imports), of all imports that run, those in functions too."""
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package).with_suffix("").parts
        for target in _imported(path.read_text(), inside):
            if room(target) != room(inside[0]):
                yield "/".join(inside), room(inside[0]), room(target)


def room(name: str) -> str:
    return ROOMS.get(name, name)


@functools.cache  # the copies that something is planted in are the same but for one file
def _imported(source: str, inside: tuple[str, ...]) -> list[str]:
    """What of the package a file imports: folders and files at its top; "mga" where it is the toolbox."""
    return [*_names(ast.parse(source), inside)]


def _names(tree: ast.AST, inside: tuple[str, ...]) -> Iterator[str]:
    for node in _running(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ["mga_kernels", *inside[:-1]]
            start = above[: len(above) - node.level + 1] if node.level else []
            start += node.module.split(".") if node.module else []
            names = [[*start, alias.name] for alias in node.names]
        else:
            continue
        for top, *rest in names:
            if top == "mga":
                yield top
            elif top == "mga_kernels":
                known = rest and ((PACKAGE / rest[0]).is_dir() or (PACKAGE / f"{rest[0]}.py").is_file())
                yield rest[0] if known else "__init__"  # what the package itself has


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All of a syntax tree but what is for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield other
                yield from _running(other)
        else:
            yield node
            yield from _running(node)


def forbidden(package: Path) -> list[str]:
    return [f"{file} imports {to}" for file, from_, to in arrows(package) if to not in ARROWS.get(from_, ())]


def test_the_list_has_no_circle():
    TopologicalSorter(ARROWS).prepare()


def test_every_room_is_in_the_list():
    folders = {path.name for path in PACKAGE.iterdir() if any(path.glob("*.py"))}
    files = {path.stem for path in PACKAGE.glob("*.py")}
    assert folders - {*ARROWS} == set(), "a folder of its own needs a line in ARROWS"
    assert files == {*ROOMS}, "a file beside the folders belongs to the ground or to the top"


def test_no_arrow_goes_up():
    assert forbidden(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("networks/layers.py", "from ..runtimes import tiles"),
        ("ops/grid.py", "from mga_kernels import engine"),
        ("ops/mask_head/__init__.py", "from ...networks.layers import conv"),
        ("checkpoints/loading.py", "def f():\n    import mga_kernels.runtimes.cpu.pairs"),
        ("runtimes/choose.py", "def f():\n    from ..architectures.rfdn import NETWORK"),
        ("errors.py", "from .quantities import integer\nfrom .engine.batch import upscale_all"),
        ("images/photo.py", "from .. import MaskGuidedSR"),
        ("engine/model.py", "def f():\n    import mga.models"),
    ],
)
def test_an_import_that_is_planted_is_found(tmp_path, file, line):
    copy = tmp_path / "mga_kernels"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "weights", "__pycache__"))
    (copy / file).write_text((copy / file).read_text() + f"\n\n{line}\n")
    assert len(forbidden(copy)) == 1
    assert forbidden(copy)[0].startswith(file.removesuffix(".py"))


def test_what_is_for_type_checkers_does_not_count(tmp_path):
    (tmp_path / "ops").mkdir()
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..engine import MaskGuidedSR\n"
    (tmp_path / "ops/grid.py").write_text(text)
    assert forbidden(tmp_path) == []
    (tmp_path / "ops/grid.py").write_text(text + "else:\n    from ..engine import MaskGuidedSR\n")
    assert forbidden(tmp_path) == ["ops/grid imports engine"]


def test_one_file_names_the_networks():
    """Beside its own folder. Docstrings may speak of them, and are no part of what the code does."""
    found = []
    toolbox = [ROOT / "python/mga" / folder for folder in ("conversion", "evaluation", "training", "upscaling")]
    for path in (path for folder in (PACKAGE, *toolbox) for path in folder.rglob("*.py")):
        if not {"architectures", "catalogue.py"} & {*path.relative_to(ROOT).parts}:
            tree = ast.parse(path.read_text())
            values = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            found += [(path.name, value) for value in values if value in ARCHITECTURES]
    assert found == []
    folders = {path.parent.name for path in PACKAGE.glob("architectures/*/__init__.py")}
    assert folders == {*ARCHITECTURES}, "one folder and one line"


def test_an_architecture_names_no_other():
    for path in PACKAGE.glob("architectures/*/*.py"):
        others = {*ARCHITECTURES} - {path.parent.name}
        tree = ast.parse(path.read_text())
        used = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {part for module in used for part in module.split(".")} & others, path


@pytest.mark.parametrize("runtime", sorted(RUNTIMES))
def test_a_runtime_imports_no_other(runtime):
    folders = {path.name for path in (PACKAGE / "runtimes").iterdir() if (path / "__init__.py").is_file()}
    assert folders == {*RUNTIMES}
    for path in (PACKAGE / "runtimes" / runtime).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 2:
                top = (node.module or "__init__").split(".")[0]
                assert top not in CHOOSING, path
                assert top not in folders or top in RUNTIMES[runtime], path


def kinds_asked_for(source: str) -> list[str]:
    """Where code looks which kind of network it has, or whether an object has what only some have."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom | ast.Import):
            found += [alias.name for alias in node.names if alias.name in KINDS]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance" and "Config" in ast.unparse(node):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "isinstance"):
            asked = {"network", "base", "refine", "half"}
            asked |= set() if ast.unparse(node.func) == "isinstance" else {"planner", "plan", "model"}
            if asked & set(re.findall(r"[a-z]+", ast.unparse(node.args[0]))):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("folder", ["engine", "runtimes"])
def test_a_network_is_asked_not_looked_at(folder):
    for path in (PACKAGE / folder).rglob("*.py"):
        assert kinds_asked_for(path.read_text()) == [], path


@pytest.mark.parametrize(
    "line",
    [
        "from ..networks import WholeNetwork",
        "isinstance(network, SRNetwork)",
        "isinstance(self.settings, WholeConfig)",
        "getattr(self.network.base, 'takes_place', False)",
        "hasattr(network.refine, 'whole')",
        "getattr(planner, 'narrow', None)",
    ],
)
def test_a_look_that_is_planted_is_found(line):
    assert len(kinds_asked_for(f"def f(network, planner):\n    {line}\n")) == 1
    assert kinds_asked_for("getattr(torch.cpu, name, bool)\nisinstance(image, Tensor)\n") == []


def raising(source: str) -> list[str]:
    """Methods of which an object has no more than the name."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and "NotImplementedError" in ast.unparse(node.body[-1]).split("(")[0]
    ]


def test_what_an_object_cannot_do_it_does_not_have():
    """An ability is a class of its own, such as ``PatchPlan``, or an abstract method, which nobody can forget."""
    for folder in (PACKAGE, ROOT / "python/mga", ROOT / "examples"):
        for path in folder.rglob("*.py"):
            assert raising(path.read_text()) == [], path
    assert raising("def f():\n    raise NotImplementedError('apart')\n") == ["f"]
    assert raising("def f():\n    try:\n        g()\n    except NotImplementedError:\n        h()\n") == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_no_table_of_networks_is_left():
    words = [option for table in TABLES for option in ("-e", table.upper())]
    command = ["git", "-C", str(ROOT), "grep", "-nw", *words, "--", "*.py"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == ""

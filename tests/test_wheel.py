"""What goes into the source distribution and the wheel, without compiling; `.ci/wheel` makes both and tries them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LIMIT = 12_000_000
NATIVE = 1_500_000  # bytes that the native parts for CPUs have in a wheel, with room to grow
GENERATED = re.compile(r"PKG-INFO|setup\.cfg|mga_kernels\.egg-info/.*")


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """The files that the project consists of, as git knows them."""
    try:
        names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and its history")
    return {name for name in names.split("\0") if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def tree(tracked, tmp_path_factory) -> Path:
    """A copy of them in which people have built and run, so that other files lie about."""
    folder = tmp_path_factory.mktemp("tree")
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    for name in ("mga_kernels/_C.so", "mga_kernels/_host.cpython-39.so", "mga_kernels/__pycache__/info.cpython-39.pyc"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("of another build")
    return folder


def setup(tree: Path, *words: object) -> None:
    command = [sys.executable, "setup.py", "-q", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": ""}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_source_distribution_is_the_whole_tree(tracked, tree, tmp_path):
    setup(tree, "sdist", "-d", tmp_path)
    (archive,) = tmp_path.iterdir()
    assert archive.name == f"mga_kernels-{PROJECT['project']['version']}.tar.gz"
    with tarfile.open(archive) as tar:
        names = {member.name.partition("/")[2] for member in tar.getmembers() if member.isfile()}
    assert {name for name in names if not GENERATED.fullmatch(name)} == tracked


def test_the_wheel_has_the_packages_with_all_their_files_and_nothing_else(tracked, tree, tmp_path):
    """But for the native parts, which its build adds: those in the tree may be of another build, with CUDA's."""
    setup(tree, "build_py", "--build-lib", tmp_path / "lib")
    names = {path.relative_to(tmp_path / "lib").as_posix() for path in (tmp_path / "lib").rglob("*") if path.is_file()}
    packages = {name.removeprefix("python/") for name in tracked if name.startswith(("mga_kernels/", "python/mga/"))}
    assert names == packages
    assert {"mga_kernels/py.typed", "mga_kernels/weights/LICENSE.Apache-2.0.txt", "mga/assets/demo.png"} <= names
    with zipfile.ZipFile(tmp_path / "wheel.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(names):
            archive.write(tmp_path / "lib" / name, name)
    assert (tmp_path / "wheel.zip").stat().st_size + NATIVE < LIMIT


def test_wheels_are_configured_for_the_pythons_and_machines_that_are_named():
    settings = PROJECT["tool"]["cibuildwheel"]
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    assert "cp311-*" in settings["build"]
    assert {"linux", "macos", "windows"} <= settings.keys()
    assert settings["linux"]["archs"] == ["x86_64", "aarch64"]
    (torch,) = (word for word in settings["before-build"].split() if word.startswith("torch"))
    assert torch in (ROOT / "constraints.txt").read_text().splitlines()
    test = settings["test-command"]
    assert (ROOT / re.sub(r".*\{project\}/", "", test)).is_file()


def test_that_configuration_is_one_of_cibuildwheel(tmp_path):
    """It reads it for every system, and finds builds for each."""
    if importlib.util.find_spec("cibuildwheel") is None:
        pytest.skip("cibuildwheel is not installed")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    found = {}
    for system in ("linux", "macos", "windows"):
        command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", system, str(ROOT)]
        environment["CIBW_ARCHS_LINUX"] = "x86_64 aarch64"
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found[system] = done.stdout.split()
    pythons = [name.partition("-")[0] for name in PROJECT["tool"]["cibuildwheel"]["build"]]
    assert sorted(found["linux"]) == sorted(f"{py}-manylinux_{cpu}" for py in pythons for cpu in ("x86_64", "aarch64"))
    assert found["macos"] == [f"{py}-macosx_arm64" for py in pythons]
    assert found["windows"] == [f"{py}-win_amd64" for py in pythons]
    schema = Path(importlib.util.find_spec("cibuildwheel").origin).parent / "resources/cibuildwheel.schema.json"
    assert set(PROJECT["tool"]["cibuildwheel"]) <= set(json.loads(schema.read_text())["properties"])

"""Layers over float maps on several threads under ThreadSanitizer, in a program of its own without PyTorch."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from programs import CSRC, environment, kept_program

HERE = Path(__file__).resolve().parent
COMPILER = os.environ.get("CXX", "g++")


def test_threads_share_layers_without_a_race():
    if shutil.which(COMPILER) is None:
        pytest.skip(f"there is no {COMPILER}")
    # Not optimised, since compiling takes longer than running.
    flags = ["-std=c++17", "-O0", "-ffp-contract=off", "-Wno-psabi", "-fsanitize=thread", "-pthread"]
    sources = [HERE / "map_threads/race.cpp", CSRC / "maps/isa/portable.cpp"]
    command = [COMPILER, *flags, f"-I{CSRC}", *sources]

    def make(folder: Path) -> Path:
        subprocess.run([*command, "-o", folder / "race"], check=True, env=environment())
        return folder / "race"

    program = kept_program(HERE / "map_threads", command, make)
    result = subprocess.run([program], capture_output=True, text=True, env=environment())
    if "unexpected memory mapping" in result.stderr:
        pytest.skip("this kernel places memory where ThreadSanitizer cannot follow")
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    assert result.stdout == "20 comparisons\n"

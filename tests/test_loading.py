"""What the command spares itself when it is loaded and when it ends: Python's collector finds nothing there."""

import gc
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny_model import write_tiny_model

from mga.console.loading import loading

# Of the command: its code, how many objects were looked through at once at most, and whether the collector is on; and
# how many there are to look through at the very end, since what is registered first is called last.
WATCHED = """
import atexit, gc, sys

def young(generation):
    return sum(len(gc.get_objects(generation=i)) for i in range(generation + 1))

atexit.register(lambda: print(young(2)))
looked = [0]
gc.callbacks.append(lambda when, facts: looked.append(young(facts["generation"])) if when == "start" else None)
from mga.cli import main

print(main(sys.argv[1:]), gc.isenabled(), max(looked))
print(*sys.modules)
"""
# What neither a PNG file nor convolutions of our own need, and what takes long to import.
SPARED = {"PIL.Hdf5StubImagePlugin", "torch._dynamo", "torch._inductor", "torch.onnx", "triton", "sympy", "openvino"}


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> list[list[str]]:
    """The words of each line that WATCHED prints."""
    tmp_path = tmp_path_factory.mktemp("watched")
    model = write_tiny_model(tmp_path / "tiny.safetensors")
    Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(tmp_path / "small.png")
    words = "upscale", tmp_path / "small.png", "-o", tmp_path / "large.png", "--model", model, "--runtime", "own"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", WATCHED, *map(str, words)]
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    return [line.split() for line in said.splitlines()]


def test_the_collector_does_not_look_through_modules(watched):
    (code, enabled, most), modules, [at_the_end] = watched[-3:]
    assert (code, enabled) == ("0", "True")
    assert "torch" in modules
    assert int(most) < 50_000, "of half a million"
    assert int(at_the_end) < 1000


def test_what_is_not_needed_is_not_imported(watched):
    assert not SPARED & {*watched[-2]}


def test_the_collector_is_on_again_whatever_happens():
    was_on = []

    def fails():
        was_on.append(gc.isenabled())
        raise ImportError

    with pytest.raises(ImportError), loading():
        fails()
    assert was_on == [False]
    assert gc.isenabled()


def test_who_has_turned_it_off_finds_it_off():
    gc.disable()
    try:
        with loading(), loading():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_without_new_modules_garbage_stays_garbage():
    before = gc.get_freeze_count()
    with loading():
        pass
    assert gc.get_freeze_count() == before

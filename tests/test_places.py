"""Storages of images for many workers: the same by path and by address, and written whole or not at all."""

from __future__ import annotations

import importlib.util
import os
import time

import pytest
from test_distributed import needs_arrow

from mga_kernels.distributed import find, storage
from mga_kernels.errors import ImageError, InputError


def places(tmp_path):
    """The same folder, as a path and as addresses that pyarrow and fsspec reach."""
    path = tmp_path / "place"
    found = [str(path), f"file://{path}"]
    return found + [f"local://{path}"] * bool(importlib.util.find_spec("pyarrow"))


def test_a_storage_is_the_same_by_path_and_by_address(tmp_path):
    for number, place in enumerate(places(tmp_path)):
        there = storage(place)
        name = f"deeper/{number}.png"
        assert name not in there.names()
        assert not there.has(name)
        there.write(name, b"some bytes")
        assert there.read(name) == b"some bytes"
        assert there.names()[name] == 10
        assert there.has(name)
        there.write(name, b"other")
        assert there.read(name) == b"other"
        with pytest.raises(ImageError, match=r"none\.png"):
            there.read("none.png")
    assert not [path for path in (tmp_path / "place").rglob("*") if ".part" in path.name]


@needs_arrow
def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    there = storage(f"local://{tmp_path}/place")
    from mga_kernels.distributed import storages as module

    system, _ = module._reached(there.address)

    def refuse(source, target):
        raise OSError("the disk is full")

    broken = type(
        "Broken", (), {"move": staticmethod(refuse), "__getattr__": lambda self, name: getattr(system, name)}
    )()
    monkeypatch.setattr(module, "_reached", lambda address: (broken, f"{tmp_path}/place"))
    with pytest.raises(ImageError, match=r"cannot write a\.png into .* \(the disk is full\)"):
        there.write("a.png", b"some bytes")
    assert list((tmp_path / "place").iterdir()) == []


@needs_arrow
def test_what_was_left_half_written_goes_when_it_is_old(tmp_path):
    for name, age in ((".mga-0123456789abcdef.part", 7200), (".mga-1123456789abcdef.part", 5)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    there = storage(f"local://{tmp_path}")
    assert there.names() == {}
    there.clean()
    assert [path.name for path in tmp_path.iterdir()] == [".mga-1123456789abcdef.part"]


@needs_arrow
def test_an_address_of_nothing_is_a_sentence():
    with pytest.raises(InputError, match="cannot be reached"):
        find(["unknownkind://a/b"])

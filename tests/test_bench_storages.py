"""bench/storages.py: which storage of our convolutions is faster, and what the class of a network declares."""

from pathlib import Path

import pytest

from mga_kernels.architectures.fsrcnn.cpu import FsrcnnWeights

SMALL = "fsrcnn", "--size", "48x32", "--k", "9", "--rounds", "1"


@pytest.fixture
def storages(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "bench"))
    import storages

    return storages


def test_networks_with_a_plan_in_both_are_measured(storages):
    known = set(storages.with_both())
    assert {"fsrcnn", "pan", "pan-split", "rfdn", "srresnet", "rcan", "imdn", "msrresnet-split"} <= known
    assert not known & {"span", "compact", "rrdbnet", "edsr", "imdn-split"}


@pytest.mark.parametrize("slower", ["float32", "bfloat16"])
def test_a_class_that_declares_the_slower_one_is_told(storages, monkeypatch, capsys, slower):
    monkeypatch.setattr(FsrcnnWeights, "faster", slower)
    seconds = {"float32": iter(range(100)), "bfloat16": iter(range(100))}
    kept = iter(["float32", "float32", "bfloat16", "bfloat16"])  # whose turn it is, at its beginning and its end

    def process_time() -> float:
        name = next(kept)
        return next(seconds[name]) * (2.0 if name == slower else 1.0)

    monkeypatch.setattr(storages.time, "process_time", process_time)
    storages.main([*SMALL])
    *_, line = capsys.readouterr().out.strip().splitlines()
    faster = "bfloat16" if slower == "float32" else "float32"
    assert line.startswith("| fsrcnn | ")
    assert line.endswith(f" | {slower}, found {faster} |")
    assert (" | 0.50 | " if slower == "float32" else " | 2.00 | ") in line


def test_pictures_that_are_not_one_are_refused(storages, monkeypatch):
    monkeypatch.setattr(storages, "LEAST_BF16", 200.0)
    with pytest.raises(SystemExit, match="fsrcnn makes another picture in bfloat16"):
        storages.main([*SMALL])

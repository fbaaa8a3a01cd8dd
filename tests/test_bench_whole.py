"""bench/whole.py: who takes part, and that all make one picture."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import made_files
import made_graphs
import numpy as np
import pytest
from hostile_files import zipped

from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints.ncnn.graph import Graph

IMAGE = np.random.default_rng(0).integers(0, 256, (14, 18, 3), dtype=np.uint8)


@pytest.fixture
def file(tmp_path) -> str:
    (tmp_path / "net.pth").write_bytes(zipped(made_files.network("compact")[0]))
    return str(tmp_path / "net.pth")


@pytest.fixture
def whole(monkeypatch) -> ModuleType:
    """With a picture of PyTorch in place of that of runtimes that may be missing."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "bench"))
    import whole

    def converted(network, value_range, size, exact=True):
        return MaskGuidedSR(network, device="cpu", runtime="pytorch", dtype="float32").upscale

    monkeypatch.setattr(whole, "RUNTIMES", ("own", "pytorch"))
    monkeypatch.setattr(whole, "onnxruntime", converted)
    monkeypatch.setattr(whole, "ncnn", converted)
    return whole


def test_all_take_part(whole, file, capsys):
    whole.measure(file, IMAGE, 2, "float32", held=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.removeprefix(file).split("  ")[0].strip() for line in lines] == [
        "own",
        "pytorch",
        "ONNX Runtime",
        "ncnn",
    ]
    assert " 1.00 times ours; " in lines[0]


def test_another_picture_is_not_timed(whole, file, monkeypatch):
    monkeypatch.setattr(whole, "ncnn", lambda *given, **more: lambda image: np.zeros((28, 36, 3), np.uint8))
    with pytest.raises(SystemExit, match=r"in ncnn makes another picture: \d"):
        whole.measure(file, IMAGE, 1, "float32", held=False)


def test_who_is_missing_is_named(whole, file, monkeypatch, capsys):
    def missing(*given, **more):
        raise ImportError("No module named 'onnx'", name="onnx")

    monkeypatch.setattr(whole, "onnxruntime", missing)
    whole.measure(file, IMAGE, 1, "float32", held=False)
    assert f"{file}: without ONNX Runtime: not installed: onnx" in capsys.readouterr().out


def test_who_cannot_be_held_is_left_out(whole, file, capsys):
    whole.measure(file, IMAGE, 1, "float32", held=True)
    assert not {"ONNX", "ncnn"} & set(capsys.readouterr().out.split())


def test_a_graph_of_ncnn_is_run_as_it_is(whole, tmp_path, monkeypatch, capsys):
    """Not what a converter makes of the network that it was read as."""
    made_graphs.graph(tmp_path, "compact")
    file = str(tmp_path / "compact.param")
    reading = MaskGuidedSR.from_checkpoint(file, device="cpu", runtime="pytorch", dtype="float32")
    given = []

    def run(net, source, result, value_range):
        given.append((net, source, result, value_range))
        return reading.upscale

    monkeypatch.setattr(whole, "ncnn", None)
    monkeypatch.setattr(whole, "ncnn_net", lambda graph, weights, exact: (Path(graph).name, Path(weights).name, exact))
    monkeypatch.setattr(whole, "ncnn_run", run)
    whole.measure(file, IMAGE, 1, "float32", held=False)
    graph = Graph(Path(file))
    assert given == [(("compact.param", "compact.bin", False), graph.source, graph.result, 1.0)]
    assert f"{file}" in capsys.readouterr().out.splitlines()[-1]

"""bench/published.py: figures of files that were published, and graphs of ncnn against what ncnn makes of them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import made_files
import made_graphs
import numpy as np
import pytest
import torch
from hostile_files import zipped
from network_zoo import photographs
from PIL import Image

from mga_kernels.checkpoints.ncnn import Graph
from mga_kernels.checkpoints.ncnn.layers import compute


@pytest.fixture
def published(monkeypatch, shared) -> ModuleType:
    """With a file of which a figure is known that is right."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "bench"))
    import published

    monkeypatch.setattr(published, "FIGURES", {"net.pth": {"Set5": 0.0}})
    path = shared / "data/checkpoints/net.pth"
    (row,) = published.figures_of(path, shared, {"Set5": 0.0})
    monkeypatch.setitem(published.FIGURES["net.pth"], "Set5", row["tensors"])
    return published


@pytest.fixture
def shared(tmp_path) -> Path:
    """Files, sets and graphs as the command expects them."""
    (tmp_path / "data/checkpoints/ncnn").mkdir(parents=True)
    (tmp_path / "data/checkpoints/net.pth").write_bytes(zipped(made_files.network("compact")[0]))
    hr, lr = (tmp_path / "data/testsets/Set5" / folder for folder in ("HR", "LR_bicubic/X2"))
    hr.mkdir(parents=True)
    lr.mkdir(parents=True)
    picture = Image.fromarray((photographs(60, 72)[0].permute(1, 2, 0) * 255).round().byte().numpy())
    picture.save(hr / "butterfly.png")
    picture.reduce(2).save(lr / "butterflyx2.png")
    made_graphs.graph(tmp_path / "data/checkpoints/ncnn", "compact")
    return tmp_path


def as_ncnn(published: ModuleType, monkeypatch, off: float = 0.0) -> None:
    """In place of ncnn the definition of its layers, ``off`` by this many levels at one value."""

    def made(path: Path, crop: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(crop).permute(2, 0, 1)[None]
        result = compute(Graph(path), image)[0].permute(1, 2, 0).numpy().copy()
        place = np.unravel_index(np.abs(result - 0.5).argmin(), result.shape)
        result[place] += off / 255
        return result

    monkeypatch.setattr(published, "by_ncnn", made)


def test_what_is_right_is_within(published, shared, monkeypatch, capsys):
    as_ncnn(published, monkeypatch)
    out = shared / "found.md"
    assert published.main(["--shared", str(shared), "-o", str(out)]) == 0
    assert capsys.readouterr().out == out.read_text()
    file, graph = (line for line in out.read_text().splitlines() if "compact x2" in line)
    assert file.startswith("| net.pth | compact x2 | Set5 | ")
    assert file.endswith(" | yes |")
    assert "| +0.0000 |" in file
    assert graph.startswith("| compact.param | compact x2 | 0.000")
    assert graph.endswith(" | yes |")
    kept = json.loads(out.with_suffix(".json").read_text())
    assert [len(kept[part]) for part in ("figures", "graphs")] == [1, 1]


def test_another_figure_is_told(published, shared, monkeypatch, capsys):
    as_ncnn(published, monkeypatch)
    published.FIGURES["net.pth"]["Set5"] += 0.0056
    assert published.main(["--shared", str(shared)]) == 1
    assert "| -0.0056 | **no** |" in capsys.readouterr().out


def test_another_value_of_ncnn_is_told(published, shared, monkeypatch, capsys):
    as_ncnn(published, monkeypatch, off=0.01)
    assert published.main(["--shared", str(shared)]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"^\| compact.param .* \| \*\*no\*\* \|$", printed, re.M)


def test_weights_of_the_x4_beside_it(published, shared, monkeypatch):
    as_ncnn(published, monkeypatch)
    folder = shared / "data/checkpoints/ncnn"
    (folder / "compact.param").rename(folder / "compact-x2.param")
    (folder / "compact.bin").rename(folder / "compact-x4.bin")
    assert [row["graph"] for row in published.graphs([folder], shared)] == ["compact-x2.param"]


def test_without_ncnn_figures_are_printed_all_the_same(published, shared, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ncnn", None)
    assert published.main(["--shared", str(shared)]) == 0
    printed, said = capsys.readouterr()
    assert "graphs are not compared, since ncnn is not installed" in said
    assert "net.pth" in printed


def test_without_the_folder_it_says_so(published, tmp_path, capsys):
    assert published.main(["--shared", str(tmp_path / "none")]) == 1
    assert "published: there is no " in capsys.readouterr().err

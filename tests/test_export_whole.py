"""Whole networks as graphs of other runtimes, against ``MaskGuidedSR`` in float32, at all sizes of image."""

from __future__ import annotations

import json

import local_originals as originals
import pytest
import torch
from network_zoo import photographs
from test_export import NEAR, SIZES, needs, run_onnxruntime, run_openvino
from test_local_networks import enlarging_span, rrdbnet, tempered

from mga.cli import main
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import recognise
from mga_kernels.errors import InputError
from mga_kernels.export import export_model, formats
from mga_kernels.export.graph import WholeGraph
from mga_kernels.export.program import facts, trace
from mga_kernels.networks import WholeNetwork
from mga_kernels.networks.amount import Amount

STATES = {
    "rrdbnet": lambda: rrdbnet(blocks=1)[0],
    "rrdbnet, x1 of blocks of 4": lambda: rrdbnet(blocks=1, unshuffled=4)[0],
    "rrdbnet, x2 of blocks of 2": lambda: rrdbnet(blocks=1, unshuffled=2)[0],
    "compact": lambda: tempered(originals.compact(3))[0],
    "span": lambda: enlarging_span(255.0, originals.DIV2K, 2),
}


def network(name: str) -> WholeNetwork:
    return recognise(STATES[name](), name)


def check(whole: WholeNetwork, run) -> None:
    engine = MaskGuidedSR(whole, device="cpu", dtype="float32", runtime="pytorch")
    for height, width in SIZES:
        image = photographs(height, width)[1:].contiguous()
        found, expected = torch.as_tensor(run(image)), engine(image)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= NEAR, (height, width)


@pytest.mark.parametrize("name", STATES)
def test_the_graph_is_the_network(name):
    whole = network(name)
    check(whole, WholeGraph(whole, Amount()).eval())


@pytest.mark.parametrize("name", ["rrdbnet, x2 of blocks of 2", "compact", "span"])
def test_torch_export_gives_the_image_of_the_engine(name):
    whole = network(name)
    check(whole, trace(whole, Amount()).module())


@needs("onnx", "onnxscript", "onnxruntime")
@pytest.mark.parametrize("name", ["rrdbnet", "rrdbnet, x1 of blocks of 4", "compact", "span"])
def test_onnx_gives_the_image_of_the_engine(tmp_path, name):
    whole = network(name)
    written = export_model(whole, tmp_path / "model.onnx")
    assert written == facts(whole, Amount())
    check(whole, run_onnxruntime(tmp_path / "model.onnx"))
    pytest.importorskip("openvino")
    check(whole, run_openvino(tmp_path / "model.onnx"))


def test_the_command(tmp_path, capsys):
    torch.save(dict(STATES["compact"]()), tmp_path / "net.pth")
    assert main(["export", str(tmp_path / "net.pth"), "-o", str(tmp_path / "out.pt2")]) == 0
    assert "(compact x3, whole, " in capsys.readouterr().out
    held = {formats.METADATA: ""}
    check(network("compact"), torch.export.load(tmp_path / "out.pt2", extra_files=held).module())
    assert json.loads(held[formats.METADATA])["scale"] == 3
    assert main(["export", str(tmp_path / "net.pth"), "-o", str(tmp_path / "new.pt2"), "--k", "3"]) == 1
    assert "compact is a whole network without a mask; give no amount" in capsys.readouterr().err
    assert not (tmp_path / "new.pt2").exists()
    with pytest.raises(InputError, match="give no amount"):
        export_model(network("span"), tmp_path / "new.pt2", fraction=0.5)

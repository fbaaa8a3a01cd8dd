"""What ``convolve_maps_`` and ``pack_map_weight`` refuse, each with the reason."""

import pytest
import torch
from map_layers import Case

from mga_kernels import ops
from mga_kernels.errors import InputError
from mga_kernels.ops.convolution.map_layout import empty_map
from mga_kernels.records import FrameRecord, LayerRecord, MapRecord


@pytest.fixture
def given():
    """Arguments of one layer, to be changed into wrong ones."""
    case = Case(16, 8, 3, 4)
    return {
        "tensors": [empty_map(8, 5, 20), empty_map(16, 5, 20)],
        "maps": [MapRecord(), MapRecord()],
        "masks": [],
        "weights": [case.packed],
        "epilogues": [case.epilogue],
        "layers": [case.record()],
        "tiles": [],
        "frame": FrameRecord(5, 20),
    }


def layer(**settings):
    return LayerRecord(**{"x": 0, "inputs": 8, "out": 1, "outputs": 16, "size": 3, "tile": 4, **settings})


WRONG = [
    ({"layers": []}, "0 layers, 1 weights and 1 epilogues"),
    ({"maps": [MapRecord()]}, "2 tensors for 1 records"),
    ({"maps": [MapRecord(mask=0), MapRecord()]}, "a map names mask 0 of 0"),
    ({"layers": [layer(out=2)]}, "layer 0 names maps or tiles that there are not"),
    ({"layers": [layer(tiles=0)]}, "layer 0 names maps or tiles that there are not"),
    ({"layers": [layer(x_channel=3)]}, "not from a multiple of 8 channels on"),
    ({"layers": [layer(out_channel=8)]}, "writes outside of its map"),
    ({"layers": [layer(size=4)]}, "the kernel size must be"),
    ({"layers": [layer(tile=5)]}, "tiles of 4 are for 3x3 and 5x5, of 6 for 3x3 kernels"),
    ({"layers": [layer(tile=0)]}, "was it packed for other channels or tiles"),
    ({"layers": [layer(gate=1)]}, "a gate needs a skip"),
    ({"layers": [layer(gate=3)]}, "no such gate"),
    ({"layers": [layer(skip=0)]}, "adds what is outside of its map"),
    ({"maps": [MapRecord(), MapRecord(scale=65)]}, "the scale of a map must be 1 to 64"),
    ({"layers": [layer(shuffle=2)]}, "does not lead from scale 1 to scale 1"),
    ({"layers": [layer(statistics=1)]}, "numbered 0, 1, ... without a gap"),
    ({"layers": [layer(parts=0)]}, "layer 0: parts are a map of 32 channels"),
    ({"layers": [layer(parts=2)]}, "layer 0 names maps or tiles that there are not"),
    ({"layers": [layer(patch=6, step=7)]}, "patches of 6 pixels every 7 are for layers in tiles that fill them"),
    ({"layers": [layer(patch=4, step=4)]}, "with room between them"),
    ({"layers": [layer(patch=4, step=5, tile=0, size=1)]}, "are for layers in tiles"),
    ({"layers": [layer(patch=4, step=9)]}, "no whole patches of 4 pixels fill 20"),
    ({"layers": [layer(patch=4, step=5, inset=2)]}, "no whole patches of 4 pixels fill 5"),
    ({"frame": FrameRecord(6, 20)}, "at least 6 rows"),
    ({"frame": FrameRecord(5, 25)}, "a pitch of 44"),
    ({"epilogues": [torch.zeros(3, 16)]}, r"needs an epilogue \(4, 16\)"),
    ({"tensors": [empty_map(8, 5, 20).double(), empty_map(16, 5, 20)]}, "tensors must be maps"),
    ({"tiles": [torch.tensor([0, 10], dtype=torch.int32)], "layers": [layer(tiles=0)]}, "tile 10 is outside of 2x5"),
    ({"tiles": [torch.tensor([1, 1], dtype=torch.int32)], "layers": [layer(tiles=0)]}, "not behind the one before it"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_layers_that_make_no_sense_are_refused(given, change, message, monkeypatch):
    monkeypatch.setenv("MGA_BACKEND", "cpu")
    ops.convolve_maps_(**given)
    with pytest.raises(InputError, match=message):
        ops.convolve_maps_(**{**given, **change})


def test_a_layer_does_not_write_what_it_reads(given, monkeypatch):
    """But over what it adds, and factors over their input."""
    monkeypatch.setenv("MGA_BACKEND", "cpu")
    shared = empty_map(24, 5, 20)
    same = {**given, "tensors": [shared, shared]}
    with pytest.raises(InputError, match="layer 0 writes over what it reads; let it write to another map"):
        ops.convolve_maps_(**{**same, "layers": [layer(out_channel=0)]})
    ops.convolve_maps_(**{**same, "layers": [layer(out_channel=8)]})
    ops.convolve_maps_(**{**given, "layers": [layer(skip=1)]})
    with pytest.raises(InputError, match="writes over what it adds"):
        ops.convolve_maps_(
            **{**given, "tensors": [given["tensors"][0], shared], "layers": [layer(skip=1, skip_channel=8)]}
        )


@pytest.mark.parametrize(
    ("weight", "tile", "message"),
    [
        (torch.zeros(8, 8, 3, 3).double(), 0, "weight must be float32"),
        (torch.zeros(8, 8, 3, 1), 0, "the kernel must be square"),
        (torch.zeros(8, 8, 5, 5), 6, "tiles of 4 are for 3x3 and 5x5"),
        (torch.zeros(4, 8, 3, 3), 4, "of more than 4 channels"),
        (torch.zeros(8, 8, 3, 3), 5, "tiles of 4 are for 3x3 and 5x5"),
    ],
)
def test_wrong_weights_are_refused(weight, tile, message):
    with pytest.raises(InputError, match=message):
        ops.pack_map_weight(weight, tile)

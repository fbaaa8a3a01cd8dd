"""9x9 convolutions of few outputs as nine of 3x3: the sums of the definition, from parts that another layer makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from map_layers import map_of, whole
from torch import Tensor

from mga_kernels import MaskGuidedSR, ops
from mga_kernels.alone.layout import PART_CHANNELS, PARTS
from mga_kernels.errors import InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig
from mga_kernels.ops.convolution import maps_reference
from mga_kernels.records import FrameRecord, LayerRecord, MapRecord
from mga_kernels.runtimes.cpu import blocks
from mga_kernels.runtimes.cpu.blocks import in_blocks
from mga_kernels.runtimes.cpu.layers import Conv
from mga_kernels.runtimes.cpu.maps import Map, MapChain
from mga_kernels.runtimes.cpu.pairs import Grid
from mga_kernels.runtimes.cpu.stages import Stage

SIZES = [(1, 1), (2, 7), (3, 3), (5, 6), (6, 5), (9, 100), (41, 61)]
INPUTS = 16
ERROR = {4: 2e-5, 6: 2e-4}  # of outputs of rms 1.4, by tile


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(12)


def large(outputs: int = 3, **more: object) -> Conv:
    weight = torch.randn(outputs, INPUTS, 9, 9) * (81 * INPUTS) ** -0.5
    return Conv(weight, torch.randn(outputs), floats=True, **more)


def chain_of(conv: Conv, tile: int = 4) -> MapChain:
    return MapChain([Stage(conv, "x", "out")], ["x", "out"], [tile])


def stored(image: Tensor) -> Map:
    made = Map(*image.shape)
    made.write(image)
    return made


def run(chain: MapChain, image: Tensor) -> Tensor:
    height, width = image.shape[1:]
    out = torch.full((chain.stages[-1].layer.channels, height, width), float("nan"))
    chain(Grid(1, (height, width)), {"x": stored(image), "out": out})
    return out


def exact(conv: Conv, image: Tensor) -> Tensor:
    return F.conv2d(image[None].double(), conv.weight.double(), conv.epilogue[0].double(), padding=4)[0]


@pytest.mark.parametrize("tile", [4, 6])
@pytest.mark.parametrize("outputs", [1, 2, 3])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_blocks_are_the_definition(height, width, outputs, tile):
    conv, image = large(outputs), torch.randn(INPUTS, height, width)
    chain = chain_of(conv, tile)
    assert chain.in_blocks is not None
    assert [(layer.size, layer.tile) for layer in chain.in_blocks.records] == [(3, tile), (9, 0)]
    found = run(chain, image)
    torch.testing.assert_close(found.double(), exact(conv, image), rtol=1e-5, atol=ERROR[tile])
    assert not torch.equal(found, run(chain.in_blocks, image * 0))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_parts_are_added_as_the_operator_says(height, width):
    """Whatever they are: also where no convolution made them, and where what is in the other channels is no number."""
    parts = torch.full((PART_CHANNELS, height, width), float("nan"))
    for channels in (channels for row in PARTS for channels in row):
        parts[list(channels)] = torch.randn(3, height, width)
    conv, image = large(), torch.randn(INPUTS, height, width)
    record = LayerRecord(x=0, inputs=INPUTS, out=1, outputs=3, size=9, parts=2)
    epilogue = F.pad(torch.stack([conv.epilogue[0], torch.ones(3), torch.ones(3), torch.ones(3)]), (0, 5))
    found = []
    for given in (ops.convolve_maps_, maps_reference.convolve_maps_):
        tensors = [map_of(image), torch.zeros(3, height, width), map_of(parts)]
        call = [tensors, [MapRecord()] * 3, [], [ops.pack_map_weight(conv.weight)], [epilogue], [record], []]
        more = () if given is ops.convolve_maps_ else ([],)
        rest = () if given is ops.convolve_maps_ else (1.0, None)
        given(*call, *more, FrameRecord(height, width), *rest)
        found.append(tensors[1])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
    inner = found[0][:, 3 : height - 3, 3 : width - 3]
    assert inner.numel() == 0 or (inner - exact(conv, image)[:, 3 : height - 3, 3 : width - 3]).abs().max() > 1


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_infinities_reach_as_far_as_the_kernel(value):
    conv, image = large(), torch.randn(INPUTS, 40, 61)
    for channel, y, x in ((0, 0, 0), (9, 17, 31), (3, 39, 60), (5, 20, 33)):
        image[channel, y, x] = value
    found, expected = run(chain_of(conv), image), exact(conv, image)
    assert 81 < (~expected.isfinite()).any(dim=0).sum() < 4 * 81
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.isposinf(), expected.isposinf())
    assert torch.equal(found.isneginf(), expected.isneginf())
    finite = expected.isfinite()
    torch.testing.assert_close(found[finite].double(), expected[finite], rtol=1e-5, atol=ERROR[4])


def test_threads_do_not_change_a_bit():
    chain, image = chain_of(large()), torch.randn(INPUTS, 61, 143)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            found.append(run(chain, image))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_patches_are_convolved_as_before():
    """Where they lie in their raster changes no bit of them, and they need no room for parts."""
    enlarge, count, side = Conv(torch.randn(16 * INPUTS, INPUTS, 3, 3) / 30, shuffle=4), 5, 8
    chain = MapChain([Stage(enlarge, "x", "a"), Stage(large(), "a", "out")], ["x", "out"])
    grid = Grid(count, (side, side), 2)
    patch = torch.randn(INPUTS, side, side)
    image = torch.zeros(INPUTS, grid.height, grid.width)
    for i in range(count):
        y, x = i // 2 * (side + 1), i % 2 * (side + 1)
        image[:, y : y + side, x : x + side] = patch
    pictures = torch.zeros(count, 4 * side, 4 * side, 3, dtype=torch.uint8)
    chain(grid, {"x": stored(image), "out": pictures}, gain=0.2)
    assert [room.groups for room in grid.rooms.maps] == [2]  # of what is enlarged
    assert pictures.float().std() > 10
    assert all(torch.equal(pictures[0], other) for other in pictures)
    assert "parts" not in chain.rows_of(images=False).slots
    assert "parts" in chain.rows_of(images=True).slots


@pytest.mark.parametrize(
    "other",
    [
        Stage(Conv(torch.zeros(3, 16, 5, 5), floats=True), "x", "out"),
        Stage(Conv(torch.zeros(8, 16, 9, 9)), "x", "out"),
        Stage(Conv(torch.zeros(3, 8, 9, 9), floats=True), "x", "out"),
        Stage(Conv(torch.zeros(3, 16, 9, 9), floats=True), "x", "out", stride=2),
    ],
    ids=["5x5", "eight outputs", "few inputs", "a stride"],
)
def test_others_are_left_as_they_are(other):
    assert in_blocks([other]) is None


def test_parts_of_another_size_are_refused():
    conv = large()
    record = LayerRecord(x=0, inputs=INPUTS, out=1, outputs=3, size=9, parts=0)
    tensors = [map_of(torch.randn(INPUTS, 5, 20)), torch.zeros(3, 5, 20)]
    call = [MapRecord()] * 2, [], [ops.pack_map_weight(conv.weight)], [torch.ones(4, 8)], [record], []
    with pytest.raises(InputError, match="layer 0: parts are a map of 32 channels"):
        ops.convolve_maps_(tensors, *call, whole(5, 20))


@pytest.mark.parametrize("scale", [2, 4])
def test_srresnet_makes_the_picture_of_plain_sums(scale, monkeypatch):
    """Coarse and dense: 90 dB between the two."""
    network = MaskGuidedNetwork(ModelConfig("srresnet", scale, split=(1, 1))).eval()
    image = np.random.default_rng(3).integers(0, 256, (52, 70, 3), dtype=np.uint8)
    found = {}
    for least in (blocks.LEAST_INPUTS, 1000):
        monkeypatch.setattr(blocks, "LEAST_INPUTS", least)
        for mode in ("masked", "dense"):
            model = MaskGuidedSR(network, device="cpu", runtime="own", mode=mode, dtype="float32")
            found[least, mode] = model.upscale(image).astype(np.float64)
    for mode in ("masked", "dense"):
        one, other = found[16, mode], found[1000, mode]
        assert one.std() > 3
        assert np.square(one - other).mean() < 255**2 / 10**9

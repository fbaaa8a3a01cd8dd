"""Layers of a chain in bands of rows: the bits of one layer after the other, in the memory of a few rows."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from mga_kernels import MaskGuidedSR, ops
from mga_kernels.alone.rooms import BAND, LEAST, LISTED_SMALL
from mga_kernels.errors import InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig
from mga_kernels.ops.convolution import maps_reference
from mga_kernels.ops.convolution.map_layout import empty_map, read
from mga_kernels.records import FrameRecord, LayerRecord, MapRecord
from mga_kernels.runtimes.cpu.layers import Conv, Scale
from mga_kernels.runtimes.cpu.maps import Map, MapChain, Maps
from mga_kernels.runtimes.cpu.pairs import Grid
from mga_kernels.runtimes.cpu.rows import Rows
from mga_kernels.runtimes.cpu.stages import Stage, part_of


def conv(outputs: int, inputs: int, size: int = 3, **more: object) -> Conv:
    scale = (inputs * size**2) ** -0.5
    return Conv(torch.randn(outputs, inputs, size, size) * scale, torch.randn(outputs), 0.1, **more)


def in_bands(monkeypatch, rows: int) -> None:
    monkeypatch.setattr(Rows, "band", lambda self, height, width: rows)


def outcome(chain: MapChain, grid: Grid, image: torch.Tensor, out: Map | torch.Tensor, name: str) -> torch.Tensor:
    x = Map(*image.shape)
    x.write(image)
    sums = chain(grid, {"x": x, name: out})
    made = out if isinstance(out, torch.Tensor) else out.read()
    return torch.cat([made.flatten().double(), *(one.flatten() for one in sums)])


CHAINS = {
    "3x3 layers": lambda: [
        Stage(conv(8, 8), x, out) for x, out in zip("xabcd", ["a", "b", "c", "d", "out"], strict=True)
    ],
    "a long skip": lambda: [
        *(Stage(conv(8, 8), x, out) for x, out in zip("xabc", "abcd", strict=True)),
        Stage(conv(8, 8), "d", "out", "a"),
    ],
    "a long second addend": lambda: [
        *(Stage(conv(8, 8), x, out) for x, out in zip("xabc", "abcd", strict=True)),
        Stage(conv(8, 8), "d", "out", "b", also="a"),
    ],
    "parts": lambda: [
        Stage(conv(8, 8), "x", "wide"),
        Stage(conv(8, 8), "wide", ("wide", 8)),
        Stage(conv(8, 16), "wide", ("wide", 16), measure=True),
        Stage(conv(8, 24, 1), "wide", "out"),
    ],
    "in place": lambda: [
        Stage(conv(8, 8, 9), "x", "a"),
        Stage(conv(8, 8), "a", "b"),
        Stage(conv(8, 8), "b", "a", "a"),
        Stage(conv(8, 8, 5), "a", "b"),
        Stage(Scale(8, 0.2), "b", "out", "a"),
    ],
    "two addends": lambda: [
        Stage(conv(8, 8), "x", "a"),
        Stage(conv(8, 8), "a", ("b", 8)),
        Stage(conv(8, 8, 5), ("b", 8), ("b", 16)),
        Stage(conv(8, 8), ("b", 16), "b", ("b", 8), also="a", factors=(0.2, 1.0)),
        Stage(conv(8, 24), "b", "a", ("b", 16), also="a", factors=(1.0, 0.5)),
        Stage(conv(8, 8), "a", "out", ("b", 16)),
    ],
    "shuffles": lambda: [
        Stage(conv(8, 8), "x", "a"),
        Stage(conv(32, 8, shuffle=2), "a", "b"),
        Stage(conv(8, 8, 5), "b", "c"),
        Stage(conv(32, 8, shuffle=2), "c", "d"),
        Stage(conv(3, 8), "d", "picture"),
    ],
    "9x9 in blocks": lambda: [
        Stage(conv(16, 8), "x", "a"),
        Stage(conv(64, 16, shuffle=2), "a", "b"),
        Stage(conv(3, 16, 9, floats=True), "b", "picture"),
    ],
    "a picture at the end": lambda: [Stage(conv(8, 8), "x", "a"), Stage(conv(12, 8), "a", "picture", enlarge=2)],
    "factors first": lambda: [Stage(Scale(8), "x", "a"), Stage(conv(8, 8, 7), "a", "b"), Stage(conv(5, 8), "b", "out")],
}


@pytest.mark.parametrize("band", [4, 7, BAND])
@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize(
    "grid",
    [Grid(1, (61, 19)), Grid(7, (9, 8), 2), Grid(7, (8, 8), 2), Grid(1, (3, 5))],
    ids=["image", "cells", "filled cells", "tiny"],
)
def test_a_band_changes_no_bit(monkeypatch, name, band, grid):
    torch.manual_seed(1)
    stages = CHAINS[name]()
    end = part_of(stages[-1].out)[0]
    chain = MapChain(stages, ["x", end])
    scale = chain.slots[end].scale
    found = []
    for rows in (0, band):
        in_bands(monkeypatch, rows)
        torch.manual_seed(2)
        image = torch.randn(8, grid.height, grid.width)
        out = Map(stages[-1].layer.channels, grid.height, grid.width)
        if end == "picture":
            out = torch.zeros(grid.count, *(scale * side for side in grid.size), 3, dtype=torch.uint8)
        found.append(outcome(chain, Grid(grid.count, grid.size, grid.across), image, out, end))
    assert found[0].std() > 0
    assert torch.equal(*found)


def chance(number: int) -> list[Stage]:
    """Layers of random kinds over slots with room for two parts, which are read, added and written over at random."""
    of = random.Random(number)
    stages = [Stage(conv(8, 8, of.choice([1, 3, 5])), "x", ("a", 8)), Stage(conv(8, 8), "x", "a")]
    scales = {"x": 1, "a": 1}
    for _ in range(of.randrange(2, 9)):
        source = of.choice([name for name in scales if name != "x"])
        shuffle = 2 if scales[source] == 1 and of.random() < 0.2 else 1
        written = [name for name, scale in scales.items() if scale == scales[source] and name not in ("x", source)]
        target = of.choice(written) if written and shuffle == 1 and of.random() < 0.4 else f"s{len(scales)}"
        new = target not in scales
        skip = target if not new and of.random() < 0.5 else source if shuffle == 1 and of.random() < 0.4 else None
        scales[target] = scales[source] * shuffle
        layer = conv(16 * shuffle**2, 16, of.choice([1, 3, 3, 5]), shuffle=shuffle)
        stages.append(Stage(layer, source, target, skip))
    last = of.choice([name for name in scales if name != "x"])
    return [*stages, Stage(conv(16, 16), last, "out")]


@pytest.mark.parametrize("number", range(40))
def test_chance_chains_keep_their_bits_and_their_rows(monkeypatch, number):
    """What holds the fewest rows is always enough: the operator refuses a map in which something would be missing."""
    torch.manual_seed(number)
    stages = chance(number)
    chain, grid = MapChain(stages, ["x", "out"]), Grid(1, (90, 10))
    scale = chain.slots["out"].scale
    found = []
    for rows in (0, 12):
        in_bands(monkeypatch, rows)
        torch.manual_seed(3)
        image, out = torch.randn(8, 90, 10), Map(16, 90 * scale, 10 * scale)
        found.append(outcome(chain, Grid(1, grid.size), image, out, "out"))
    assert torch.equal(*found)
    assert all(rows <= 90 * room.scale for room, rows in chain.rows.rooms(90, 12).values())


def test_a_deep_network_holds_some_rows_of_each_map(monkeypatch):
    slots = [str(i) for i in range(31)]
    stages = [Stage(conv(8, 8), slots[i], slots[i + 1]) for i in range(30)]
    rows = MapChain(stages, [slots[0], slots[-1]]).rows
    assert max(held for _, held in rows.rooms(10_000, BAND).values()) == BAND + 8
    assert rows.band(10_000, 2_000) == BAND
    assert rows.band(10_000, 20) == 0  # little memory
    assert rows.band(200, 8_000) == 0  # two maps of all rows are less than 29 of 56 rows
    assert rows.band(10_000, 16_000) == 24  # of which 29 maps of 32 rows take less than ROOMY, those of 56 more
    assert rows.band(10_000, 200_000) == LEAST
    rows.small = LISTED_SMALL
    assert rows.band(10_000, 1_000) == 0 != rows.band(10_000, 2_000)
    storage = Maps()
    chain = MapChain(stages, [slots[0], slots[-1]])
    assert storage.room_bytes([chain], 20_000, 2_000) == storage.room_bytes([chain], 10_000, 2_000)


def test_the_definition_knows_maps_of_a_few_rows():
    torch.manual_seed(4)
    layers, tensors, weights, epilogues = small_call(40)
    frame = FrameRecord(40, 9, band=8)
    call = [MapRecord()] * 3, [], weights, epilogues, layers, []
    ops.convolve_maps_(tensors, *call, frame)
    found = read(tensors[2], 40, 9, 0, 8).clone()
    tensors[2].zero_()
    maps_reference.convolve_maps_(tensors, *call, [], frame, 1.0, None)
    torch.testing.assert_close(read(tensors[2], 40, 9, 0, 8), found, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["fsrcnn", "pan", "rfdn", "srresnet", "rcan", "imdn"])
def test_plans_of_networks_keep_their_bits(monkeypatch, name):
    """Image and patches; and a large image needs half of the memory where it is enlarged in maps."""
    torch.manual_seed(7)
    split = {"pan": (2, 1), "rfdn": (2, 1), "srresnet": (2, 1), "rcan": (2, 1), "imdn": (2, 1)}.get(name, ())
    network = MaskGuidedNetwork(ModelConfig(name, 4, split=split))
    image = np.random.default_rng(3).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    found, needed = [], []
    for rows in (0, 24):
        in_bands(monkeypatch, rows)
        model = MaskGuidedSR(network, k=5, device="cpu", runtime="own", dtype="float32")
        found.append(model.upscale(image))
        needed.append(model._runner.planner.bytes_needed(500, 500, 0))
    assert np.array_equal(*found)
    assert needed[1] < needed[0] * (0.5 if name in ("pan", "srresnet", "rcan") else 1)


def small_call(height: int, rows: int = 16, leads: tuple[int, int] = (4, 0)):
    """Two 3x3 layers with a map of a few rows between them."""
    layers = [
        LayerRecord(x=0, inputs=8, out=1, outputs=8, size=3, tile=4, lead=leads[0]),
        LayerRecord(x=1, inputs=8, out=2, outputs=8, size=3, tile=4, lead=leads[1]),
    ]
    tensors = [empty_map(8, height, 9), empty_map(8, rows, 9), empty_map(8, height, 9)]
    tensors[0][:, :, 4:13] = torch.randn(height, 1, 9, 8)
    weights = [ops.pack_map_weight(torch.randn(8, 8, 3, 3) / 9, 4) for _ in range(2)]
    epilogue = torch.ones(4, 8)
    return layers, tensors, weights, [epilogue, epilogue]


@pytest.mark.parametrize(
    ("rows", "leads", "band", "message"),
    [
        (12, (4, 0), 8, "layer 0 would not find what it needs of layer 1"),  # a row too few: it is still to be read
        (40, (0, 0), 8, "layer 1 would not find what it needs of layer 0"),  # not there yet
        (40, (0, 4), 8, "layer 1 would not find what it needs of layer 0"),
        (14, (4, 0), 0, "with at least 40 rows"),
        (14, (4, -1), 8, "may not lag behind"),
        (14, (4, 0), -1, "a band has -1 rows"),
    ],
)
def test_rows_that_would_be_missing_are_refused(rows, leads, band, message):
    layers, tensors, weights, epilogues = small_call(40, rows, leads)
    with pytest.raises(InputError, match=message):
        ops.convolve_maps_(
            tensors, [MapRecord()] * 3, [], weights, epilogues, layers, [], FrameRecord(40, 9, band=band)
        )
    assert not tensors[2].any()


def test_as_many_rows_as_are_held_are_enough():
    layers, tensors, weights, epilogues = small_call(40, 13)
    ops.convolve_maps_(tensors, [MapRecord()] * 3, [], weights, epilogues, layers, [], FrameRecord(40, 9, band=8))
    assert tensors[2].any()


def test_a_map_of_a_few_rows_that_nothing_writes_is_refused():
    layers, tensors, weights, epilogues = small_call(40)
    tensors[0] = empty_map(8, 20, 9)
    with pytest.raises(InputError, match="layer 0 reads a map of a few rows, which no layer before it writes"):
        ops.convolve_maps_(tensors, [MapRecord()] * 3, [], weights, epilogues, layers, [], FrameRecord(40, 9, band=8))


def test_what_is_written_twice_is_written_in_its_order():
    layers, tensors, weights, epilogues = small_call(40)
    layers = [layers[0], replace(layers[0], lead=12), layers[1]]
    both = [weights[0], *weights], [epilogues[0], *epilogues]
    with pytest.raises(InputError, match="layer 1 would not find what it needs of layer 0"):
        ops.convolve_maps_(tensors, [MapRecord()] * 3, [], *both, layers, [], FrameRecord(40, 9, band=8))


def test_lists_of_tiles_are_cut_into_bands(monkeypatch):
    torch.manual_seed(6)
    layers, tensors, weights, epilogues = small_call(40, 40)
    layers = [layers[0], replace(layers[1], tiles=0)]
    tiles = torch.tensor([0, 2, 3, 7, 8, 17, 20, 29], dtype=torch.int32)
    call = [MapRecord()] * 3, [], weights, epilogues, layers, [tiles]
    ops.convolve_maps_(tensors, *call, FrameRecord(40, 9, band=0))
    expected = tensors[2].clone()
    tensors[2].zero_()
    tensors[1].zero_()
    ops.convolve_maps_(tensors, *call, FrameRecord(40, 9, band=8))
    assert torch.equal(tensors[2], expected)
    assert expected.any()

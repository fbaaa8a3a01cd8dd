"""Weights of layers in tiles that are kept as they are, and transformed at each call."""

from __future__ import annotations

import pytest
import torch
from map_layers import Case, map_of, poisoned
from test_map_bands import CHAINS, in_bands, outcome
from test_plans import MAPS, picture, small_network

from mga_kernels import MaskGuidedSR, ops
from mga_kernels.architectures.rcan.cpu import RcanWeights
from mga_kernels.errors import InputError
from mga_kernels.ops.convolution import maps_reference
from mga_kernels.ops.convolution.map_layout import read
from mga_kernels.records import FrameRecord, MapRecord
from mga_kernels.runtimes.cpu import large_tiles
from mga_kernels.runtimes.cpu.layers import Conv
from mga_kernels.runtimes.cpu.maps import Map, MapChain
from mga_kernels.runtimes.cpu.packing import pack
from mga_kernels.runtimes.cpu.pairs import Grid


@pytest.mark.parametrize(("size", "tile"), [(3, 4), (3, 6), (5, 4)])
@pytest.mark.parametrize(("outputs", "inputs"), [(8, 8), (50, 13), (64, 64), (24, 5), (5, 64)])
def test_a_layer_makes_the_same_bits(outputs, inputs, size, tile):
    torch.manual_seed(0)
    case, image = Case(outputs, inputs, size, tile), torch.randn(inputs, 21, 30)
    made = []
    for weight in (case.packed, ops.plain_map_weight(case.weight)):
        out = poisoned(outputs, 21, 30)
        call = [map_of(image), out], [MapRecord()] * 2, [], [weight], [case.epilogue], [case.record()], []
        ops.convolve_maps_(*call, FrameRecord(21, 30))
        made.append(read(out, 21, 30, 0, outputs))
    assert torch.equal(*made)
    defined = poisoned(outputs, 21, 30)
    maps_reference.convolve_maps_(
        [map_of(image), defined], *call[1:], [], FrameRecord(21, 30), 1.0, None
    )  # by definition, of the plain weight
    assert torch.allclose(read(defined, 21, 30, 0, outputs), made[1], atol=1e-4)


@pytest.mark.parametrize("rows", [0, 12])
@pytest.mark.parametrize("name", ["3x3 layers", "a long skip", "parts"])
def test_chains_make_the_same_bits_with_any_number_of_threads(name, rows, monkeypatch):
    in_bands(monkeypatch, rows)
    torch.manual_seed(0)
    stages, image = CHAINS[name](), torch.randn(8, 61, 45)
    grid, tiles, found = Grid(1, (61, 45)), [4, 6] * 3, []
    for transformed, threads in ((True, 1), (False, 1), (False, 3)):
        chain = MapChain(stages, ["x", "out"], tiles[: len(stages)], transformed=transformed)
        out = Map(stages[-1].layer.channels, 61, 45)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            found.append(outcome(chain, grid, image, out, "out"))
        finally:
            torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_plain_weight_is_for_tiles_only():
    case = Case(16, 8, 3)
    call = [map_of(torch.randn(8, 9, 9)), poisoned(16, 9, 9)], [MapRecord()] * 2, []
    short = ops.plain_map_weight(case.weight)[:-8]
    for weight, tile in ((short, 0), (short, 4)):
        with pytest.raises(InputError, match="was it packed for other channels or tiles"):
            ops.convolve_maps_(*call, [weight], [case.epilogue], [case.record(tile=tile)], [], FrameRecord(9, 9))


def test_tiles_of_any_side_share_a_plain_weight_which_is_the_only_one():
    layer = Conv(torch.randn(16, 8, 3, 3))
    weight = layer.weight.clone()
    small, large = (pack(layer, tile=tile, transformed=False) for tile in (4, 6))
    assert (small.tile, large.tile) == (4, 6)
    assert small.weight is large.weight
    assert layer.weight.untyped_storage().data_ptr() == small.weight.untyped_storage().data_ptr()
    assert torch.equal(layer.weight, weight)
    assert pack(layer, tile=6).weight.numel() == large.weight.numel() * (64 + 9) / 9


@pytest.mark.parametrize(("name", "transformed"), [("rcan", False), ("msrresnet-split", False), ("rfdn", True)])
def test_many_weights_are_kept_plain_where_chains_are_short(name, transformed, monkeypatch):
    settings = {"split": (1, 1), "base": {"blocks_per_group": 2}, "refine": {"blocks_per_group": 2}}
    network = small_network(4, 4, name, **(settings if name == "rcan" else {}))
    image = picture(40, 52)
    usual = MaskGuidedSR(network, device="cpu", runtime="own", dtype=torch.float32, k=40)
    monkeypatch.setattr(large_tiles, "MANY", 0)
    saving = MaskGuidedSR(network, device="cpu", runtime="own", dtype=torch.float32, k=40)
    assert {chain.transformed for chain in usual._runner.planner.chains} == {True}
    assert {chain.transformed for chain in saving._runner.planner.chains} == {transformed}
    assert (usual.upscale(image) == saving.upscale(image)).all()


def test_rcan_makes_its_long_skip_again_rather_than_keep_a_plane_for_it():
    network = small_network(4, 4, "rcan", split=(2, 1), base={"blocks_per_group": 1}, refine={"blocks_per_group": 1})
    plan = RcanWeights(network, MAPS).plan(61, 45, 0)
    assert set(plan.base_buffers) == {"raw 0", "block 0"}
    image = picture(61, 45)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        plan.coarse(torch.from_numpy(image), None)
        expected = network.coarse(tensor)[1][0, :, :61, :45]
    assert torch.allclose(plan.feature.read()[:, :61, :45], expected, atol=1e-3 * float(expected.std()))

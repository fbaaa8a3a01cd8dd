"""Tiles of 6 x 6 pixels for 3x3 kernels: used where a network asks for them and makes the same picture in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mga_kernels import MaskGuidedSR, _native
from mga_kernels.networks.whole import WholeConfig, WholeNetwork
from mga_kernels.runtimes.cpu import large_tiles
from mga_kernels.runtimes.cpu.maps import Maps, pack
from mga_kernels.runtimes.precision import picture

SETTINGS = {"span": {"channels": 28}, "compact": {"channels": 64}, "edsr": {}}


def network(kind: str, above: float = 0.0) -> WholeNetwork:
    """``above``: added to all that the last convolution of "compact" reads, and taken off what it makes."""
    torch.manual_seed(2)
    input_range = "0..255" if kind == "edsr" else "0..1"
    made = WholeNetwork(WholeConfig(kind, 2, 2, SETTINGS[kind], input_range=input_range)).eval().requires_grad_(False)
    if kind == "compact":
        *_, before, _, last = made.body.body
        before.bias += above
        last.bias -= above * last.weight.sum(dim=(1, 2, 3))
    return made


def tiles_of(model: MaskGuidedSR) -> set[int]:
    """Those of its 3x3 layers in tiles."""
    chains = model._runner.planner.chains
    return {record.tile for chain in chains for record in chain.records} - {0}


@pytest.mark.parametrize(("kind", "tile"), [("span", 6), ("compact", 6), ("edsr", 4)])
def test_networks_that_ask_for_large_tiles_have_them(kind, tile):
    if _native.map_kernels()[0] == "portable":
        pytest.skip("the portable kernels round a product and a sum each, which is seen in tiles of 6")
    assert tiles_of(MaskGuidedSR(network(kind), runtime="own")) == {tile}


def test_what_large_tiles_would_change_has_small_ones():
    """Small differences between large values, of which more is rounded off."""
    assert tiles_of(MaskGuidedSR(network("compact", 300.0), runtime="own")) == {4}


@pytest.mark.parametrize(
    ("found", "tile"), [([86.0], 4), ([94.0], 6), ([89.6, 90.7], 6), ([91.1, 88.1], 4), ([91.1, 90.0], 6)]
)
def test_a_narrow_verdict_is_that_of_a_larger_picture(monkeypatch, found, tile):
    """Of a small one few values differ: it called 89.6 dB what is 90.7, and 91.1 what is 88.1."""
    left, sizes = list(found), []

    def likeness(one, other):
        sizes.append(one.shape)
        return left.pop(0)

    monkeypatch.setattr(large_tiles, "_likeness", likeness)
    assert tiles_of(MaskGuidedSR(network("compact"), runtime="own")) == {tile}
    assert not left
    assert sizes == [(2 * side, 2 * side, 3) for side in (64, 128)[: len(found)]]


@pytest.mark.parametrize("kind", ["span", "compact"])
def test_pictures_in_large_tiles_are_those_in_small_ones(monkeypatch, kind):
    image = (255 * picture(67, 83)[0].permute(1, 2, 0)).byte().numpy()
    large = np.asarray(MaskGuidedSR(network(kind), runtime="own").upscale(image))
    monkeypatch.setattr(large_tiles, "ALIKE", np.inf)
    small = MaskGuidedSR(network(kind), runtime="own")
    assert tiles_of(small) == {4}
    assert large_tiles._likeness(large.astype(float), np.asarray(small.upscale(image)).astype(float)) >= 80


def test_a_layer_is_packed_once_for_each_side():
    layer = MaskGuidedSR(network("edsr"), runtime="own")._runner.planner.chains[0].stages[1].layer
    assert pack(layer, tile=4) is pack(layer, tile=4)
    assert pack(layer, tile=6) is not pack(layer, tile=4)
    assert (pack(layer, tile=6).tile, Maps(6).tile, Maps().tile) == (6, 6, 4)

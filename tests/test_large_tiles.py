"""Tiles of 6 x 6 pixels for 3x3 kernels: used where a network asks for them and makes the same picture in them."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch

from mga_kernels import MaskGuidedSR, _native
from mga_kernels.networks.whole import WholeConfig, WholeNetwork
from mga_kernels.runtimes.cpu import large_tiles
from mga_kernels.runtimes.cpu.maps import Maps, pack
from mga_kernels.runtimes.precision import picture
from mga_kernels.system.kept import Kept

SETTINGS = {"span": {"channels": 28}, "compact": {"channels": 64}, "edsr": {}}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """The file of a cache in which nothing is yet."""
    monkeypatch.setenv("MGA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(large_tiles, "_sides", Kept("tiles.json"))
    return tmp_path / "cache" / "tiles.json"


@pytest.fixture
def portable_may_differ(monkeypatch):
    """The portable kernels round a product and a sum each, which is seen in tiles of 6: 86 dB of SPAN, not 95."""
    if _native.map_kernels()[0] == "portable":
        monkeypatch.setattr(large_tiles, "ALIKE", 80.0)


@pytest.fixture
def tried(monkeypatch, portable_may_differ):
    """A function: which tiles another process would give a network, and whether it would try them."""
    plain, calls = large_tiles._likeness, []
    monkeypatch.setattr(large_tiles, "_likeness", lambda *results: calls.append(1) or plain(*results))

    def ask(*asked) -> tuple[set[int], bool]:
        monkeypatch.setattr(large_tiles, "_sides", Kept("tiles.json"))
        calls.clear()
        return tiles_of(MaskGuidedSR(network(*asked), runtime="own")), bool(calls)

    return ask


def network(kind: str, above: float = 0.0) -> WholeNetwork:
    """``above``: added to all that the last convolution of "compact" reads, and taken off what it makes.

    SPAN of random weights is alike in tiles of 6 to 86 to 92 dB, by the few bytes that differ, and where its last
    convolution is weak to more.
    """
    torch.manual_seed(2)
    input_range = "0..255" if kind == "edsr" else "0..1"
    made = WholeNetwork(WholeConfig(kind, 2, 2, SETTINGS[kind], input_range=input_range)).eval().requires_grad_(False)
    if kind == "span":
        made.body.upsampler[0].weight *= 0.01
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
def test_networks_that_ask_for_large_tiles_have_them(kind, tile, portable_may_differ):
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
    monkeypatch.setattr(large_tiles, "_alike", lambda *results: False)
    monkeypatch.setattr(large_tiles, "_sides", Kept("other.json"))
    small = MaskGuidedSR(network(kind), runtime="own")
    assert tiles_of(small) == {4}
    assert large_tiles._likeness(large.astype(float), np.asarray(small.upscale(image)).astype(float)) >= 80


def test_a_layer_is_packed_once_for_each_side():
    layer = MaskGuidedSR(network("edsr"), runtime="own")._runner.planner.chains[0].stages[1].layer
    assert pack(layer, tile=4) is pack(layer, tile=4)
    assert pack(layer, tile=6) is not pack(layer, tile=4)
    assert (pack(layer, tile=6).tile, Maps(6).tile, Maps().tile) == (6, 6, 4)


@pytest.mark.parametrize(("above", "tile"), [(0.0, 6), (300.0, 4)])
def test_a_verdict_is_kept(tried, above, tile):
    assert tried("compact", above) == ({tile}, True)
    assert tried("compact", above) == ({tile}, False)


def test_a_verdict_is_that_of_these_weights_this_code_and_this_processor(tried, monkeypatch, tmp_path):
    (tmp_path / "library").write_bytes(b"another")
    others = [
        (large_tiles, "code_version", lambda *_, **__: "other code"),
        (large_tiles, "foreign_code", lambda *_: "other code of a user"),
        (large_tiles, "LIBRARY", tmp_path / "library"),
        (large_tiles, "LIBRARY", tmp_path / "none"),
        (torch, "__version__", "3.0"),
        (Maps, "kernels", lambda _: "others"),
    ]
    assert tried("compact") == ({6}, True)
    for place, name, other in others:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, other)
            assert tried("compact") == ({6}, True), name
            assert tried("compact") == ({6}, False), name
    assert tried("compact", 1e-3) == ({6}, True)
    assert tried("span") == ({6}, True)
    assert tried("compact") == ({6}, False)


def test_a_library_that_is_built_anew_has_new_verdicts(tried, monkeypatch, tmp_path):
    library = tmp_path / "library"
    library.write_bytes(b"1")
    monkeypatch.setattr(large_tiles, "LIBRARY", library)
    assert [tried("span")[1] for _ in range(2)] == [True, False]
    os.utime(library, ns=(0, 0))
    assert tried("span") == ({6}, True)


@pytest.mark.parametrize("verdict", [7, "6", None, [6], {"side": 6}, float("nan")])
def test_what_is_no_verdict_is_not_believed(tried, cache, verdict):
    assert tried("compact", 300.0) == ({4}, True)
    content = json.loads(cache.read_text())
    (key,) = content["entries"]
    cache.write_text(json.dumps(content | {"entries": {key: verdict}}))
    assert tried("compact", 300.0) == ({4}, True)
    assert json.loads(cache.read_text())["entries"] == {key: 4}


@pytest.mark.filterwarnings("error")
def test_a_file_that_is_damaged_or_cannot_be_written_is_no_failure(tried, cache):
    cache.parent.write_bytes(b"a file where the folder should be")
    assert [tried("span") for _ in range(2)] == [({6}, True)] * 2
    cache.parent.unlink()
    cache.parent.mkdir()
    cache.write_text('{"format": 1, "entr')
    with pytest.warns(UserWarning, match=r"tiles.json cannot be read and is ignored; it will be written anew"):
        assert tried("span") == ({6}, True)
    assert tried("span") == ({6}, False)

"""Tiles of 6 x 6 pixels for 3x3 kernels: used where a network makes the same picture in them."""

from __future__ import annotations

import json
import os
import weakref

import numpy as np
import pytest
import torch

from mga_kernels import MaskGuidedSR, _native
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig
from mga_kernels.networks.whole import WholeConfig, WholeNetwork
from mga_kernels.runtimes.cpu import large_tiles
from mga_kernels.runtimes.cpu.choose import weights_of
from mga_kernels.runtimes.cpu.layers import Conv
from mga_kernels.runtimes.cpu.maps import Maps
from mga_kernels.runtimes.cpu.packing import pack
from mga_kernels.runtimes.cpu.stages import Stage
from mga_kernels.runtimes.precision import picture
from mga_kernels.system.kept import Kept

SETTINGS = {"span": {"channels": 28}, "compact": {"channels": 64}, "edsr": {}}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """The file of a cache in which nothing is yet."""
    monkeypatch.setenv("MGA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(large_tiles, "_firsts", Kept("tiles.json"))
    return tmp_path / "cache" / "tiles.json"


@pytest.fixture
def portable_may_differ(monkeypatch):
    """The portable kernels round a product and a sum each, which is seen in tiles of 6."""
    if _native.map_kernels()[0] == "portable":
        monkeypatch.setattr(large_tiles, "ALIKE", 80.0)


@pytest.fixture
def tried(monkeypatch, portable_may_differ):
    """A function: which tiles another process would give a network, and whether it would try them."""
    plain, calls = large_tiles._likeness, []
    monkeypatch.setattr(large_tiles, "_likeness", lambda *results: calls.append(1) or plain(*results))

    def ask(*asked) -> tuple[set[int], bool]:
        monkeypatch.setattr(large_tiles, "_firsts", Kept("tiles.json"))
        calls.clear()
        return tiles_of(MaskGuidedSR(network(*asked), runtime="own")), bool(calls)

    return ask


def network(kind: str, above: float = 0.0, blocks: int = 2) -> WholeNetwork:
    """``above``: added to all that the last convolution of "compact" reads, and taken off what it makes.

    SPAN of random weights is alike in tiles of 6 to 86 to 92 dB, by the few bytes that differ, and where its last
    convolution is weak to more.
    """
    torch.manual_seed(2)
    input_range = "0..255" if kind == "edsr" else "0..1"
    made = (
        WholeNetwork(WholeConfig(kind, 2, blocks, SETTINGS[kind], input_range=input_range)).eval().requires_grad_(False)
    )
    if kind == "span":
        made.body.upsampler[0].weight *= 0.01
    if kind == "compact":
        *_, before, _, last = made.body.body
        before.bias += above
        last.bias -= above * last.weight.sum(dim=(1, 2, 3))
    return made


def guided(more: float = 0.0) -> MaskGuidedNetwork:
    torch.manual_seed(3)
    made = MaskGuidedNetwork(ModelConfig("srresnet", 2)).eval().requires_grad_(False)
    made.refine.conv1.weight += more
    return made


def tiles_of(model: MaskGuidedSR) -> set[int]:
    """Those of its 3x3 layers in tiles."""
    chains = model._runner.planner.chains
    return {record.tile for chain in chains for record in chain.records} - {0}


@pytest.mark.parametrize("kind", ["span", "compact"])
def test_networks_have_large_tiles(kind, portable_may_differ):
    assert tiles_of(MaskGuidedSR(network(kind), runtime="own")) == {6}


def test_what_large_tiles_would_change_has_small_ones():
    """Small differences between large values, of which more is rounded off."""
    assert tiles_of(MaskGuidedSR(network("compact", 300.0), runtime="own")) == {4}


def test_the_halves_are_copied_once(monkeypatch):
    """Of networks of many weights each copy counts, also one that is soon freed."""
    made, halves = [], MaskGuidedNetwork.halves
    monkeypatch.setattr(MaskGuidedNetwork, "halves", lambda network: made.append(network) or halves(network))
    assert not isinstance(large_tiles.of(guided(), Maps(), exact=False), str)
    assert len(made) == 1


def test_what_is_apart_by_chance_is_another_byte_as_often():
    """So the likeness of two pictures in bytes is that which is expected of them, without the chance."""
    generator = np.random.default_rng(0)
    one = generator.random((400, 400, 3))
    other = one + generator.normal(0, 1e-3 / 255, one.shape)
    bytes_apart = np.square(np.rint(255 * one) - np.rint(255 * other)).mean()
    assert large_tiles._likeness([one], [other]) == pytest.approx(10 * np.log10(255**2 / bytes_apart), abs=0.6)
    assert large_tiles._likeness([one], [one]) == float("inf")


@pytest.mark.parametrize(
    ("found", "base", "refine", "firsts"),
    [
        ([90.0], {6}, {6}, [0, 0]),
        ([80.0, 90.1], {6}, {4}, [0, None]),
        ([80.0, 89.0, 90.1], {4, 6}, {4}, [27, None]),  # half of them is worth 1.4 dB
        ([80.0, 88.0], {4}, {4}, [None, None]),
        ([80.0, 89.9, 89.9], {4}, {4}, [None, None]),
    ],
)
def test_a_refine_net_may_have_small_tiles_alone(monkeypatch, cache, found, base, refine, firsts):
    """The pictures of all cells count as much as the coarse one."""
    left, given = list(found), []

    def likeness(some, others):
        given.append([one.shape for one in [*some, *others]])
        return left.pop(0)

    monkeypatch.setattr(large_tiles, "_likeness", likeness)
    for _ in range(2):  # the second time by what was kept
        planner = MaskGuidedSR(guided(), runtime="own", dtype=torch.float32)._runner.planner
        halves = planner.chains[: planner.of_image], planner.chains[planner.of_image :]
        assert [{record.tile for chain in half for record in chain.records} - {0} for half in halves] == [base, refine]
    assert not left
    side, cells = large_tiles.SIDE, (large_tiles.SIDE // 4) ** 2
    assert given == [[(2 * side, 2 * side, 3), (cells, 3, 8, 8)] * 2] * len(found)
    assert list(json.loads(cache.read_text())["entries"].values()) == [firsts]


@pytest.mark.parametrize(
    ("found", "first"),
    [
        ([90.0], 0),
        ([89.8, 90.0], 1),
        ([89.4, 89.9, 90.0], 2),
        ([88.52, 89.77, 90.4], 5),  # from half of the layers on it can be expected
        ([86.0], None),
        ([87.5, 89.2], None),
    ],
)
def test_as_many_layers_have_large_tiles_as_make_the_same_picture(monkeypatch, cache, found, first):
    """The last ones, of eight."""
    left = list(found)
    monkeypatch.setattr(large_tiles, "_likeness", lambda *pictures: left.pop(0))
    (chain,) = MaskGuidedSR(network("compact", blocks=7), runtime="own")._runner.planner.chains
    assert not left
    tiles = [layer.tile for layer in chain.layers if layer.tile]
    assert tiles == [6 if first is not None and number >= first else 4 for number in range(8)]
    assert list(json.loads(cache.read_text())["entries"].values()) == [[first]]


def test_patches_in_bands_have_large_tiles():
    """Of PAN's upsampler the first tiles begin below the first rows, which no layer before has made then."""
    torch.manual_seed(4)
    kind, halves = weights_of(MaskGuidedNetwork(ModelConfig("pan", 4)).eval().requires_grad_(False), Maps())
    small, large = (kind(halves, Maps(first), Maps(first)) for first in (None, 0))
    image = large_tiles._picture()
    coarse, refined = zip(large_tiles._pictures(small, image), large_tiles._pictures(large, image), strict=True)
    for one, other in (coarse, refined):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", [lambda: network("compact", blocks=7), lambda: guided()])
def test_one_set_of_packed_weights_is_there_at_a_time(monkeypatch, make):
    plain, sets = large_tiles._made, []

    def made(*arguments):
        assert not any(one() for one in sets)
        found = plain(*arguments)
        sets.append(weakref.ref(found))
        return found

    monkeypatch.setattr(large_tiles, "_made", made)
    monkeypatch.setattr(large_tiles, "_likeness", lambda *pictures: 89.7)
    MaskGuidedSR(make(), runtime="own", dtype=torch.float32)
    assert len(sets) > 3


def test_other_weights_of_the_refine_net_are_tried_anew(monkeypatch):
    calls = []
    monkeypatch.setattr(large_tiles, "_likeness", lambda *pictures: calls.append(1) or 95.0)
    for more in (0.0, 0.0, 0.1):
        MaskGuidedSR(guided(more), runtime="own", dtype=torch.float32)
    assert len(calls) == 2


@pytest.mark.parametrize("kind", ["span", "compact"])
def test_pictures_in_large_tiles_are_those_in_small_ones(monkeypatch, kind):
    image = (255 * picture(67, 83)[0].permute(1, 2, 0)).byte().numpy()
    large = np.asarray(MaskGuidedSR(network(kind), runtime="own").upscale(image))
    monkeypatch.setattr(large_tiles, "_likeness", lambda *pictures: 0.0)
    monkeypatch.setattr(large_tiles, "_firsts", Kept("other.json"))
    small = MaskGuidedSR(network(kind), runtime="own")
    assert tiles_of(small) == {4}
    differing = np.square(large.astype(float) - np.asarray(small.upscale(image))).mean()
    assert 10 * np.log10(255**2 / max(differing, 1e-9)) >= 80


def test_a_layer_is_packed_once_for_each_side():
    layer = MaskGuidedSR(network("edsr"), runtime="own")._runner.planner.chains[0].stages[1].layer
    assert pack(layer, tile=4) is pack(layer, tile=4)
    assert pack(layer, tile=6) is not pack(layer, tile=4)
    assert (pack(layer, tile=6).tile, pack(layer).tile) == (6, 0)


@pytest.mark.parametrize(("first", "tiles"), [(None, "44444444"), (0, "66666666"), (5, "44444666"), (8, "44444444")])
def test_layers_have_large_tiles_from_one_on(first, tiles):
    """Whatever lies between them, in one chain or in several."""
    conv, pixel = Conv(torch.zeros(16, 16, 3, 3)), Conv(torch.zeros(16, 16, 1, 1))
    few, many = Conv(torch.zeros(16, 3, 3, 3)), Conv(torch.zeros(3, 16, 9, 9), floats=True)
    for together in (1, 2, 8):
        maps, found = Maps(first), []
        for _ in range(8 // together):
            stages = [Stage(layer, "x", "x") for layer in [conv, pixel, few] * together]
            found += [layer.tile for layer in maps.chain(stages, ["x"]).layers]
        assert "".join(map(str, found[::3])) == tiles
        assert not any(found[1::3] + found[2::3])
    chain = Maps(0).chain([Stage(conv, "x", "y"), Stage(many, "y", "out")], ["x", "out"])
    assert [layer.tile for layer in chain.in_blocks.layers] == [6, 6, 0]


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


@pytest.mark.parametrize("verdict", [0, "0", None, [-1], [0.5], [True], [0, 0], [], {"first": 0}, float("nan")])
def test_what_is_no_verdict_is_not_believed(tried, cache, verdict):
    assert tried("compact", 300.0) == ({4}, True)
    content = json.loads(cache.read_text())
    (key,) = content["entries"]
    cache.write_text(json.dumps(content | {"entries": {key: verdict}}))
    assert tried("compact", 300.0) == ({4}, True)
    assert json.loads(cache.read_text())["entries"] == {key: [None]}


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

"""Planes of the Refine-Net and rooms of chains in memory of the Base-Net's, and layers that write over what they have
read."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from mga_kernels.alone import rooms
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig
from mga_kernels.runtimes.cpu import choose
from mga_kernels.runtimes.cpu.pairs import Rooms
from mga_kernels.runtimes.cpu.plan import PairPlan, PairWeights
from mga_kernels.runtimes.cpu.storage import Spare

K = 12
SIZE, TALL = (44, 52), (240, 20)
ENLARGING = ("rfdn", "srresnet", "rcan", "imdn")


def plan_of(name: str, size: tuple[int, int] = SIZE) -> PairPlan:
    torch.manual_seed(0)
    network = MaskGuidedNetwork(ModelConfig(name, 4, split=(2, 2))).eval()
    halves = network.halves()
    assert not isinstance(halves, str)
    weights = halves.config.definition.part("cpu")(halves, choose.STORAGES["float32"])
    return weights.plan(*size, K)


def coarse(plan: PairPlan, seed: int) -> np.ndarray:
    size = plan.height, plan.width
    image = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))
    out = plan.buffer()
    plan.coarse(image, out)
    return out.numpy().copy()


def result(plan: PairPlan, seed: int) -> tuple[np.ndarray, torch.Tensor]:
    """The coarse picture and the refined patches."""
    picture = coarse(plan, seed)
    plan.gather(torch.arange(K, dtype=torch.int32)[None])
    return picture, plan.refined().clone()


@pytest.mark.parametrize("name", ENLARGING)
@torch.inference_mode()
def test_what_one_half_leaves_is_nothing_to_the_other(name):
    plan = plan_of(name)
    first = result(plan, 1)
    for tensor in plan._lent:  # as if the Refine-Net had left no finite number, around its patches too
        tensor.fill_(math.nan)
    result(plan, 2)
    again = result(plan, 1)
    assert np.array_equal(again[0], first[0])
    assert torch.equal(again[1], first[1])


@pytest.mark.parametrize("name", ENLARGING)
@torch.inference_mode()
def test_patches_are_refined_as_where_nothing_is_lent(name, monkeypatch):
    lent = result(plan_of(name), 1)
    monkeypatch.setattr(Spare, "take", lambda self, count: None)
    plan = plan_of(name)
    assert not plan._lent
    own = result(plan, 1)
    assert np.array_equal(lent[0], own[0])
    assert torch.equal(lent[1], own[1])


@pytest.mark.parametrize("name", ENLARGING)
def test_lent_planes_are_counted_once(name):
    plan = plan_of(name)
    memory = {id(tensor) for tensor in plan.tensors}
    assert not memory & {id(tensor) for tensor in plan._lent}
    base = [(one.data.data_ptr(), one.data.data_ptr() + one.data.nbytes) for one in plan.base_buffers.values()]
    places = sorted((tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes) for tensor in plan._lent)
    assert all(any(first <= begin and end <= last for first, last in base) for begin, end in places)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(places))


@pytest.mark.parametrize("name", ENLARGING)
def test_float_maps_need_fewer_planes_than_bf16(name):
    """Threads of bf16 compute rows of each other, so nothing there may be written over."""
    network = MaskGuidedNetwork(ModelConfig(name, 4, split=(2, 2))).eval()
    halves = network.halves()
    assert not isinstance(halves, str)
    kind = halves.config.definition.part("cpu")
    maps, pairs = (kind(halves, choose.STORAGES[name]).plan(*SIZE, K) for name in ("float32", "bfloat16"))
    assert len(maps.base_buffers) < len(pairs.base_buffers)
    assert not pairs._lent


@pytest.mark.parametrize("name", ["pan", *ENLARGING])
@torch.inference_mode()
def test_the_feature_is_written_over_its_long_skip(name, monkeypatch):
    """Which is what the first convolution makes, and takes a plane of its own in bf16; of a second image, too.

    RCAN's groups are written there as well, and the long skip is made again.
    """
    plan = plan_of(name)
    found = [result(plan, seed) for seed in (1, 2)]
    monkeypatch.setattr(PairWeights, "shallow", property(lambda self: {"shallow": self.channels}))
    apart = plan_of(name)
    more = ["group 0", "shallow"] if name == "rcan" else ["shallow"]
    assert [*apart.base_buffers] == [*plan.base_buffers, *more]
    for (picture, patches), seed in zip(found, (1, 2), strict=True):
        expected = result(apart, seed)
        assert np.array_equal(picture, expected[0])
        assert torch.equal(patches, expected[1])
    assert not np.array_equal(found[0][0], found[1][0])


def lent_rooms(plan: PairPlan) -> list[torch.Tensor]:
    """Those of chains with spare planes."""
    return [room for lent in plan.area.rooms.lent.values() for room in lent.maps.values()]


@pytest.mark.parametrize("name", ["pan", "srresnet", "rcan"])
@torch.inference_mode()
def test_the_enlarging_chain_works_in_planes_that_nothing_reads_any_more(name, monkeypatch):
    """Whose borders are zeros again for the next image, as those of the rooms are for each."""
    monkeypatch.setattr(rooms, "SMALL", 0)  # bands, however small the image is
    plan = plan_of(name, TALL)
    found = [coarse(plan, seed) for seed in (1, 2)]
    base = [one.data.untyped_storage().data_ptr() for one in plan.base_buffers.values()]
    lent = lent_rooms(plan)
    assert any(room.untyped_storage().data_ptr() in base for room in lent)
    assert not {id(room) for room in lent} & {id(room) for room in plan.area.rooms.maps.values()}
    monkeypatch.setattr(Rooms, "within", lambda self, planes: self)
    apart = plan_of(name, TALL)
    for picture, seed in zip(found, (1, 2), strict=True):
        assert np.array_equal(picture, coarse(apart, seed))
    assert not lent_rooms(apart)


@pytest.mark.parametrize("name", ["pan", "srresnet", "rcan"])
@torch.inference_mode()
def test_rooms_in_spare_planes_are_no_memory_of_their_own(name, monkeypatch):
    monkeypatch.setattr(rooms, "SMALL", 0)  # bands, however small the image is
    plan = plan_of(name, TALL)
    coarse(plan, 1)
    weights, base = plan.weights, [one.data.untyped_storage().data_ptr() for one in plan.base_buffers.values()]
    maps = [*plan.area.rooms.maps.values(), *lent_rooms(plan)]
    own = sum(room.nbytes for room in maps if room.untyped_storage().data_ptr() not in base)
    counted = weights.storage.room_bytes(weights.chains[: weights.of_image], *TALL, planes=plan.base_buffers)
    assert own <= counted < weights.storage.room_bytes(weights.chains[: weights.of_image], *TALL)

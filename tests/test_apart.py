"""Stages that write nothing over: the same layers in more slots, and the same result."""

import pytest
import torch
from film_networks import SHAPES, image_of, network_of

from mga_kernels import MaskGuidedSR
from mga_kernels.runtimes.cpu.apart import apart
from mga_kernels.runtimes.cpu.layers import Conv
from mga_kernels.runtimes.cpu.maps import MapChain
from mga_kernels.runtimes.cpu.rows import reads, written
from mga_kernels.runtimes.cpu.stages import Stage


def conv(inputs, outputs):
    return Conv(torch.randn(outputs, inputs, 3, 3), torch.randn(outputs))


def chains_of(name):
    model = MaskGuidedSR(network_of(name), runtime="own", dtype="float32")
    model.upscale(image_of(24, 30))
    return [chain for chain in model._runner.planner.chains if isinstance(chain, MapChain)]


@pytest.mark.parametrize("name", SHAPES)
def test_every_place_is_written_once_and_read_behind_that(name):
    for chain in chains_of(name):
        there, stages = set(), chain.apart.stages
        assert [stage.layer for stage in stages] == [stage.layer for stage in chain.stages]
        for stage in stages:
            for use in reads(stage):
                if use.slot not in chain.external:
                    groups = {(use.slot, group) for group in range(use.first, use.first + use.groups)}
                    assert groups <= there, stage
            made = written(stage)
            groups = {(made.slot, group) for group in range(made.first, made.first + made.groups)}
            assert made.slot in chain.external or not groups & there
            there |= groups


def test_what_is_read_side_by_side_stays_side_by_side():
    """A slot of which the first part is kept, and the others are made anew."""
    one, two = conv(8, 8), conv(16, 8)
    stages = [
        Stage(one, "image", "wide"),
        Stage(one, "wide", ("wide", 8)),
        Stage(two, "wide", ("wide", 16)),
        Stage(one, ("wide", 16), ("wide", 8), skip="wide"),
        Stage(two, ("wide", 8), "out"),
    ]
    found = apart(stages, ["image", "out"])
    assert [(stage.x, stage.out) for stage in found] == [
        ("image", "wide 0"),
        ("wide 0", ("wide 0", 8)),
        ("wide 0", ("wide 2", 8)),
        (("wide 2", 8), "wide 2"),
        ("wide 2", "out"),
    ]
    assert found[3].skip == "wide 0"


def test_what_cannot_be_apart_is_none():
    """Both that stand in one place are read with a third."""
    one, two = conv(8, 8), conv(16, 8)
    stages = [
        Stage(one, "image", ("wide", 8)),
        Stage(one, "image", "wide"),
        Stage(two, "wide", "out"),
        Stage(one, "image", "wide"),
        Stage(two, "wide", "out"),
    ]
    assert apart(stages, ["image", "out"]) is None
    chain = MapChain(stages, ["image", "out"])
    assert chain.apart is chain

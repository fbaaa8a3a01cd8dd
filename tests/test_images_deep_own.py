"""Photographs of more than 8 bits a channel in convolutions of our own: the picture that PyTorch makes in float32."""

import math

import numpy as np
import pytest
import torch
from film_networks import image_of, network_of
from network_zoo import NAMES, random_model
from test_classes import network_of as network_of_classes

from mga_kernels import MaskGuidedSR
from mga_kernels.networks import RegionConfig, RegionNetwork, WholeConfig
from mga_kernels.networks.registry import get_network
from mga_kernels.runtimes.cpu.layers import Conv
from mga_kernels.runtimes.cpu.maps import Map, MapChain
from mga_kernels.runtimes.cpu.pairs import Grid
from mga_kernels.runtimes.cpu.stages import Stage

ALIKE = 100.0  # dB; bytes would be 59 apart, halves about 70
OWN = "our own"


def deep_of(image):
    """With levels between those of bytes, but for the darkest and the brightest."""
    grain = np.random.default_rng(0).integers(-100, 101, image.shape)
    return np.clip(257 * image.astype(np.int64) + grain, 0, 65535).astype(np.uint16)


def both(network, image, **settings):
    """What our own and PyTorch make, and how the former ran."""
    made, told = [], ""
    for runtime in ("own", "pytorch"):
        model = MaskGuidedSR(network, device="cpu", runtime=runtime, dtype="float32", **settings)
        made.append(model.upscale(image).astype(np.float64))
        told = told or model._of(deep=True).description
    return *made, told


def decibels(one, other):
    error = np.mean((one - other) ** 2) / 65535**2
    return math.inf if error == 0 else -10 * math.log10(error)


@pytest.mark.parametrize("k", [0, 40])
@pytest.mark.parametrize("name", [name for name in NAMES if get_network(name).part("cpu") is not None])
def test_networks_with_masks(name, k):
    own, exact, told = both(random_model(name, 4, patch_size=4), deep_of(image_of(34, 45)), k=k, mask="learned")
    assert OWN in told
    assert exact.std() > 2000
    assert decibels(own, exact) > ALIKE
    assert len(np.unique(own.astype(int) % 257)) > 200  # nothing was rounded to bytes


@pytest.mark.parametrize("name", ["span", "compact", "edsr", "rrdbnet x2", "msrresnet"])
def test_whole_networks(name):
    own, exact, told = both(network_of(name), deep_of(image_of(37, 50)))
    assert OWN in told
    assert decibels(own, exact) > ALIKE


def test_regions():
    torch.manual_seed(1)
    parts = WholeConfig("compact", 4, 1, {"channels": 16}), WholeConfig("msrresnet", 4, 2)
    network = RegionNetwork(RegionConfig(*parts, halo=48)).eval().requires_grad_(False)
    model = MaskGuidedSR(network, device="cpu", runtime="own", k=1000)
    image = deep_of(image_of(40, 52))
    whole = MaskGuidedSR(network, device="cpu", runtime="pytorch", dtype="float32", k=1000).upscale(image)
    assert OWN in model._of(deep=True).description
    assert decibels(model.upscale(image).astype(np.float64), whole) > ALIKE


def test_what_has_no_such_plan_runs_in_pytorch():
    model = MaskGuidedSR(network_of_classes(), device="cpu")
    made = model.upscale(deep_of(image_of(24, 30)))
    assert made.dtype == np.uint16
    assert OWN not in model._of(deep=True).description
    asked = MaskGuidedSR(network_of("span"), device="cpu", runtime="pytorch")
    assert OWN not in asked._of(deep=True).description


@pytest.mark.parametrize("size", [(3, 3), (1, 50), (70, 2)])
def test_tiny_and_narrow_ones(size):
    own, exact, _ = both(random_model("fsrcnn", 2), deep_of(image_of(*size)))
    assert decibels(own, exact) > ALIKE


@pytest.mark.parametrize("forced", ["cpu", "reference"])
@pytest.mark.parametrize("added", [None, torch.uint8, torch.float32])
def test_pictures_of_floats_are_the_definition(monkeypatch, added, forced):
    """Of one image, with what is added, and of patches; beyond [0, 1] as the ends, NaN as 0."""
    torch.manual_seed(3)
    monkeypatch.setenv("MGA_BACKEND", forced)
    weight = torch.randn(12, 8, 3, 3) / 6
    chain = MapChain([Stage(Conv(weight, torch.zeros(12)), "x", "picture", enlarge=2)], ["x", "picture"])
    for grid in (Grid(1, (9, 14)), Grid(5, (4, 6), 2)):
        if not grid.is_image and added is not None:
            continue
        x = Map(8, grid.height, grid.width)
        patches = torch.randn(grid.count, 8, *grid.size)
        patches[0, 0, 0, 0] = float("nan")
        grid.load(x, patches)
        image = None if added is None else torch.rand(grid.height, grid.width, 3)
        if added == torch.uint8:
            image = (255 * image).round().byte()
        pictures = torch.full((grid.count, 2 * grid.size[0], 2 * grid.size[1], 3), -1.0)
        chain(grid, {"x": x, "picture": pictures}, added=image, gain=0.5)
        order = torch.nn.functional.conv2d(patches.double(), weight.double(), padding=1).unflatten(1, (3, 2, 2))
        sums = order.permute(0, 4, 2, 5, 3, 1).flatten(1, 2).flatten(2, 3) / 2  # row, column, colour of each pixel
        if image is not None:
            values = image.double() / (255 if added == torch.uint8 else 1)
            sums += torch.nn.functional.interpolate(
                values.permute(2, 0, 1)[None], scale_factor=2, mode="bilinear", align_corners=False
            ).permute(0, 2, 3, 1)
        expected = sums.nan_to_num(nan=0.0).clamp(0, 1).float()
        assert 0.1 < ((expected > 0) & (expected < 1)).float().mean() < 0.9
        torch.testing.assert_close(pictures, expected, rtol=0, atol=2e-6)

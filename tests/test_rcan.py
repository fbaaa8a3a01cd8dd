"""RCAN: parameters of the paper, its block by formula, and the mean colour that both halves restore."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from halves import (
    check_gradients,
    check_patches,
    check_untrained_size,
    count,
    parameters_of_variants,
    random_image,
    random_network,
)

from mga_kernels import MaskGuidedSR
from mga_kernels.architectures.rcan import network as rcan
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig, WholeConfig, WholeNetwork

MEAN = torch.tensor([114.444, 111.4605, 103.02], dtype=torch.float64)


@pytest.mark.parametrize(
    ("scale", "expected"), [(3, (11_052_339, 16_074_150, 16_112_282)), (4, (11_015_411, 16_000_294, 16_038_426))]
)
def test_parameters_are_those_of_table_1(scale, expected):
    assert parameters_of_variants("rcan", scale) == expected


@pytest.mark.parametrize(("scale", "published"), [(2, 15_444_667), (3, 15_629_307), (4, 15_592_379)])
def test_ten_groups_have_the_published_number_of_parameters(scale, published):
    with torch.device("meta"):
        assert count(rcan.BaseNet(scale, 10)) == published - 24, "24 are the mean shifts, constants here"


def test_block_by_its_formula():
    """Channel attention pools each patch by itself."""
    torch.manual_seed(0)
    block = rcan.RCAB().double().requires_grad_(False)
    w = dict(block.named_parameters())
    patches = torch.randn(3, 64, 6, 6, dtype=torch.float64)
    for patch, found in zip(patches, block(patches), strict=True):
        x = F.conv2d(patch[None], w["rcab.0.weight"], w["rcab.0.bias"], padding=1).clamp(min=0)
        x = F.conv2d(x, w["rcab.2.weight"], w["rcab.2.bias"], padding=1)[0]
        means = x.flatten(1).sum(1) / 36
        hidden = w["rcab.3.attention.1.weight"][:, :, 0, 0] @ means + w["rcab.3.attention.1.bias"]
        gate = w["rcab.3.attention.3.weight"][:, :, 0, 0] @ hidden.clamp(min=0) + w["rcab.3.attention.3.bias"]
        expected = x / (1 + torch.exp(-gate))[:, None, None] + patch
        assert (found - expected).abs().max() < 1e-12


def test_skips_of_group_and_trunk():
    """Where the convolution that closes them is silent, a group and a trunk are the identity."""
    model = random_network("rcan", 2, split=(1, 1))
    x = torch.randn(1, 64, 6, 6)
    for half in (model.base, model.refine):
        assert (half.trunk(x) - x).abs().max() > 1e-3
        for layer, function in ((half.body[0].conv, half.body[0]), (half.conv_after_body, half.trunk)):
            layer.weight.zero_()
            layer.bias.zero_()
            assert torch.equal(function(x), x)


def test_refine_net_behind_its_trunk_by_formula():
    model = random_network("rcan", 4, split=(1, 1))
    refine = model.refine.double()
    w = dict(refine.named_parameters())
    patches = torch.randn(2, 64, 6, 6, dtype=torch.float64)

    def convolve(x, name, padding=1):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=padding)

    x = convolve(F.leaky_relu(convolve(refine.trunk(patches), "conv1"), 0.1), "conv2", 0)
    for name, side in (("upsampler.0", 4), ("upsampler.2", 8)):
        shuffled = convolve(x, name).reshape(2, 64, 2, 2, side, side).permute(0, 1, 4, 2, 5, 3)
        x = shuffled.reshape(2, 64, 2 * side, 2 * side)
    expected = convolve(x, "conv_last") + MEAN[:, None, None]
    assert (refine(patches) - expected).abs().max() < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_both_halves_return_the_mean_colour_where_they_find_nothing(dtype):
    model = random_network("rcan", 2, split=(1, 1)).to(dtype)
    for half in (model.base, model.refine):
        half.conv_last.weight.zero_()
        half.conv_last.bias.zero_()
    coarse, feature = model.base(random_image(8, 8).to(dtype) * 255)
    for image in (coarse, model.base.upsample(feature), model.refine(torch.randn(2, 64, 6, 6, dtype=dtype))):
        assert image.dtype == dtype
        assert (image - MEAN.to(dtype)[:, None, None]).abs().max() < 1e-12


def test_the_mean_colour_is_zero_to_the_base_net():
    model = random_network("rcan", 3, split=(1, 1))
    image = MEAN.float()[:, None, None].expand(1, 3, 8, 8)
    _, feature = model.base(image)
    expected = model.base.trunk(model.base.conv_first(torch.zeros(1, 3, 8, 8)))
    assert (feature - expected).abs().max() < 1e-5
    assert (model.base(image + 10)[1] - expected).abs().max() > 0.1


def test_mean_colour_survives_a_model_made_on_the_meta_device():
    """As models are loaded: built without memory, then given their weights."""
    model = random_network("rcan", 2, split=(1, 1))
    with torch.device("meta"):
        loaded = MaskGuidedNetwork(ModelConfig("rcan", 2, split=(1, 1)))
    assert loaded(torch.empty(1, 3, 8, 12, device="meta"), k=2).shape == (1, 3, 16, 24)
    loaded.load_state_dict(model.state_dict(), assign=True)
    image = random_image(8, 12)
    assert torch.equal(loaded.requires_grad_(False)(image, k=2), model(image, k=2))


@pytest.mark.parametrize(("scale", "patch_size"), [(2, 8), (3, 4), (4, 2)])
def test_patches(scale, patch_size):
    check_patches(random_network("rcan", scale, patch_size=patch_size, split=(1, 1)))


def test_gradients():
    model = random_network("rcan", 4, split=(1, 1))
    for name, parameter in model.named_parameters():
        if name.endswith("attention.1.bias"):
            parameter.fill_(1)  # else some of the four hidden units are always negative, which no gradient passes
    check_gradients(model)


def test_untrained_images():
    check_untrained_size(random_network("rcan", 4))


def test_another_mean_colour_runs_in_convolutions_of_our_own_too():
    """A published file can have its own; flat images show it, as zeros lie around the image less the mean."""
    torch.manual_seed(0)
    settings = {"mean": (60.0, 150.0, 200.0)}
    network = WholeNetwork(WholeConfig("rcan", 2, 1, settings, input_range="0..255")).eval().requires_grad_(False)
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    made = [
        MaskGuidedSR(network, device="cpu", dtype=dtype, runtime=runtime).upscale(image).astype(int)
        for runtime, dtype in (("own", "auto"), ("pytorch", "float32"))
    ]
    assert np.abs(made[0] - made[1]).mean() < 1
    assert abs(made[1][..., 2].mean() - made[1][..., 0].mean()) > 50, "the mean colour shows"

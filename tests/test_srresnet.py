"""SRResNet: parameters of the paper, and what its two forms of normalisation do."""

import pytest
import torch
import torch.nn.functional as F
from halves import (
    check_gradients,
    check_patches,
    check_untrained_size,
    count,
    parameters_of_variants,
    random_network,
)

from mga_kernels.architectures.srresnet import network as srresnet
from mga_kernels.errors import InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig

PLAIN = {"base": {"norm": "none"}, "refine": {"norm": "none"}}


@pytest.mark.parametrize(
    ("scale", "expected"), [(3, (1_287_680, 2_041_664, 2_079_796)), (4, (1_250_816, 1_967_936, 2_006_068))]
)
def test_parameters_are_those_of_the_paper(scale, expected):
    """Those of x3 are not what Table 1 prints, which has the upsampler of x2 there; its operations have that of x3."""
    assert parameters_of_variants("srresnet", scale) == expected


def test_parameters_of_the_x2_upsampler_are_what_table_1_prints_for_x3():
    assert parameters_of_variants("srresnet", 2) == (1_103_360, 1_673_024, 1_711_156)


def test_biases_instead_of_norms_round_to_the_same_parameters():
    base, decomposed, masked = parameters_of_variants("srresnet", 4, **PLAIN)
    assert (base, round(decomposed, -4), round(masked, -4)) == (1_249_795, 1_970_000, 2_010_000)


def test_sixteen_blocks_have_the_published_number_of_parameters():
    with torch.device("meta"):
        assert count(srresnet.BaseNet(4, 16)) == 1_546_752


def test_residual_block_normalises_each_patch_by_itself():
    torch.manual_seed(0)
    block = srresnet.ResidualBlock(norm=True).double().requires_grad_(False)
    for norm in (block.in1, block.in2):
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    patches = torch.randn(3, 64, 6, 6, dtype=torch.float64) * torch.tensor([0.1, 1, 10])[:, None, None, None] + 2

    def normalised(x, norm):
        flat = x.flatten(1)  # (64, 36): one patch, so no other can have a part in the statistics
        centred = flat - flat.mean(1, keepdim=True)
        deviation = (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        return (centred / deviation * norm.weight[:, None] + norm.bias[:, None]).reshape(x.shape)

    for patch, found in zip(patches, block(patches), strict=True):
        x = normalised(F.conv2d(patch[None], block.conv1.weight, padding=1)[0], block.in1)
        x = torch.where(x > 0, x, 0.2 * x)
        expected = normalised(F.conv2d(x[None], block.conv2.weight, padding=1)[0], block.in2) + patch
        assert (found - expected).abs().max() < 1e-12


@pytest.mark.parametrize("norm", ["instance", "none"])
def test_refine_net_by_its_formula(norm):
    """What stands around the block: long skip, fusion of the halo, upsampler of x3, last convolution."""
    torch.manual_seed(1)
    refine = srresnet.RefineNet(3, 1, norm).double().requires_grad_(False)
    w = dict(refine.named_parameters())
    patches = torch.randn(2, 64, 6, 6, dtype=torch.float64)

    def convolve(x, name, padding):
        return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), padding=padding)

    x = convolve(refine.residual[0](patches), "conv_mid", 1)
    if norm == "instance":
        x = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    x = convolve(F.leaky_relu(convolve(x + patches, "conv1", 1), 0.1), "conv2", 0)
    assert x.shape[-2:] == (4, 4)
    x = convolve(x, "upscale.0", 1).reshape(2, 64, 3, 3, 4, 4).permute(0, 1, 4, 2, 5, 3).reshape(2, 64, 12, 12)
    expected = convolve(F.leaky_relu(x, 0.2), "conv_output", 4)
    assert (refine(patches) - expected).abs().max() < 1e-12


def test_without_norm_a_pixel_depends_on_its_surroundings_only():
    feature = torch.randn(1, 64, 26, 26, generator=torch.Generator().manual_seed(0))
    changed = feature.clone()
    changed[..., 0, 0] += 5
    for norm, far_change in (("none", False), ("instance", True)):
        torch.manual_seed(0)
        refine = srresnet.RefineNet(2, 1, norm).requires_grad_(False)
        difference = (refine(changed) - refine(feature)).abs()[0].amax(0)
        assert difference[:4, :4].max() > 1e-3
        assert (difference[24:, 24:].max() > 1e-5) == far_change, norm


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("patch_size", [2, 4, 8])
def test_patches(scale, patch_size):
    check_patches(random_network("srresnet", scale, patch_size=patch_size, split=(1, 2)))


def test_patches_without_norm():
    check_patches(random_network("srresnet", 4, split=(1, 2), **PLAIN))


@pytest.mark.parametrize("settings", [{}, PLAIN])
def test_gradients(settings):
    check_gradients(random_network("srresnet", 4, split=(2, 2), **settings))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_untrained_images(scale):
    check_untrained_size(random_network("srresnet", scale))


def test_what_does_not_go_together_is_refused():
    for setting in ("prelu", "tanh", "standardised"):
        with pytest.raises(InputError, match=rf'{setting} is for norm "none", and this one is .instance'):
            srresnet.BaseNet(4, 2, **{setting: True})


def test_unknown_norms_are_refused():
    with pytest.raises(InputError, match=r"norm 'batch' does not exist; choose one of instance, none"):
        MaskGuidedNetwork(ModelConfig("srresnet", 4, base={"norm": "batch"}))

"""PAN: parameters of the paper, published weights, its blocks by formula, and a halo consumed where it should be."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from halves import check_gradients, check_patches, check_untrained_size, count, parameters_of_variants, random_network
from PIL import Image

from mga.evaluation.metrics import psnr_y
from mga_kernels.architectures.pan import network as pan
from mga_kernels.checkpoints import read_state_dict


@pytest.mark.parametrize(("scale", "expected"), [(3, (203_723, 296_174, 311_386)), (4, (214_739, 312_998, 328_210))])
def test_parameters_are_those_of_table_1(scale, expected):
    assert parameters_of_variants("pan", scale) == expected


@pytest.mark.parametrize(("scale", "published"), [(2, 261_403), (3, 261_403), (4, 272_419)])
def test_sixteen_blocks_have_the_published_number_of_parameters(scale, published):
    with torch.device("meta"):
        assert count(pan.BaseNet(scale, 16)) == published


@pytest.mark.parametrize("split", [(10, 6), (14, 2)])
def test_other_splits_move_blocks_between_the_halves(split):
    base, decomposed, masked = parameters_of_variants("pan", 2)
    moved = 14_420 * (split[0] - 12)
    assert parameters_of_variants("pan", 2, split=split) == (base + moved, decomposed, masked)
    check_patches(random_network("pan", 2, split=split))


def test_scpa_by_its_formula():
    torch.manual_seed(0)
    block = pan.SCPA(40).double().requires_grad_(False)
    w = dict(block.named_parameters())
    x = torch.randn(2, 40, 7, 9, dtype=torch.float64)

    def leaky(v):
        return torch.where(v > 0, v, 0.2 * v)

    def pointwise(v, weight):
        return torch.einsum("nchw,oc->nohw", v, weight[:, :, 0, 0])

    a = leaky(F.conv2d(leaky(pointwise(x, w["conv1_a.weight"])), w["k1.0.weight"], padding=1))
    b = leaky(pointwise(x, w["conv1_b.weight"]))
    gate = 1 / (1 + torch.exp(-pointwise(b, w["PAConv.k2.weight"]) - w["PAConv.k2.bias"][:, None, None]))
    b = leaky(F.conv2d(gate * F.conv2d(b, w["PAConv.k3.weight"], padding=1), w["PAConv.k4.weight"], padding=1))
    expected = pointwise(torch.cat((a, b), 1), w["conv3.weight"]) + x
    assert (block(x) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("patch_size", [2, 4, 8])
def test_patches(scale, patch_size):
    check_patches(random_network("pan", scale, patch_size=patch_size, split=(1, 1)))


# Pixels along a patch's border that see the zeros with which a patch, unlike the whole feature, is padded.
@pytest.mark.parametrize(("scale", "margin"), [(2, 1), (3, 0), (4, 3)])
def test_unpadded_upsampler_crops_to_the_cell(scale, margin):
    """With equal weights, a patch upsampled by itself is the cell of the upsampled whole, but for its border."""
    torch.manual_seed(0)
    base, refine = pan.BaseNet(scale, 1).requires_grad_(False), pan.RefineNet(scale, 1).requires_grad_(False)
    base.HRconv1.bias.add_(10)  # a positive output passes the leaky ReLU behind the extra layer of x3 unchanged
    shared = {name: value for name, value in base.state_dict().items() if not name.startswith("conv_first")}
    missing, unexpected = refine.load_state_dict(shared, strict=False)
    assert not unexpected
    assert missing == (["HRconv_extra.weight", "HRconv_extra.bias"] if scale == 3 else [])
    if scale == 3:
        torch.nn.init.dirac_(refine.HRconv_extra.weight)
        refine.HRconv_extra.bias.zero_()
    feature = torch.randn(1, 40, 24, 24)
    whole, patch = base.upsample(feature), refine.upsample(feature[..., 7:17, 7:17])
    assert patch.shape == (1, 3, 8 * scale, 8 * scale)
    inner = slice(margin, 8 * scale - margin)
    cell = whole[..., 8 * scale : 16 * scale, 8 * scale : 16 * scale]
    assert (patch - cell)[..., inner, inner].abs().max() < 1e-5
    assert margin == 0 or (patch - cell)[..., 0].abs().max() > 1e-4


def test_refine_net_is_its_upsampler_where_the_trunk_is_silent():
    """The long skip passes the patch itself, and no image is added."""
    model = random_network("pan", 4, split=(1, 1))
    model.refine.trunk_conv.weight.zero_()
    model.refine.trunk_conv.bias.zero_()
    patches = torch.randn(2, 40, 6, 6)
    assert torch.equal(model.refine(patches), model.refine.upsample(patches))
    model.refine.conv_last.weight.zero_()
    model.refine.conv_last.bias.zero_()
    assert not model.refine(patches).any()


def test_base_net_adds_the_upsampled_input_to_what_upsample_gives():
    model = random_network("pan", 3, split=(1, 1))
    image = torch.arange(8.0).expand(1, 3, 8, 8) / 8
    coarse, feature = model.base(image)
    added = (coarse - model.base.upsample(feature))[0, 0, 12]
    inner = (torch.arange(1.0, 23) - 1) / 24  # centres of the HR pixels in LR pixels, (i + 1/2) / 3 - 1/2, over 8
    assert (added[1:23] - inner).abs().max() < 1e-6
    assert (added[[0, 23]] - torch.tensor([0, 7 / 8])).abs().max() < 1e-6


@pytest.mark.parametrize("scale", [3, 4])
def test_gradients(scale):
    check_gradients(random_network("pan", scale, split=(2, 2)))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_untrained_images(scale):
    check_untrained_size(random_network("pan", scale))


@pytest.mark.parametrize(("name", "expected"), [("butterfly", 28.350), ("woman", 30.567)])
def test_published_pan_restores_set5(shared_data, name, expected):
    """The mean over Set5 is 32.13 dB, which is what the authors report."""
    base = pan.BaseNet(4, 16).eval()
    base.load_state_dict(read_state_dict(shared_data / "data/checkpoints/pan_x4_zhaohengyuan1.pth"))
    lr = np.array(Image.open(shared_data / f"data/testsets/Set5/LR_bicubic/X4/{name}x4.png"))
    hr = np.array(Image.open(shared_data / f"data/testsets/Set5/HR/{name}.png"))[: 4 * len(lr), : 4 * len(lr[0])]
    with torch.no_grad():
        coarse, _ = base(torch.from_numpy(lr).permute(2, 0, 1)[None] / 255)
    restored = (coarse[0].permute(1, 2, 0) * 255).clamp(0, 255).round().byte().numpy()
    assert psnr_y(restored, hr, border=4) == pytest.approx(expected, abs=0.005)

"""Published networks cut in two: without loss, with new blocks, with a light upsampler, and at their margins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from network_zoo import photographs
from teachers import TEACHERS, teacher_of
from torch import nn

from mga.conversion.light import fit_last
from mga.conversion.teacher import halves
from mga_kernels.networks import MaskGuidedNetwork, WholeNetwork
from mga_kernels.networks.divided import enlarged, image_part
from mga_kernels.networks.margins import Enlarge, upsampled


@torch.no_grad()
def pictures(teacher: WholeNetwork, network: MaskGuidedNetwork) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The published network's, the coarse one and that of -D, float64."""
    image = photographs(24, 32).double()
    factor = 255 if teacher.config.input_range == "0..255" else 1
    coarse, feature = network.coarse(image)
    return teacher.body(image * factor)[0] / factor, coarse, network.decomposed(feature)


@pytest.mark.parametrize("name", TEACHERS)
def test_decomposed_is_the_published_network(name):
    """In float64, to rounding, at the border of the image too; the Refine-Net of RFDN without its max-pool."""
    teacher = teacher_of(name).double()
    network = halves(teacher, (1, 1)).double()
    if teacher.config.network == "rfdn":
        teacher.body.B2.esa.pool = False
    wanted, coarse, found = pictures(teacher, network)
    assert (coarse - wanted).abs().max() > 1e-3 * wanted.std(), "half of the blocks is not all of them"
    assert (found - wanted).abs().max() < 1e-6 * wanted.abs().max()


@pytest.mark.parametrize("name", ["pan x4", "msrresnet x4", "imdn x4", "rfdn x4", "srresnet", "srgan", "rcan x4"])
def test_new_blocks_change_nothing_at_first(name):
    teacher = teacher_of(name).double()
    network = halves(teacher, (teacher.config.blocks, 2)).double()
    wanted, coarse, found = pictures(teacher, network)
    for result in (coarse, found):
        assert (result - wanted).abs().max() < 1e-6 * wanted.abs().max()
    parts = [parameter for parameter in network.refine.parameters() if parameter.abs().max() > 0]
    assert parts, "the new blocks have weights to learn from"


@pytest.mark.parametrize("name", ["pan x3", "msrresnet x2", "srresnet", "srgan", "rcan x4"])
def test_a_light_upsampler_is_fitted_by_least_squares(name):
    """-D is the published network all the same; no step from the fitted weights brings the coarse image nearer."""
    teacher = teacher_of(name)
    network = halves(teacher, (1, 1), light=True)
    image = photographs(24, 32)
    factor = 255 if teacher.config.input_range == "0..255" else 1
    with torch.no_grad():
        published = teacher.body(image * factor)[0] / factor
        found = network.decomposed(network.coarse(image)[1])
    assert (found - published).abs().max() < 1e-4 * published.abs().max()
    torch.manual_seed(0)
    wanted = F.interpolate(image, scale_factor=teacher.config.scale, mode="bicubic") + 0.1 * torch.rand(1, 3, 1, 1)
    light, losses = network.base.light, []
    pairs = [(image[:1], wanted[:1]), (image[1:], wanted[1:])]
    fit_last(light, lambda lr: network.coarse(lr)[0], network.config.scale, network.value_range, pairs)
    parameters = [*light.parameters()]
    with torch.enable_grad():
        for parameter in parameters:
            parameter.requires_grad_(True)
        loss = (network.coarse(image)[0] - wanted).square().mean()
        gradients = torch.autograd.grad(loss, parameters)
    best = float(loss.detach())
    assert best < 0.01
    for step in (1e-3, 1e-2):
        for sign in (-1, 1):
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter += sign * step * gradient
                losses.append(float((network.coarse(image)[0] - wanted).square().mean()))
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter -= sign * step * gradient
    assert min(losses) > best * (1 - 1e-3)


@pytest.mark.parametrize(
    "steps", [(Enlarge(2, False), 3, Enlarge(2, False), 3, 3), (3, Enlarge(2), 3), (3, Enlarge(3))]
)
def test_a_margin_is_context_and_no_more(steps):
    """A patch with its margin becomes what the middle of the image does where the convolutions need no more of it."""
    torch.manual_seed(0)
    layers: list = []
    for step in steps:
        wanted = 4 * step.factor**2 if layers and isinstance(step, Enlarge) and step.shuffle else 4
        if isinstance(step, Enlarge) and step.shuffle:
            layers[-1] = nn.Conv2d(4, wanted, 3, padding=1)
        layers.append(step if isinstance(step, Enlarge) else nn.Conv2d(4, 4, step, padding=step // 2))
    scale = int(np.prod([step.factor for step in layers if isinstance(step, Enlarge)]))
    margin = 2 if steps[0] == 3 and steps[-1] == 3 else 1
    x = torch.randn(1, 4, 24, 24)
    with torch.no_grad():
        whole = upsampled(x, layers, 0)
        patch = upsampled(x[..., 8 - margin : 16 + margin, 8 - margin : 16 + margin], layers, margin)
        reference = x
        for layer in layers:
            reference = layer(reference)
    assert torch.allclose(whole, reference, atol=1e-5)
    assert torch.allclose(patch, whole[..., 8 * scale : 16 * scale, 8 * scale : 16 * scale], atol=1e-5)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_image_of_a_state_is_enlarged_as_if_nothing_were_around_it(scale):
    image = photographs(8, 12)
    wanted = F.interpolate(image, scale_factor=scale, mode="bilinear")
    found = enlarged(F.pad(image_part(image), (1, 1, 1, 1)), scale, 1)
    assert (found - wanted).abs().max() < 1e-6
    assert (enlarged(image_part(image), scale, 0) - wanted).abs().max() < 1e-6

"""What the halves of any network must do; the tests of each network call it with their own."""

import torch
from torch import Tensor

from mga_kernels.networks import MaskGuidedNetwork, ModelConfig


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def parameters_of_variants(network: str, scale: int, **settings) -> tuple[int, int, int]:
    """Parameters of -B, -D and -M; no memory is taken."""
    with torch.device("meta"):
        model = MaskGuidedNetwork(ModelConfig(network, scale, **settings))
    return count(model.base), count(model.base) + count(model.refine), count(model)


def random_network(network: str, scale: int, **settings) -> MaskGuidedNetwork:
    torch.manual_seed(0)
    return MaskGuidedNetwork(ModelConfig(network, scale, **settings)).eval().requires_grad_(False)


def random_image(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def check_patches(model: MaskGuidedNetwork) -> None:
    """A patch does not depend on its batch, and an image of one cell is refined alike as patch and as a whole."""
    p, scale = model.config.patch_size, model.config.scale
    generator = torch.Generator().manual_seed(2)
    feature = torch.randn(1, model.config.definition.feature_channels, p, 2 * p, generator=generator)
    together = model.refined(feature, model.every_cell(feature))
    assert together.shape == (2, 3, scale * p, scale * p)
    assert together.isfinite().all()
    assert together.std() > 1e-3, "patches without content prove nothing"
    size = together.abs().max()
    for i in range(2):
        alone = model.refined(feature, torch.tensor([[i]], dtype=torch.int32))
        assert (together[i] - alone[0]).abs().max() <= 1e-5 * size
    cell = feature[..., :p, :p]
    as_patch = model.refined(cell, torch.zeros(1, 1, dtype=torch.int32))
    assert (as_patch - model.decomposed(cell)).abs().max() <= 1e-5 * size
    whole = model.decomposed(feature)
    assert whole.shape == (1, 3, scale * p, scale * 2 * p)
    assert whole.isfinite().all()


def check_gradients(model: MaskGuidedNetwork) -> None:
    """Every parameter of both halves learns from the coarse image and the refined patches."""
    model.requires_grad_(True)
    coarse, feature = model.coarse(random_image(12, 16))
    refined = model.refined(feature, model.every_cell(feature))
    generator = torch.Generator().manual_seed(3)
    loss = sum((part * torch.randn(part.shape, generator=generator)).sum() for part in (coarse, refined))
    loss.backward()
    for half in (model.base, model.refine):
        for name, parameter in half.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name


def check_untrained_size(model: MaskGuidedNetwork) -> None:
    """Images of random weights are of the order of images: a start from which training does not explode."""
    coarse, feature = model.coarse(random_image(12, 12))
    for image in (coarse, model.refined(feature, model.every_cell(feature)), model.decomposed(feature)):
        assert image.isfinite().all()
        assert 1e-3 < image.std() < 2
        assert image.abs().max() < 10

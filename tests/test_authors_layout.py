"""Files in the layout of the mask-guided paper's authors load into -M and mean what their code does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mga_kernels import MaskGuidedSR
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig


def authors_layout(network: MaskGuidedNetwork) -> dict[str, torch.Tensor]:
    names = {"mask.conv1": "mask.spa_mask_1.0", "mask.conv2": "mask.spa_mask_1.2"}
    return {
        next((new + name.removeprefix(old) for old, new in names.items() if name.startswith(old)), name): tensor
        for name, tensor in network.state_dict().items()
    }


@pytest.mark.parametrize(("name", "scale"), [("fsrcnn", 4), ("rfdn", 4), ("pan", 3), ("srresnet", 4)])
def test_the_authors_layout_means_their_mask(tmp_path, name, scale):
    torch.manual_seed(0)
    made = MaskGuidedNetwork(ModelConfig(name, scale, split=(2, 1), mask={"order": "pool-then-softmax"})).eval()
    path = tmp_path / "model.pth"
    torch.save({f"module.{key}": tensor for key, tensor in authors_layout(made).items()}, path)
    options = {"scale": scale} if name == "fsrcnn" else {}
    model = MaskGuidedSR.from_checkpoint(path, device="cpu", dtype="float32", k=3, **options)
    network, config = model.model, model.config
    assert (config.network, config.scale, config.split, model.mode) == (name, scale, (2, 1), "masked")
    with torch.no_grad():
        feature = torch.randn(1, config.definition.feature_channels, 16, 20)
        state = made.state_dict()
        y = F.relu(F.conv2d(feature, state["mask.conv1.weight"], state["mask.conv1.bias"], padding=1))
        y = F.conv2d(y, state["mask.conv2.weight"], state["mask.conv2.bias"], padding=1).softmax(1)[:, 1:]
        cells = F.avg_pool2d(y, 4)
        filters = F.conv2d(cells, state["mask.conv_kernel.weight"], state["mask.conv_kernel.bias"])
        around = F.unfold(cells, 5, padding=2).view(1, 25, 4, 5)
        assert (network.mask(feature) - (filters * around).sum(1)).abs().max() < 1e-5
    if name == "rfdn":
        assert not network.base.B1.esa.pool
    for half in ("base", "refine"):
        for key, tensor in getattr(made, half).state_dict().items():
            assert torch.equal(tensor, getattr(network, half).state_dict()[key]), key

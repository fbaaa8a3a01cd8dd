"""A published network extended by its own Refine-Net, for which the engine has convolutions of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mga_kernels.networks import MaskGuidedNetwork, ModelConfig, WholeNetwork

from ..files.folders import spread
from ..training.packs import Pair
from ..training.start import start_as_probability

LOOKED_AT = 16  # images of which the size of the feature is taken
SIDE = 128  # of their parts, in LR pixels


def fits_the_paper(teacher: WholeNetwork, added: int) -> bool:
    """Whether the network has such a Refine-Net (``Network.extension``), of no more blocks than it has itself."""
    config, definition = teacher.config, teacher.config.definition
    extension = definition.part("extension")
    if extension is None or config.settings != dict(extension.settings):
        return False
    return config.input_range == definition.input_range and added <= config.blocks


def extended(
    teacher: WholeNetwork, added: int, patch_size: int, train: Sequence[Pair], seed: int = 0
) -> MaskGuidedNetwork:
    """The mask-guided network whose Base-Net is the teacher, and whose Refine-Net returns the coarse image at first.

    ``train``: pairs (HR, LR), of which the size of the feature is taken.
    """
    config = teacher.config
    torch.manual_seed(seed)
    network = MaskGuidedNetwork(ModelConfig(config.network, config.scale, patch_size, split=(config.blocks, added)))
    network.base.load_state_dict(teacher.body.state_dict())
    network.eval().requires_grad_(False)
    extension = config.definition.part("extension")
    assert extension is not None, "fits_the_paper says so"
    extension.start(network.base, network.refine, network.config.split, _largest(network, train))
    start_as_probability(network.mask)
    return network


@torch.no_grad()
def _largest(network: MaskGuidedNetwork, train: Sequence[Pair]) -> Tensor:
    """The largest magnitude (C,) of each channel of the feature."""
    chosen = spread(train, LOOKED_AT)
    parts = (torch.from_numpy(lr[:SIDE, :SIDE].copy()).permute(2, 0, 1)[None] / 255 for _, lr in chosen)
    return torch.stack([network.coarse(part)[1].abs().amax(dim=(0, 2, 3)) for part in parts]).amax(dim=0)

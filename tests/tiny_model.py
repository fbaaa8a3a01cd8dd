"""A small untrained model file for tests of what stands around the network."""

import torch

from mga_kernels.checkpoints import save_model
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig


def write_tiny_model(path, scale=2, network="fsrcnn", k=3):
    torch.manual_seed(0)
    model = MaskGuidedNetwork(ModelConfig(network, scale, 4, k))
    save_model(path, model, {"weights": "none"}, {"note": "untrained"})
    return path

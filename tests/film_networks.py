"""Small networks that run in parts, and images that differ in places."""

from __future__ import annotations

import numpy as np
import torch

from mga_kernels.networks import WholeConfig, WholeNetwork

SHAPES = {
    "compact": WholeConfig("compact", 4, 3, {"channels": 24}),
    "span": WholeConfig("span", 4, 2, {"channels": 24}),
    "msrresnet": WholeConfig("msrresnet", 4, 2),
    "edsr": WholeConfig("edsr", 2, 2),
    "rrdbnet x4": WholeConfig("rrdbnet", 4, 1),
    "rrdbnet x2": WholeConfig("rrdbnet", 2, 1),
}


def network_of(name):
    torch.manual_seed(4)
    network = WholeNetwork(SHAPES[name]).eval().requires_grad_(False)
    for parameter in network.parameters():  # what random networks make is hardly seen in bytes
        if parameter.ndim == 4:
            parameter.mul_(1.2)
    return network


def image_of(height=83, width=150, seed=1):
    torch.manual_seed(seed)
    small = torch.rand(1, 3, height // 6 + 2, width // 6 + 2)
    large = torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)
    return (255 * large[0].permute(1, 2, 0)).round().byte().numpy()


def changed(image, *places):
    """With other colours in these places (top, left, height, width), of which negative ones count from the end."""
    found = image.copy()
    for top, left, height, width in places:
        top, left = top % image.shape[0], left % image.shape[1]
        found[top : top + height, left : left + width] ^= np.iinfo(found.dtype).max // 0xFF * 0xD7
    return found

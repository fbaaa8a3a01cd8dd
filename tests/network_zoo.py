"""Every network that the tests run: those of the package and those that MGA_NETWORKS names; and the example."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mga_kernels.checkpoints.native import load_native
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig, network_names, registry

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "residual"
NAMES = network_names()
SHORT_GROUPS = {"base": {"blocks_per_group": 2}, "refine": {"blocks_per_group": 2}}  # of RCAN, which has 20


@contextmanager
def one_thread() -> Iterator[None]:
    """For many small calls, which would mostly wait for a second one where the processor has other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def example_registered() -> Iterator[None]:
    """Within it "residual" is a network, by way of MGA_NETWORKS; afterwards the registry is as it was."""
    with one_thread(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_networks", dict(registry._networks))
        patch.setattr(registry, "_imported", set(registry._imported))
        patch.setenv("MGA_NETWORKS", ",".join(filter(None, (os.environ.get("MGA_NETWORKS"), str(EXAMPLE)))))
        yield


def photographs(height: int, width: int) -> Tensor:
    """Two parts of a real photograph, float32 (2, 3, height, width) in [0, 1]."""
    photo = np.asarray(Image.open(ROOT / "python/mga/assets/demo.png").convert("RGB"))
    crops = [photo[y : y + height, x : x + width] for y, x in ((200, 300), (330, 610))]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255


def random_model(network: str, scale: int, dtype: torch.dtype = torch.float32, **settings) -> MaskGuidedNetwork:
    """A small one, one block a half unless settings say otherwise, whose images lie within 0 and 1 for a good part.

    Those of an untrained network would be clamped nearly everywhere, and all would look equal.
    """
    torch.manual_seed(0)
    small = {"split": (1, 1)} | (SHORT_GROUPS if network == "rcan" else {})
    model = MaskGuidedNetwork(ModelConfig(network, scale, **small | settings))
    model = model.eval().requires_grad_(False).to(dtype)
    images = photographs(16, 16).to(dtype)
    feature = model.coarse(images)[1]
    _temper(model.base, model.value_range, lambda: model.coarse(images)[0])
    _temper(model.refine, model.value_range, lambda: model.decomposed(feature))
    return model


def rfdn_of_trained_base() -> MaskGuidedNetwork:
    """RFDN x4 whose Base-Net is the published network that ships, as it is; the other parts are random."""
    network = random_model("rfdn", 4, split=(4, 2))
    network.base.load_state_dict(load_native("rfdn-x4").body.state_dict())
    return network


def _temper(half: nn.Module, value_range: float, run: Callable[[], Tensor]) -> None:
    """Scale the convolution that runs last to a deviation of 0.1, and shift the result to a mean of 0.5 by its bias."""
    ran: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda module, _, output: ran.append((module, output)))
        for module in half.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    run()
    for hook in hooks:
        hook.remove()
    last, output = ran[-1]
    for parameter in last.parameters():
        parameter.mul_(0.1 * value_range / output.std())
    if last.bias is not None:
        last.bias.add_((0.5 - run().mean()) * value_range)

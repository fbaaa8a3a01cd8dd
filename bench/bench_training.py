"""What training waits for: a batch of the paper's size from memory, beside a step of the smallest network with it."""

import numpy as np
import pytest
import torch

from mga.evaluation.resize import shrink_for_scale
from mga.training.objectives import image_loss
from mga.training.packs import Crops
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig

SCALE, CROP, BATCH = 4, 64, 32


@pytest.fixture(scope="module")
def crops() -> Crops:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (480, 480, 3), dtype=np.uint8) for _ in range(16)]
    return Crops([[shrink_for_scale(hr, SCALE) for hr in images]], SCALE, CROP, BATCH, seed=0)


def test_batch(benchmark, crops):
    numbers = iter(range(10**6))
    lr, hr = benchmark.pedantic(lambda: crops.make(next(numbers)), rounds=20, warmup_rounds=2)
    assert (tuple(lr.shape), tuple(hr.shape)) == ((BATCH, 3, CROP, CROP), (BATCH, 3, CROP * SCALE, CROP * SCALE))
    benchmark.extra_info.update(crops_per_s=round(BATCH / benchmark.stats.stats.median, 1))


def test_step_of_fsrcnn(benchmark, crops):
    network = MaskGuidedNetwork(ModelConfig("fsrcnn", SCALE)).train()
    lr, hr = (image.contiguous(memory_format=torch.channels_last) for image in crops.make(0))

    def step() -> None:
        network.zero_grad(set_to_none=True)
        image_loss(network, lr, hr, "dense", 1.0).backward()

    benchmark.pedantic(step, rounds=5, warmup_rounds=1)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.refine.parameters())

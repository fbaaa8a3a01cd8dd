"""RFDN-M through its plan against the network in float32."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from mga_kernels import MaskGuidedSR, plans
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig
from mga_kernels.plans import pairs
from mga_kernels.plans.rfdn import RfdnWeights

pytestmark = pytest.mark.skipif(pairs.supported() is not None, reason=f"no pair planes here: {pairs.supported()}")


def small_network(scale: int = 4, patch_size: int = 4, **settings) -> MaskGuidedNetwork:
    """Random, but with an image near its middle, so that errors are not clamped away."""
    torch.manual_seed(0)
    network = MaskGuidedNetwork(ModelConfig("rfdn", scale, patch_size, split=(2, 1), **settings))
    with torch.no_grad():
        for half in (network.base, network.refine):
            half.upsampler[0].weight.mul_(8)
            half.upsampler[0].bias.fill_(128)
        network.mask.conv2.weight.mul_(20)
    return network.eval().requires_grad_(False)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "scale", "patch_size", "settings"),
    [
        (32, 48, 4, 4, {}),
        (33, 50, 4, 4, {}),
        (17, 15, 2, 8, {}),
        (31, 21, 3, 2, {}),
        (24, 40, 4, 4, {"mask": {"classes": 1}}),
        (24, 40, 4, 4, {"mask": {"order": "pool-then-softmax", "filter_source": "feature"}, "selection": "smallest"}),
    ],
)
def test_plan_equals_the_network(height, width, scale, patch_size, settings):
    network = small_network(scale, patch_size, **settings)
    image = picture(height, width)
    plan = RfdnWeights(network).plan(height, width, 9)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    coarse, feature = network.coarse(tensor)
    exact_mask, exact_indices = network.select(feature, 9)
    spread = float(coarse.std()) * 255
    assert spread > 20, "a flat picture proves nothing"

    for _ in range(2):  # the second time with the buffers as the first one left them
        out = plan.coarse(torch.from_numpy(image))
        mask, indices = plan.select()
        torch.testing.assert_close(mask, exact_mask, atol=0.02 * float(exact_mask.abs().max()), rtol=0.02)
        assert len(set(indices[0].tolist()) & set(exact_indices[0].tolist())) >= indices.shape[1] - 2
        expected = network(tensor, 9, "masked")  # of its own cells
        plan.refine(exact_indices, out)
        found = out[: height * scale, : width * scale].permute(2, 0, 1) / 255
        difference = (found - expected[0]).abs() * 255
        assert difference.mean() < 0.02 * spread
        assert difference.max() < 0.25 * spread


def test_no_cells_is_the_coarse_image():
    network = small_network()
    image = picture(32, 32)
    run = RfdnWeights(network).plan(32, 32, 0).run(torch.from_numpy(image))
    coarse = RfdnWeights(network).plan(32, 32, 5).coarse(torch.from_numpy(image))
    assert torch.equal(run, coarse)


def test_photographs_run_through_the_plan_and_say_so():
    network = small_network()
    model = MaskGuidedSR(network, k=6, device="cpu")
    image = picture(20, 30)
    assert model.info()["photographs"] == "bfloat16, planned"
    result = model.upscale(image)
    assert model.info()["prepared"] == ["30x20, K = 6"]
    explained = model.explain(image)
    assert np.array_equal(explained.image, result)
    assert len(explained.indices) == 6
    changed = (explained.image != explained.coarse).any(axis=2)
    for index in range(5 * 8):
        y, x = divmod(index, 8)
        cell = changed[16 * y : 16 * y + 16, 16 * x : 16 * x + 16]
        assert cell.size == 0 or bool(cell.any()) == (index in explained.indices)
    for height in (20, 21, 22):
        model.upscale(picture(height, 30))
    assert model.info()["prepared"] == ["30x21, K = 6", "30x22, K = 6"]


def test_threads_take_turns():
    model = MaskGuidedSR(small_network(), k=4, device="cpu")
    pictures = [picture(24, 32), picture(24, 32)[::-1]]
    alone = [model.upscale(image) for image in pictures]
    with ThreadPoolExecutor(4) as pool:
        for image, expected in zip(pictures * 8, pool.map(model.upscale, pictures * 8), strict=True):
            assert np.array_equal(expected, alone[0] if image is pictures[0] else alone[1])


def test_float32_and_other_networks_have_no_plan():
    model = MaskGuidedSR(small_network(), dtype="float32", device="cpu")
    assert model.info()["photographs"] == "float32, in PyTorch"
    assert "float32 was asked for" in model.info()["why"]
    other = MaskGuidedSR(MaskGuidedNetwork(ModelConfig("fsrcnn", 2)), device="cpu")
    assert "there is no plan for fsrcnn yet" in other.info()["why"]


def test_images_below_the_smallest_size_run_without_a_plan():
    model = MaskGuidedSR(small_network(), k=2, device="cpu")
    assert model.upscale(picture(5, 40)).shape == (20, 160, 3)
    assert model.info()["prepared"] == []


def test_memory_is_estimated_well():
    """Bytes of the planes that a plan allocates, against the estimate that refuses images too large."""
    weights = plans.prepare(small_network())
    for height, width, k in ((540, 960, 1000), (100, 75, 200)):
        plan = weights.plan(height, width, k)
        tensors: set[int] = set()

        def total(value: object, tensors: set[int] = tensors) -> int:
            if isinstance(value, torch.Tensor):
                new = value.data_ptr() not in tensors
                tensors.add(value.data_ptr())
                return value.nbytes * new
            if isinstance(value, RfdnWeights):
                return 0
            if isinstance(value, list):
                return sum(map(total, value))
            return sum(map(total, vars(value).values())) if hasattr(value, "__dict__") else 0

        picture_bytes = 3 * 16 * height * width
        assert 0.99 < weights.bytes_needed(height, width, k) / (total(plan) + picture_bytes) < 1.1

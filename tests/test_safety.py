"""Values beyond 16 bits: noticed, and the image run again in a dtype that holds them."""

import warnings

import numpy as np
import pytest
import torch

from mga_kernels import MaskGuidedSR
from mga_kernels.errors import CheckpointError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig
from mga_kernels.runtimes import finite
from mga_kernels.runtimes.pytorch.modules import ModulePlanner

LARGE = 2.0**24  # a power of two, so that dividing by it again leaves every value as it was


def network(damage: str = "nothing") -> MaskGuidedNetwork:
    """``damage`` "base" or "refine": inner values of that half are large, its output is not; "weights": too large."""
    torch.manual_seed(2)
    made = MaskGuidedNetwork(ModelConfig("fsrcnn", 2, k=20)).eval().requires_grad_(False)
    if damage in ("base", "weights"):
        first, second = made.base.first_part[0], made.base.mid_part[0]
        by = LARGE if damage == "weights" else 2.0**17
        first.weight.mul_(by)
        first.bias.mul_(by)
        second.weight.div_(by)
    elif damage == "refine":
        made.refine.conv1.weight.mul_(LARGE)
        made.refine.conv1.bias.mul_(LARGE)
        made.refine.conv2.weight.div_(LARGE)
    elif damage == "last":
        made.base.last_part[2].bias[0] = 1e5  # white once clamped, also in fp16, where it is infinite
    elif damage == "nan":
        made.refine.conv2.bias[3] = torch.nan
    return made


def model_of(made: MaskGuidedNetwork, **settings) -> MaskGuidedSR:
    """Run by PyTorch's modules, whose plan these tests watch."""
    return MaskGuidedSR(made, **{"device": "cpu", "runtime": "pytorch"} | settings)


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 28, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "values",
    [
        [1.0, -2.0, 65504.0],
        [1.0, torch.inf, 0.0],
        [1.0, -torch.inf, 0.0],
        [torch.nan, 1.0, 2.0],
        [1.0, 2.0, torch.nan],
        [torch.inf, -torch.inf, torch.nan],
    ],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_is_finite(values, dtype):
    expected = bool(np.isfinite(values).all())
    flat = torch.tensor(values, dtype=dtype)
    assert bool(finite.is_finite(flat)) == expected
    image = torch.zeros(2, 3, 5, 7, dtype=dtype).contiguous(memory_format=torch.channels_last)
    image[1, :, 4, 6] = flat
    assert bool(finite.is_finite(image)) == expected
    assert bool(finite.is_finite(flat[:0]))


def test_what_is_wider(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(finite, "_computes_bfloat16", lambda device: device == cpu)
    assert finite.wider(torch.float16, cpu) == torch.bfloat16
    assert finite.wider(torch.float16, torch.device("meta")) == torch.float32
    assert finite.wider(torch.bfloat16, cpu) == torch.float32
    with pytest.raises(CheckpointError, match=r"not finite even in float32.*load another"):
        finite.wider(torch.float32, cpu)


@pytest.fixture(params=["bfloat16", "float32"])
def instead(request, monkeypatch):
    """What runs where float16 does not: as on processors that compute in bfloat16, and as on others."""
    monkeypatch.setattr(finite, "_computes_bfloat16", lambda _: request.param == "bfloat16")
    return request.param


@pytest.mark.parametrize("damage", ["base", "refine", "weights", "last"])
def test_an_image_beyond_fp16_is_run_again(monkeypatch, damage, instead):
    expected = model_of(network(damage), device="cpu", dtype=instead)
    model = model_of(network(damage), device="cpu", dtype="float16")
    assert model.info()["photographs"] == "float16, in PyTorch"
    out = np.full((48, 56, 3), 7, np.uint8)
    message = f'not finite in float16, whose largest number is 6.55e\\+04; .* again in {instead}.*dtype="{instead}"'
    with pytest.warns(UserWarning, match=message):
        found = model.upscale(picture(), out=out)
    assert found is out
    assert np.array_equal(found, expected.upscale(picture()))
    assert model.info()["photographs"] == f"{instead}, in PyTorch"
    assert "float16: gave values that are not finite" in model.info()["why not"]

    runs = []
    forward = model.model.base.forward
    monkeypatch.setattr(model.model.base, "forward", lambda image: (runs.append(image.dtype), forward(image))[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(model.upscale(picture(1)), expected.upscale(picture(1)))
    assert runs == [expected.dtype], "the wider plan was kept"


@pytest.mark.parametrize("mode", ["masked", "dense"])
def test_explain_and_both_modes(mode, instead):
    expected = model_of(network("refine"), device="cpu", dtype=instead, mode=mode).explain(picture())
    model = model_of(network("refine"), device="cpu", dtype="float16", mode=mode)
    with pytest.warns(UserWarning, match="not finite in float16"):
        told = model.explain(picture())
    assert np.array_equal(told.image, expected.image)
    assert np.array_equal(told.coarse, expected.coarse)
    assert np.array_equal(told.indices, expected.indices)


@pytest.mark.parametrize("damage", ["base", "weights", "last"])
def test_tensors_too(damage, instead):
    image = torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float16)
    expected = model_of(network(damage), device="cpu", dtype=instead)(image, k=2)
    model = model_of(network(damage), device="cpu", dtype="float16")
    with pytest.warns(UserWarning, match="not finite in float16"):
        found = model(image, k=2)  # other cells show the coarse image
    assert found.dtype == torch.float16
    assert torch.equal(found, expected)


def test_sound_networks_run_once():
    model = model_of(network(), device="cpu", dtype="float16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = model.upscale(picture())
        model(torch.rand(1, 3, 12, 16))
    assert model.dtype == torch.float16
    exact = model_of(network(), device="cpu", dtype="float32").upscale(picture())
    assert np.abs(found.astype(int) - exact).max() <= 2


def test_an_image_is_not_judged_by_the_one_before():
    plan = ModulePlanner(network("refine").half()).plan(24, 28, 5)
    for k, expected in ((5, False), (0, True), (5, False)):
        plan.start()
        plan.run(torch.from_numpy(picture()), k=k)
        assert bool(plan.finite) == expected
    model = model_of(network("nan"), device="cpu", dtype="float32")
    with pytest.raises(CheckpointError):
        model.upscale(picture())
    model.model.refine.conv2.bias.zero_()
    model.upscale(picture())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "auto"])
def test_damaged_weights_are_an_error(dtype, instead):
    model = model_of(network("nan"), device="cpu", dtype=dtype)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(CheckpointError, match="weights are damaged"):
            model.upscale(picture())
    assert len(said) == {"float16": 2 if instead == "bfloat16" else 1, "bfloat16": 1}.get(dtype, 0)

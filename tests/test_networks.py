"""The halves of each network: parameter counts of the paper, published weights, and what must be equal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from halves import parameters_of_variants, random_network
from PIL import Image

from mga.evaluation.metrics import psnr_y
from mga.evaluation.resize import imresize
from mga_kernels.architectures.fsrcnn import network as fsrcnn
from mga_kernels.architectures.rfdn import network as rfdn
from mga_kernels.checkpoints import read_state_dict
from mga_kernels.errors import InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig
from mga_kernels.networks.mask import MaskPrediction


@pytest.mark.parametrize(
    ("network", "scale", "base", "decomposed", "masked"),
    [
        ("fsrcnn", 3, 23_363, 41_694, 43_270),
        ("fsrcnn", 4, 23_363, 41_694, 43_270),
        ("rfdn", 3, 423_977, 697_754, 721_256),
        ("rfdn", 4, 433_448, 716_696, 740_198),
    ],
)
def test_parameters_are_those_of_table_1(network, scale, base, decomposed, masked):
    assert parameters_of_variants(network, scale) == (base, decomposed, masked)


@pytest.mark.parametrize("network", ["fsrcnn", "rfdn"])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("patch_size", [2, 4, 8])
def test_every_cell_masked_is_all_and_none_is_base(network, scale, patch_size):
    model = random_network(network, scale, patch_size=patch_size)
    image = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(1))
    cells = (24 // patch_size) * (32 // patch_size)
    everything = model(image, variant="all")
    assert (model(image, k=cells) - everything).abs().max() <= 1e-6
    assert (model(image, k=10**9) - everything).abs().max() <= 1e-6
    base = model(image, variant="base")
    assert torch.equal(model(image, k=0), base)
    assert (everything - base).abs().max() > 1e-3, "the refined image must differ, or this test proves nothing"


@pytest.mark.parametrize("network", ["fsrcnn", "rfdn"])
def test_masked_image_is_assembled_from_the_halves(network):
    """Cell by cell, from slices of the feature, without gather and paste."""
    model = random_network(network, 3)
    image = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(2))
    coarse, feature = model.coarse(image)
    _, indices = model.select(feature, 11)
    padded, expected = F.pad(feature, (1, 1, 1, 1)), coarse.clone()
    for index in indices[0].tolist():
        y, x = divmod(index, 6)
        patch = model.refine(padded[:, :, 4 * y : 4 * y + 6, 4 * x : 4 * x + 6]) / model.config.value_range
        expected[:, :, 12 * y : 12 * y + 12, 12 * x : 12 * x + 12] = patch
    assert (model(image, k=11) - expected.clamp(0, 1)).abs().max() <= 1e-6


def test_decomposed_is_the_refine_net_over_the_whole_feature():
    model = random_network("fsrcnn", 2)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    _, feature = model.coarse(image)
    expected = model.refine(F.pad(feature, (1, 1, 1, 1))).clamp(0, 1)
    assert torch.equal(model(image, variant="decomposed"), expected)
    assert expected.shape == (1, 3, 32, 32)


def test_esa_differs_with_and_without_pool_on_the_same_weights():
    """Names and shapes are equal, so only the setting keeps the two functions apart."""
    torch.manual_seed(0)
    pooled, plain = rfdn.ESA(50, pool=True), rfdn.ESA(50, pool=False)
    plain.load_state_dict(pooled.state_dict())
    x = torch.randn(1, 50, 24, 24)
    assert (pooled(x) - plain(x)).abs().max() > 1e-3
    assert plain(x[..., :6, :6]).isfinite().all()
    with pytest.raises(RuntimeError):
        pooled(x[..., :6, :6])
    model = random_network("rfdn")
    assert model.base.B1.esa.pool is True
    assert model.refine.B1.esa.pool is False


def test_pool_setting_reaches_the_parts():
    model = random_network("rfdn", base={"pool": False}, split=(4, 1))
    assert model.base.B4.esa.pool is False
    assert model.refine.blocks == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"network": "rfdn", "scale": 5},
        {"network": "rfdn", "scale": 4, "patch_size": 3},
        {"network": "rfdn", "scale": 4, "k": -1},
        {"network": "rfdn", "scale": 4, "split": (4,)},
        {"network": "rfdn", "scale": 4, "split": (4, 0)},
        {"network": "rfdn", "scale": 4, "selection": "worst"},
        {"network": "rfdn", "scale": 4, "refine": {"blocks": 1}},
    ],
)
def test_impossible_configurations_are_refused(settings):
    with pytest.raises(InputError, match="model: "):
        ModelConfig(**settings)


def test_an_unknown_network_is_refused_with_the_known_names():
    with pytest.raises(InputError, match=r"vdsr.*fsrcnn"):
        ModelConfig("vdsr", 4)


def test_unknown_settings_are_refused():
    with pytest.raises(InputError, match="does not have this setting"):
        MaskGuidedNetwork(ModelConfig("fsrcnn", 4, base={"pool": True}))
    with pytest.raises(InputError, match="order"):
        MaskPrediction(12, 4, order="softmax")


@pytest.mark.parametrize(("k", "patch_size"), [(4000, 2), (1000, 4), (250, 8)])
def test_default_k_is_the_papers(k, patch_size):
    assert ModelConfig("rfdn", 4, patch_size).k == k


def test_configuration_survives_json():
    config = ModelConfig("rfdn", 4, 8, 77, (3, 1), "random", mask={"classes": 1})
    assert ModelConfig.from_json(config.to_json()) == config
    with pytest.raises(InputError, match=r"made for values in 0\.\.1"):
        ModelConfig.from_json(config.to_json().replace("255.0", "1.0"))


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("order", ["softmax-then-pool", "pool-then-softmax"])
@pytest.mark.parametrize("source", ["probability", "feature"])
def test_gradient_flows_through_the_mask_module(classes, order, source):
    torch.manual_seed(0)
    mask = MaskPrediction(12, 4, classes, order, source)
    output = mask(torch.randn(1, 12, 16, 24))
    assert output.shape == (1, 4, 6)
    output.square().sum().backward()
    for name, parameter in mask.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_gradient_flows_through_all_patches():
    model = random_network("rfdn").requires_grad_(True)
    _, feature = model.coarse(torch.rand(1, 3, 16, 16))
    model.refined(feature, model.every_cell(feature)).square().sum().backward()
    for name, parameter in [*model.refine.named_parameters(), *model.base.B1.named_parameters()]:
        assert parameter.grad.isfinite().all(), name


def _set5(shared_data, name: str) -> tuple[np.ndarray, np.ndarray]:
    """LR x4 and the HR image cropped to match, uint8."""
    lr = np.array(Image.open(shared_data / f"data/testsets/Set5/LR_bicubic/X4/{name}x4.png"))
    hr = np.array(Image.open(shared_data / f"data/testsets/Set5/HR/{name}.png"))
    return lr, hr[: 4 * lr.shape[0], : 4 * lr.shape[1]]


def _run(base: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        coarse, _ = base(torch.from_numpy(image).permute(2, 0, 1)[None].float())
    return coarse[0].permute(1, 2, 0).double().numpy()


@pytest.mark.parametrize(("name", "expected"), [("butterfly", 28.641), ("woman", 30.549)])
def test_published_rfdn_restores_set5(shared_data, name, expected):
    """Measured apart from this code (their mean over Set5 is 32.159 dB); fixes the ESA pool and the value range."""
    base = rfdn.BaseNet(4).eval()
    base.load_state_dict(read_state_dict(shared_data / "data/checkpoints/rfdn_x4_njulj-aim2020.pth"))
    lr, hr = _set5(shared_data, name)
    restored = _run(base, lr).clip(0, 255).round().astype(np.uint8)
    assert psnr_y(restored, hr, border=4) == pytest.approx(expected, abs=0.005)


def test_published_fsrcnn_beats_bicubic_on_set5(shared_data):
    """A 3-channel (full-range YCbCr) file with 4 mapping layers and one PReLU behind them; slope 1 is the identity."""
    names = {"feature_extract": "first_part.0", "activation_1": "first_part.1", "shrink": "mid_part.0"}
    names |= {"activation_2": "mid_part.1", "map_1": "mid_part.2", "map_2": "mid_part.4", "map_3": "mid_part.6"}
    names |= {"map_4": "mid_part.8", "activation_3": "mid_part.9", "expand": "last_part.0"}
    names |= {"activation_4": "last_part.1", "deconv": "last_part.2"}
    base = fsrcnn.BaseNet(4, blocks=4).eval()
    state = {f"mid_part.{i}.weight": torch.ones(12) for i in (3, 5, 7)}
    for name, tensor in read_state_dict(shared_data / "data/checkpoints/fsrcnn-ycbcr3_x4_Nhat-Thanh.pth").items():
        layer, kind = name.rsplit(".", 1)
        state[f"{names[layer]}.{kind}"] = tensor
    base.load_state_dict(state)
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    shift = np.array([0, 128, 128])
    for name, gain in (("butterfly", 1.0), ("woman", 0.6)):
        lr, hr = _set5(shared_data, name)
        restored = (_run(base, (lr @ matrix.T + shift) / 255) * 255 - shift) @ np.linalg.inv(matrix).T
        restored = restored.clip(0, 255).round().astype(np.uint8)
        bicubic = imresize(lr, 4)
        assert psnr_y(restored, hr, border=4) > psnr_y(bicubic, hr, border=4) + gain

"""Networks that exist whole only, in convolutions of our own: against their modules in float32."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from network_zoo import ROOT
from PIL import Image
from torch import nn

from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.errors import InputError
from mga_kernels.networks.whole import WholeConfig, WholeNetwork
from mga_kernels.runtimes.cpu import choose
from mga_kernels.runtimes.cpu.chains import PairChain
from mga_kernels.runtimes.cpu.layers import Conv
from mga_kernels.runtimes.cpu.maps import Maps
from mga_kernels.runtimes.cpu.pairs import Grid
from mga_kernels.runtimes.cpu.stages import Stage

OWN = "float32, in convolutions of our own"
KINDS = {
    "span": ("span", 4, 2, {"channels": 28}),
    "span-odd": ("span", 3, 1, {"channels": 13}),
    "span-range-1": ("span", 2, 3, {"channels": 48, "value_range": 1.0, "mean": (0.5, 0.4, 0.3)}),
    "compact": ("compact", 4, 3, {"channels": 64}),
    "compact-odd": ("compact", 3, 2, {"channels": 21}),
    "compact-x1": ("compact", 1, 0, {"channels": 24}),
    "compact-bytes": ("compact", 2, 1, {"channels": 16}, "0..255"),
    "rrdbnet": ("rrdbnet", 4, 2, {"channels": 24, "growth": 16}),
    "rrdbnet-lite": ("rrdbnet", 2, 2, {"channels": 32}),
    "rrdbnet-odd": ("rrdbnet", 2, 2, {"channels": 13, "growth": 5}),
    "rrdbnet-plus": ("rrdbnet", 1, 2, {"channels": 16, "growth": 9, "plus": True}),
    "rrdbnet-x2-of-blocks": ("rrdbnet", 2, 1, {"channels": 16, "growth": 8, "unshuffled": 2}),
    "rrdbnet-x1-of-blocks": ("rrdbnet", 1, 1, {"channels": 24, "unshuffled": 4}),
    "rrdbnet-x8": ("rrdbnet", 8, 1, {"channels": 8, "growth": 8}),
    "rrdbnet-x16-of-blocks": ("rrdbnet", 16, 1, {"channels": 8, "growth": 8, "unshuffled": 4}),
    "rcan-range-1": ("rcan", 3, 2, {"blocks_per_group": 2, "mean": (0.0, 0.0, 0.0)}),
    "rcan-of-blocks": ("rcan", 2, 1, {"blocks_per_group": 1, "channels": 24, "squeezed": 5, "unshuffled": 2}, "0..255"),
    "imdn": ("imdn", 4, 2, {}),
    "imdn-odd": ("imdn", 3, 2, {"channels": 13, "distilled": 3, "squeezed": 2}, "0..255"),
    "imdn-x1": ("imdn", 1, 1, {"channels": 24, "distilled": 9, "squeezed": 1}),
    "simplified_imdn": ("simplified_imdn", 4, 2, {}),
    "simplified_imdn-odd": ("simplified_imdn", 3, 2, {"channels": 13, "distilled": 3}, "0..255"),
    "srresnet": ("srresnet", 4, 2, {"norm": "none"}),
    "srresnet-prelu": ("srresnet", 2, 2, {"norm": "none", "prelu": True}),
    "srresnet-standardised": ("srresnet", 4, 2, {"norm": "none", "prelu": True, "standardised": True}),
    "srresnet-odd": ("srresnet", 3, 2, {"channels": 13}),
    "edsr": ("edsr", 4, 2, {}, "0..255"),
    "edsr-wide": ("edsr", 3, 1, {"channels": 80, "residual": 0.1}, "0..255"),
    "edsr-1": ("edsr", 1, 2, {"channels": 16}, "0..255"),
    "edsr-odd": ("edsr", 2, 3, {"channels": 11, "mean": (0.4, 0.5, 0.3)}),
}
# By which weights are larger, so that what blocks add can be seen.
BODIES = {"rrdbnet": 3.0, "edsr": 1.5, "rcan": 1.5, "imdn": 1.5, "simplified_imdn": 1.5}
IN_BOTH = "rcan", "imdn", "srresnet"  # which have plans in bf16, too


def network(name: str) -> WholeNetwork:
    """With slopes of their own, and a result that has some contrast."""
    torch.manual_seed(1)
    kind, scale, blocks, settings, *input_range = KINDS[name]
    made = WholeNetwork(WholeConfig(kind, scale, blocks, settings, input_range="".join(input_range) or "0..1"))
    for layer in made.modules():
        if isinstance(layer, nn.PReLU):
            nn.init.uniform_(layer.weight, -0.3, 0.6)
    made.eval().requires_grad_(False)
    if kind in BODIES:
        body = made.body if kind == "imdn" else made.body.body
        last = made.body.upsampler[0] if "imdn" in kind else made.body.conv_last
        for layer in body.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight *= BODIES[kind]
        result = made(tensor(picture(16, 16)))
        last.weight *= 0.2 / result.std()
        white = 255 if made.config.input_range == "0..255" else 1
        last.bias += white * (0.5 - made(tensor(picture(16, 16))).mean())
    return made


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None] / 255


def exact(made: WholeNetwork, image: np.ndarray) -> np.ndarray:
    result = made(tensor(image))
    return result[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255


@pytest.mark.parametrize("name", KINDS)
def test_pictures_are_those_of_the_modules(name):
    made = network(name)
    dtype = "float32" if KINDS[name][0] in IN_BOTH else "auto"
    model = MaskGuidedSR(made, device="cpu", runtime="own", dtype=dtype)
    assert model.info()["photographs"].startswith(OWN)
    for size in ((21, 34), (4, 5), (1, 1), (40, 17)):
        image = picture(*size)
        expected = exact(made, image) if min(size) > 3 else None
        found = model.upscale(image)
        assert found.shape == (*(side * made.config.scale for side in size), 3)
        if expected is not None:
            assert np.abs(found - expected).max() < 0.51
            assert expected.std() > 1


@pytest.mark.parametrize("kind", ["rcan", "srresnet"])
def test_odd_numbers_of_channels_have_no_pairs(kind):
    """Even ones run in bf16."""
    for channels in (13, 16):
        made = WholeNetwork(WholeConfig(kind, 2, 1, {"channels": channels})).eval().requires_grad_(False)
        if channels % 2:
            with pytest.raises(InputError, match="there are none for 13 channels, an odd number"):
                MaskGuidedSR(made, device="cpu", runtime="own", dtype="bfloat16")
        else:
            model = MaskGuidedSR(made, device="cpu", runtime="own", dtype="bfloat16")
            assert np.abs(model.upscale(picture(21, 34)) - exact(made, picture(21, 34))).max() < 4


def values(made: WholeNetwork, image: np.ndarray) -> torch.Tensor:
    """What the last convolution makes, (3, sH, sW), before it is rounded to bytes."""
    height, width = image.shape[:2]
    halves = made.halves()
    weights = halves.config.definition.part("cpu")(halves, choose.STORAGES["float32"])
    plan = weights.plan(height, width, 0)
    grown = made.config.scale * weights.unshuffled
    floats = torch.empty(3, *(grown * side for side in plan.area.size))
    plan.give(torch.from_numpy(image))
    weights.base(plan.area, plan.image, plan.feature, floats, torch.from_numpy(image), plan.base_buffers)
    return floats[:, : made.config.scale * height, : made.config.scale * width] * weights.gain


@pytest.mark.parametrize(
    "name", [name for name in KINDS if KINDS[name][0] in BODIES.keys() - {"imdn", "simplified_imdn"}]
)
def test_values_are_those_of_the_modules_before_they_are_rounded(name):
    """But of IMDN, whose last convolution is the picture after a pixel shuffle: of that see 16 bits."""
    made = network(name)
    for size in ((21, 34), (7, 5)):
        expected = made(tensor(picture(*size)))[0]
        torch.testing.assert_close(values(made, picture(*size)), expected, atol=3e-5, rtol=0)
        assert expected.std() > 0.04


def test_a_published_network_agrees_with_its_module(shared_data):
    made = load_checkpoint(shared_data / "data/checkpoints/RealESRGAN_x4plus.safetensors")
    photo = np.array(Image.open(ROOT / "python/mga/assets/demo.png").convert("RGB"))[300:340, 400:436]
    expected = made(tensor(photo))[0]
    error = (values(made, photo) - expected).square().mean()
    assert 10 * math.log10(1 / error) > 90


@pytest.mark.parametrize("name", ["span", "compact"])
def test_tiles_give_the_picture_of_the_whole_image(name):
    made = network(name)
    image = picture(150, 130)
    whole = MaskGuidedSR(made, device="cpu", runtime="own")
    needed = whole._runner.planner.bytes_needed(150, 130, 0)
    cut = MaskGuidedSR(made, device="cpu", runtime="own", memory=needed // 2)
    difference = np.abs(cut.upscale(image).astype(int) - whole.upscale(image))
    assert difference.max() <= 1  # 3x3 kernels are computed in tiles of 4x4 pixels, which lie differently
    assert difference.mean() < 1e-3
    assert "tiles of" in cut.info()["prepared"][0]


@pytest.mark.parametrize("name", ["span", "compact"])
def test_any_number_of_threads_gives_the_same_picture(name):
    model, image, threads = (
        MaskGuidedSR(network(name), device="cpu", runtime="own"),
        picture(64, 50),
        torch.get_num_threads(),
    )
    pictures = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            pictures.append(model.upscale(image))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[0], pictures[2])


def test_what_does_not_run_so_says_why():
    shrunk = WholeNetwork(WholeConfig("compact", 2, 1, {"channels": 16, "enlarged": 4})).eval()
    reason = "there are none for what is enlarged 4 times and shrunk to 2"
    with pytest.raises(InputError, match=reason):
        MaskGuidedSR(shrunk, device="cpu", runtime="own")
    assert MaskGuidedSR(shrunk, device="cpu").info()["why not"][0] == f"a plan of our own: {reason}"
    with pytest.raises(InputError, match="there are none in bfloat16 for span yet"):
        MaskGuidedSR(network("span"), device="cpu", runtime="own", dtype="bfloat16")


def test_chains_in_bf16_refuse_what_they_do_not_have():
    conv = nn.Conv2d(8, 8, 3, padding=1)
    for more in ({"silu": True}, {"attention": True}, {"stride": 2}, {"also": "x"}, {"factors": (0.2, 1.0)}):
        with pytest.raises(InputError, match="have no SiLU, no attention, no stride, no second addend and no factors"):
            PairChain([Stage(Conv.of(conv), "x", "out", **more)], ["x", "out"])


def test_cells_at_the_border_have_zeros_around_them_whatever_the_image_holds():
    maps, grid = Maps(), Grid(2, (6, 6), 4)
    x, out = maps.planes(8, 8, 8), maps.planes(8, grid.height, grid.width)
    x.write(torch.full((8, 8, 8), float("inf")))
    maps.gather(grid, out, x, (2, 2), torch.tensor([[0, 3]], dtype=torch.int32), 1, -1)
    first, last = grid.patches(out, 0, 1)[0, :2, 0, 0]
    assert torch.equal(torch.isinf(first), torch.nn.functional.pad(torch.ones(5, 5), (1, 0, 1, 0)).bool())
    assert torch.equal(torch.isinf(last), torch.nn.functional.pad(torch.ones(5, 5), (0, 1, 0, 1)).bool())
    assert not torch.isnan(out.data).any()

"""Tiles of a size that a caller asks for: the whole image's picture, or a warning where the network looks further."""

from __future__ import annotations

import re
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from network_zoo import random_model
from PIL import Image

from mga.cli import main
from mga_kernels import MaskGuidedSR
from mga_kernels.errors import InputError, OutOfMemoryError
from mga_kernels.networks import WholeConfig, WholeNetwork
from mga_kernels.runtimes.tiles.tiling import CONTEXT, asked


def picture(height: int, width: int) -> np.ndarray:
    """Smooth, with edges, and different everywhere."""
    y, x = np.mgrid[:height, :width]
    planes = [127 + 90 * np.sin(x / 7 + k) * np.cos(y / 5) + 30 * ((x // 9 + y // 11 + k) % 2) for k in range(3)]
    return np.stack(planes, axis=2).clip(0, 255).astype(np.uint8)


def compact(blocks: int) -> WholeNetwork:
    """It looks blocks + 2 pixels far."""
    torch.manual_seed(2)
    network = WholeNetwork(WholeConfig("compact", 2, blocks, {"channels": 8}))
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.mul_(1.7)
    return network.eval().requires_grad_(False)


def model(network: object, **settings: object) -> MaskGuidedSR:
    return MaskGuidedSR(network, device="cpu", **settings)


@pytest.mark.parametrize("runtime", ["own", "pytorch"])
def test_a_network_that_looks_no_further_makes_the_whole_image(runtime):
    image, network = picture(90, 150), compact(4)
    cut = model(network, runtime=runtime, tile=40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cut.upscale(image)
    difference = np.abs(found.astype(int) - model(network, runtime=runtime).upscale(image))
    assert difference.max() <= 1
    assert re.search(r"\b[4-9] tiles of", cut.info()["prepared"][0])


def test_k_is_one_for_all_tiles():
    image, network = picture(100, 120), random_model("fsrcnn", 2)
    whole, cut = model(network, k=30).upscale(image), model(network, k=30, tile=32).upscale(image, return_result=True)
    assert cut.refined == 30
    assert np.abs(cut.image.astype(int) - whole).max() <= 1


def test_one_that_looks_further_says_so_and_what_it_costs():
    image, network = picture(90, 150), compact(30)
    cut = model(network, tile=40)
    with pytest.warns(UserWarning, match=r"^tile=40: 150x90 is cut into \d+ tiles with 16 pixels around each") as said:
        found = cut.upscale(image)
    text = str(said[0].message)
    assert "compact looks 32 pixels far" in text
    assert re.search(r"for \d+% more work; without tile= it does not$", text)
    whole = model(network).upscale(image)
    assert found.shape == whole.shape
    assert np.abs(found.astype(int) - whole).mean() < 8  # the same picture, less what is lost at seams
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cut.upscale(image)  # said once for a size


def test_one_that_looks_at_the_whole_image_is_cut_where_that_is_asked_for():
    network = random_model("rcan", 2)
    with pytest.warns(UserWarning, match="rcan looks at the whole image: the picture differs"):
        found = model(network, k=3, tile=32).upscale(picture(70, 60))
    assert found.shape == (140, 120, 3)


def test_an_image_that_is_no_larger_is_not_cut():
    image, network = picture(60, 64), compact(30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = model(network, tile=64).upscale(image)
    assert np.array_equal(found, model(network).upscale(image))


@pytest.mark.parametrize("tile", [32, 33, 50, 99])
@pytest.mark.parametrize(("height", "width"), [(33, 200), (131, 97), (100, 34)])
def test_every_pixel_is_used_once_and_has_its_surroundings(tile, height, width):
    network = compact(30)
    tiling = asked(network, height, width, tile)
    if tiling is None:
        assert max(height, width) <= tile + 2 * CONTEXT
        return
    for cuts, side, length in ((tiling.rows, tiling.height, height), (tiling.columns, tiling.width, width)):
        assert cuts[0].first == 0
        assert cuts[-1].last == length
        for cut, following in pairwise(cuts):
            assert cut.last == following.first
        for cut in cuts:
            assert cut.first - cut.start >= min(CONTEXT, cut.first)
            assert cut.start + side - cut.last >= min(CONTEXT, length - cut.last)
            assert 0 <= cut.start <= length - side


@pytest.mark.parametrize("tile", [31, 0, -5, 2.5, "many", True])
def test_what_is_no_side_is_refused(tile):
    with pytest.raises(InputError, match="tile is the side of tiles in pixels, a whole number of 32 or more, got"):
        model(compact(1), tile=tile)


def test_tiles_that_do_not_fit_are_refused_with_the_remedy():
    with pytest.raises(OutOfMemoryError, match="use smaller tiles"):
        model(compact(30), tile=100, memory="100kB").upscale(picture(300, 300))


def test_the_command_has_it(tmp_path, capsys):
    Image.fromarray(picture(48, 40)).save(tmp_path / "in.png")
    arguments = ["upscale", "--model", "fsrcnn-x2", "--tile"]
    assert main([*arguments, "32", str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png")]) == 0
    assert Image.open(tmp_path / "out.png").size == (80, 96)
    assert main([*arguments, "5", str(tmp_path / "in.png"), "-o", str(tmp_path / "other.png")]) == 1
    assert "32 or more" in capsys.readouterr().err
    assert not (tmp_path / "other.png").exists()

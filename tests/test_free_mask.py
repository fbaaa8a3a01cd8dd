"""Cells chosen by what is seen in the coarse image: ``MaskGuidedSR(mask="high-pass")``."""

import pickle

import numpy as np
import pytest
import torch
from network_zoo import random_model
from PIL import Image

from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints.native import save_model
from mga_kernels.errors import InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig, WholeConfig, WholeNetwork
from mga_kernels.ops import high_pass, select_patches


def image_of(height=44, width=61):
    """Flat but for a part of noise."""
    pixels = np.full((height, width, 3), 90, np.uint8)
    pixels[8:24, 20:40] = np.random.default_rng(1).integers(0, 256, (16, 20, 3))
    return pixels


def expected(coarse, side, k):
    mask = high_pass(torch.from_numpy(np.asarray(coarse).copy())[None], side)
    return select_patches(mask, k)[0].numpy(), mask[0].numpy()


@pytest.mark.parametrize("runtime", ["own", "pytorch"])
@pytest.mark.parametrize("tile", [None, 32])
def test_cells_with_detail_are_chosen(runtime, tile):
    image, network = image_of(60, 90), "fsrcnn-x2"
    model = MaskGuidedSR.from_checkpoint(network, mask="high-pass", k=12, runtime=runtime, tile=tile)
    found = model.explain(image)
    cells, mask = expected(found.coarse, 8, 12)
    assert np.array_equal(found.indices, cells)
    assert np.array_equal(found.mask, mask)
    learned = MaskGuidedSR.from_checkpoint(network, mask="learned", k=12, runtime=runtime, tile=tile).explain(image)
    assert not np.array_equal(learned.indices, cells)


@pytest.mark.parametrize(
    ("usual", "asked", "by"),
    [
        ("learned", {}, "learned"),
        ("high-pass", {}, "high-pass"),
        ("high-pass", {"mask": "learned"}, "learned"),
        ("learned", {"mask": "high-pass"}, "high-pass"),
        # What a threshold means depends on the mask, so it stays what it was.
        ("high-pass", {"threshold": 0.3}, "learned"),
        ("learned", {"mask": "high-pass", "threshold": 0.01}, "high-pass"),
    ],
)
def test_the_model_says_which_is_usual(usual, asked, by, tmp_path):
    network = MaskGuidedNetwork(ModelConfig("fsrcnn", 2, usual_mask=usual))
    save_model(tmp_path / "model.safetensors", network, {}, {})
    model = MaskGuidedSR.from_checkpoint(tmp_path / "model.safetensors", **asked)
    assert model.config.usual_mask == usual
    assert model.settings.mask == by
    assert model._runner.free == (by == "high-pass")
    assert pickle.loads(pickle.dumps(model)).settings.mask == by


@pytest.mark.parametrize("name", ["fsrcnn-x2", "fsrcnn-x3", "fsrcnn-x4"])
def test_shipped_models_choose_by_what_bench_masks_found(name):
    """The free mask gives the same PSNR as theirs, in less time (bench/results/masks.md)."""
    assert MaskGuidedSR.from_pretrained(name).settings.mask == "high-pass"


def test_a_threshold_is_one_of_the_image():
    image = image_of()
    model = MaskGuidedSR.from_checkpoint("fsrcnn-x2", mask="high-pass", threshold=0.01)
    found = model.explain(image)
    assert len(found.indices) == (found.mask > 0.01).sum()
    assert 0 < len(found.indices) < 60


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 2)])
def test_images_smaller_than_the_network_takes(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert MaskGuidedSR(random_model("pan", 2), mask="high-pass", k=3).upscale(image).shape == (
        2 * size[0],
        2 * size[1],
        3,
    )


def test_what_has_no_such_mask_is_refused():
    whole = WholeNetwork(WholeConfig("span", 2, 1))
    with pytest.raises(InputError, match="so mask cannot be given"):
        MaskGuidedSR(whole, mask="high-pass")
    with pytest.raises(InputError, match="mask 'free' does not exist"):
        MaskGuidedSR(random_model("fsrcnn", 2), mask="free")


def test_the_command_takes_it(tmp_path, mga_upscale):
    Image.fromarray(image_of()).save(tmp_path / "a.png")
    pictures = []
    for mask in ("learned", "high-pass"):
        out = tmp_path / f"{mask}.png"
        arguments = ("--model", "fsrcnn-x2", "--k", 20, "--mask", mask, "--save-mask", tmp_path / f"{mask}-mask.png")
        assert mga_upscale(tmp_path / "a.png", "-o", out, *arguments)[0] == 0
        pictures.append(np.asarray(Image.open(tmp_path / f"{mask}-mask.png")))
    assert (pictures[0] != pictures[1]).any()

"""Colours that photographs hardly have: recoloured crops, the loss of flat images, and what the shipped models make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from documented import ROOT
from pictures import smooth_picture
from PIL import Image

import mga_kernels
from mga.evaluation.resize import imresize, shrink_for_scale
from mga.training.colour import recoloured
from mga.training.flat import (
    FLAT_SIDE,
    FLATS,
    TOLERATED,
    VISIBLE_LEVELS,
    colour_errors,
    flat_colours,
    flat_images,
    flat_loss,
)
from mga.training.objectives import both_images
from mga.training.packs import Crops
from mga_kernels import MaskGuidedSR, _native
from mga_kernels.checkpoints import is_whole, load_model, load_native

# Networks of Real-ESRGAN, as they were published, and by how many levels of 255 they move a flat colour at most.
MOVING = {"realesr-general-x4": 9.5, "realesr-anime-x4": 12.0}
SHIPPED = sorted(path.stem for path in (Path(mga_kernels.__file__).parent / "weights").glob("*.safetensors"))


@pytest.fixture
def pair():
    hr = smooth_picture(96, 72, seed=3).astype(np.float32)
    grey = hr.mean(2, keepdims=True)
    muted = 128 + 0.5 * (0.3 * hr + 0.7 * grey - 128)  # of low contrast, so that shrinking clips nothing
    return shrink_for_scale(np.rint(muted).astype(np.uint8), 2)


def test_a_recoloured_lr_image_is_the_recoloured_hr_image_shrunk(pair):
    for seed in range(60):
        hr, lr = recoloured(*pair, np.random.default_rng(seed))
        assert (hr.dtype, hr.shape, lr.shape) == (np.uint8, pair[0].shape, pair[1].shape)
        apart = np.abs(imresize(hr, 0.5).astype(int) - lr)
        assert apart.mean() < 1.5, seed  # rounding, of which saturation makes three times as much
        assert apart.max() <= 9, seed


def test_recolouring_reaches_vivid_colours_that_the_picture_has_not(pair):
    pictures = [recoloured(*pair, np.random.default_rng(seed))[0] for seed in range(60)]

    def vividness(image):
        return float((image.max(2).astype(int) - image.min(2)).mean())

    assert max(map(vividness, pictures)) > 150 > 2 * vividness(pair[0])
    ends = {
        (channel, end) for image in pictures for channel in range(3) for end in (0, 255) if end in image[..., channel]
    }
    assert len(ends) == 6


def test_only_the_share_asked_for_is_recoloured_and_the_others_stay(pair):
    def batch(colours, number=5, rank=0, world=1):
        crops = Crops([[pair]], 2, 8, 16, 7, rank, world, colours=colours)
        return crops.make(number)

    plain, half, again = batch(0.0), batch(0.5), batch(0.5)
    changed = [not torch.equal(a, b) for a, b in zip(plain[1], half[1], strict=True)]
    assert 3 <= sum(changed) <= 13
    assert all(torch.equal(a, b) for a, b in zip(half, again, strict=True)), "a function of the seed and the number"
    parts = [batch(0.5, rank=rank, world=2)[1] for rank in (0, 1)]
    assert torch.equal(torch.stack(parts, 1).flatten(0, 1), half[1]), "workers share one batch"


def test_flat_images_are_flat_and_differ_from_one_iteration_to_the_next():
    batches = [flat_images(0, number) for number in range(3)]
    for batch in batches:
        assert batch.shape[:2] == (FLATS, 3)
        assert torch.equal(batch.amax((2, 3)), batch.amin((2, 3)))
    assert torch.equal(batches[2], flat_images(0, 2))
    assert not torch.equal(batches[0][..., 0, 0], flat_images(1, 0)[..., 0, 0])


def test_the_loss_of_flat_images_pulls_back_what_shifts_colours():
    network = load_model("fsrcnn-x2").requires_grad_(True)
    biases = [network.base.last_part[-1].bias, network.refine.last_part[-1].bias]

    def loss():
        return flat_loss(network, flat_images(0, 1), "all", 1.0)

    before = loss().item()
    with torch.no_grad():
        biases[0][0] += 0.2
        biases[1][1] -= 0.2
    shifted = loss()
    shifted.backward()
    assert shifted.item() > before + 2 * 4 * 0.19 / 3, "four times what lies above the tolerance, of a third"
    assert biases[0].grad[0] > 0.5
    assert biases[1].grad[1] < -0.5


def test_the_loss_of_flat_images_leaves_alone_what_nobody_sees():
    """Less than a level, and what the zeros around an image do to its border."""
    network = load_model("fsrcnn-x2")
    images = torch.full((2, 3, FLAT_SIDE, FLAT_SIDE), 0.5)
    coarse, final = both_images(network, images, "all")
    assert (coarse - 0.5).abs().max() > TOLERATED < (final - 0.5).abs().max(), "the border moves"
    assert flat_loss(network, images, "all", 1.0) == 0


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_keeps_every_flat_colour(name):
    """But for networks of others that were trained to invent detail, which ship as they were published."""
    moved = max(colour_errors(load_native(name)).values())
    assert moved <= MOVING.get(name, VISIBLE_LEVELS)
    assert (moved > VISIBLE_LEVELS) is (name in MOVING), "what keeps them is not listed"


@pytest.mark.parametrize("fraction", [0.0, 1.0])
@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in MOVING])
def test_a_photograph_of_flat_colours_keeps_them(name, fraction):
    """The same by way of photographs, each colour with the border that it needs, and alone where it is tiny."""
    amount = {} if is_whole(name) else {"fraction": fraction}
    # Held to portable kernels, which are slow, a processor with bf16 would run photographs in it, in PyTorch.
    exact = {"dtype": "float32"} if _native.map_kernels()[0] == "portable" else {}
    engine = MaskGuidedSR.from_pretrained(name, **amount, **exact)
    for colour in flat_colours()[::12]:
        picture = np.full((24, 21, 3), colour, np.uint8)
        border = 8 * engine.scale
        moved = engine.upscale(picture)[border:-border, border:-border].astype(int) - colour
        assert np.abs(moved).max() <= VISIBLE_LEVELS, colour
        for size in ((1, 1), (2, 3), (3, 1)):
            mean = engine.upscale(np.full((*size, 3), colour, np.uint8)).mean((0, 1))
            assert np.abs(mean - colour).max() <= VISIBLE_LEVELS, (colour, size)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in MOVING])
def test_a_vivid_photograph_keeps_its_colours(name, monkeypatch):
    """A block of the result, shrunk by averaging, is the one that it was made from, give or take detail."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import colours

    with Image.open(ROOT / "python/mga/assets/demo.png") as file:
        pixels = colours.vivid(file.crop((0, 0, 120, 96)))
    shift = colours.moved(MaskGuidedSR.from_pretrained(name), pixels)
    assert shift.shape == (24, 30)
    assert (shift > colours.VISIBLE).mean() < 0.01

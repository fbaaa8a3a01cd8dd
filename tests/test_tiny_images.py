"""Images of a few pixels: every form of input, and what is beyond their border is their reflection, never black."""

import numpy as np
import pytest
import torch
from pictures import picture
from PIL import Image
from tiny_model import write_tiny_model

from mga_kernels import MaskGuidedSR
from mga_kernels.images import read_image
from mga_kernels.networks.layers import pad_by_reflection
from mga_kernels.ops.grid import mirror_indices

SIZES = [(1, 1), (1, 2), (2, 1), (3, 3), (1, 9), (9, 1), (2, 5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return MaskGuidedSR.from_pretrained(write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_form_of_a_tiny_image(model, tmp_path, height, width):
    pixels = picture(height, width)
    expected = model.upscale(pixels)
    assert expected.shape == (2 * height, 2 * width, 3)
    image = Image.fromarray(pixels)
    for name in ("a.png", "a.bmp", "a.tiff", "a.ppm", "a.tga"):
        image.save(tmp_path / name)
        np.testing.assert_array_equal(np.asarray(model.upscale(tmp_path / name)), expected)
    image.save(tmp_path / "a.webp", lossless=True)
    for name in ("a.jpg", "a.gif", "a.webp"):
        image.save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
        assert model.upscale(str(tmp_path / name)).size == (2 * width, 2 * height)
    np.testing.assert_array_equal(np.asarray(model.upscale(image)), expected)
    np.testing.assert_array_equal(model.upscale(read_image(image)).rgb, expected)
    np.testing.assert_array_equal(model.upscale(pixels[::-1][::-1]), expected)
    out = np.full_like(expected, 77)
    assert model.upscale(pixels, out=out) is out
    np.testing.assert_array_equal(out, expected)
    (one, other) = model.upscale_all([pixels, image])
    np.testing.assert_array_equal(one.image, expected)
    np.testing.assert_array_equal(np.asarray(other.image), expected)
    explained = model.explain(pixels)
    np.testing.assert_array_equal(explained.image, expected)
    assert explained.mask.shape == (-(-height // 4), -(-width // 4))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    for variant in ("masked", "base", "all", "decomposed"):
        assert model(tensor, variant).shape == (1, 3, 2 * height, 2 * width)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "RGBa"])
@pytest.mark.filterwarnings("ignore:converted from")
def test_every_mode_of_a_tiny_image(model, tmp_path, height, width, mode):
    image = Image.fromarray(picture(height, width)).convert(
        "RGBA" if mode == "RGBa" else mode if mode != "P" else "RGB"
    )
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    result = model.upscale(image)
    assert result.size == (2 * width, 2 * height)
    for output in ("png", "tiff", "webp"):
        result.save(tmp_path / f"a.{output}")
        with Image.open(tmp_path / f"a.{output}") as written:
            assert written.size == result.size


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("shape", ["(H, W)", "(H, W, 1)", "(H, W, 2)", "(H, W, 4)"])
def test_every_shape_of_a_tiny_array(model, height, width, shape):
    channels = {"(H, W)": 1, "(H, W, 1)": 1, "(H, W, 2)": 2, "(H, W, 4)": 4}[shape]
    array = picture(height, width, channels)
    array = array[..., None] if shape == "(H, W, 1)" else array
    assert model.upscale(array).shape == (2 * height, 2 * width, *array.shape[2:])


@pytest.fixture(scope="module")
def rfdn(tmp_path_factory):
    """A model of a network that wants images of 15 pixels a side."""
    return MaskGuidedSR.from_pretrained(
        write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", 4, "rfdn")
    )


@pytest.mark.parametrize(("height", "width"), [(4, 4), (4, 9), (9, 5)])
def test_what_is_beyond_the_border_is_the_reflection(rfdn, height, width):
    """A network that wants a larger image sees the same one that is extended by hand."""
    pixels = 1 + picture(height, width) // 2
    extended = pixels[mirror_indices(height, 15, "cpu").numpy()][:, mirror_indices(width, 15, "cpu").numpy()]
    assert extended.min() > 0
    assert {tuple(colour) for colour in extended.reshape(-1, 3)} == {tuple(colour) for colour in pixels.reshape(-1, 3)}
    expected = rfdn.upscale(np.ascontiguousarray(extended))[: 4 * height, : 4 * width]
    assert np.abs(rfdn.upscale(pixels).astype(int) - expected).max() <= 1  # sums in another order


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (3, 3), (2, 20)])
def test_a_tiny_image_has_its_reflection_around_it(model, height, width):
    """On every side of a side below 4 pixels, so that no border of zeros shifts its colours; whole cells of it."""
    pixels = picture(height, width)
    margins = [(8, 8) if side < 4 else (0, 0) for side in (height, width)]
    around = np.ascontiguousarray(np.pad(pixels, [*margins, (0, 0)], "symmetric"))
    inside = tuple(
        slice(2 * before, 2 * (before + side)) for (before, _), side in zip(margins, (height, width), strict=True)
    )
    np.testing.assert_array_equal(model.upscale(pixels), model.upscale(around)[inside])
    explained, wider = model.explain(pixels), model.explain(around)
    cells = tuple(
        slice(before // 4, before // 4 - (-side // 4))
        for (before, _), side in zip(margins, (height, width), strict=True)
    )
    np.testing.assert_array_equal(explained.mask, wider.mask[cells])
    assert len(explained.indices) <= explained.mask.size
    assert set(explained.indices) <= set(range(explained.mask.size))
    tensor = torch.from_numpy(around).permute(2, 0, 1)[None] / 255
    expected = model(tensor, "all")[..., inside[0], inside[1]]
    assert torch.equal(model(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255, "all"), expected)


def test_reflection_of_one_pixel_and_of_few():
    for length in (1, 2, 3):
        x = torch.arange(1.0, 1 + length * length).reshape(1, 1, length, length)
        padded = pad_by_reflection(x, 7, 8)
        assert padded.shape == (1, 1, 7, 8)
        assert set(padded.unique().tolist()) == set(x.unique().tolist())
        assert torch.equal(padded[..., :length, :length], x)

"""How large results are: scales, boxes and sides, and what a network makes shrunk to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from local_originals import compact
from PIL import Image

from mga.cli import build_parser, main
from mga.evaluation.resize import imresize
from mga_kernels.errors import InputError
from mga_kernels.images.size import Size, shrink


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (Size(), (404, 120)),
        (Size(scale=1.5), (152, 45)),
        (Size(scale=0.001), (1, 1)),
        (Size(scale=np.float32(4)), (404, 120)),
        (Size(width=200), (200, 59)),
        (Size(height=np.int64(60)), (202, 60)),
        (Size(width=300, height=60), (202, 60)),
        (Size(width=202, height=600), (202, 60)),
        (Size(width=404), (404, 120)),
    ],
)
def test_the_size_of_a_result(size, expected):
    assert size.of(101, 30, 4) == expected


@pytest.mark.parametrize("size", [Size(scale=4.01), Size(width=405), Size(height=121), Size(500, None, None)])
def test_what_is_larger_than_the_network_makes_is_refused(size):
    with pytest.raises(InputError, match=r"times 101x30, and the model enlarges 4 times; ask for 404x120 or less"):
        size.of(101, 30, 4)


@pytest.mark.parametrize(
    "given",
    [*({"scale": s} for s in (0, -1, math.nan, "2", True)), {"width": 0}, {"height": -3}, {"scale": 2, "width": 5}],
)
def test_what_is_no_size(given):
    with pytest.raises(InputError, match=r"^size: "):
        Size(**given)


@pytest.mark.parametrize("scale", [1 / 2, 2 / 3, 3 / 8])
def test_a_picture_is_shrunk_as_training_images_are(scale):
    picture = np.random.default_rng(0).integers(60, 200, (48, 72, 3), dtype=np.uint8)  # nothing that would be clipped
    expected = imresize(picture.astype(np.float64), scale)
    result = shrink(picture, (round(72 * scale), round(48 * scale)))
    inside = slice(3, -3), slice(3, -3)  # beyond the border MATLAB mirrors and Pillow looks at less
    assert np.abs(result - expected)[inside].max() < 1.6  # each of two passes is rounded
    assert shrink(picture, (72, 48)) is picture


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 4), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0110] = "camera"
    exif.get_ifd(0x8769).update({0xA002: 32, 0xA003: 20})
    image.save(tmp_path / "a.png", exif=exif)
    return tmp_path / "a.png"


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        (["--scale", "1.5"], (48, 30)),
        (["--scale", "2"], (64, 40)),
        (["--size", "50X50"], (50, 31)),
        (["--width", "40"], (40, 25)),
        (["--height", "39"], (62, 39)),
        (["--width", "63", "--height", "30"], (48, 30)),
    ],
)
def test_the_command_makes_it(tmp_path, photo, mga_upscale, arguments, size):
    code, output = mga_upscale(photo, "-o", tmp_path / "full.png")
    assert code == 0
    code, output = mga_upscale(photo, "-o", tmp_path / "out.png", "--save-mask", tmp_path / "mask.png", *arguments)
    assert (code, output.err) == (0, "")
    assert f"({size[0]}x{size[1]}, K = " in output.out
    result, full = Image.open(tmp_path / "out.png"), Image.open(tmp_path / "full.png")
    assert (result.size, result.mode) == (size, "RGBA")
    assert full.size == (64, 40)
    exif = result.getexif()
    assert exif[0x0110] == "camera"
    assert (exif.get_ifd(0x8769)[0xA002], exif.get_ifd(0x8769)[0xA003]) == size
    np.testing.assert_array_equal(
        np.asarray(result)[..., 3], np.asarray(Image.open(photo).getchannel("A").resize(size, 3))
    )
    opaque = np.asarray(result)[..., 3] > 250
    expected = shrink(np.asarray(full.convert("RGB")), size)
    assert np.abs(np.asarray(result)[..., :3].astype(int) - expected)[opaque].mean() < 1
    assert Image.open(tmp_path / "mask.png").width == 64


def test_an_image_that_is_larger_already_is_shrunk_without_the_network(tmp_path, photo, mga_upscale):
    code, output = mga_upscale(photo, "-o", tmp_path / "out.png", "--size", "16x16")
    assert code == 0
    assert "(16x10, without the network, as it is no larger than the image" in output.out
    assert Image.open(tmp_path / "out.png").size == (16, 10)
    code, output = mga_upscale(photo, "-o", tmp_path / "same.png", "--scale", "1")
    assert code == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "same.png")), np.asarray(Image.open(photo)))


@pytest.mark.parametrize(("edges", "beside"), [("--no-wrap", 0), ("--wrap", 32)])
@pytest.mark.parametrize("arguments", [[], ["--scale", "1"], ["--width", "16"]])
def test_a_network_of_x1_runs_although_nothing_becomes_larger(tmp_path, capsys, arguments, edges, beside):
    state, forward = compact(1)
    torch.save(dict(state), tmp_path / "1x.pth")
    picture = np.random.default_rng(0).integers(60, 200, (20, 32, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    command = ["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "out.png"), "--model", str(tmp_path / "1x.pth")]
    assert main([*command, *arguments, edges]) == 0
    shrunk = 2 if "--width" in arguments else 1
    assert f"({32 // shrunk}x{20 // shrunk}, dense" in capsys.readouterr().out
    seen = np.pad(picture, ((0, 0), (beside, beside), (0, 0)), mode="wrap")
    made = forward(torch.from_numpy(seen).permute(2, 0, 1)[None] / 255)[0].permute(1, 2, 0).clamp(0, 1) * 255
    expected = shrink(made.round().to(torch.uint8).numpy(), (made.shape[1] // shrunk, made.shape[0] // shrunk))
    expected = expected[:, beside // shrunk : (beside + 32) // shrunk].astype(int)
    assert np.abs(expected - shrink(picture, (32 // shrunk, 20 // shrunk))).mean() > 5
    assert np.abs(np.asarray(Image.open(tmp_path / "out.png")) - expected).max() <= 1


def test_one_that_is_too_small_for_the_size_is_a_line(tmp_path, photo, mga_upscale):
    Image.new("RGB", (60, 30)).save(tmp_path / "b.png")
    code, output = mga_upscale(photo, tmp_path / "b.png", "-o", tmp_path / "out", "--width", "100")
    assert code == 1
    assert "a.png: 100x63 is 3.125 times 32x20, and the model enlarges 2 times; ask for 64x40 or less" in output.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.png"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--scale", "0"], "a number above 0, such as 2 or 1.5, got '0'"),
        (["--scale", "nan"], "got 'nan'"),
        (["--size", "100"], "WIDTHxHEIGHT in pixels, such as 3840x2160, got '100'"),
        (["--size", "0x5"], "a size is WIDTHxHEIGHT in pixels, such as 3840x2160, got '0x5'"),
        (["--width", "-5"], "a number of pixels above 0, got '-5'"),
        (["--width", "5.5"], "a number of pixels above 0, got '5.5'"),
        (["--width", "5", "--scale", "2"], "--scale and --width each say how large the result is"),
        (["--size", "5x5", "--height", "2"], "--size and --height each say"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path, photo, capsys, arguments, part):
    try:
        code = main(["upscale", str(photo), "-o", str(tmp_path / "out.png"), *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code != 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert part in lines[0]
    assert not (tmp_path / "out.png").exists()


def test_the_shipped_model_for_a_scale(capsys):
    def chosen(*arguments, command="upscale"):
        return build_parser(command).parse_args([command, "a", "-o", "b", *arguments]).model

    assert chosen("--scale", "1.5") == chosen("--scale", "2") == "span-x2"
    assert chosen("--scale", "2.5") == chosen("--scale", "3") == "fsrcnn-x3"
    assert chosen("--scale", "3.5") == chosen("--size", "100x100") == chosen() == "span-x4"
    for option in ("--k 0", "--fraction 0", "--threshold 0.5", "--max-ms 9", "--mode dense", "--save-mask m.png"):
        assert chosen(*option.split()) == "span-x4-regions"
        assert chosen(*option.split(), "--scale", "2") == "fsrcnn-x2"
    regions = "span-x4-regions"
    for word, model in (("high", regions), ("fast", regions), ("whole", "span-x4"), ("90", "span-x4")):
        assert chosen("--quality", word) == model
    assert chosen("--quality", "90", "--quality", "fast") == "span-x4-regions"
    assert chosen(command="video") == "span-x4-regions"
    assert chosen("--scale", "2", command="video") == "fsrcnn-x2"
    assert chosen("--scale", "4.5", "--model", "net.pth") == "net.pth"
    with pytest.raises(SystemExit):
        chosen("--scale", "4.5")
    assert "models ship for 2, 3, 4 times, so --scale 4.5 needs --model FILE" in capsys.readouterr().err

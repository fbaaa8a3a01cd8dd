"""``mga upscale --format`` and ``--quality``: how results are written."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import MAKE, make_exif, profile, smooth_picture
from PIL import Image
from upscaling import names, write

from mga_kernels.errors import ImageError
from mga_kernels.images import LOSSY, encode_image, read_image, save_image


@pytest.fixture
def photograph(tmp_path):
    Image.fromarray(smooth_picture(32, 48, 0)).save(tmp_path / "a.jpg")
    return tmp_path / "a.jpg"


@pytest.mark.parametrize("suffix", ["jpg", "webp", "avif"])
def test_the_lower_the_quality_the_smaller_the_file(tmp_path, photograph, mga_upscale, suffix):
    sizes, errors = [], []
    exact = tmp_path / "exact.png"
    mga_upscale(photograph, "-o", exact)
    for quality in (20, 60, 95):
        out = tmp_path / f"{quality}.{suffix}"
        assert mga_upscale(photograph, "-o", out, "--quality", quality)[0] == 0
        sizes.append(out.stat().st_size)
        errors.append(np.abs(read_image(out).rgb.astype(int) - read_image(exact).rgb).mean())
    assert sizes == sorted(set(sizes))
    assert errors[-1] < min(errors[:-1])  # of two low qualities WebP makes grain more wrong with the higher one
    assert mga_upscale(photograph, "-o", tmp_path / f"as-usual.{suffix}")[0] == 0
    as_usual = (tmp_path / f"as-usual.{suffix}").read_bytes()
    if suffix == "webp":
        assert b"VP8L" in as_usual
        assert b"VP8L" not in out.read_bytes()
    else:
        same = {"jpg": 95, "avif": 90}[suffix]
        mga_upscale(photograph, "-o", tmp_path / f"stated.{suffix}", "--quality", same)
        assert as_usual == (tmp_path / f"stated.{suffix}").read_bytes()


def test_the_quality_of_jpeg_is_that_of_others(tmp_path, photograph, mga_upscale):
    mga_upscale(photograph, "-o", tmp_path / "b.jpg", "--quality", 35)
    Image.open(photograph).save(tmp_path / "c.jpg", quality=35)
    with Image.open(tmp_path / "b.jpg") as ours, Image.open(tmp_path / "c.jpg") as others:
        assert ours.quantization == others.quantization


def test_files_without_a_quality_among_others_stay_as_they_are(tmp_path, folder, mga_upscale):
    mga_upscale(folder, "-o", tmp_path / "usual")
    assert mga_upscale(folder, "-o", tmp_path / "low", "--quality", 30)[0] == 0
    usual, low = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("usual", "low"))
    assert usual["a.png"] == low["a.png"]
    assert len(low["m.jpg"]) < len(usual["m.jpg"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["IN/a.png", "-o", "OUT.png"], "--quality has no meaning for PNG"),
        (["IN/m.jpg", "-o", "OUT.tif"], "--quality has no meaning for TIFF"),
        (["IN", "-o", "OUT/", "--format", "tiff"], "--quality has no meaning for TIFF"),
        (["IN/a.png", "IN/z.png", "-o", "OUT/"], "--quality has no meaning for PNG"),
        (["IN/a.png", "-o", "-", "--format", "png"], "--quality has no meaning for PNG"),
    ],
)
def test_a_quality_for_nothing_that_has_one(tmp_path, folder, mga_upscale, monkeypatch, arguments, sentence):
    arguments = [word.replace("IN", str(folder)).replace("OUT", str(tmp_path / "out")) for word in arguments]
    code, output = mga_upscale(*arguments, "--quality", 80)
    if "-" in arguments:  # of this test, which holds no bytes
        assert code == 1
    else:
        assert (code, output.out) == (1, "")
        assert sentence in output.err
    assert names(tmp_path) == ["in"]


@pytest.mark.parametrize("quality", ["0", "101", "9.5", "-3", "٨٠"])
def test_what_is_no_quality(tmp_path, folder, mga_upscale, quality):
    with pytest.raises(SystemExit) as ended:
        mga_upscale(folder / "m.jpg", "-o", tmp_path / "a.jpg", f"--quality={quality}")
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("asked", "suffix", "kind"),
    [("JPEG", "jpg", "JPEG"), ("tif", "tiff", "TIFF"), ("avif", "avif", "AVIF"), ("PNG", "png", "PNG")],
)
def test_names_of_formats(tmp_path, folder, mga_upscale, asked, suffix, kind):
    assert mga_upscale(folder / "z.png", folder / "m.jpg", "-o", tmp_path / "out", "--format", asked)[0] == 0
    assert names(tmp_path / "out") == [f"m.{suffix}", f"z.{suffix}"]
    with Image.open(tmp_path / "out" / f"z.{suffix}") as image:
        assert image.format == kind


def test_avif_in_a_folder_becomes_png_unless_it_is_asked_for(tmp_path, mga_upscale):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.avif")
    assert mga_upscale(tmp_path / "in", "-o", tmp_path / "out")[0] == 0
    assert names(tmp_path / "out") == ["a.png"]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_avif_keeps_what_stands_beside_the_pixels(tmp_path, mode):
    image = Image.fromarray(smooth_picture(16, 24, 1)).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>sunset</x:xmpmeta>"
    image.info.update(icc_profile=profile(), exif=make_exif(), xmp=xmp)
    assert save_image(image, tmp_path / "a.avif") == []
    photo = read_image(tmp_path / "a.avif")
    assert (photo.icc_profile, photo.info["xmp"]) == (profile(), xmp)
    loaded = Image.Exif()
    loaded.load(photo.exif)
    assert loaded[MAKE] == "A camera"
    assert np.abs(photo.rgb.astype(int) - np.asarray(image.convert("RGB"))).mean() < 6
    if mode == "RGBA":
        assert np.abs(photo.alpha.astype(int) - np.asarray(image.getchannel("A"))).max() <= 12


def test_sentences_of_the_library(tmp_path):
    image = Image.new("RGB", (4, 4))
    with pytest.raises(ImageError, match="PNG is without loss and has no quality"):
        save_image(image, tmp_path / "a.png", quality=80)
    with pytest.raises(ImageError, match="from 1 to 100, got 200"):
        encode_image(image, "JPEG", (tmp_path / "a.jpg").open("w+b"), "a.jpg", 200)
    assert {"JPEG", "WEBP", "AVIF"} <= LOSSY


def test_a_word_is_a_quality_of_the_picture_and_a_number_one_of_the_file(tmp_path, folder, mga_upscale):
    code, output = mga_upscale(folder / "m.jpg", "-o", tmp_path / "a.jpg", "--quality", "best", "--quality", 80)
    assert code == 1
    assert "this model has no quality 'best'; choose one of whole" in output.err
    assert mga_upscale(folder / "m.jpg", "-o", tmp_path / "a.jpg", "--quality", "whole", "--quality", 50)[0] == 0
    assert mga_upscale(folder / "m.jpg", "-o", tmp_path / "b.jpg", "--quality", 50)[0] == 0
    assert (tmp_path / "a.jpg").stat().st_size < 2 * (tmp_path / "b.jpg").stat().st_size
    code, output = mga_upscale(folder / "m.jpg", "-o", tmp_path / "c.jpg", "--quality", 50, "--quality", 80)
    assert code == 1
    assert "--quality 50 and --quality 80 contradict each other" in output.err

"""Photographs written: metadata, formats, and the file that appears whole or not at all."""

import os

import numpy as np
import pytest
from pictures import MAKE, WIDTH, make_exif, picture, profile
from PIL import Image, JpegImagePlugin

from mga_kernels.errors import ImageError
from mga_kernels.images import check_output, read_image, save_image


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tiff"])
def test_metadata_round_trip(tmp_path, kind, mode):
    pixels = picture(16, 16, 3 if mode == "RGB" else 1)
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>sunset</x:xmpmeta>"
    image = Image.fromarray(pixels)
    image.info.update(icc_profile=profile(), exif=make_exif(), xmp=xmp, dpi=(240, 240))
    notes = save_image(image, tmp_path / f"a.{kind}")
    assert notes == (["WebP cannot hold its resolution (dpi)"] if kind == "webp" else [])
    photo = read_image(tmp_path / f"a.{kind}")
    assert photo.icc_profile == profile()
    assert photo.info["xmp"] == xmp
    loaded = Image.Exif()
    loaded.load(photo.exif)
    assert loaded[MAKE] == "A camera"
    assert loaded.get_ifd(0x8769)[WIDTH] == 9
    if kind != "webp":
        assert photo.info["dpi"] == pytest.approx((240, 240), abs=0.01)
        assert photo.grey == (mode == "L")
    if kind != "jpg":
        expected = pixels if mode == "RGB" else np.repeat(pixels[..., None], 3, 2)
        np.testing.assert_array_equal(photo.rgb, expected)


def test_captions_comments_and_text(tmp_path):
    image = Image.fromarray(picture())
    image.info.update(iptc=b"\x1c\x02\x78\0\x05Otter", comment=b"by hand")
    assert save_image(image, tmp_path / "a.jpg") == []
    photo = read_image(tmp_path / "a.jpg")
    assert photo.info["iptc"] == image.info["iptc"]
    assert photo.info["comment"] == b"by hand"
    save_image(photo, tmp_path / "b.tiff")
    assert read_image(tmp_path / "b.tiff").info["iptc"] == image.info["iptc"]
    assert save_image(photo, tmp_path / "c.png") == ["PNG cannot hold its IPTC captions"]
    assert read_image(tmp_path / "c.png").info["text"] == {"Comment": "by hand"}


def test_gamma_and_chromaticity_of_png_are_kept_or_noted(tmp_path):
    image = Image.fromarray(picture())
    image.info.update(gamma=1.0, chromaticity=(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06))
    save_image(image, tmp_path / "a.png")
    photo = read_image(tmp_path / "a.png")
    assert photo.info["gamma"] == pytest.approx(1.0)
    assert photo.info["chromaticity"] == pytest.approx(image.info["chromaticity"])
    assert "gamma" in save_image(photo, tmp_path / "a.webp")[0]


def test_output_that_cannot_be_written(tmp_path):
    image = Image.fromarray(picture())
    (tmp_path / "file").touch()
    cases = {
        "a.bmp": "extension .bmp",
        "noextension": "extension",
        "nowhere/a.png": "does not exist",
        "file/a.png": "not a folder",
    }
    for name, match in cases.items():
        with pytest.raises(ImageError, match=match):
            save_image(image, tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match="it is a folder"):
        save_image(image, tmp_path / "folder.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


def test_overwriting(tmp_path):
    first, second = Image.new("RGB", (2, 2), "red"), Image.new("RGB", (2, 2), "blue")
    save_image(first, tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(ImageError, match="exists already"):
        save_image(second, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before
    save_image(second, tmp_path / "a.png", overwrite=True)
    assert Image.open(tmp_path / "a.png").getpixel((0, 0)) == (0, 0, 255)
    os.link(tmp_path / "a.png", tmp_path / "same.png")
    with pytest.raises(ImageError, match="the input itself"):
        check_output(tmp_path / "same.png", overwrite=True, inputs=[tmp_path / "a.png"])


def test_formats_that_cannot_hold_the_image(tmp_path):
    clear = picture(channels=4)
    clear[0, 0, 3] = 0
    with pytest.raises(ImageError, match=r"no transparency.*PNG or WebP"):
        save_image(Image.fromarray(clear), tmp_path / "a.jpg")
    clear[..., 3] = 255
    save_image(Image.fromarray(clear), tmp_path / "opaque.jpg")
    assert Image.open(tmp_path / "opaque.jpg").mode == "RGB"
    with pytest.raises(ImageError, match="16,383"):
        save_image(Image.new("L", (16384, 1)), tmp_path / "a.webp")
    with pytest.raises(ImageError, match="65,500"):
        save_image(Image.new("L", (65501, 1)), tmp_path / "b.jpg")
    save_image(Image.new("L", (65500, 1)), tmp_path / "widest.jpg")
    save_image(Image.new("L", (16383, 1)), tmp_path / "widest.webp")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["opaque.jpg", "widest.jpg", "widest.webp"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError, OSError(28, "No space left on device")])
def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch, failure):
    (tmp_path / "a.png").write_bytes(b"old")

    def save(self, stream, kind, **options):
        stream.write(b"half of")
        raise failure

    monkeypatch.setattr(Image.Image, "save", save)
    expected = ImageError if isinstance(failure, OSError) else failure
    with pytest.raises(expected, match="No space left" if expected is ImageError else None):
        save_image(Image.new("L", (2, 2)), tmp_path / "a.png", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_jpeg_is_written_without_chroma_subsampling(tmp_path):
    save_image(Image.fromarray(picture(16, 16)), tmp_path / "a.jpg")
    assert JpegImagePlugin.get_sampling(Image.open(tmp_path / "a.jpg")) == 0
    checker = np.zeros((16, 16, 3), np.uint8)
    checker[::2, :, 0] = 255  # rows red and black: subsampled chroma would average them
    save_image(Image.fromarray(checker), tmp_path / "b.jpg")
    assert np.abs(read_image(tmp_path / "b.jpg").rgb.astype(int) - checker).mean() < 4


def test_overlong_metadata_is_noted(tmp_path):
    image = Image.fromarray(picture())
    image.info.update(exif=b"Exif\0\0" + bytes(70000), comment=b"c" * 70000, iptc=b"i" * 70000, xmp=b"x" * 70000)
    notes = save_image(image, tmp_path / "a.jpg")
    assert len(notes) == 4
    assert all("too long for JPEG" in note for note in notes)
    assert read_image(tmp_path / "a.jpg").rgb.shape == (6, 9, 3)


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        save_image(Image.new("L", (2, 2)), tmp_path / "a.png")
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640

"""Photographs read: pixels, transparency, metadata, and the refusals."""

import io
import os
import re
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from pictures import HEIGHT, MAKE, ORIENTATION, WIDTH, make_exif, picture, profile
from PIL import Image, ImageCms, ImageFile

import mga_kernels.images.reading as reading
from mga_kernels.errors import ImageError, InputError, OutOfMemoryError
from mga_kernels.images import read_image, save_image, to_array, to_image
from mga_kernels.images.metadata import patch_exif


def png16(path, colour_type, channels):
    """A 2x2 PNG of 16 bits a channel, which Pillow cannot write itself."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x12\x34" * 2 * channels) * 2
    header = struct.pack(">IIBBBBB", 2, 2, 16, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


# Orientation: what each value does to a picture whose top-left pixel is known.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
@pytest.mark.parametrize("value", range(1, 9))
def test_orientation_is_applied_and_reset(tmp_path, value, kind):
    pixels = picture()
    options = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(pixels).save(tmp_path / f"in.{kind}", exif=make_exif(value), **options)
    photo = read_image(tmp_path / f"in.{kind}")
    np.testing.assert_array_equal(photo.rgb, UPRIGHT[value](pixels))
    doubled = photo.upscaled(photo.rgb.repeat(2, 0).repeat(2, 1))
    assert save_image(doubled, tmp_path / "out.png") == []
    exif = Image.open(tmp_path / "out.png").getexif()
    assert exif.get(ORIENTATION, 1) == 1
    assert exif[MAKE] == "A camera"
    details = exif.get_ifd(0x8769)
    height, width = doubled.rgb.shape[:2]
    assert (details[WIDTH], details[HEIGHT]) == (width, height)
    assert float(details[0x829A]) == pytest.approx(0.008)
    assert exif.get_ifd(0x8825)[1] == "N"


def test_orientation_of_a_pillow_image_and_of_xmp(tmp_path):
    pixels = picture()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    Image.fromarray(pixels).save(tmp_path / "in.webp", lossless=True, exif=make_exif(6), xmp=xmp)
    photo = read_image(Image.open(tmp_path / "in.webp"))
    np.testing.assert_array_equal(photo.rgb, np.rot90(pixels, -1))
    assert photo.info["xmp"] == xmp.replace(b'"6"', b'"1"')


def test_patching_exif_moves_no_byte():
    before = make_exif(6, 9, 6)
    after = patch_exif(before, {ORIENTATION: 1, WIDTH: 70000})
    assert len(before) == len(after)
    loaded = Image.Exif()
    loaded.load(after)
    assert loaded[ORIENTATION] == 1
    assert loaded.get_ifd(0x8769)[WIDTH] == 70000
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert 1 <= len(changed) <= 8
    for damaged in (b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\xff\0\1", before[:40]):
        assert len(patch_exif(damaged, {ORIENTATION: 1})) == len(damaged)


def test_thumbnail_of_a_turned_photograph_is_cut_and_noted(tmp_path):
    thumbnail = io.BytesIO()
    Image.new("RGB", (4, 4)).save(thumbnail, "JPEG")
    data = thumbnail.getvalue()
    # One entry (orientation 6) in IFD0, and IFD1 with the place and the length of the thumbnail.
    first = struct.pack(">HHHIHHI", 1, ORIENTATION, 3, 1, 6, 0, 26)
    second = struct.pack(">HHHIIHHIII", 2, 0x201, 4, 1, 56, 0x202, 4, 1, len(data), 0)
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + first + second + data
    Image.fromarray(picture()).save(tmp_path / "in.jpg", exif=exif)
    photo = read_image(tmp_path / "in.jpg")
    assert ["thumbnail" in note for note in photo.notes] == [True]
    assert photo.exif[6 + 8 + 14 : 6 + 8 + 18] == bytes(4)
    straight = exif.replace(struct.pack(">HH", 6, 0), struct.pack(">HH", 1, 0), 1)
    Image.fromarray(picture()).save(tmp_path / "straight.jpg", exif=straight)
    assert read_image(tmp_path / "straight.jpg").exif == straight


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_an_array_comes_back_in_its_own_shape(channels):
    pixels = picture(5, 4, channels)
    if channels in (2, 4):
        pixels[..., -1] |= 1  # colours of wholly transparent pixels are ours to choose
    np.testing.assert_array_equal(to_array(read_image(pixels)), pixels)
    if channels == 1:
        np.testing.assert_array_equal(to_array(read_image(pixels[..., None])), pixels[..., None])


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4), np.uint16), "uint16"),
        (np.zeros((4, 4, 5), np.uint8), r"\(4, 4, 5\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
    ],
)
def test_arrays_that_are_refused(array, match):
    with pytest.raises(InputError, match=match):
        read_image(array)


def test_grey_one_bit_and_palette(tmp_path):
    grey = Image.fromarray(picture(channels=1))
    assert to_image(read_image(grey)).mode == "L"
    np.testing.assert_array_equal(np.asarray(to_image(read_image(grey))), np.asarray(grey))

    bits = grey.point(lambda v: 255 * (v > 127)).convert("1")
    result = to_image(read_image(bits))
    assert result.mode == "L"
    np.testing.assert_array_equal(np.asarray(result), np.asarray(bits) * np.uint8(255))

    colours = Image.fromarray(picture()).quantize(16)
    np.testing.assert_array_equal(read_image(colours).rgb, np.asarray(colours.convert("RGB")))
    colours.save(tmp_path / "p.png", transparency=3)
    photo = read_image(tmp_path / "p.png")
    np.testing.assert_array_equal(photo.alpha == 0, np.asarray(colours) == 3)
    colours.save(tmp_path / "p.gif")
    np.testing.assert_array_equal(read_image(tmp_path / "p.gif").rgb, np.asarray(colours.convert("RGB")))


def test_transparent_colour_of_plain_png(tmp_path):
    pixels = np.full((3, 4, 3), 200, np.uint8)
    pixels[1, 2] = (10, 20, 30)
    Image.fromarray(pixels).save(tmp_path / "rgb.png", transparency=(10, 20, 30))
    photo = read_image(tmp_path / "rgb.png")
    assert photo.alpha[1, 2] == 0
    assert photo.alpha.sum() == 11 * 255
    Image.fromarray(pixels[..., 0]).save(tmp_path / "l.png", transparency=10)
    photo = read_image(tmp_path / "l.png")
    assert photo.grey
    assert photo.alpha[1, 2] == 0
    assert to_image(photo).mode == "LA"


@pytest.mark.parametrize("mode", ["RGBa", "La"])
def test_premultiplied(mode):
    straight = np.zeros((2, 2, 4 if mode == "RGBa" else 2), np.uint8)
    straight[...] = 200
    straight[..., -1] = 128
    image = Image.fromarray(straight, "RGBA" if mode == "RGBa" else "LA").convert(mode)
    photo = read_image(image)
    assert np.abs(photo.rgb.astype(int) - 200).max() <= 1  # 200 * 128/255 rounds, so does the way back
    assert (photo.alpha == 128).all()


def test_no_dark_fringe_around_transparency():
    """An orange disc on transparent black: after upscaling no visible pixel may be darker than the disc."""
    y, x = np.mgrid[:33, :33] - 16
    inside = x**2 + y**2 < 100
    pixels = np.where(inside[..., None], np.array([250, 140, 20, 255], np.uint8), np.uint8(0))
    photo = read_image(pixels)
    larger = Image.fromarray(photo.rgb).resize((132, 132), Image.Resampling.BICUBIC)
    result = to_array(photo.upscaled(np.asarray(larger)))
    visible = result[result[..., 3] > 0]
    assert 0 < len(visible) < 132 * 132
    assert np.abs(visible[:, :3].astype(int) - [250, 140, 20]).max() <= 1
    naive = np.asarray(Image.fromarray(pixels[..., :3]).resize((132, 132), Image.Resampling.BICUBIC))
    assert np.abs(naive[result[..., 3] > 0].astype(int) - [250, 140, 20]).max() > 100  # what this prevents


def test_wholly_transparent_and_opaque_alpha_stay():
    for value in (0, 255):
        pixels = picture(channels=4)
        pixels[..., 3] = value
        photo = read_image(pixels)
        assert (photo.upscaled(photo.rgb.repeat(4, 0).repeat(4, 1)).alpha == value).all()
        np.testing.assert_array_equal(photo.rgb, pixels[..., :3])


def test_cmyk_without_and_with_profile(tmp_path):
    ink = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    ink.save(tmp_path / "plain.tiff")
    photo = read_image(tmp_path / "plain.tiff")
    assert photo.rgb[0, 0].tolist() == [255, 0, 0]
    assert "approximate" in photo.notes[0]
    assert ImageCms.getProfileDescription(io.BytesIO(photo.icc_profile)).startswith("sRGB")

    image = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    image.info["icc_profile"] = b"not a profile"
    assert "cannot be used" in read_image(image).notes[0]


def test_cmyk_goes_through_its_profile(monkeypatch):
    """No CMYK profile may ship, so the call is checked: source profile, intent, and the result that is used."""
    calls = []

    def through(image, source, target, **options):
        calls.append((source.tobytes()[:4], options["renderingIntent"], options["outputMode"]))
        return Image.new("RGB", image.size, (1, 2, 3))

    monkeypatch.setattr(reading.ImageCms, "profileToProfile", through)
    image = Image.new("CMYK", (2, 2))
    image.info["icc_profile"] = profile()
    photo = read_image(image)
    assert calls == [(profile()[:4], ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB")]
    assert photo.rgb[0, 0].tolist() == [1, 2, 3]
    assert "through its ICC profile" in photo.notes[0]


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB", "RGBX"])
def test_other_colour_modes_are_converted(mode):
    image = Image.fromarray(np.full((2, 2, 3), 128, np.uint8))
    converted = image.convert(mode) if mode != "LAB" else Image.new("LAB", (2, 2), (137, 128, 128))
    photo = read_image(converted)
    assert np.abs(photo.rgb.astype(int) - 128).max() <= 2
    assert photo.notes


@pytest.mark.parametrize(
    ("name", "colour_type", "channels"), [("rgb", 2, 3), ("rgba", 6, 4), ("la", 4, 2), ("l", 0, 1)]
)
def test_16_bit_png_is_refused(tmp_path, name, colour_type, channels):
    png16(tmp_path / f"{name}.png", colour_type, channels)
    with pytest.raises(ImageError, match=r"bits per channel.*convert it to 8 bits"):
        read_image(tmp_path / f"{name}.png")
    with pytest.raises(ImageError, match="bits per channel"):
        read_image(Image.open(tmp_path / f"{name}.png"))
    opened = Image.open(tmp_path / f"{name}.png")
    opened.load()  # by now Pillow has thrown the low bits away
    with pytest.raises(ImageError, match="bits per channel"):
        read_image(opened)


def test_16_bit_of_other_formats_is_refused(tmp_path):
    deep = Image.fromarray(np.full((4, 4), 3000, np.uint16))
    deep.save(tmp_path / "a.tiff")
    deep.save(tmp_path / "a.jp2")
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tiff")
    (tmp_path / "a.ppm").write_bytes(b"P6\n# deep\n2 2\n1023\n" + b"\1\2" * 12)
    (tmp_path / "a.pgm").write_bytes(b"P5 2 2 65535 " + b"\1\2" * 4)
    for name in ("a.tiff", "a.jp2", "f.tiff", "a.ppm", "a.pgm"):
        with pytest.raises(ImageError, match="bits per channel"):
            read_image(tmp_path / name)
    for mode in ("I", "F", "I;16"):
        with pytest.raises(ImageError, match="bits per channel"):
            read_image(Image.new(mode, (2, 2)))


def test_deep_jpeg2000_header_is_read():
    """A colour codestream of 12 bits, alone and inside a JP2 box; Pillow would decode it to 8."""
    from mga_kernels.images.headers import bits_per_sample

    siz = b"\xff\x51" + struct.pack(">HH8IH", 47, 0, 2, 2, 0, 0, 2, 2, 0, 0, 3) + b"\x0b\1\1" * 3
    stream = b"\xff\x4f" + siz
    boxed = struct.pack(">I4sI", 12, b"jP  ", 0x0D0A870A) + struct.pack(">I4s", 0, b"jp2c") + stream
    assert bits_per_sample(io.BytesIO(stream), "JPEG2000") == 12
    assert bits_per_sample(io.BytesIO(boxed), "JPEG2000") == 12
    assert bits_per_sample(io.BytesIO(boxed.replace(b"\x0b\1\1", b"\x07\1\1")), "JPEG2000") == 8


def test_8_bit_files_of_every_format_are_read(tmp_path):
    pixels = picture(8, 8)
    for name in ("a.png", "a.jpg", "a.webp", "a.tiff", "a.bmp", "a.ppm", "a.jp2", "a.avif", "a.tga"):
        Image.fromarray(pixels).save(tmp_path / name)
        assert read_image(tmp_path / name).rgb.shape == pixels.shape, name
    (tmp_path / "bits.pbm").write_bytes(b"P4 8 1 \xf0")
    assert read_image(tmp_path / "bits.pbm").grey


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tiff", "avif"])
def test_several_frames_are_refused_with_their_number(tmp_path, kind):
    frames = [Image.fromarray(picture(seed=i)) for i in range(3)]
    frames[0].save(tmp_path / f"a.{kind}", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match=r"holds 3 frames or pages .* make files of them .*magick IN -coalesce OUT"):
        read_image(tmp_path / f"a.{kind}")


def test_camera_previews_are_fine(tmp_path):
    main = Image.fromarray(picture(16, 16))
    main.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (4, 4))])
    photo = read_image(tmp_path / "a.jpg")
    assert photo.rgb.shape == (16, 16, 3)
    assert photo.format == "JPEG"
    assert "main picture" in photo.notes[0]


def test_files_that_cannot_be_read(tmp_path):
    Image.fromarray(picture(64, 64)).save(tmp_path / "good.png")
    data = (tmp_path / "good.png").read_bytes()
    (tmp_path / "truncated.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "header.png").write_bytes(data[:20])
    (tmp_path / "text.png").write_text("this is a text")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    Image.fromarray(picture(64, 64)).save(tmp_path / "good.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:700])
    cases = {
        "truncated.png": "damaged",
        "header.png": "damaged|not an image",
        "text.png": "not an image of a kind",
        "empty.png": r"^\S*empty.png is empty \(0 bytes\)$",
        "folder.png": r"^\S*folder.png is a folder, not an image$",
        "pipe.png": r"^\S*pipe.png is not a regular file$",
        "cut.jpg": "damaged",
        "missing.png": "does not exist",
        "good.png/x.png": "cannot be opened",
        "n" * 300 + ".png": "cannot be opened",
    }
    for name, match in cases.items():
        with pytest.raises(ImageError, match=match) as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_file_without_permission(tmp_path, monkeypatch):
    Image.fromarray(picture()).save(tmp_path / "a.png")

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reading.Path, "open", refuse)
    with pytest.raises(ImageError, match=r"cannot be opened .Permission denied"):
        read_image(tmp_path / "a.png")


def test_pillows_pixel_limit_is_neither_applied_nor_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for name in ("a.png", "a.jpg", "a.webp", "a.tiff", "a.gif"):
        Image.fromarray(picture(8, 8)).save(tmp_path / name)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_image(tmp_path / name).rgb.shape == (8, 8, 3)
        assert Image.MAX_IMAGE_PIXELS == 10


def test_an_image_larger_than_memory_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.fromarray(picture(64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr("mga_kernels.system.memory.available_memory", lambda: 1000)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(OutOfMemoryError, match=r"64x64.*48\.0 KiB.*crop it"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"\x89PNG", "got bytes; PIL.Image.open(io.BytesIO(it)) opens the bytes of a file"),
        (io.BytesIO(), "got BytesIO; PIL.Image.open opens it"),
        (torch.zeros(4, 5, 3, dtype=torch.uint8), "got Tensor; a model is called with a tensor of floats, model(it)"),
        ([[0]], "expected a path, a PIL image or a uint8 or uint16 array, got list"),
        (np.zeros((3, 8, 9), np.uint8), "got (3, 8, 9); channels come last, as array.transpose(1, 2, 0) has them"),
    ],
)
def test_what_is_no_photograph_is_named_with_what_makes_one(source, said):
    with pytest.raises(InputError, match=re.escape(said)):
        read_image(source, deep=True)

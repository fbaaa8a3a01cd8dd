"""Photographs of 9 to 16 bits a channel: every level in and out, whatever the file, with what stands beside them."""

import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from pictures import make_exif, profile
from PIL import Image, TiffImagePlugin
from upscaling import the_line_about

from mga_kernels import MaskGuidedSR
from mga_kernels.engine.pictures import values
from mga_kernels.errors import ImageError, InputError
from mga_kernels.images import Photo, read_image, save_image
from mga_kernels.images.photo import bleed

imagecodecs = pytest.importorskip("imagecodecs", reason="the extra deep is not installed")
tifffile = pytest.importorskip("tifffile", reason="the extra deep is not installed")


def noise(channels=3, height=6, width=9):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)


def gradient(height=48, width=64):
    """Smooth, of some 3,000 levels a channel, more than bytes hold between the same ends."""
    y, x = np.mgrid[:height, :width]
    level = 9000 + 40000 * (0.8 * x / width + 0.2 * y / height)
    return np.stack([level, level[::-1], level / 2], axis=2).astype(np.uint16)


@pytest.fixture(scope="module")
def doubling():
    return MaskGuidedSR.from_pretrained("fsrcnn-x2")


def write(path, pixels, **tiff):
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(pixels))
    elif path.suffix == ".ppm":
        path.write_bytes(b"P6\n%d %d\n65535\n" % (pixels.shape[1], pixels.shape[0]) + pixels.astype(">u2").tobytes())
    else:
        tifffile.imwrite(path, pixels, **({"photometric": "rgb"} | tiff))
    return path


def with_chunk(path, pixels, chunk):
    """A PNG file with one more chunk, its kind and data."""
    plain = imagecodecs.png_encode(pixels)
    whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(plain[:33] + whole + plain[33:])
    return path


def stored(path):
    """The levels in a file, by its library."""
    if path.suffix == ".png":
        return imagecodecs.png_decode(path.read_bytes())
    return tifffile.imread(path) if path.suffix == ".tif" else read_image(path, deep=True).rgb


# In and out


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
def test_a_smooth_gradient_keeps_its_levels(tmp_path, mga_upscale, doubling, suffix):
    pixels = gradient()
    path, out = write(tmp_path / f"in{suffix}", pixels), tmp_path / f"out{suffix}"
    code, output = mga_upscale(path, "-o", out, "--model", "fsrcnn-x2")
    assert (code, output.err) == (0, "")
    made = stored(out)
    assert made.dtype == np.uint16
    assert made.shape == (96, 128, 3)
    assert all(len(np.unique(made[:, :, channel])) > 2000 for channel in range(3))
    tensor = torch.from_numpy(pixels / np.float32(65535)).permute(2, 0, 1)[None]
    expected = doubling(tensor)[0].permute(1, 2, 0).numpy() * 65535
    assert np.abs(made - expected).max() <= 2  # nothing is rounded to bytes between, where it would be 128
    plain = doubling.upscale(read_image(path, deep=True).in_eight_bits().rgb)
    assert np.abs(made / 257.0 - plain).max() < 5  # and it is the same picture, which bytes may have in bf16


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_what_stands_beside_the_pixels_is_kept(tmp_path, mga_upscale, suffix, order):
    text = 'http://ns.adobe.com/xap/1.0/"><x/></rdf:RDF>'
    exif = make_exif(orientation=6)
    if order == ">":
        exif = struct.pack(">6s2sHIHHHI4sI", b"Exif\0\0", b"MM", 42, 8, 1, 0x010F, 2, 4, b"abc\0", 0)
    photo = Photo(noise(), info={"icc_profile": profile(), "exif": exif, "xmp": text.encode(), "dpi": (300.0, 300.0)})
    source, out = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    assert save_image(photo, source) == []
    assert np.array_equal(stored(source), photo.rgb)
    code, output = mga_upscale(source, "-o", out, "--scale", 2)
    assert (code, output.err) == (0, "")
    assert len(output.out.splitlines()) == 1  # no note
    made = read_image(out, deep=True)
    assert made.deep
    assert made.icc_profile == profile()
    assert made.info["xmp"] == text.encode()
    assert made.info["dpi"] == pytest.approx((300, 300), abs=0.02)
    assert Image.Exif.get(_exif(made), 0x010F) == ("A camera" if order == "<" else "abc")


def _exif(photo):
    exif = Image.Exif()
    exif.load(photo.exif)
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_deep_images_are_turned_upright_like_others(tmp_path, suffix, orientation):
    pixels = noise()
    path = tmp_path / f"in{suffix}"
    if suffix == ".tif":
        write(path, pixels, extratags=[(274, 3, 1, orientation, True)])
    else:
        save_image(Photo(pixels, info={"exif": make_exif(orientation)}), path)
    plain = Image.fromarray((pixels >> 8).astype(np.uint8))
    plain.save(tmp_path / "plain.png", exif=make_exif(orientation))
    found = read_image(path, deep=True)
    assert np.array_equal(found.rgb >> 8, read_image(tmp_path / "plain.png").rgb)
    assert np.array_equal(np.sort(found.rgb, axis=None), np.sort(pixels, axis=None))


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12])
@pytest.mark.parametrize("order", ["<", ">"])
def test_an_orientation_of_any_type_turns_deep_tiffs_as_others(tmp_path, order, kind):
    value = {2: "6", 5: (6, 1), 10: (6, 1)}.get(kind, 6)
    options = {"byteorder": order, "extratags": [(274, kind, 0 if kind == 2 else 1, value, True)]}
    pixels = noise()
    found = read_image(write(tmp_path / "deep.tif", pixels, **options), deep=True)
    plain = read_image(write(tmp_path / "plain.tif", (pixels >> 8).astype(np.uint8), **options))
    assert np.array_equal(found.rgb >> 8, plain.rgb)
    assert (found.rgb.shape[:2] == (9, 6)) is (kind > 2)


def test_what_decoders_say_is_not_heard(tmp_path, caplog):
    """Of an EXIF block with the prefix of JPEG, or an orientation that is none, in words that name no file."""
    path = with_chunk(tmp_path / "a.png", noise(), b"eXIf" + make_exif(6))
    found = read_image(path, deep=True)
    assert np.array_equal(found.rgb, np.rot90(noise(), -1))
    odd = write(tmp_path / "a.tif", noise(), extratags=[(274, 11, 1, 9.0, True)])
    assert np.array_equal(read_image(odd, deep=True).rgb, noise())
    assert not caplog.records
    tifffile.imread(odd)
    assert "ORIENTATION" in caplog.text
    imagecodecs.png_decode(path.read_bytes())
    assert "eXIf" in caplog.text


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_and_transparency(tmp_path, mga_upscale, suffix, channels):
    pixels, path, out = noise(channels), tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    if channels % 2 == 0:
        pixels[:2, :, -1], pixels[2:4, :, -1] = 0, 65535
    extra = {"extrasamples": ["unassalpha"]} if channels % 2 == 0 else {}
    write(path, pixels, photometric="rgb" if channels > 2 else "minisblack", planarconfig="contig", **extra)
    photo = read_image(path, deep=True)
    assert photo.grey == (channels < 3)
    assert np.array_equal(photo.levels().squeeze(), pixels)  # also the colours below alpha 0
    code, output = mga_upscale(path, "-o", out, "--scale", 2)
    assert (code, output.err) == (0, "")
    made = stored(out)
    assert made.shape == (12, 18, *pixels.shape[2:])
    if channels % 2 == 0:
        assert np.array_equal(
            photo.rgb[0], bleed(photo.levels()[:, :, :-1].repeat(1 + 2 * photo.grey, 2), photo.alpha)[0]
        )
        assert (made[0, :, -1].max(), made[6, :, -1].min()) == (0, 65535)


KINDS_OF_TIFF = {
    "planes": ({"planarconfig": "separate"}, lambda x: np.moveaxis(x, 2, 0)),
    "tiles": ({"tile": (16, 16)}, None),
    "lzw": ({"compression": "lzw", "predictor": 2}, None),
    "big-endian": ({"byteorder": ">"}, None),
    "BigTIFF": ({"bigtiff": True}, None),
    "12 bits": ({"bitspersample": 12, "photometric": "minisblack"}, lambda x: x[:, :, 0] >> 4),
    "white is 0": ({"photometric": "miniswhite"}, lambda x: 65535 - x[:, :, 0]),
    "an extra channel": ({"extrasamples": ["unspecified"]}, lambda x: np.dstack([x, x[:, :, 0]])),
}


@pytest.mark.parametrize("compression", ["webp", "jpegxl", "jpeg2000", "lerc", "png", "jpegxr"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiffs_of_8_bits_in_compressions_that_pillow_lacks(tmp_path, doubling, compression, channels):
    """As those of 16 bits are read; the result has 8."""
    pixels = (noise(channels, 20, 24) >> 8).astype(np.uint8)
    if channels == 1 and compression == "webp":
        pytest.skip("WebP has colours")
    options = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    photometric = "rgb" if channels > 1 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression=compression, photometric=photometric, **options)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        stored = file.pages.first.asarray()
    for deep in (False, True):
        found = read_image(tmp_path / "a.tif", deep=deep)
        assert (found.rgb.dtype, found.mode) == (np.uint8, {1: "L", 3: "RGB", 4: "RGBA"}[channels])
        assert np.array_equal(found.levels().squeeze(), stored)
    assert doubling.upscale(str(tmp_path / "a.tif")).size == (48, 40)


def test_a_compression_that_pillow_lacks_is_named_where_the_extra_is_not_there(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8, 3), np.uint8), compression="webp", photometric="rgb")
    for name in ("tifffile", "imagecodecs"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "load", _undecodable)  # as in most of its builds
    with pytest.raises(ImageError, match=r"Pillow cannot read here .*50001.; install tifffile and imagecodecs"):
        read_image(tmp_path / "a.tif")


def _undecodable(image):
    raise OSError("decoder error -2")


@pytest.mark.parametrize("kind", KINDS_OF_TIFF)
def test_kinds_of_tiff(tmp_path, kind):
    options, change = KINDS_OF_TIFF[kind]
    pixels = noise()
    write(tmp_path / "a.tif", pixels if change is None else change(pixels), **options)
    found = read_image(tmp_path / "a.tif", deep=True)
    if kind == "12 bits":
        assert np.array_equal(found.rgb[:, :, 0], np.rint((pixels[:, :, 0] >> 4) * (65535 / 4095)))
    elif kind == "white is 0":
        assert np.array_equal(found.rgb[:, :, 0], pixels[:, :, 0])
    else:
        assert np.array_equal(found.rgb, pixels)
        assert found.alpha is None


def test_colours_that_were_multiplied_by_alpha(tmp_path):
    pixels, alpha = noise(), np.full((6, 9), 32768, np.uint16)
    alpha[0] = 0
    joined = np.dstack([np.rint(pixels * (alpha / 65535)[..., None]), alpha]).astype(np.uint16)
    write(tmp_path / "a.tif", joined, extrasamples=["assocalpha"])
    found = read_image(tmp_path / "a.tif", deep=True)
    assert np.abs(found.rgb[1:].astype(int) - pixels[1:]).max() <= 1
    assert np.array_equal(found.alpha, alpha)


@pytest.mark.parametrize("extra", [(0,), (2, 0), (0, 2)])
def test_channels_that_are_no_transparency_are_left_out_with_a_note(tmp_path, extra):
    pixels = np.concatenate([noise(), *(noise(1)[:, :, None] for _ in extra)], axis=2)
    photo = read_image(write(tmp_path / "a.tif", pixels, extrasamples=extra), deep=True)
    assert photo.notes == ["its extra channel, which is not marked as transparency, was left out"]
    assert (photo.alpha is None) is (extra[0] == 0)
    assert np.array_equal(photo.rgb, pixels[:, :, :3])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_of_png(tmp_path, channels):
    pixels = noise(channels)
    path = with_chunk(tmp_path / "a.png", pixels, b"tRNS" + np.asarray(pixels[2, 3], ">u2").tobytes())
    found = read_image(path, deep=True)
    assert np.argwhere(found.alpha == 0).tolist() == [[2, 3]]
    with pytest.raises(ImageError, match="16 bits per channel"):  # of grey, Pillow states the level beside I;16
        read_image(Image.open(path), deep=True)


# In Python


def test_arrays_and_grey_pillow_images_come_back_as_they_came(doubling):
    for channels in (1, 2, 3, 4):
        pixels = noise(channels)
        made = doubling.upscale(pixels)
        assert made.dtype == np.uint16
        assert made.shape == (12, 18, *pixels.shape[2:])
        assert doubling.upscale(pixels if channels > 1 else pixels[:, :, None]).ndim == 3
        assert np.array_equal(doubling.upscale(pixels.astype(">u2")), made)
    picture = doubling.upscale(Image.fromarray(noise(1)))
    assert picture.mode == "I;16"
    assert np.array_equal(np.asarray(picture), doubling.upscale(noise(1)))


def test_what_a_pillow_image_cannot_hold_is_refused_before_the_work(tmp_path, doubling, monkeypatch):
    monkeypatch.setattr(type(doubling), "_run", lambda *_: pytest.fail("it was upscaled"))
    for channels in (2, 3):
        write(tmp_path / "a.png", noise(channels))
        with pytest.raises(ImageError, match=r"cannot hold colours.*read_image\(path, deep=True\)"):
            doubling.upscale(tmp_path / "a.png")
    with pytest.raises(InputError, match="out= takes the result of a uint8 array"):
        doubling.upscale(noise(), out=np.zeros((12, 18, 3), np.uint8))


def test_bits_are_kept_only_where_that_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="expected a uint8 array, got uint16"):
        read_image(noise())
    for suffix in (".png", ".tif", ".ppm"):
        with pytest.raises(ImageError, match=r"16 bits per channel.*convert it to 8 bits"):
            read_image(write(tmp_path / f"a{suffix}", noise()))


def test_every_way_to_run_a_photograph(doubling):
    """Tiles, dense, cells by time, an image of few pixels, what is explained: the same levels as of tensors."""
    pixels = noise(height=80, width=84)
    whole = doubling.upscale(pixels).astype(int)
    tiled = MaskGuidedSR.from_pretrained("fsrcnn-x2", tile=32)
    assert np.abs(tiled.upscale(pixels) - whole).max() <= 2
    assert "4 tiles" in tiled._deep.prepared()[0]
    dense = MaskGuidedSR.from_pretrained("fsrcnn-x2", mode="dense").upscale(pixels)
    tensor = values(read_image(pixels, deep=True)).permute(2, 0, 1)[None]
    expected = doubling(tensor, variant="decomposed")[0].permute(1, 2, 0).numpy() * 65535
    assert np.abs(dense - expected).max() <= 2
    explained = doubling.explain(pixels)
    assert np.array_equal(explained.image, whole)
    assert explained.coarse.dtype == np.uint16
    assert doubling.upscale(pixels[:2, :3]).shape == (4, 6, 3)
    assert MaskGuidedSR.from_pretrained("fsrcnn-x2", max_ms=1e5).upscale(pixels).dtype == np.uint16


# What cannot be


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
def test_other_formats_get_8_bits_and_that_is_said(tmp_path, mga_upscale, suffix):
    code, output = mga_upscale(write(tmp_path / "a.png", noise()), "-o", tmp_path / f"b{suffix}", "--scale", 2)
    assert code == 0
    assert "holds 8 bits a channel, to which its 16 were rounded" in output.out
    assert not read_image(tmp_path / f"b{suffix}", deep=True).deep


def test_values_are_rounded_to_the_nearest_of_8_bits():
    photo = Photo(np.array([0, 128, 129, 65406, 65407, 65535], np.uint16)[None, :, None].repeat(3, 2))
    assert photo.in_eight_bits().rgb[0, :, 0].tolist() == [0, 0, 1, 254, 255, 255]


@pytest.mark.parametrize(
    ("suffix", "package"), [(".png", "imagecodecs"), (".tif", "tifffile"), (".ppm", "imagecodecs")]
)
def test_without_the_extra_it_is_named(tmp_path, mga_upscale, monkeypatch, suffix, package):
    path = write(tmp_path / f"a{suffix}", noise())
    monkeypatch.setitem(sys.modules, package, None)
    code, output = mga_upscale(path, "-o", tmp_path / "b.png")
    line = the_line_about(tmp_path / ("b.png" if suffix == ".ppm" else path.name), output)
    assert code == 1
    assert "bits" in line
    assert package in line
    assert "extra deep" in line
    assert not (tmp_path / "b.png").exists()


def test_odd_deep_tiffs_are_refused_with_a_sentence(tmp_path):
    kinds = {
        "integers": (noise().astype(np.uint32), {}),
        "floating-point": (noise().astype(np.float32), {}),
        "signed": (noise().astype(np.int16), {}),
        "16 bits": (noise(4), {"photometric": "separated"}),
    }
    for words, (pixels, options) in kinds.items():
        with pytest.raises(ImageError, match=f"{words}.*would be lost"):
            read_image(write(tmp_path / "a.tif", pixels, **options), deep=True)
        if not options:  # grey ones are opened by Pillow
            path = write(tmp_path / "grey.tif", pixels[:, :, 0], photometric="minisblack")
            for source in (path, Image.open(path)):
                with pytest.raises(ImageError, match=f"bits per channel.*{words.partition(' ')[0]}.*would be lost"):
                    read_image(source, deep=True)
    write(tmp_path / "a.tif", np.stack([noise(), noise()]))
    with pytest.raises(ImageError, match="holds 2 frames or pages of 16 bits a channel, of which"):
        read_image(tmp_path / "a.tif", deep=True)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
def test_damaged_ones_are_refused_at_any_length(tmp_path, suffix):
    data = write(tmp_path / f"a{suffix}", noise()).read_bytes()
    for length in range(1, len(data) - 12, 7):
        (tmp_path / f"b{suffix}").write_bytes(data[:length])
        with pytest.raises(ImageError):
            read_image(tmp_path / f"b{suffix}", deep=True)

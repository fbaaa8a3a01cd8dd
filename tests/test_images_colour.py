"""Colours: spaces that a file states by numbers, and those below alpha 0."""

import io
import struct
import zlib

import numpy as np
import pytest
from pictures import picture, profile
from PIL import Image, ImageCms

from mga_kernels.images import read_image, save_image, to_array, to_image
from mga_kernels.images.boxes import avif_code_points
from mga_kernels.images.colour import icc_profile, stated

P3, BT2020_PQ, SRGB = (12, 13, 0, 1), (9, 16, 0, 1), (1, 13, 0, 1)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks, mode="RGB"):
    stream = io.BytesIO()
    Image.fromarray(picture()).convert(mode).save(stream, "PNG")
    data = stream.getvalue()
    return data[:33] + b"".join(chunks) + data[33:]


def chunks_of(path):
    data, at, found = path.read_bytes(), 8, {}
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found[data[at + 4 : at + 8]] = data[at + 8 : at + 8 + length]
        at += 12 + length
    return found


def avif(primaries, transfer):
    """An AVIF file whose nclx says so; Pillow writes BT.709 and sRGB (1, 13, 6)."""
    stream = io.BytesIO()
    Image.fromarray(picture(16, 16)).save(stream, "AVIF")
    data = stream.getvalue()
    assert data.count(b"colrnclx") == 1
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


def in_srgb(icc, colour):
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
    image = Image.new("L" if isinstance(colour, int) else "RGB", (1, 1), colour)
    return ImageCms.profileToProfile(image, source, target, renderingIntent=1, outputMode="RGB").getpixel((0, 0))


def read_bytes(tmp_path, data):
    (tmp_path / "in").write_bytes(data)
    return read_image(tmp_path / "in")


@pytest.mark.parametrize("source", ["png", "avif", "pillow png", "pillow avif"])
def test_code_points_are_kept_or_become_a_profile(tmp_path, source):
    data = png(chunk(b"cICP", bytes(P3))) if "png" in source else avif(*P3[:2])
    photo = read_image(Image.open(io.BytesIO(data))) if "pillow" in source else read_bytes(tmp_path, data)
    assert photo.info["cicp"] == P3
    assert photo.notes == []
    assert save_image(photo, tmp_path / "a.png") == []
    assert chunks_of(tmp_path / "a.png")[b"cICP"] == bytes(P3)
    assert read_image(tmp_path / "a.png").info["cicp"] == P3
    for output in ("jpg", "webp", "tiff"):
        notes = save_image(photo, tmp_path / f"a.{output}")
        assert ["Display P3" in note and "ICC profile" in note for note in notes] == [True]
        # 255, 0, 0 of Display P3 lies beyond sRGB; this colour does not.
        icc = read_image(tmp_path / f"a.{output}").icc_profile
        assert np.abs(np.subtract(in_srgb(icc, (200, 120, 110)), (213, 115, 107))).max() <= 1
    to_image(photo).save(tmp_path / "pillow.png")
    assert chunks_of(tmp_path / "pillow.png")[b"cICP"] == bytes(P3)
    with pytest.warns(UserWarning, match="Display P3"):
        to_image(photo).save(tmp_path / "pillow.avif")
    assert read_image(tmp_path / "pillow.avif").icc_profile


@pytest.mark.parametrize("cicp", [BT2020_PQ, (9, 18, 0, 1), (12, 99, 0, 1), (77, 13, 0, 1), (1, 13, 0, 0)])
def test_spaces_that_no_profile_describes_are_noted(tmp_path, cicp):
    photo = read_bytes(tmp_path, png(chunk(b"cICP", bytes(cicp))))
    assert save_image(photo, tmp_path / "a.png") == []
    assert chunks_of(tmp_path / "a.png")[b"cICP"] == bytes(cicp)
    for output, name in (("jpg", "JPEG"), ("webp", "WebP"), ("tiff", "TIFF")):
        (note,) = save_image(photo, tmp_path / f"a.{output}")
        assert note.startswith(f"{name} cannot hold its colour space (")
        assert read_image(tmp_path / f"a.{output}").icc_profile is None
    with_profile = read_bytes(
        tmp_path, png(chunk(b"cICP", bytes(cicp)), chunk(b"iCCP", b"p\0\0" + zlib.compress(profile())))
    )
    assert ["cannot hold its colour space" in note for note in save_image(with_profile, tmp_path / "b.jpg")] == [True]
    assert save_image(with_profile, tmp_path / "b.png") == []
    assert {b"cICP", b"iCCP"} <= set(chunks_of(tmp_path / "b.png"))


@pytest.mark.parametrize("code", [(1, 13), (2, 2), (1, 1), (1, 6), (2, 13)])
def test_what_is_srgb_needs_no_words(tmp_path, code):
    photo = read_bytes(tmp_path, avif(*code))
    assert photo.info == {}
    assert save_image(photo, tmp_path / "a.jpg") == []
    photo = read_bytes(tmp_path, png(chunk(b"cICP", bytes((*code, 0, 1)))))
    for output in ("jpg", "webp", "tiff"):
        assert save_image(photo, tmp_path / f"a.{output}", overwrite=True) == []
        assert read_image(tmp_path / f"a.{output}").icc_profile is None


def test_the_space_of_the_picture_not_of_what_stands_beside_it(tmp_path):
    """An AVIF file with a profile too, and one whose properties belong to another item."""
    data = avif(*P3[:2])
    assert read_bytes(tmp_path, data.replace(b"colrnclx", b"colrrICC")).info.get("cicp") is None
    (number,) = struct.unpack_from(">H", data, data.index(b"pitm") + 8)
    at = data.index(b"ipma") + 12
    assert struct.unpack_from(">H", data, at) == (number,)
    of_another = data[:at] + struct.pack(">H", number + 1) + data[at + 2 :]
    assert avif_code_points(io.BytesIO(data)) == P3
    assert avif_code_points(io.BytesIO(of_another)) is None
    for end in range(len(data)):
        assert avif_code_points(io.BytesIO(data[:end])) in (None, P3)


def test_gamma_and_chromaticities_become_a_profile(tmp_path):
    wide = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
    chroma = chunk(b"cHRM", struct.pack(">8I", *(round(v * 100000) for v in wide)))
    photo = read_bytes(tmp_path, png(chroma, chunk(b"gAMA", struct.pack(">I", 100000))))
    for output in ("jpg", "webp", "tiff"):
        (note,) = save_image(photo, tmp_path / f"a.{output}")
        assert "gamma of 1 and chromaticities" in note
        icc = read_image(tmp_path / f"a.{output}").icc_profile
        assert in_srgb(icc, (128, 128, 128)) == (188, 188, 188)
    alone = read_bytes(tmp_path, png(chroma))
    assert "chromaticities" in save_image(alone, tmp_path / "b.jpg")[0]
    usual = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
    for chunks in ([usual, chunk(b"gAMA", struct.pack(">I", 45455))], [chunk(b"sRGB", b"\0")], [usual]):
        plain = read_bytes(tmp_path, png(*chunks))
        assert save_image(plain, tmp_path / "c.jpg", overwrite=True) == []
        assert read_image(tmp_path / "c.jpg").icc_profile is None


def test_grey_pictures_get_grey_profiles(tmp_path):
    photo = read_bytes(tmp_path, png(chunk(b"gAMA", struct.pack(">I", 100000)), mode="L"))
    save_image(photo, tmp_path / "a.jpg")
    icc = read_image(tmp_path / "a.jpg").icc_profile
    assert icc[16:20] == b"GRAY"
    assert in_srgb(icc, 128) == (188, 188, 188)


@pytest.mark.parametrize(
    ("gamma", "chromaticities"),
    [
        (1, None),
        (0xFFFFFFFF, None),
        (45455, (0,) * 8),
        (45455, (0xFFFFFFFF,) * 8),
        (45455, (31270, 32900, 64000, 33000, 64000, 33000, 64000, 33000)),
        (45455, (31270, 1, 64000, 33000, 30000, 60000, 15000, 6000)),
        (45455, (0, 32900, 0, 0, 0, 0, 0, 0)),
    ],
)
def test_damaged_gamma_and_chromaticities(tmp_path, gamma, chromaticities):
    chunks = [chunk(b"gAMA", struct.pack(">I", gamma))]
    if chromaticities:
        chunks.append(chunk(b"cHRM", struct.pack(">8I", *chromaticities)))
    photo = read_bytes(tmp_path, png(*chunks))
    for output in ("png", "jpg", "webp", "tiff"):
        notes = save_image(photo, tmp_path / f"a.{output}")
        assert [("gamma" in note) for note in notes] == [True] * (output != "png")


def test_profiles_are_what_they_say():
    """Our profile of sRGB against lcms's own, and known corners of others."""
    ours = icc_profile(stated({"cicp": SRGB}))
    assert len(ours) == struct.unpack_from(">I", ours)[0]
    rng = np.random.default_rng(0)
    for colour in rng.integers(0, 256, (8, 3)).tolist():
        assert np.abs(np.subtract(in_srgb(ours, tuple(colour)), colour)).max() <= 1
    primaries, transfers = (1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 22), (1, 4, 5, 6, 7, 8, 13, 14, 15, 17)
    for code in [(each, 13) for each in primaries] + [(1, each) for each in transfers]:
        icc = icc_profile(stated({"cicp": (*code, 0, 1)}))
        assert in_srgb(icc, (255, 255, 255)) == (255, 255, 255)
        assert in_srgb(icc, (0, 0, 0)) == (0, 0, 0)
        assert len(set(in_srgb(icc, (100, 100, 100)))) == 1


# Below alpha 0


def texture():
    """Colours everywhere, seen in the middle only."""
    y, x = np.mgrid[:24, :32]
    rgb = np.stack([x * 8, y * 10, 255 - x * 8], axis=-1)
    alpha = np.where((abs(x - 16) < 6) & (abs(y - 12) < 6), 255, 0)
    return np.concatenate([rgb, alpha[..., None]], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("output", ["png", "webp", "tiff"])
def test_colours_below_alpha_0_stay(tmp_path, output):
    pixels = texture()
    Image.fromarray(pixels).save(tmp_path / "in.png")
    photo = read_image(tmp_path / "in.png")
    save_image(photo, tmp_path / f"same.{output}")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"same.{output}")), pixels)
    larger = photo.upscaled(photo.rgb.repeat(4, 0).repeat(4, 1))
    assert save_image(larger, tmp_path / f"large.{output}") == []
    result = np.asarray(Image.open(tmp_path / f"large.{output}")).astype(int)
    expected = np.asarray(Image.fromarray(pixels[..., :3]).resize((128, 96), Image.Resampling.BICUBIC)).astype(int)
    hidden = result[..., 3] == 0
    assert hidden.mean() > 0.5
    assert np.abs(result[..., :3] - expected)[hidden].max() <= 1
    np.testing.assert_array_equal(to_array(larger), result)


def test_what_is_seen_does_not_depend_on_what_is_hidden():
    """Black below alpha 0 must not smear into the edge, and where nothing is hidden nothing is kept."""
    pixels, black = texture(), texture()
    black[black[..., 3] == 0] = 0
    one, other = read_image(pixels), read_image(black)
    np.testing.assert_array_equal(one.rgb, other.rgb)
    assert (to_array(other)[black[..., 3] == 0] == 0).all()
    opaque = pixels.copy()
    opaque[..., 3] = 255
    assert read_image(opaque).hidden is None
    assert read_image(pixels[..., :3]).hidden is None


def test_hidden_colours_are_turned_with_the_picture(tmp_path):
    pixels = texture()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "in.png", exif=exif.tobytes())
    np.testing.assert_array_equal(to_array(read_image(tmp_path / "in.png")), np.rot90(pixels, -1))
    palette = Image.fromarray(pixels[..., :3]).quantize(16)
    palette.save(tmp_path / "p.png", transparency=3)
    photo = read_image(tmp_path / "p.png")
    np.testing.assert_array_equal(to_array(photo)[..., :3], np.asarray(palette.convert("RGB")))

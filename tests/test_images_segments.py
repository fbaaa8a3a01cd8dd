"""Metadata in segments of JPEG, boxes of AVIF and JPEG 2000, and tags of TIFF: none is lost without a note."""

import io
import struct

import numpy as np
import pytest
from exif_blocks import entry, exif_block
from pictures import MAKE, make_exif, picture, profile
from PIL import Image, TiffImagePlugin
from raw_images import PIXELS, chunk, encoded, jpeg, png, read_bytes, save_everywhere, segment

from mga_kernels.errors import ImageError
from mga_kernels.images import read_image, save_image
from mga_kernels.images.ifd import read_tags, write_tags
from mga_kernels.images.tiff import add_tags

# Segments of JPEG, boxes of AVIF and JPEG 2000, tags of TIFF


@pytest.mark.parametrize(
    ("marker", "data"), [(0xE0, b"JFIF\0"), (0xEE, b"Adobe"), (0xE2, b"ICC_PROFILE\0"), (0xE0, b"JFIF")]
)
def test_short_segments_are_left_out_with_a_note(tmp_path, marker, data):
    good = segment(0xE1, make_exif())
    photo = read_bytes(tmp_path, jpeg(segment(marker, data), good))
    assert photo.notes == [f"its segment APP{marker - 0xE0} is damaged and was left out"]
    assert photo.exif == make_exif()


def test_exif_that_pillow_refuses_a_whole_jpeg_for_is_kept(tmp_path):
    block = exif_block(entry(282, 1, b"\1"), entry(296, 3, b"\2\0"), entry(MAKE, 2, b"Maker\0"), entry(274, 3, b"\3\0"))
    data = jpeg(segment(0xE1, block))
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(io.BytesIO(data))
    (tmp_path / "in").write_bytes(data)
    photo = read_image(tmp_path / "in")
    assert np.abs(photo.rgb.astype(np.int16) - PIXELS[::-1, ::-1]).mean() < 3
    assert photo.notes == []
    assert photo.exif == block.replace(b"\x12\x01\3\0\1\0\0\0\3", b"\x12\x01\3\0\1\0\0\0\1")
    for output in ("png", "webp", "tiff"):
        save_image(photo, tmp_path / f"a.{output}")
        assert Image.open(tmp_path / f"a.{output}").getexif()[MAKE] == "Maker"


def test_a_profile_whose_parts_are_missing_is_noted(tmp_path):
    photo = read_bytes(tmp_path, jpeg(segment(0xE2, b"ICC_PROFILE\0\1\2abc")))
    assert photo.notes == ["its ICC profile is damaged and was left out"]
    photo = read_bytes(tmp_path, png(chunk(b"iCCP", b"p\0\0junk")))
    assert photo.notes == ["its ICC profile is damaged and was left out"]


@pytest.mark.parametrize("turned", [False, True])
def test_exif_that_pillow_refuses_a_whole_avif_for(tmp_path, turned):
    block = exif_block(entry(0x0112, 3, struct.pack("<H", 6 if turned else 1)), entry(0x0131, 2, b"abc\0"))
    image, stream = Image.fromarray(picture(16, 16)), io.BytesIO()
    image.save(stream, "AVIF", exif=block)
    good = stream.getvalue()
    bad = {
        "mark": good.replace(b"II*\0\x08", b"II+\0\x08"),
        "type": good.replace(struct.pack("<HHI", 0x0131, 2, 4) + b"abc\0", struct.pack("<HHII", 0x0131, 5, 1, 8)),
    }
    (tmp_path / "good.avif").write_bytes(good)
    expected = read_image(tmp_path / "good.avif").rgb
    for name, data in bad.items():
        assert data != good
        (tmp_path / "bad.avif").write_bytes(data)
        photo = read_image(tmp_path / "bad.avif")
        np.testing.assert_array_equal(photo.rgb, expected)
        if turned or name == "mark":
            assert photo.notes == ["its EXIF data is damaged and was left out"]


def test_metadata_of_jpeg_2000_and_bmp(tmp_path):
    def box(kind, data):
        return struct.pack(">I", len(data) + 8) + kind + data

    data = encoded("JPEG2000")
    colour, header = data.index(b"colr") - 4, data.index(b"jp2h") - 4
    (length,), (whole,) = (struct.unpack_from(">I", data, at) for at in (colour, header))
    new = box(b"colr", b"\2\0\0" + profile())
    data = b"".join(
        [
            data[:header] + struct.pack(">I", whole - length + len(new)) + data[header + 4 : colour] + new,
            data[colour + length :],
            box(b"uuid", bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC") + b"<x/>"),
            box(b"uuid", b"JpgTiffExif->JP2" + make_exif()[6:]),
        ]
    )
    photo = read_bytes(tmp_path, data)
    assert (photo.icc_profile, photo.info["xmp"], photo.exif) == (profile(), b"<x/>", make_exif())
    bitmap = encoded("BMP")
    pixels = bitmap[54:]
    header5 = struct.pack("<I", 124) + bitmap[18:54] + bytes(16) + b"DEBM" + bytes(48)
    header5 += struct.pack("<IIII", 4, 124 + len(pixels), len(profile()), 0)
    size = 14 + 124 + len(pixels) + len(profile())
    data = b"BM" + struct.pack("<IHHI", size, 0, 0, 138) + header5 + pixels + profile()
    assert read_bytes(tmp_path, data).icc_profile == profile()


@pytest.mark.parametrize("type_", [1, 2, 3, 4, 7, 12])
@pytest.mark.parametrize("tag", [700, 33723, 34675, 34377, 270])
def test_tiff_tags_of_odd_types(tmp_path, tag, type_):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[tag] = type_
    tags[tag] = {1: b"<x/>", 2: "<x/>", 3: (60, 120), 4: (60, 120), 7: b"<x/>", 12: (1.5, 2.5)}[type_]
    photo = read_bytes(tmp_path, encoded("TIFF", tiffinfo=tags))
    save_everywhere(photo, tmp_path)
    if tag == 700 and type_ in (1, 2, 7):
        assert photo.info["xmp"] == b"<x/>"
    if tag == 34675 and type_ not in (1, 7):
        assert "ICC profile is damaged" in photo.notes[0]


@pytest.mark.parametrize("swap", [False, True])
def test_captions_that_a_tiff_stores_as_numbers_or_in_resources(tmp_path, swap):
    captions = b"\x1c\x02\x78\0\x05Otter\0\0"
    stored = struct.pack("<3I", *struct.unpack(">3I", captions)) if swap else captions
    stream = io.BytesIO(encoded("TIFF"))
    add_tags(stream, {33723: (4, stored)}, "<")
    assert read_bytes(tmp_path, stream.getvalue()).info["iptc"] == captions
    resources = b"8BIM" + struct.pack(">HHI", 0x03ED, 0, 3) + b"abc\0"
    resources += b"8BIM" + struct.pack(">HHI", 0x0404, 0, 12) + captions
    photo = read_bytes(tmp_path, encoded("TIFF", tiffinfo={34377: resources, 37724: b"layers"}))
    assert photo.info["iptc"] == captions
    assert photo.notes == ["its layers were left out"]


@pytest.mark.parametrize("order", ["<", ">"])
def test_long_numbers_of_bigtiff_become_those_of_exif(tmp_path, order):
    image, stream = Image.fromarray(PIXELS), io.BytesIO()
    image.save(stream, "TIFF", big_tiff=True)
    small, negative, large = (
        struct.pack(order + layout, *values) for layout, *values in (("2Q", 7, 70000), ("q", -5), ("Q", 1 << 40))
    )
    add_tags(stream, {50000: (16, small), 50001: (17, negative), 50002: (18, small), MAKE: (2, b"Maker\0")}, order)
    photo = read_bytes(tmp_path, stream.getvalue())
    assert photo.notes == []
    found, tags, damaged = read_tags(io.BytesIO(photo.exif[6:]))
    longs = (4, struct.pack("<2I", 7, 70000))
    assert (found, damaged) == ("<", False)  # the one in which Pillow can read BigTIFF
    assert tags == {50000: longs, 50001: (9, struct.pack("<i", -5)), 50002: longs, MAKE: (2, b"Maker\0")}
    add_tags(stream, {50003: (16, large)}, order)
    photo = read_bytes(tmp_path, stream.getvalue())
    assert photo.notes == ["some of its tags are damaged and were left out"]
    save_everywhere(photo, tmp_path)


def test_what_is_not_read_here_is_named_as_what_it_is(tmp_path):
    def tiff(bits, sample_format, photometric=2, compression=1):
        tags = {256: 4, 257: 4, 258: bits, 259: compression, 262: photometric, 273: 200, 277: 3, 278: 4, 279: 16 * bits}
        tags = {tag: (4, struct.pack("<I", value)) for tag, value in (tags | {339: sample_format}).items()}
        return b"II*\0\x08\0\0\0" + write_tags(tags, "<", 8) + bytes(5000)

    cases = {
        "32 bits per channel .floating-point numbers.": tiff(32, 3),
        "64 bits per channel .floating-point numbers.": tiff(64, 3),
        "16 bits per channel .signed": tiff(16, 2),
        "12 bits per channel .integers.": tiff(12, 1),
        "raw photograph": tiff(14, 1, 32803),
        "TIFF file of a kind that cannot be read here .RGB, 8 bits a channel, compression 34713.": tiff(8, 1, 2, 34713),
        "12 bits per channel": jpeg().replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c"),
    }
    for match, data in cases.items():
        (tmp_path / "in").write_bytes(data)
        with pytest.raises(ImageError, match=match):
            read_image(tmp_path / "in")

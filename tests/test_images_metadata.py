"""Metadata that is damaged, odd or too long: the picture is read and written, and nothing is lost without a word."""

import io
import struct
import zlib

import numpy as np
import pytest
from exif_blocks import BYTES, entry, exif_block
from pictures import HEIGHT, MAKE, WIDTH, make_exif, picture, profile
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, TiffTags

import mga_kernels.images.png as png_module
from mga_kernels.errors import ImageError
from mga_kernels.images import read_image, save_image
from mga_kernels.images.exif import STRUCTURAL, without_orientation
from mga_kernels.images.ifd import EXIF_IFD, GPS_IFD, INTEROP_IFD, Damaged, read_tags, write_tags
from mga_kernels.images.result import save_tiff
from mga_kernels.images.tiff import add_tags

OUTPUTS = ("png", "jpg", "webp", "tiff")
PIXELS = picture(8, 9)


def chunk(kind, data, damage=0):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ damage)


def encoded(kind, **options):
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, kind, **options)
    return stream.getvalue()


def png(*before, after=()):
    data = encoded("PNG")
    return data[:33] + b"".join(before) + data[33:-12] + b"".join(after) + data[-12:]


def jpeg(*segments):
    data = encoded("JPEG", quality=100, subsampling=0)
    return data[:2] + b"".join(segments) + data[2:]


def segment(marker, data):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def read_bytes(tmp_path, data):
    (tmp_path / "in").write_bytes(data)
    photo = read_image(tmp_path / "in")
    assert np.abs(photo.rgb.astype(np.int16) - PIXELS).mean() < 3
    return photo


def save_everywhere(photo, tmp_path):
    """Notes by output; every output is read again."""
    notes = {}
    for output in OUTPUTS:
        notes[output] = save_image(photo, tmp_path / f"out.{output}", overwrite=True)
        assert read_image(tmp_path / f"out.{output}").rgb.shape == photo.rgb.shape
    return notes


# Tags of EXIF in a TIFF file


def value_of(order, type_, count):
    """A value that no writer would put into most tags: negative, fractional, no text."""
    if type_ in (5, 10):
        return struct.pack(f"{order}{2 * count}I", *[6, 0] * count)
    if type_ in (11, 12):
        return struct.pack(f"{order}{count}{'f' if type_ == 11 else 'd'}", *[-6.5] * count)
    return b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8"[: BYTES[type_]] * count


def every_combination():
    tags = {tag for tag in (*TiffTags.TAGS, *TiffTags.TAGS_V2, *ExifTags.TAGS) if isinstance(tag, int)}
    for number, tag in enumerate(sorted(tags - {EXIF_IFD, GPS_IFD, INTEROP_IFD})):
        for type_ in BYTES:
            if tag in (282, 283, 296) or (number + type_) % 29 == 0:  # some of all, and what readers look at
                yield tag, type_


@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_of_every_type_go_into_a_tiff_as_they_are(order):
    kept = 0
    image = Image.fromarray(PIXELS)
    for tag, type_ in every_combination():
        value = value_of(order, type_, 3)
        image.info["exif"] = exif_block(entry(tag, type_, value), order=order)
        stream, notes = io.BytesIO(), []
        save_tiff(image, stream, image.info, notes)
        with Image.open(stream) as written:
            assert written.size == (9, 8)
        _, tags, damaged = read_tags(stream)
        assert not damaged
        if tag in (282, 283, 296):  # of which readers need the right type
            assert notes, (tag, type_)
        elif tag not in STRUCTURAL:
            assert not notes or "may not expect; it was kept" in notes[0]
            assert tags[tag] == (type_, value), (tag, type_)
            kept += 1
    assert kept > 100


def test_tags_of_types_that_readers_may_not_expect_are_noted(tmp_path):
    image = Image.fromarray(PIXELS)
    usual = [entry(MAKE, 2, b"Maker\0"), entry(297, 3, bytes(4)), entry(0x0131, 2, b"x\0"), entry(50000, 12, bytes(8))]
    image.info["exif"] = exif_block(*usual)
    assert save_image(image, tmp_path / "a.tiff") == []
    odd = [entry(297, 8, b"\xff\xff\xff\xff"), entry(0x0131, 5, struct.pack("<II", 1, 2)), usual[0]]
    image.info["exif"] = exif_block(*odd)
    (note,) = save_image(image, tmp_path / "b.tiff")
    assert "PageNumber and Software" in note
    for output in ("png", "jpg", "webp"):
        assert save_image(image, tmp_path / f"b.{output}") == []


@pytest.mark.parametrize("type_", BYTES)
def test_tags_of_every_type_inside_the_exif_directory(tmp_path, type_):
    for order in "<>":
        value = value_of(order, type_, 2)
        nested = {0x829A: (type_, value), 0x927C: (7, b"maker's own"), INTEROP_IFD: (4, {1: (2, b"R98\0")})}
        tags = {MAKE: (2, "Zoë\0".encode()), EXIF_IFD: (4, nested), GPS_IFD: (4, {1: (type_, value)})}
        header = b"II*\0\x08\0\0\0" if order == "<" else b"MM\0*\0\0\0\x08"
        image = Image.fromarray(PIXELS)
        image.info["exif"] = b"Exif\0\0" + header + write_tags(tags, order, 8)
        assert save_image(image, tmp_path / "a.tiff", overwrite=True) == []
        with (tmp_path / "a.tiff").open("rb") as stream:
            found, kept, _ = read_tags(stream)
        assert found == order
        assert {tag: kept[tag] for tag in tags} == tags
        again = read_image(tmp_path / "a.tiff")  # and back into a block
        assert save_image(again, tmp_path / "b.jpg", overwrite=True) == []
        _, back, damaged = read_tags(io.BytesIO(read_image(tmp_path / "b.jpg").exif[6:]))
        assert not damaged
        if type_ < 16:
            assert {tag: back[tag] for tag in tags} == tags


def test_libtiff_reads_what_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(TiffImagePlugin, "READ_LIBTIFF", True)
    image = Image.fromarray(PIXELS)
    for tag in (280, 281, 301, 317, 318, 330, 340, 32996, 33421, 50838):
        for type_ in (2, 3, 7, 12):
            image.info["exif"] = exif_block(entry(tag, type_, value_of("<", type_, 3)))
            save_image(image, tmp_path / "a.tiff", overwrite=True)
            with Image.open(tmp_path / "a.tiff") as written:
                np.testing.assert_array_equal(np.asarray(written), PIXELS)


@pytest.mark.parametrize(
    "block",
    [
        exif_block().replace(b"II*\0", b"II+\0"),
        b"Exif\0\0",
        b"Exif\0\0II",
        b"Exif\0\0junk that is long enough",
        exif_block(entry(MAKE, 2, b"Maker\0"), (0x0131, 2, 1 << 31, b"\xff\xff\xff\x7f")),
        exif_block(entry(MAKE, 2, b"Maker\0"), claim=9),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_exif_is_noted_and_harms_no_output(tmp_path, block):
    photo = read_bytes(tmp_path, jpeg(segment(0xE1, block)))
    notes = save_everywhere(photo, tmp_path)
    if len(block) > 6:
        assert any("EXIF data is damaged" in note for note in photo.notes + notes["tiff"])
    if b"Maker" in block:
        assert Image.open(tmp_path / "out.tiff").getexif()[MAKE] == "Maker"


def test_directories_that_would_fill_the_memory():
    """Entries whose values overlap may claim any amount; what is read never exceeds the block."""
    entries = [(tag, 7, 60000, b"\0\0\0\0") for tag in range(0x9000, 0x9000 + 300)]
    block = exif_block(*entries)[6:] + bytes(60000)
    _, tags, damaged = read_tags(io.BytesIO(block))
    assert damaged
    assert sum(len(value) for _, value in tags.values()) <= len(block)
    loop = exif_block((EXIF_IFD, 4, 1, struct.pack("<I", 8)))[6:]
    assert read_tags(io.BytesIO(loop))[1:] == ({}, True)
    for short in (b"", b"II", b"II*\0\x08\0\0", b"II+\0\x08\0\0\0", b"XX*\0\x08\0\0\0"):
        with pytest.raises(Damaged):
            read_tags(io.BytesIO(short))


def test_orientation_taken_out_moves_nothing_else():
    block = make_exif(6)
    shorter = without_orientation(block)
    assert len(shorter) == len(block)
    before, after = (read_tags(io.BytesIO(each[6:]))[1] for each in (block, shorter))
    del before[0x0112]
    assert after == before
    for other in (b"", b"Exif\0\0", b"Exif\0\0junk junk", exif_block(), block[:20]):
        assert len(without_orientation(other)) == len(other)


# Sizes


def test_sizes_are_brought_up_to_date_wherever_exif_repeats_them(tmp_path):
    dcf = {0x1001: (3, struct.pack("<H", 9)), 0x1002: (3, struct.pack("<H", 8))}
    details = {WIDTH: (2, b"9\0"), HEIGHT: (4, struct.pack("<I", 8)), INTEROP_IFD: (4, dcf)}
    tags = {0x0100: (3, struct.pack("<H", 9)), 0x0101: (5, struct.pack("<II", 8, 1)), EXIF_IFD: (4, details)}
    image = Image.fromarray(PIXELS)
    image.info["exif"] = b"Exif\0\0II*\0\x08\0\0\0" + write_tags(tags, "<", 8)
    photo = read_image(image)
    larger = photo.upscaled(photo.rgb.repeat(2, 0).repeat(2, 1))
    _, found, _ = read_tags(io.BytesIO(larger.exif[6:]))
    exif, width, height = found[EXIF_IFD][1], (3, struct.pack("<H", 18)), (3, struct.pack("<H", 16))
    assert (found[0x0100], found[0x0101]) == (width, height)
    assert (exif[WIDTH], exif[HEIGHT]) == (width, height)
    assert (exif[INTEROP_IFD][1][0x1001], exif[INTEROP_IFD][1][0x1002]) == (width, height)


@pytest.mark.parametrize("dpi", [4294967295.0, 1e-9, 1e300, 65536.0])
def test_resolutions_that_a_format_cannot_hold_are_noted(tmp_path, dpi):
    image = Image.fromarray(PIXELS)
    image.info["dpi"] = (dpi, dpi)
    notes = save_everywhere(read_image(image), tmp_path)
    assert any("JPEG cannot hold its resolution" in note for note in notes["jpg"])
    for output in ("png", "tiff"):
        if notes[output]:
            assert f"cannot hold its resolution of {dpi:.6g}" in notes[output][0]
        else:
            assert read_image(tmp_path / f"out.{output}").info["dpi"][0] == pytest.approx(dpi, rel=1e-3)
    assert notes["webp"] == ["WebP cannot hold its resolution (dpi)"]


@pytest.mark.parametrize("dpi", [float("nan"), float("inf"), 0, -1, "abc", None])
def test_resolutions_that_are_none(tmp_path, dpi):
    image = Image.fromarray(PIXELS)
    image.info["dpi"] = (dpi, dpi)
    assert set(map(tuple, save_everywhere(read_image(image), tmp_path).values())) == {()}


def test_resolution_of_exif_beyond_all_bounds(tmp_path):
    most = struct.pack("<II", 0xFFFFFFFF, 1)
    block = exif_block(entry(282, 5, most), entry(283, 5, most), entry(296, 3, b"\2\0"))
    notes = save_everywhere(read_bytes(tmp_path, jpeg(segment(0xE1, block))), tmp_path)
    assert notes["tiff"] == []
    assert all("resolution" in notes[output][0] for output in ("png", "jpg", "webp"))


# Chunks of PNG that Pillow refuses

ODD_CHUNKS = {
    b"gAMA": [b"ab", b""],
    b"cHRM": [b"abc"],
    b"sRGB": [b""],
    b"pHYs": [b"1234"],
    b"tRNS": [b"1"],
    b"iCCP": [b"x", b"x\0\1abc"],
    b"zTXt": [b"k\0\1abc"],
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", ODD_CHUNKS)
def test_odd_chunks_are_left_out_with_a_note(tmp_path, kind, late):
    for data in ODD_CHUNKS[kind]:
        each = chunk(kind, data)
        photo = read_bytes(tmp_path, png(after=[each]) if late else png(each))
        assert photo.notes == [f"its chunk {kind.decode()} is damaged and was left out"]
        save_everywhere(photo, tmp_path)


@pytest.mark.parametrize(
    "kind", [b"tEXt", b"zTXt", b"iTXt", b"gAMA", b"cHRM", b"pHYs", b"eXIf", b"iCCP", b"tIME", b"prVt"]
)
def test_chunks_with_a_wrong_checksum_are_left_out_with_a_note(tmp_path, kind):
    good = chunk(b"tEXt", b"Title\0kept")
    photo = read_bytes(tmp_path, png(good, chunk(kind, b"Software\0" + bytes(32), damage=1)))
    assert photo.notes == [f"its chunk {kind.decode()} is damaged and was left out"]
    assert photo.info["text"] == {"Title": "kept"}


def test_a_chunk_that_the_picture_needs_is_named(tmp_path):
    (tmp_path / "in").write_bytes(png(chunk(b"PLTE", bytes(6), damage=1)))
    with pytest.raises(ImageError, match="PLTE"):
        read_image(tmp_path / "in")


@pytest.mark.parametrize("late", [False, True])
def test_texts_and_profiles_too_long_for_pillow_are_kept(tmp_path, late):
    long, packet = "a" * 1_500_000, b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>" + b" " * 1_500_000
    chunks = [
        chunk(b"zTXt", b"Packed\0\0" + zlib.compress(long.encode())),
        chunk(b"iTXt", b"Plain\0\1\0\0\0" + zlib.compress("ä".encode() * 1_500_000)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(packet)),
    ]
    photo = read_bytes(tmp_path, png(after=chunks) if late else png(*chunks))
    assert photo.notes == []
    assert photo.info["text"] == {"Packed": long, "Plain": "ä" * 1_500_000}
    assert photo.info["xmp"] == packet
    save_image(photo, tmp_path / "out.png")
    again = read_image(tmp_path / "out.png")
    assert again.info == photo.info


def test_a_long_profile_is_kept_in_every_format(tmp_path):
    long = profile() + bytes(1_500_000)
    photo = read_bytes(tmp_path, png(chunk(b"iCCP", b"p\0\0" + zlib.compress(long))))
    assert photo.notes == []
    for output in OUTPUTS:
        assert save_image(photo, tmp_path / f"out.{output}") == []
        assert read_image(tmp_path / f"out.{output}").icc_profile == long


def test_what_unpacks_to_more_than_a_photograph_has_is_left_out(tmp_path, monkeypatch):
    assert png_module._LONGEST_TEXT == 64 << 20
    monkeypatch.setattr(png_module, "_LONGEST_TEXT", 2 << 20)
    bomb = chunk(b"zTXt", b"Bomb\0\0" + zlib.compress(bytes(3 << 20)))
    photo = read_bytes(tmp_path, png(bomb))
    assert photo.notes == ["its chunk zTXt is damaged and was left out"]


def test_many_texts_that_are_too_much_only_together(tmp_path, monkeypatch):
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 3_500_000)
    data = zlib.compress(b"a" * 1_000_000)
    photo = read_bytes(tmp_path, png(*(chunk(b"zTXt", b"%d\0\0" % i + data) for i in range(5))))
    assert len(photo.info["text"]) == 5


@pytest.mark.parametrize(
    "key", "transparency dpi icc_profile gamma srgb photoshop xmp interlace bbox comment loop exif chromaticity".split()
)
def test_texts_named_as_pillows_own_facts(tmp_path, key):
    """Pillow keeps the texts of a PNG and what it knows of the picture in one dictionary."""
    photo = read_bytes(tmp_path, png(chunk(b"tEXt", key.encode() + b"\0abc")))
    if key not in ("exif", "comment", "xmp"):
        assert photo.info["text"] == {key: "abc"}
    save_everywhere(photo, tmp_path)


def test_languages_of_texts_are_kept(tmp_path):
    text = b"Title\0\0\0de\0Titel\0" + "Schlüssel".encode()
    photo = read_bytes(tmp_path, png(chunk(b"iTXt", text)))
    save_image(photo, tmp_path / "out.png")
    assert text in (tmp_path / "out.png").read_bytes()


@pytest.mark.parametrize("kind", ["xmp", "iptc", "8bim", "icc", "unknown"])
def test_profiles_that_imagemagick_stores_as_texts(tmp_path, kind):
    captions = b"\x1c\x02\x78\0\x05Otter"
    resources = b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(captions)) + captions
    data = {"xmp": b"<x/>", "iptc": resources, "8bim": resources, "icc": profile(), "unknown": b"abc"}[kind]
    text = f"\n{kind}\n{len(data):8}\n{data.hex()}\n".encode()
    photo = read_bytes(
        tmp_path, png(chunk(b"zTXt", b"Raw profile type " + kind.encode() + b"\0\0" + zlib.compress(text)))
    )
    if kind == "unknown":
        assert "was left out" in photo.notes[0]
    else:
        key = {"xmp": "xmp", "icc": "icc_profile"}.get(kind, "iptc")
        assert photo.info == {key: captions if key == "iptc" else data}


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
        "TIFF file of a kind that cannot be read here .RGB, 8 bits a channel, compression 34712.": tiff(8, 1, 2, 34712),
        "12 bits per channel": jpeg().replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c"),
    }
    for match, data in cases.items():
        (tmp_path / "in").write_bytes(data)
        with pytest.raises(ImageError, match=match):
            read_image(tmp_path / "in")

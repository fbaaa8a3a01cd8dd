"""Metadata that is damaged, odd or too long: the picture is read and written, and nothing is lost without a word."""

import io
import struct
import zlib

import numpy as np
import pytest
from exif_blocks import BYTES, entry, exif_block
from pictures import HEIGHT, MAKE, WIDTH, make_exif, profile
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, TiffTags
from raw_images import OUTPUTS, PIXELS, chunk, jpeg, png, read_bytes, save_everywhere, segment

import mga_kernels.images.png as png_module
from mga_kernels.errors import ImageError
from mga_kernels.images import read_image, save_image
from mga_kernels.images.exif import STRUCTURAL, without_orientation
from mga_kernels.images.ifd import EXIF_IFD, GPS_IFD, INTEROP_IFD, Damaged, read_tags, write_tags
from mga_kernels.images.result import save_tiff

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

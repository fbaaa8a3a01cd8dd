"""Pictures are turned once: whatever turned them is gone from every kind of file that is written."""

import io
import struct
import zlib

import numpy as np
import pytest
from exif_blocks import entry, exif_block
from pictures import ORIENTATION, picture
from PIL import Image, ImageOps

from mga_kernels.images import read_image, save_image, to_image

HEIGHT, WIDTH = 6, 9
LYING = picture(HEIGHT, WIDTH)
UPRIGHT = np.rot90(LYING, -1)
OUTPUTS = ("png", "jpg", "webp", "tiff")
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    "{}</rdf:RDF></x:xmpmeta>"
)
DESCRIPTION = '<rdf:Description {} xmlns:{}="http://ns.adobe.com/tiff/1.0/"/>'


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(image, *chunks):
    """A PNG file of ``image`` with chunks before its data."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    data = stream.getvalue()
    return data[:33] + b"".join(chunks) + data[33:]


def file_of(kind, exif=b"", xmp=b""):
    """The lying picture as a file of this kind with these blocks as they are."""
    image, stream = Image.fromarray(LYING), io.BytesIO()
    if kind == "png":
        chunks = [chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))] if exif else []
        if xmp:
            chunks.append(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
        return with_chunks(image, *chunks)
    if kind == "jpg":
        image.save(stream, "JPEG", quality=100, subsampling=0, exif=exif, **({"xmp": xmp} if xmp else {}))
    elif kind == "webp":
        image.save(stream, "WEBP", lossless=True, exif=exif, xmp=xmp)
    return stream.getvalue()


def assert_upright_once(path, expected, near=0):
    """A file shows ``expected`` as it is stored, and nothing in it asks for another turn."""
    with Image.open(path) as image:
        stored = np.asarray(image.convert("RGB"), np.int16)
        assert stored.shape == expected.shape
        assert np.abs(stored - expected).mean() <= near
        assert image.getexif().get(ORIENTATION, 1) == 1
        assert ImageOps.exif_transpose(image).size == image.size
        exif, xmp = image.info.get("exif", b""), image.info.get("xmp", b"")
    assert exif.count(b"Exif\0\0") <= 1
    assert b'Orientation="6"' not in xmp
    assert b"Orientation>6" not in xmp
    again = read_image(path)
    assert again.rgb.shape == expected.shape


def check(data, tmp_path, expected=UPRIGHT, by_pillow=False):
    path = tmp_path / "in"
    path.write_bytes(data)
    photo = read_image(path)
    assert np.abs(photo.rgb.astype(np.int16) - expected).mean() < 3
    for output in OUTPUTS:
        save_image(photo, tmp_path / f"out.{output}", overwrite=True)
        assert_upright_once(tmp_path / f"out.{output}", expected, 8 if output == "jpg" else 3)
    for output in (*OUTPUTS, "avif") if by_pillow else ():
        to_image(photo).save(tmp_path / f"pil.{output}")
        assert_upright_once(tmp_path / f"pil.{output}", expected, 60 if output in ("jpg", "webp", "avif") else 3)
    return photo


BEFORE, AFTER = entry(0x010F, 2, b"Maker\0"), entry(0x0131, 5, struct.pack("<II", 1, 2))
SIX = entry(ORIENTATION, 3, struct.pack("<H", 6))
EXIF_BLOCKS = {
    "plain": exif_block(BEFORE, SIX, AFTER),
    "doubled prefix": b"Exif\0\0" + exif_block(SIX),
    "three prefixes": b"Exif\0\0" * 2 + exif_block(SIX),
    "pointer out of the block": exif_block(SIX, entry(0x8769, 4, struct.pack("<I", 0x7FFFFFFF))),
    "pointer to itself": exif_block(SIX, entry(0x8769, 4, struct.pack("<I", 8))),
    "value out of the block": exif_block(SIX, (0x0131, 2, 1000, struct.pack("<I", 0x7FFFFFFF))),
    "type of none": exif_block(SIX, (0x0131, 99, 1, b"abcd")),
    "more entries than there are": exif_block(SIX, claim=500),
    "cut behind it": exif_block(SIX)[: 6 + 8 + 2 + 12],
    "twice": exif_block(SIX, BEFORE, SIX, sort=False),
    "not in order": exif_block(AFTER, SIX, BEFORE, sort=False),
    "mixed marks": exif_block(SIX).replace(b"II*\0", b"II\0*"),
}


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
@pytest.mark.parametrize("name", EXIF_BLOCKS)
@pytest.mark.filterwarnings("ignore")
def test_damaged_and_doubled_blocks(tmp_path, kind, name):
    check(file_of(kind, EXIF_BLOCKS[name]), tmp_path, by_pillow=kind == "webp")


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
@pytest.mark.parametrize("header", [b"II\0\0", b"II+\0", b"IIU\0", b"XX*\0", b"II"])
def test_blocks_whose_header_no_reader_takes(tmp_path, kind, header):
    """Pillow fails with the whole file where its orientation is asked for, as viewers do."""
    block = exif_block(BEFORE, SIX)
    wrong = b"Exif\0\0" + header + (block[10:] if len(header) == 4 else b"")
    photo = check(file_of(kind, wrong), tmp_path, LYING, by_pillow=True)
    if header in (b"XX*\0", b"II"):
        assert (photo.exif, photo.notes) == (None, ["its EXIF data is damaged and was left out"])
    else:  # the tags can be read
        assert photo.exif == exif_block(BEFORE, entry(ORIENTATION, 3, struct.pack("<H", 1)))


@pytest.mark.parametrize("first", ["plain", "mixed marks", "straight"])
@pytest.mark.filterwarnings("ignore")
def test_the_second_of_two_blocks_asks_for_no_turn(tmp_path, first):
    blocks = EXIF_BLOCKS | {"straight": exif_block(BEFORE, entry(ORIENTATION, 3, struct.pack("<H", 1)))}
    second = exif_block(BEFORE, SIX)
    data = file_of("jpg", blocks[first])
    after = data.index(blocks[first]) + len(blocks[first])
    data = data[:after] + b"\xff\xe1" + struct.pack(">H", len(second) + 2) + second + data[after:]
    photo = check(data, tmp_path, LYING if first == "straight" else UPRIGHT, by_pillow=True)
    assert photo.exif.count(struct.pack("<HHIHH", ORIENTATION, 3, 1, 1, 0)) == 2
    assert struct.pack("<HHIHH", ORIENTATION, 3, 1, 6, 0) not in photo.exif


@pytest.mark.filterwarnings("ignore")
def test_the_prefix_of_jpeg_inside_a_png(tmp_path):
    data = with_chunks(Image.fromarray(LYING), chunk(b"eXIf", exif_block(SIX)))
    photo = check(data, tmp_path)
    assert photo.exif.count(b"Exif\0\0") == 1


# Type -> six in it.
TYPES = {
    1: b"\6",
    2: b"6\0",
    3: struct.pack("<H", 6),
    4: struct.pack("<I", 6),
    5: struct.pack("<II", 6, 1),
    6: b"\6",
    7: b"\6",
    8: struct.pack("<h", 6),
    9: struct.pack("<i", 6),
    10: struct.pack("<ii", 12, 2),
    11: struct.pack("<f", 6),
    12: struct.pack("<d", 6),
    13: struct.pack("<I", 6),
    16: struct.pack("<Q", 6),
}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.filterwarnings("ignore")
def test_an_orientation_of_any_type_is_applied_as_by_pillow_and_gone(tmp_path, type_, count):
    block = exif_block(entry(ORIENTATION, type_, TYPES[type_] * count), BEFORE)
    data = file_of("png", block)
    by_pillow = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    photo = check(data, tmp_path, by_pillow)
    loaded = Image.Exif()
    loaded.load(photo.exif)
    assert loaded[ORIENTATION] == 1
    assert loaded[0x010F] == "Maker"
    ignored = [note for note in photo.notes if "is no number" in note]
    assert bool(ignored) == (type_ in (1, 2, 7))  # which no reader takes for a number


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("prefix", ["tiff", "t"])
@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_an_orientation_in_xmp_alone(tmp_path, kind, prefix, quote):
    description = DESCRIPTION.format(f"{prefix}:Orientation={quote}6{quote}", prefix)
    check(file_of(kind, xmp=XMP.format(description).encode()), tmp_path)


def test_an_orientation_in_xmp_as_an_element(tmp_path):
    element = "<tiff:Orientation>6</tiff:Orientation>"
    outer = f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/">{element}</rdf:Description>'
    check(file_of("jpg", xmp=XMP.format(outer).encode()), tmp_path)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_exif_goes_before_xmp_and_neither_is_left(tmp_path, kind):
    xmp = XMP.format(DESCRIPTION.format('tiff:Orientation="6"', "tiff")).encode()
    straight = exif_block(entry(ORIENTATION, 3, struct.pack("<H", 1)))
    photo = check(file_of(kind, straight, xmp), tmp_path, LYING)
    assert b'tiff:Orientation="1"' in photo.info["xmp"]
    check(file_of(kind, exif_block(SIX), xmp.replace(b'"6"', b'"3"')), tmp_path)


@pytest.mark.parametrize("name", ["exif", "APP1"])
@pytest.mark.parametrize("packed", [False, True])
def test_an_orientation_in_a_text_of_a_png(tmp_path, name, packed):
    """As ImageMagick stores EXIF in a PNG."""
    block = exif_block(BEFORE, SIX)
    text = f"\n{name.lower()}\n{len(block):8}\n{block.hex()}\n".encode()
    key = b"Raw profile type " + name.encode() + b"\0"
    data = chunk(b"zTXt", key + b"\0" + zlib.compress(text)) if packed else chunk(b"tEXt", key + text)
    photo = check(with_chunks(Image.fromarray(LYING), data), tmp_path)
    assert photo.exif.startswith(b"Exif\0\0II*\0")
    assert "text" not in photo.info


@pytest.mark.parametrize("compression", ["raw", "tiff_deflate"])
@pytest.mark.parametrize("where", ["tag", "xmp"])
def test_tiff_is_turned_by_pillow_and_not_again(tmp_path, where, compression):
    packet = XMP.format(DESCRIPTION.format('tiff:Orientation="6"', "tiff")).encode()
    tags = {ORIENTATION: 6} if where == "tag" else {700: packet}
    Image.fromarray(LYING).save(tmp_path / "a.tiff", compression=compression, tiffinfo=tags)
    check((tmp_path / "a.tiff").read_bytes(), tmp_path)
    for loaded in (False, True):
        image = Image.open(tmp_path / "a.tiff")
        if loaded:
            image.load()
        np.testing.assert_array_equal(read_image(image).rgb, UPRIGHT)


def test_avif_turned_by_its_boxes(tmp_path):
    """Pillow writes the orientation as boxes (irot, imir) and reads it from there."""
    for value in range(1, 9):
        stream = io.BytesIO()
        exif = exif_block(entry(ORIENTATION, 3, struct.pack("<H", value)))
        Image.fromarray(LYING.repeat(8, 0).repeat(8, 1)).save(stream, "AVIF", quality=100, exif=exif)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(stream)), np.int16)
        (tmp_path / "in.avif").write_bytes(stream.getvalue())
        photo = read_image(tmp_path / "in.avif")
        np.testing.assert_array_equal(photo.rgb, expected)
        save_image(photo, tmp_path / "out.png", overwrite=True)
        assert_upright_once(tmp_path / "out.png", expected)


@pytest.mark.parametrize("value", [1, 6])
def test_avif_keeps_what_stands_beside_an_orientation(tmp_path, value):
    """Pillow writes a block with that tag anew, without the types of others that it does not know."""
    turned = entry(ORIENTATION, 3, struct.pack("<H", value))
    odd = entry(0xC000, 17, struct.pack("<q", -123456789))
    (tmp_path / "in").write_bytes(file_of("png", exif_block(BEFORE, turned, odd)))
    photo = read_image(tmp_path / "in")
    to_image(photo).save(tmp_path / "out.avif")
    with Image.open(tmp_path / "out.avif") as image:
        kept = image.info["exif"]
        assert image.size == photo.rgb.shape[1::-1]
    assert kept.find(struct.pack("<q", -123456789)) > 0
    assert kept.find(b"Maker") > 0


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.filterwarnings("ignore")
def test_pillow_images_are_turned_once_too(tmp_path, kind):
    for name in ("plain", "doubled prefix", "pointer out of the block"):
        data = file_of(kind, EXIF_BLOCKS[name])
        for loaded in (False, True):
            image = Image.open(io.BytesIO(data))
            if loaded:
                image.load()
            photo = read_image(image)
            assert np.abs(photo.rgb.astype(np.int16) - UPRIGHT).mean() < 3
            save_image(photo, tmp_path / "out.png", overwrite=True)
            assert_upright_once(tmp_path / "out.png", UPRIGHT, 3)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(file_of(kind, EXIF_BLOCKS["doubled prefix"]))))
    assert read_image(turned).rgb.shape == UPRIGHT.shape


def test_an_orientation_that_the_caller_took_out_is_not_applied():
    image = Image.open(io.BytesIO(file_of("png", EXIF_BLOCKS["plain"])))
    del image.getexif()[ORIENTATION]
    np.testing.assert_array_equal(read_image(image).rgb, LYING)

"""The picture of a PNG file as we pack it: the rows that Pillow filters, in pieces, by several threads at a time."""

import io
import threading
import zlib

import numpy as np
import pytest
from pictures import make_exif, profile

from mga_kernels.images import Photo, encode_image, packing, png
from mga_kernels.images.photo import to_image

KINDS = {"grey": (True, False), "grey with alpha": (True, True), "RGB": (False, False), "RGBA": (False, True)}
SIZES = [(1, 1), (1, 7), (9, 1), (40, 30), (33, 65)]


def values(height, width, channels):
    """Rows for which each filter is the best somewhere: noise, dark noise, steps across, steps down, slopes."""
    random = np.random.default_rng(height * width)
    y, x, channel = np.indices((height, width, channels))
    parts = [random.integers(0, 256, y.shape), random.integers(0, 3, y.shape), x // 3 * 50, y // 2 * 60, 3 * x + 5 * y]
    return (np.choose(y // 3 % 5, parts) + 40 * channel).astype(np.uint8)


def photo(height, width, grey=False, alpha=False, **info):
    """Also of a grey one the channels differ, as those that a network makes do."""
    return Photo(values(height, width, 3), values(height, width, 1)[:, ::-1, 0] if alpha else None, grey, info=info)


def chunks(image):
    """(kind, data) of the chunks of the file, all of its IDAT as one that is unpacked."""
    stream = io.BytesIO()
    assert encode_image(image, "PNG", stream, "a file") == []
    found = [(chunk.kind, png.data_of(stream, chunk)) for chunk in png.chunks(stream)]
    assert b"".join(png.bytes_of(stream, chunk) for chunk in png.chunks(stream)) == stream.getvalue()[8:]
    picture = zlib.decompress(b"".join(data for kind, data in found if kind == b"IDAT"))
    beside = [(kind, data) for kind, data in found if kind != b"IDAT"]
    place = [kind for kind, _ in found].index(b"IDAT")
    return [*beside[:place], (b"IDAT", picture), *beside[place:]]


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(packing, "PIECE", 500)
    monkeypatch.setattr(packing, "_CACHED", 200)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_filtered_as_pillow_does(kind, size, small_pieces):
    one = photo(*size, *KINDS[kind])
    assert chunks(one) == chunks(to_image(one))


def test_paeth_is_the_predictor_of_the_standard():
    """PNG, section 9.4."""

    def predicted(a, b, c):
        p = a + b - c
        distances = abs(p - a), abs(p - b), abs(p - c)
        return (a, b, c)[distances.index(min(distances))]

    neighbours = [(a, b, c) for a in range(0, 256, 15) for b in range(0, 256, 15) for c in range(0, 256, 15)]
    found = packing._paeth(*np.array(neighbours, np.uint8).T)
    assert found.tolist() == [predicted(*three) for three in neighbours]


@pytest.mark.parametrize("top", [True, False])
def test_the_build_filters_as_the_definition_does(top):
    assert packing._filter is not packing._filtered, "the module _host was not built"
    random = np.random.default_rng(1)
    pictures = [values(37, 29, channels) for channels in (1, 2, 3, 4)] + [values(1, 1, 3)]
    pictures += [
        random.integers(0, 256, (20, 70_000 // 3, 3), np.uint8)[:, ::2],
        np.full((3, 90_000, 3), 128, np.uint8),
    ]
    for one in pictures:
        assert np.array_equal(packing._filter(one, top), packing._filtered(one, top))


def test_without_the_build_rows_are_filtered_all_the_same(monkeypatch):
    monkeypatch.setattr(packing, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    assert packing._of_build() is packing._filtered


def test_a_photograph_is_packed_here():
    one, stream = photo(40, 30), io.BytesIO()
    encode_image(one, "PNG", stream, "a file")
    found = [png.data_of(stream, chunk) for chunk in png.chunks(stream) if chunk.kind == b"IDAT"]
    assert found == list(packing.packed(one.rgb, png.COMPRESSION))


def test_each_filter_is_tried():
    rows = values(60, 40, 3)
    packed = zlib.decompress(b"".join(packing.packed(rows, 4)))
    assert set(packed[:: 1 + rows[0].nbytes]) == {0, 1, 2, 4}


def test_what_stands_beside_the_picture_is_as_pillow_has_it():
    one = photo(6, 5, exif=make_exif(), icc_profile=profile(), comment=b"by hand", dpi=(240, 240), xmp=b"<x/>")
    assert chunks(one) == chunks(to_image(one))


def test_the_file_does_not_depend_on_the_number_of_processors(monkeypatch, small_pieces):
    files = []
    for count in (1, 3):
        monkeypatch.setattr(packing, "processors", lambda count=count: count)
        files.append(list(packing.packed(values(40, 30, 3), 4)))
    assert files[0] == files[1]
    assert len(files[0]) > 5


def test_two_pieces_are_packed_at_a_time(monkeypatch):
    monkeypatch.setattr(packing, "processors", lambda: 2)
    monkeypatch.setattr(packing, "PIECE", 1)
    both, plain = threading.Barrier(2), packing._piece

    def meeting(*arguments):
        both.wait(timeout=60)
        return plain(*arguments)

    monkeypatch.setattr(packing, "_piece", meeting)
    rows = values(4, 5, 3)
    assert len(zlib.decompress(b"".join(packing.packed(rows, 4)))) == 4 + rows.nbytes


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_checksums_are_joined(size):
    random = np.random.default_rng(size)
    first, second = (random.integers(0, 256, length, dtype=np.uint8).tobytes() for length in (777, size))
    assert packing.joined(zlib.adler32(first), zlib.adler32(second), size) == zlib.adler32(first + second)


def sizes(rgb) -> list[int]:
    """Of our file and of Pillow's."""
    found = []
    for image in (Photo(rgb), to_image(Photo(rgb))):
        stream = io.BytesIO()
        encode_image(image, "PNG", stream, "a file")
        found.append(len(stream.getvalue()))
    return found


def grain() -> np.ndarray:
    """Slopes with some noise, as what a network makes larger has."""
    y, x = np.mgrid[:1200, :600]
    slopes = 128 + 90 * np.sin(x / 37)[..., None] * np.cos(y / 23)[..., None] * (1, 0.9, 0.8)
    return np.clip(np.rint(slopes + np.random.default_rng(0).normal(0, 2, slopes.shape)), 0, 255).astype(np.uint8)


def drawing() -> np.ndarray:
    """One motif again and again."""
    return np.tile(np.random.default_rng(0).integers(0, 2, (40, 60, 3), dtype=np.uint8) * 255, (30, 10, 1))


@pytest.mark.parametrize("make", [grain, drawing])
def test_the_file_is_no_larger_than_pillows(make):
    rgb = make()
    assert rgb.nbytes > 2 * packing.PIECE
    ours, theirs = sizes(rgb)
    assert ours < 1.01 * theirs


@pytest.mark.parametrize(("make", "strategy"), [(grain, zlib.Z_RLE), (drawing, zlib.Z_FILTERED)])
def test_runs_are_enough_for_grain_and_not_for_a_drawing(monkeypatch, make, strategy):
    """By what packs most of the rows."""
    rgb, packed, plain = make(), {zlib.Z_RLE: 0, zlib.Z_FILTERED: 0}, zlib.compressobj

    class Packer:
        def __init__(self, level, wbits, strategy):
            self.packer, self.strategy = plain(level, wbits=wbits, strategy=strategy), strategy
            self.flush = self.packer.flush

        def compress(self, rows):
            packed[self.strategy] += rows.nbytes
            return self.packer.compress(rows)

    monkeypatch.setattr(packing.zlib, "compressobj", Packer)
    assert len(zlib.decompress(b"".join(packing.packed(rgb, 4)))) == len(rgb) + rgb.nbytes
    assert max(packed, key=packed.get) == strategy
    assert sum(packed.values()) < 1.2 * rgb.nbytes, "most of them once"


def test_rows_of_one_colour_before_a_drawing_say_nothing():
    """A trial of them finds runs as good as anything else, and what follows is no noise."""
    rgb = drawing()
    rows = packing.PIECE // rgb[0].nbytes
    for start in range(0, len(rgb), rows):
        rgb[start : start + 80] = 255
    ours, theirs = sizes(rgb)
    assert ours < 1.01 * theirs

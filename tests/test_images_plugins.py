"""HEIF and JPEG XL, which Pillow reads and writes by plug-ins: with them, and what is said without them."""

from __future__ import annotations

import importlib.util
import io
import sys

import numpy as np
import pytest
from pictures import MAKE, ORIENTATION, make_exif, profile, smooth_picture
from PIL import Image
from upscaling import names, write

from mga_kernels.errors import ImageError
from mga_kernels.images import Photo, check_output, read_image, reading, save_image, suffixes, to_image
from mga_kernels.images.colour import _of_code_points, icc_profile
from mga_kernels.images.jxl import Header, read_header
from mga_kernels.images.plugins import PLUGINS, SUFFIXES, kind_of

HEAD = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf\0\0\x01\xc7meta\0\0\0\0"
STARTS = {
    "a.heic": HEAD,
    "b.heif": HEAD.replace(b"ftypheic", b"ftypmif1"),
    "c.jxl": b"\xff\x0a\x83\x41\x24\x08",
    "d.jxl": b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ",
}
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>sunset</x:xmpmeta>"


@pytest.fixture
def plugged(request):
    """The suffix of a format whose plug-in is installed."""
    package = PLUGINS[SUFFIXES[request.param]]
    if importlib.util.find_spec(package.module) is None:
        pytest.skip(f"needs the plug-in {package.package} (extra formats)")
    return request.param


both = pytest.mark.parametrize("plugged", [".heic", ".jxl"], indirect=True)
heic = pytest.mark.parametrize("plugged", [".heic"], indirect=True)
jxl = pytest.mark.parametrize("plugged", [".jxl"], indirect=True)


# Without them


@pytest.fixture
def none_installed(monkeypatch):
    for plugin in PLUGINS.values():
        monkeypatch.setitem(sys.modules, plugin.module, None)


def test_they_are_recognised_everywhere():
    assert {".heic", ".heif", ".hif", ".jxl"} <= suffixes()
    for name, data in STARTS.items():
        assert kind_of(io.BytesIO(data)) == SUFFIXES["." + name.partition(".")[2]]
    for data in (b"", b"\xff", HEAD[:8], HEAD.replace(b"heic", b"avif"), b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1miaf"):
        assert kind_of(io.BytesIO(data)) is None


@pytest.mark.parametrize("name", STARTS)
def test_reading_without_its_plug_in_says_which(tmp_path, none_installed, name):
    (tmp_path / name).write_bytes(STARTS[name])
    package = PLUGINS[SUFFIXES["." + name.partition(".")[2]]].package
    with pytest.raises(ImageError, match=f"{name} cannot be read: .*pip install {package}, .*extra formats"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("suffix", [".heic", ".HIF", ".jxl"])
def test_writing_without_its_plug_in_says_which(tmp_path, none_installed, suffix):
    package = PLUGINS[SUFFIXES[suffix.lower()]].package
    with pytest.raises(ImageError, match=f"cannot write .*: .*pip install {package}, .*extra formats"):
        check_output(tmp_path / f"a{suffix}")
    with pytest.raises(ImageError, match="extra formats"):
        save_image(Image.new("RGB", (4, 4)), tmp_path / f"a{suffix}")
    assert names(tmp_path) == []


def test_one_in_a_folder_is_a_line_and_the_others_are_done(tmp_path, folder, mga_upscale, none_installed):
    (folder / "b.HEIC").write_bytes(HEAD)
    code, output = mga_upscale(folder, "-o", tmp_path / "out")
    assert code == 1
    assert output.err.count("extra formats") == 1
    assert names(tmp_path / "out") == ["a.png", "m.jpg", "z.png"]
    code, output = mga_upscale(folder, "-o", tmp_path / "more", "--format", "jxl")
    assert code == 1
    assert "pip install pillow-jxl-plugin" in output.err
    assert not (tmp_path / "more").exists()


def test_saving_a_result_without_its_plug_in_says_which(tmp_path, none_installed):
    with pytest.raises(ImageError, match=r"the result cannot be saved: .*extra formats"):
        to_image(Photo(np.zeros((4, 4, 3), np.uint8))).save(tmp_path / "a.heic")
    assert names(tmp_path) == []


# With them


@both
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_pixels_and_what_stands_beside_them(tmp_path, plugged, mode):
    image = Image.fromarray(smooth_picture(16, 24, 1)).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.info.update(exif=make_exif(), xmp=XMP, icc_profile=profile())
    assert save_image(image, tmp_path / f"a{plugged}") == []
    photo = read_image(tmp_path / f"a{plugged}")
    assert photo.info["xmp"] == XMP
    loaded = Image.Exif()
    loaded.load(photo.exif)
    assert loaded[MAKE] == "A camera"
    assert photo.grey == (mode == "L")
    if plugged == ".heic":
        assert photo.icc_profile == profile()
    wanted = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(photo.rgb - wanted).max() <= (0 if plugged == ".jxl" else 24)
    if mode == "RGBA":
        assert np.abs(photo.alpha.astype(int) - np.asarray(image.getchannel("A"))).max() <= 12


@both
def test_the_command_reads_and_writes_them(tmp_path, folder, mga_upscale, plugged):
    write(folder / "a.png")
    assert mga_upscale(folder / "a.png", "-o", tmp_path / f"b{plugged}", "--quality", 80)[0] == 0
    (tmp_path / "again").mkdir()
    assert mga_upscale(tmp_path / f"b{plugged}", "-o", tmp_path / "again")[0] == 0
    assert names(tmp_path / "again") == ["b.png"]
    assert read_image(tmp_path / "again" / "b.png").rgb.shape == (24, 32, 3)


@both
def test_results_save_themselves(tmp_path, plugged):
    photo = Photo(smooth_picture(16, 24, 1), info={"exif": make_exif(), "xmp": XMP})
    to_image(photo).save(tmp_path / f"a{plugged}", quality=90)
    again = read_image(tmp_path / f"a{plugged}")
    assert again.info["xmp"] == XMP
    loaded = Image.Exif()
    loaded.load(again.exif)
    assert loaded[MAKE] == "A camera"


@both
def test_the_lower_the_quality_the_smaller_the_file(tmp_path, plugged):
    image, sizes = Image.fromarray(smooth_picture(64, 64, 2)), []
    for quality in (30, 90):
        save_image(image, tmp_path / f"{quality}{plugged}", quality=quality)
        sizes.append((tmp_path / f"{quality}{plugged}").stat().st_size)
    assert sizes[0] < sizes[1]


@both
def test_a_file_that_is_cut_off(tmp_path, plugged):
    save_image(Image.fromarray(smooth_picture(64, 64, 2)), tmp_path / f"a{plugged}")
    data = (tmp_path / f"a{plugged}").read_bytes()
    (tmp_path / f"a{plugged}").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="is damaged and cannot be read"):
        read_image(tmp_path / f"a{plugged}")


@both
def test_exif_says_nothing_of_how_they_are_turned(tmp_path, plugged):
    """Their own boxes and headers do, which the decoders obey."""
    image, exif = Image.fromarray(smooth_picture(16, 24, 1)), Image.Exif()
    check_output(tmp_path / f"a{plugged}")  # which registers the plug-in
    exif[ORIENTATION] = 6
    Image.Image.save(image, tmp_path / f"a{plugged}", exif=exif.tobytes())
    photo = read_image(tmp_path / f"a{plugged}")
    # The plug-in for HEIF writes a turn of its own for the tag, that for JPEG XL writes the tag alone.
    wanted = image.transpose(Image.Transpose.ROTATE_270) if plugged == ".heic" else image
    assert photo.rgb.shape[:2] == (wanted.height, wanted.width)
    assert np.abs(photo.rgb.astype(int) - np.asarray(wanted)).mean() < 12
    loaded = Image.Exif()
    loaded.load(photo.exif)
    assert loaded.get(ORIENTATION, 1) == 1


@heic
def test_several_pictures_and_more_than_8_bits_of_heif(tmp_path, plugged):
    import pillow_heif

    image = Image.fromarray(smooth_picture(16, 24, 1))
    two = pillow_heif.from_pillow(image)
    two.add_from_pillow(image)
    two.save(tmp_path / "two.heic")
    with pytest.raises(ImageError, match="holds 2 frames or pages"):
        read_image(tmp_path / "two.heic")
    deep = (np.asarray(image).astype(np.uint16) * 257).tobytes()
    pillow_heif.from_bytes("RGB;16", image.size, deep).save(tmp_path / "deep.heic")
    with pytest.raises(ImageError, match="has 10 bits per channel"):
        read_image(tmp_path / "deep.heic")


@heic
def test_colour_space_of_heif_by_numbers(tmp_path, plugged):
    check_output(tmp_path / "a.heic")
    image = Image.fromarray(smooth_picture(16, 24, 1))
    Image.Image.save(image, tmp_path / "a.heic", color_primaries=12, transfer_characteristics=13)
    assert read_image(tmp_path / "a.heic").info["cicp"][:2] == (12, 13)


@jxl
def test_exif_of_jpeg_xl_begins_with_its_offset(tmp_path, plugged):
    image = Image.new("RGB", (4, 4))
    image.info["exif"] = make_exif()
    save_image(image, tmp_path / "a.jxl")
    assert b"Exif" + bytes(4) + make_exif().removeprefix(b"Exif\0\0")[:8] in (tmp_path / "a.jxl").read_bytes()


@jxl
def test_an_animation_is_refused(tmp_path, plugged, monkeypatch):
    """The plug-in, which writes none, would give its first frame."""
    save_image(Image.new("RGB", (4, 4)), tmp_path / "a.jxl")
    monkeypatch.setattr(reading, "read_header", lambda stream: Header(8, True))
    with pytest.raises(ImageError, match="is an animation and only single images are upscaled"):
        read_image(tmp_path / "a.jxl")


@jxl
def test_more_than_8_bits_of_jpeg_xl(tmp_path, plugged):
    check_output(tmp_path / "a.jxl")
    Image.fromarray(np.full((4, 5), 0x1234, np.uint16)).save(tmp_path / "a.jxl", lossless=True)
    with pytest.raises(ImageError, match="has 16 bits per channel"):
        read_image(tmp_path / "a.jxl")


@jxl
def test_colours_become_srgb_where_no_profile_is_written(tmp_path, plugged):
    p3 = icc_profile(_of_code_points(12, 13, 0, 1))
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    image.info["icc_profile"] = p3
    notes = save_image(image, tmp_path / "a.jxl")
    assert notes == ["its colours were converted to sRGB, as Pillow's plug-in writes no colour space into JPEG XL"]
    red, green, blue = read_image(tmp_path / "a.jxl").rgb[0, 0].astype(int)
    assert (red, green, blue) == (pytest.approx(214, abs=4), pytest.approx(96, abs=4), pytest.approx(31, abs=6))


# Headers of JPEG XL


class _Writer:
    def __init__(self):
        self.bits = ""

    def add(self, value, count):
        self.bits = format(value, f"0{count}b") + self.bits if count else self.bits
        return self

    @property
    def data(self):
        return b"\xff\x0a" + int(self.bits or "0", 2).to_bytes(-(-len(self.bits) // 8), "little") + bytes(8)


def header(bits=(0, 0, 0), animated=False, blocks=True, extra=False):
    """A header written bit by bit: the size as blocks of 8 or as numbers, then what is not as usual."""
    out = _Writer().add(int(blocks), 1)
    out = out.add(1, 5) if blocks else out.add(1, 2).add(99, 13)
    out.add(6, 3).add(0, 1).add(int(extra or animated), 1)
    if extra or animated:
        out.add(5, 3)  # turned
        out.add(1, 1).add(0, 1).add(0, 2).add(7, 9).add(1, 3)  # a size that is meant
        out.add(1, 1).add(1, 1).add(2, 2).add(3, 5).add(0, 3).add(0, 2)  # a preview, of blocks, with both sides
        out.add(int(animated), 1)
        if animated:
            out.add(2, 2).add(23, 10).add(0, 2).add(1, 2).add(5, 3).add(0, 1)
    floats, choice, more = bits
    return out.add(floats, 1).add(choice, 2).add(more, 6 if choice == 3 else 0).data


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("extra", [True, False])
@pytest.mark.parametrize(
    ("bits", "wanted"),
    [((0, 0, 0), 8), ((0, 1, 0), 10), ((0, 2, 0), 12), ((0, 3, 15), 16), ((1, 1, 0), 16), ((1, 0, 0), 32)],
)
def test_depth_in_the_header(blocks, extra, bits, wanted):
    data = header(bits, blocks=blocks, extra=extra)
    assert read_header(io.BytesIO(data)) == Header(wanted, False)
    pieces = [b"jxlp" + bytes(4) + data[:4], b"jxlp" + bytes(4) + data[4:]]
    boxed = STARTS["d.jxl"][:12] + b"".join((len(piece) + 4).to_bytes(4, "big") + piece for piece in pieces)
    assert read_header(io.BytesIO(boxed)) == Header(wanted, False)


def test_an_animation_in_the_header():
    assert read_header(io.BytesIO(header(animated=True))) == Header(8, True)
    assert read_header(io.BytesIO(header((0, 3, 15), animated=True, blocks=False))) == Header(16, True)
    for end in range(2, 8):  # what is cut off is for the decoder to say
        assert read_header(io.BytesIO(header(animated=True)[:end])).bits in (8, 32)

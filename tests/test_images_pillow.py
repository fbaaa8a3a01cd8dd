"""Pillow images in and out: refused as their files are, and saved by Pillow itself with what belongs to them."""

import io
import struct
import threading
import time
import warnings
import zlib

import numpy as np
import pytest
from exif_blocks import entry, exif_block
from pictures import HEIGHT, MAKE, WIDTH, make_exif, picture, profile
from PIL import Image, PngImagePlugin

from mga_kernels import MaskGuidedSR
from mga_kernels.errors import ImageError
from mga_kernels.images import read_image, to_image
from mga_kernels.images.ifd import read_tags


def png16(colour_type=2, channels=3):
    """A 2x2 PNG of 16 bits a channel, which Pillow cannot write itself."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x12\x34" * 2 * channels) * 2
    header = struct.pack(">IIBBBBB", 2, 2, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def written(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def deep_files():
    """Name -> bytes of a file of more than 8 bits a channel that Pillow decodes to 8, or to a mode of its own."""
    grey = Image.fromarray(np.full((4, 4), 3000, np.uint16))
    files = {f"png {channels}": png16(kind, channels) for kind, channels in ((0, 1), (2, 3), (4, 2), (6, 4))}
    files |= {"ppm": b"P6 2 2 65535 " + b"\1\2" * 12, "ppm 10": b"P6\n# x\n2 2\n1023\n" + b"\1\2" * 12}
    files |= {"plain ppm": b"P3 1 1 4095 1 2 3\n", "pgm": b"P5 2 2 65535 " + b"\1\2" * 4}
    comment = b"# " + b"255 " * 20000 + b"\n"
    files |= {"ppm, long comment": b"P6\n" + comment + b"2 2\n65535\n" + b"\1\2" * 12}
    files |= {"ppm, comment within": b"P6\n2 2\n65# a comment\n535\n" + b"\1\2" * 12}
    files |= {"ppm of inks": b"P0CMYK\n2 2\n65535\n" + b"\1\2" * 16}
    files |= {"tiff": written(grey, "TIFF"), "jp2": written(grey, "JPEG2000")}
    return files


@pytest.mark.parametrize("name", deep_files())
@pytest.mark.parametrize("source", ["memory", "open file", "path"])
def test_deep_images_are_refused_however_they_were_opened(tmp_path, name, source):
    path = tmp_path / "deep"
    path.write_bytes(deep_files()[name])
    with pytest.raises(ImageError, match=r"bits per channel.*convert it to 8 bits"):
        read_image(path)
    with path.open("rb") as file:
        image = Image.open({"memory": io.BytesIO(path.read_bytes()), "open file": file, "path": path}[source])
        position = image.fp.tell()
        with pytest.raises(ImageError, match=r"bits per channel.*convert it to 8 bits"):
            read_image(image)
        assert image.fp.tell() == position
        image.load()  # which still works for the caller


@pytest.mark.parametrize("source", ["memory", "open file"])
def test_a_deep_png_is_refused_when_pillow_has_decoded_it(tmp_path, source):
    (tmp_path / "a.png").write_bytes(png16())
    with (tmp_path / "a.png").open("rb") as file:
        image = Image.open(file if source == "open file" else io.BytesIO(png16()))
        image.load()
        with pytest.raises(ImageError, match="16 bits per channel"):
            read_image(image)
    if source == "open file":  # closed by now, but its name is known
        with pytest.raises(ImageError, match="16 bits per channel"):
            read_image(image)


def test_a_depth_that_only_pillows_tiles_tell():
    image = Image.open(io.BytesIO(written(Image.new("RGB", (2, 2)), "PNG")))
    for words in ("RGB;16B", ("RGB;16L", 0, 1), ("F;32F",)):
        image.tile = [("raw", (0, 0, 2, 2), 0, words)]
        with pytest.raises(ImageError, match="bits per channel"):
            read_image(image)
    bitmap = Image.open(io.BytesIO(written(Image.new("RGB", (2, 2), (8, 16, 24)), "BMP")))
    bitmap.tile = [bitmap.tile[0]._replace(args=("BGR;16", 4, -1))]  # 16 bits for all three channels
    assert read_image(bitmap).rgb.shape == (2, 2, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
@pytest.mark.parametrize("seek", [0, 1])
def test_films_and_pages_are_refused_as_pillow_images(kind, seek):
    frames = [Image.fromarray(picture(16, 16, seed=i)) for i in range(3)]
    image = Image.open(io.BytesIO(written(frames[0], kind, save_all=True, append_images=frames[1:])))
    image.seek(seek)
    with pytest.raises(
        ImageError, match=r"holds 3 frames or pages and only single images are upscaled; pass a copy\(\)"
    ):
        read_image(image)
    assert read_image(image.copy()).rgb.shape == (16, 16, 3)


def test_previews_of_a_camera_are_noted_for_pillow_images():
    main = Image.fromarray(picture(16, 16))
    data = written(main, "MPO", save_all=True, append_images=[Image.new("RGB", (4, 4))])
    assert "main picture" in read_image(Image.open(io.BytesIO(data))).notes[0]


def test_bigtiff_and_its_tags(tmp_path):
    image = Image.fromarray(picture())
    tags = {270: "caption", 0x8769: {0x829A: 0.008}}
    image.save(tmp_path / "a.tif", big_tiff=True, tiffinfo=tags)
    for source in (tmp_path / "a.tif", Image.open(tmp_path / "a.tif")):
        photo = read_image(source)
        loaded = Image.Exif()
        loaded.load(photo.exif)
        assert loaded[270] == "caption"
        assert float(loaded.get_ifd(0x8769)[0x829A]) == pytest.approx(0.008)


def test_tags_that_only_pillow_has(tmp_path):
    """Set on an image, or of a TIFF file that is gone; the caller's tags stay what they were."""
    image = Image.fromarray(picture())
    image.getexif()[MAKE] = "mine"
    image.getexif().get_ifd(0x8769)[0x829A] = 0.5
    image.getexif()[0x0112] = 6
    image.save(tmp_path / "a.tif", exif=image.getexif().tobytes())
    gone = Image.open(io.BytesIO((tmp_path / "a.tif").read_bytes()))
    gone.load()
    gone._fp = gone.fp = None
    for each in (image, gone):
        before = dict(each.getexif())
        photo = read_image(each)
        assert photo.rgb.shape[:2] == (9, 6)
        loaded = Image.Exif()
        loaded.load(photo.exif)
        assert loaded[MAKE] == "mine"
        assert float(loaded.get_ifd(0x8769)[0x829A]) == 0.5
        assert loaded.get(0x0112, 1) == 1
        assert dict(each.getexif()) == before
    assert 256 not in loaded
    assert read_image(Image.fromarray(picture())).info == {}


# Saving by Pillow, as README has it.


def result(mode="RGB"):
    exif = exif_block(
        entry(MAKE, 2, "Maké\0".encode()),
        entry(0x0131, 5, struct.pack("<II", 1, 2)),
        entry(0x0112, 3, struct.pack("<H", 6)),
    )
    image = Image.fromarray(picture(8, 8, {"RGB": 3, "L": 1, "RGBA": 4}[mode]))
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>sunset</x:xmpmeta>"
    image.info.update(icc_profile=profile(), exif=exif, xmp=xmp, dpi=(240, 240))
    return to_image(read_image(image)), xmp


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tiff", "avif"])
@pytest.mark.parametrize("to_stream", [False, True])
def test_pillows_save_keeps_the_metadata(tmp_path, kind, mode, to_stream):
    if (kind, mode) == ("jpg", "RGBA"):
        pytest.skip("JPEG has no transparency")
    image, xmp = result(mode)
    path = tmp_path / f"a.{kind}"
    resolution = ["cannot hold its resolution"]
    expected = {"webp": resolution, "avif": resolution, "tiff": ["may not expect; it was kept"]}.get(kind, [])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if to_stream:
            stream = io.BytesIO()
            image.save(stream, "jpeg" if kind == "jpg" else kind)
            path.write_bytes(stream.getvalue())
        else:
            image.save(path)
    assert len(said) == len(expected)
    assert all(text in str(each.message) for text, each in zip(expected, said, strict=True))
    photo = read_image(path)
    assert photo.info["xmp"] == xmp
    assert photo.icc_profile == profile()
    _, tags, damaged = read_tags(io.BytesIO(photo.exif[6:]))
    assert not damaged
    assert tags[MAKE] == (2, "Maké\0".encode())
    assert tags[0x0131] == (5, struct.pack("<II", 1, 2))
    if expected != resolution:
        assert photo.info["dpi"] == pytest.approx((240, 240), abs=0.01)
    if kind in ("png", "tiff"):
        np.testing.assert_array_equal(photo.pixels(), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "raw"])
def test_compressed_tiff_keeps_all_of_exif(tmp_path, compression):
    photo = read_image(Image.fromarray(picture(64, 48)))
    photo.info["exif"] = make_exif()
    to_image(photo).save(tmp_path / "a.tif", compression=compression)
    with Image.open(tmp_path / "a.tif") as image:
        np.testing.assert_array_equal(np.asarray(image), photo.rgb)
        assert image.info["compression"] == compression
        assert image.getexif()[MAKE] == "A camera"
        assert float(image.getexif().get_ifd(0x8769)[0x829A]) == pytest.approx(0.008)
        assert image.getexif().get_ifd(0x8825)[1] == "N"


def test_what_the_caller_says_goes_before(tmp_path):
    image, xmp = result()
    for kind in ("jpg", "png", "webp", "tiff"):
        image.save(tmp_path / f"a.{kind}", exif=b"", **({} if kind in ("png", "tiff") else {"xmp": b"<x/>"}))
        photo = read_image(tmp_path / f"a.{kind}")
        assert photo.exif is None or MAKE not in read_tags(io.BytesIO(photo.exif[6:]))[1], kind
        assert photo.info["xmp"] == (xmp if kind in ("png", "tiff") else b"<x/>")
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("mine", "yes")
    image.save(tmp_path / "own.png", pnginfo=chunks)
    assert read_image(tmp_path / "own.png").info["text"] == {"mine": "yes"}


def test_formats_without_metadata_say_so(tmp_path):
    image, _ = result()
    with pytest.warns(UserWarning, match="BMP is written without its EXIF data"):
        image.save(tmp_path / "a.bmp")
    with pytest.raises(ValueError, match="unknown file extension"):
        image.save(tmp_path / "a.nothing")
    with pytest.raises(KeyError):
        image.save(tmp_path / "a.png", "nothing")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bmp"]


def test_a_tiff_that_cannot_be_saved_leaves_nothing(tmp_path):
    image, _ = result()
    with pytest.raises((RuntimeError, OSError, ValueError)):
        image.save(tmp_path / "a.tif", compression="jpeg", quality=1000)
    assert list(tmp_path.iterdir()) == []


# Warnings belong to the process, and files are read in threads.


def corrupt_exif():
    return written(Image.new("RGB", (64, 64)), "JPEG", exif=exif_block(entry(0x0131, 2, b"abc\0"), claim=400))


def test_warnings_of_other_threads_are_neither_lost_nor_taken_for_ones_own(tmp_path):
    for name in ("a.png", "b.tif", "c.webp", "d.gif"):
        Image.fromarray(picture(300, 300)).save(tmp_path / name)
    (tmp_path / "e.jpg").write_bytes(corrupt_exif())
    stop, notes, errors = threading.Event(), [], []

    def read_on():
        while not stop.is_set():
            for path in sorted(tmp_path.iterdir()):
                try:
                    notes.extend(read_image(path).notes)
                except Exception as problem:
                    errors.append(problem)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        filters = warnings.filters
        readers = [threading.Thread(target=read_on) for _ in range(3)]
        for reader in readers:
            reader.start()
        try:
            for number in range(300):
                warnings.warn(f"mine {number}", stacklevel=1)
                assert warnings.filters is filters
                time.sleep(0.001)
        finally:
            stop.set()
            for reader in readers:
                reader.join()
    assert not errors
    assert [str(each.message) for each in said if "mine" in str(each.message)] == [f"mine {n}" for n in range(300)]
    assert not [note for note in notes if "mine" in note]


def test_the_limit_on_pixels_is_left_alone_while_images_are_read(tmp_path, monkeypatch):
    """It belongs to the process too; only images above it need it out of the way."""
    seen = []
    original = PngImagePlugin.PngImageFile._open

    def spy(self):
        seen.append(Image.MAX_IMAGE_PIXELS)
        original(self)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "_open", spy)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.fromarray(picture(8, 8)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(tmp_path / "a.png")
    assert seen == [10]


def test_the_line_of_the_readme(tmp_path, model_file):
    """``model.upscale("photo.jpg").save("large.png")`` keeps what belongs to the photograph, in every format."""
    model = MaskGuidedSR.from_pretrained(model_file)
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>sunset</x:xmpmeta>"
    image = Image.fromarray(picture(8, 9))
    image.save(tmp_path / "photo.jpg", exif=make_exif(6, 9, 8), xmp=xmp, icc_profile=profile(), dpi=(240, 240))
    for output in ("png", "jpg", "webp", "tiff", "avif"):
        result = model.upscale(tmp_path / "photo.jpg")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(WebP|AVIF) cannot hold its resolution")
            result.save(tmp_path / f"large.{output}")
        photo = read_image(tmp_path / f"large.{output}")
        assert photo.rgb.shape == (18, 16, 3)
        assert (photo.info["xmp"], photo.icc_profile) == (xmp, profile())
        loaded = Image.Exif()
        loaded.load(photo.exif)
        details = loaded.get_ifd(0x8769)
        assert (loaded[MAKE], details[WIDTH], details[HEIGHT]) == ("A camera", 16, 18)
        assert loaded.get(0x0112, 1) == 1


def test_a_model_refuses_what_would_be_cut_down(tmp_path, model_file):
    model = MaskGuidedSR.from_pretrained(model_file)
    film = io.BytesIO(written(Image.new("L", (4, 4)), "GIF", save_all=True, append_images=[Image.new("L", (4, 4), 9)]))
    for source in (Image.open(io.BytesIO(png16())), Image.open(film)):
        with pytest.raises(ImageError):
            model.upscale(source)
        (outcome,) = model.upscale_all([source])
        assert isinstance(outcome.error, ImageError)

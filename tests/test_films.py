"""Files of several frames or pages: each is upscaled, and what is seen when stays as it was."""

import io

import numpy as np
import pytest
from pictures import picture, profile
from PIL import Image, ImageSequence
from upscaling import the_line_about

from mga_kernels import MaskGuidedSR
from mga_kernels.images import Film, read_film, read_image, read_picture

TIMES = {"GIF": [100, 250, 40], "PNG": [100, 1001, 33], "WEBP": [100, 251, 33], "AVIF": [100, 251, 33]}
ENDINGS = {"GIF": ".gif", "PNG": ".png", "WEBP": ".webp", "AVIF": ".avif"}


@pytest.fixture(scope="module")
def model(model_file):
    return MaskGuidedSR.from_pretrained(model_file)


def frames(mode="RGB", count=3):
    """Of few colours, so that a GIF holds them as they are; RGBA with holes that move."""
    found = []
    for i in range(count):
        pixels = picture(12, 16, seed=i) // 128 * 200
        pixels[:6] = 90  # stays
        image = Image.fromarray(pixels)
        if mode == "RGBA":
            alpha = np.full((12, 16), 255, np.uint8)
            alpha[3 * i : 3 * i + 4, 2:9] = 0
            image.putalpha(Image.fromarray(alpha))
        found.append(image)
    return found


def write(path, kind, images, **options):
    lossless = {"WEBP": {"lossless": True, "exact": True}, "AVIF": {"quality": 100}}.get(kind, {})
    images[0].save(path, kind, save_all=True, append_images=images[1:], **lossless, **options)
    return path


def shown(path):
    """What a player shows: RGBA pixels and milliseconds of each frame."""
    with Image.open(path) as image:
        found = []
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            image.load()
            found.append((np.asarray(image.convert("RGBA")), image.info.get("duration")))
        return found, image.info.get("loop")


@pytest.mark.parametrize("kind", TIMES)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_frames_times_and_loops_are_kept(tmp_path, mga_upscale, model, kind, mode):
    source = write(tmp_path / f"in{ENDINGS[kind]}", kind, frames(mode), duration=TIMES[kind], loop=3, disposal=2)
    out = tmp_path / f"out{ENDINGS[kind]}"
    code, output = mga_upscale(source, "-o", out)
    assert (code, output.err) == (0, "")
    assert "3 frames" in output.out
    before, loop = shown(source)
    after, loop_after = shown(out)
    assert [time for _, time in after] == [time for _, time in before] == pytest.approx(TIMES[kind], abs=1)
    assert loop_after == loop
    for (small, _), (large, _) in zip(before, after, strict=True):
        photo = read_image(Image.fromarray(small if mode == "RGBA" else small[:, :, :3]))
        expected = model.upscale(photo)
        seen = large[:, :, 3] >= 128
        if expected.alpha is None:
            assert seen.all()
        else:
            assert (seen == (expected.alpha >= 128)).mean() > 0.99
        if kind in ("PNG", "WEBP"):
            assert np.array_equal(large[seen][:, :3], expected.rgb[seen])
        else:  # 256 colours, or a lossy format
            assert np.abs(large[seen][:, :3].astype(int) - expected.rgb[seen]).mean() < (25 if kind == "GIF" else 12)


@pytest.mark.parametrize("loop", [None, 0, 2])
def test_a_gif_as_a_png_or_webp_plays_as_often(tmp_path, mga_upscale, loop):
    options = {} if loop is None else {"loop": loop}
    source = write(tmp_path / "in.gif", "GIF", frames(), duration=70, **options)
    for name in ("out.png", "out.webp", "out.gif"):
        assert mga_upscale(source, "-o", tmp_path / name)[0] == 0
        found, played = shown(tmp_path / name)
        assert [time for _, time in found] == [70, 70, 70]
        assert played == (loop if name.endswith("gif") or loop is not None else 1)


def test_times_that_a_format_cannot_hold_are_rounded_and_that_is_said(tmp_path, mga_upscale):
    source = write(tmp_path / "in.png", "PNG", frames(), duration=[33, 104, 20])
    code, output = mga_upscale(source, "-o", tmp_path / "out.gif")
    assert code == 0
    assert "GIF counts time in 10 ms" in output.out
    assert [time for _, time in shown(tmp_path / "out.gif")[0]] == [30, 100, 20]


def test_the_default_image_of_a_png_stays_apart(tmp_path, mga_upscale):
    source = write(tmp_path / "in.png", "PNG", frames(count=4), duration=[100, 200, 300], default_image=True)
    assert mga_upscale(source, "-o", tmp_path / "out.png")[0] == 0
    with Image.open(tmp_path / "out.png") as image:
        assert (image.n_frames, image.info["default_image"]) == (4, True)
        times = []
        for number in range(1, 4):
            image.seek(number)
            times.append(image.info["duration"])
    assert times == [100, 200, 300]


def test_frames_that_replace_a_part_only(tmp_path, mga_upscale, model):
    """Of a PNG that Pillow makes smaller frames of, blended over what is there."""
    images = frames()
    for i, image in enumerate(images[1:]):
        image.paste(images[0])
        image.putpixel((3 + i, 8), (250, 10, 10))
    source = write(tmp_path / "in.png", "PNG", images, duration=50, blend=1)
    assert mga_upscale(source, "-o", tmp_path / "out.png")[0] == 0
    for image, (large, _) in zip(images, shown(tmp_path / "out.png")[0], strict=True):
        assert np.array_equal(large[:, :, :3], model.upscale(np.asarray(image)))


def test_pages_of_a_tiff(tmp_path, mga_upscale, model):
    """Of several sizes and modes; each keeps its profile and resolution."""
    pages = [Image.fromarray(picture(8, 10, seed=0)), Image.fromarray(picture(12, 9, channels=1, seed=1))]
    pages[0].encoderinfo = {"icc_profile": profile(), "dpi": (300, 300)}
    pages[1].encoderinfo = {"dpi": (72, 72)}
    source = tmp_path / "in.tif"
    pages[0].save(source, save_all=True, append_images=pages[1:], icc_profile=profile(), dpi=(300, 300))
    code, output = mga_upscale(source, "-o", tmp_path / "out.tif", "--scale", 2)
    assert (code, output.err) == (0, "")
    assert "2 pages" in output.out
    with Image.open(tmp_path / "out.tif") as image:
        made = [page.copy() for page in ImageSequence.Iterator(image)]
    assert [(page.size, page.mode) for page in made] == [((20, 16), "RGB"), ((18, 24), "L")]
    assert made[0].info["icc_profile"] == profile()
    assert [round(page.info["dpi"][0]) for page in made] == [300, 72]
    for name in ("out.png", "out.gif", "out.jpg"):
        code, output = mga_upscale(source, "-o", tmp_path / name)
        assert code == 1
        assert "holds 2 pages, which only TIFF can hold" in the_line_about(tmp_path / name, output)
        assert not (tmp_path / name).exists()


def test_what_of_pages_is_left_out_is_said(tmp_path, mga_upscale):
    pages = [Image.fromarray(picture(8, 10, seed=i)) for i in range(3)]
    pages[1].encoderinfo = {"tiffinfo": {254: 1}}  # a smaller version of the first
    pages[2].encoderinfo = {"tiffinfo": {270: "a caption"}}
    pages[0].save(tmp_path / "in.tif", save_all=True, append_images=pages[1:])
    code, output = mga_upscale(tmp_path / "in.tif", "-o", tmp_path / "out.tif")
    assert code == 0
    assert "1 smaller versions of its pages were left out" in output.out
    assert "only profile and resolution were kept" in output.out
    with Image.open(tmp_path / "out.tif") as image:
        assert image.n_frames == 2


def test_frames_through_standard_streams_and_folders(tmp_path, mga_upscale):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.gif", "GIF", frames(), duration=80, loop=0)
    Image.fromarray(picture(12, 16)).save(tmp_path / "in" / "b.png")
    code, output = mga_upscale(tmp_path / "in", "-o", tmp_path / "out")
    assert (code, output.err) == (0, "")
    found, loop = shown(tmp_path / "out" / "a.png")  # a GIF becomes a PNG, which has all the colours
    assert ([time for _, time in found], loop) == ([80, 80, 80], 0)
    assert mga_upscale(tmp_path / "in", "-o", tmp_path / "gif", "--format", "gif")[0] == 0
    assert len(shown(tmp_path / "gif" / "a.gif")[0]) == 3
    assert len(shown(tmp_path / "gif" / "b.gif")[0]) == 1


def test_what_cannot_be_is_refused_before_the_work(tmp_path, mga_upscale, monkeypatch):
    monkeypatch.setattr(MaskGuidedSR, "upscale", lambda *_, **__: pytest.fail("it was upscaled"))
    source = write(tmp_path / "in.gif", "GIF", frames(), duration=80)
    code, output = mga_upscale(source, "-o", tmp_path / "out.jpg")
    assert code == 1
    assert "holds 3 frames and JPEG holds one; write .gif, .png, .webp, .avif or .tiff" in output.err
    code, output = mga_upscale(source, "-o", tmp_path / "out.png", "--save-mask", tmp_path / "mask.png")
    assert code == 1
    assert "a mask is of one picture" in output.err


@pytest.mark.parametrize("kind", TIMES)
def test_damaged_films_are_one_line_and_no_file(tmp_path, mga_upscale, kind):
    source = write(tmp_path / f"in{ENDINGS[kind]}", kind, frames(), duration=80)
    data = source.read_bytes()
    for part in (0.5, 0.8, 0.95):
        source.write_bytes(data[: int(len(data) * part)])
        code, output = mga_upscale(source, "-o", tmp_path / "out.png", "--overwrite")
        if code:
            the_line_about(source.name, output)
            assert not (tmp_path / "out.png").exists()
        (tmp_path / "out.png").unlink(missing_ok=True)


def test_equal_frames_are_computed_once(tmp_path, mga_upscale, monkeypatch):
    real, computed = MaskGuidedSR.upscale, []

    def upscale(self, image, *given, **named):
        computed.append(image)
        return real(self, image, *given, **named)

    monkeypatch.setattr(MaskGuidedSR, "upscale", upscale)
    first, second, _ = frames()
    source = write(tmp_path / "in.webp", "WEBP", [first, first, second, second, first], duration=[10, 20, 30, 40, 50])
    assert mga_upscale(source, "-o", tmp_path / "out.webp")[0] == 0
    assert len(computed) == len(shown(source)[0])  # libwebp joins equal frames itself
    film = read_picture(source, b"", "it")
    assert isinstance(film, Film)
    assert film.count == len(computed)
    pages = [Image.fromarray(picture(8, 10, seed=seed)) for seed in (0, 0, 1, 1, 1)]
    pages[0].save(tmp_path / "in.tif", save_all=True, append_images=pages[1:])
    computed.clear()
    assert mga_upscale(tmp_path / "in.tif", "-o", tmp_path / "out.tif")[0] == 0
    assert len(computed) == 2


def test_single_pictures_are_no_films(tmp_path):
    for kind in ("PNG", "GIF", "WEBP", "TIFF", "JPEG"):
        stream = io.BytesIO()
        Image.fromarray(picture()).save(stream, kind)
        assert read_film(stream, "it") is None

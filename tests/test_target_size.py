"""Files of at most so many bytes: the best quality that stays within them."""

import io

import numpy as np
import pytest
from pictures import picture, smooth_picture
from PIL import Image
from upscaling import the_line_about

from mga_kernels.errors import ImageError
from mga_kernels.images import AtMost, encode_image, read_image, save_image

PICTURE = Image.fromarray((smooth_picture(96, 128, 0) // 2 + picture(96, 128) // 4).astype(np.uint8))


def size_at(kind, quality):
    stream = io.BytesIO()
    encode_image(PICTURE, kind, stream, "it", quality)
    return stream.getbuffer().nbytes


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
@pytest.mark.parametrize("share", [0.15, 0.5, 0.9])
def test_the_best_quality_within_a_size(tmp_path, suffix, share):
    kind = {".jpg": "JPEG", ".webp": "WEBP", ".avif": "AVIF"}[suffix]
    most = int(size_at(kind, None) * share)
    (note,) = save_image(PICTURE, tmp_path / f"a{suffix}", quality=AtMost(most))
    made = (tmp_path / f"a{suffix}").stat().st_size
    quality = int(note.split(",")[0].removeprefix("quality "))
    assert f"{made:,} bytes of at most {most:,}" in note
    assert made == size_at(kind, quality) <= most
    assert quality == 100 or size_at(kind, quality + 1) > most
    assert read_image(tmp_path / f"a{suffix}").size == PICTURE.size


def test_the_usual_quality_where_it_is_small_enough(tmp_path):
    usual = size_at("JPEG", None)
    (note,) = save_image(PICTURE, tmp_path / "a.jpg", quality=AtMost(usual))
    assert note == f"{usual:,} bytes of at most {usual:,}"
    assert (tmp_path / "a.jpg").stat().st_size == usual


def test_what_is_too_small_for_any_quality(tmp_path):
    with pytest.raises(ImageError, match=r"bytes at quality 1, and 500 were asked for; ask for fewer pixels"):
        save_image(PICTURE, tmp_path / "a.jpg", quality=AtMost(500))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ImageError, match="PNG is without loss and has no quality"):
        save_image(PICTURE, tmp_path / "a.png", quality=AtMost(500))


def test_the_command(tmp_path, mga_upscale):
    PICTURE.save(tmp_path / "a.png")
    code, output = mga_upscale(tmp_path / "a.png", "-o", tmp_path / "b.jpg", "--target-size", "20KB")
    assert (code, output.err) == (0, "")
    assert "bytes of at most 20,000" in output.out
    assert 15_000 < (tmp_path / "b.jpg").stat().st_size <= 20_000
    for words, said in (
        (["b.png", "--target-size", "20KB"], "--target-size has no meaning for PNG"),
        (["c.jpg", "--target-size", "20KB", "--quality", "3"], "--quality Q cannot be given too"),
    ):
        code, output = mga_upscale(tmp_path / "a.png", "-o", tmp_path / words[0], *words[1:])
        assert code != 0
        assert said in output.err
        assert not (tmp_path / words[0]).exists()
    with pytest.raises(SystemExit):
        mga_upscale(tmp_path / "a.png", "-o", tmp_path / "c.jpg", "--target-size", "much")
    code, output = mga_upscale(tmp_path / "a.png", "-o", tmp_path / "d.jpg", "--target-size", "1KB")
    assert code == 1
    assert "bytes at quality 1" in the_line_about("d.jpg", output)


def test_an_animation(tmp_path, mga_upscale):
    frames = [Image.fromarray(picture(24, 32, seed=i)) for i in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=50)
    code, output = mga_upscale(tmp_path / "a.webp", "-o", tmp_path / "b.webp", "--target-size", "30000")
    assert (code, output.err) == (0, "")
    assert (tmp_path / "b.webp").stat().st_size <= 30_000
    with Image.open(tmp_path / "b.webp") as made:
        assert made.n_frames == 3

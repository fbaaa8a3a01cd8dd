"""Panoramas of 360 degrees have no edge where their left and right ends meet."""

import numpy as np
import pytest
from pictures import picture, smooth_picture
from PIL import Image
from upscaling import the_line_about

from mga_kernels import MaskGuidedSR
from mga_kernels.engine.enlarging import larger
from mga_kernels.images import Photo, read_image, save_image

WIDTH, HEIGHT, TURN = 48, 24, 20
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
    ' xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" GPano:ProjectionType="equirectangular" '
    'GPano:FullPanoWidthPixels="{}" GPano:CroppedAreaImageWidthPixels="48"/></rdf:RDF></x:xmpmeta>'
)


@pytest.fixture(scope="module")
def dense():
    return MaskGuidedSR.from_pretrained("fsrcnn-x2", mode="dense")


def turned(pixels, columns):
    return np.roll(pixels, columns, axis=1)


@pytest.mark.parametrize("size", [(96, 48), (72, 36), (48, 24), (24, 12)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_where_a_panorama_begins_does_not_matter(dense, size, dtype):
    pixels = smooth_picture(HEIGHT, WIDTH, 0).astype(dtype) * (257 if dtype == np.uint16 else 1)
    near = 1 if dtype == np.uint8 else 257
    for wrap, most in ((True, near), (False, None)):
        made = larger(dense, Photo(pixels), size, wrap)[0]
        other = larger(dense, Photo(turned(pixels, TURN)), size, wrap)[0]
        assert made.size == size
        apart = np.abs(turned(made.rgb, TURN * size[0] // WIDTH).astype(int) - other.rgb)
        if wrap:
            assert apart.max() <= most
            assert any("edges meet" in note for note in made.notes)
        elif size != (WIDTH, HEIGHT):
            assert apart.max() > 2 * near  # the edges that it would have


def test_a_network_that_looks_far(model_file):
    """Farther than the picture is wide."""
    model = MaskGuidedSR.from_pretrained("span-x2")
    pixels = smooth_picture(16, 16, 1)
    made, other = (larger(model, Photo(one), (32, 32), True)[0].rgb for one in (pixels, turned(pixels, 8)))
    assert np.abs(turned(made, 16).astype(int) - other).max() <= 1


@pytest.mark.parametrize(("whole", "joined"), [(48, True), (96, False), (None, False)])
@pytest.mark.parametrize("options", [[], ["--wrap"], ["--no-wrap"]])
def test_metadata_or_an_option_say_so(tmp_path, mga_upscale, whole, joined, options):
    info = {} if whole is None else {"xmp": XMP.format(whole).encode()}
    save_image(Photo(picture(HEIGHT, WIDTH), info=info), tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").goes_round == joined
    code, output = mga_upscale(tmp_path / "a.png", "-o", tmp_path / "b.png", *options)
    assert (code, output.err) == (0, "")
    joined = joined if not options else options == ["--wrap"]
    assert ("its left and right edges meet" in output.out) == joined
    with Image.open(tmp_path / "b.png") as made:
        assert made.size == (2 * WIDTH, 2 * HEIGHT)
        if whole:
            assert f'FullPanoWidthPixels="{2 * whole}"' in made.info["xmp"].decode()
    code, output = mga_upscale(
        tmp_path / "a.png", "-o", tmp_path / "c.png", *options, "--save-mask", tmp_path / "m.png"
    )
    assert code == (1 if joined else 0)
    if joined:
        assert "a mask does not; leave --save-mask out or give --no-wrap" in the_line_about("a.png", output)

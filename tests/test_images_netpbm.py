"""PPM, PGM and PNM of 8 to 16 bits a channel."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from mga_kernels.errors import ImageError
from mga_kernels.images import Photo, check_output, encode_image, read_image, read_stream, save_image


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P6 1 2 65535\n" + struct.pack(">6H", 1, 2, 3, 4, 5, 65535), [[[1, 2, 3]], [[4, 5, 65535]]]),
        (b"P5\n# dark\n2 1\n10# and\n23\n" + struct.pack(">2H", 512, 1023), [[32800, 65535]]),
        (b"P3 1 1 4095 1 # red\n 2 4095\n", [[[16, 32, 65535]]]),
    ],
)
def test_kinds_of_ppm(data, expected):
    found = read_stream(io.BytesIO(data), "a", deep=True)
    values = found.rgb[:, :, 0] if found.grey else found.rgb
    assert values.tolist() == expected


def test_ppm_holds_no_transparency(tmp_path):
    see_through = Photo(
        np.random.default_rng(0).integers(0, 65536, (6, 9, 3)).astype(np.uint16), np.full((6, 9), 65534, np.uint16)
    )
    with pytest.raises(ImageError, match="PPM holds no transparency"):
        save_image(see_through, tmp_path / "a.ppm")
    see_through.alpha[:] = 65535
    save_image(see_through, tmp_path / "a.ppm")
    assert np.array_equal(read_image(tmp_path / "a.ppm", deep=True).rgb, see_through.rgb)
    assert check_output(tmp_path / "b.pnm") == "PPM"
    stream = io.BytesIO()
    encode_image(Image.fromarray(np.full((2, 3), 7, np.uint8)), "PPM", stream, "it")
    assert stream.getvalue() == b"P5\n3 2\n255\n" + b"\7" * 6

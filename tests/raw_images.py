"""Image files put together from their parts, for tests of metadata that Pillow would not write."""

import io
import struct
import zlib

import numpy as np
from pictures import picture
from PIL import Image

from mga_kernels.images import read_image, save_image

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
